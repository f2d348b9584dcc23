"""A D4PG that learns a task of the DM Control suite while its episodes are recorded.

Barth-Maron et al. (2018), one actor, uniform replay: a categorical critic with n-step targets, a
deterministic policy that climbs its mean, Gaussian exploration. Its recordings stand for RL
Unplugged's (Gulcehre et al., 2020): episodes from all of training, exploration included, of which
those of high return are thinned to a third.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import os
from typing import Any, NamedTuple

import dm_env
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import rlax
from tqdm.auto import tqdm

from unplugged.common import checks, hashing
from unplugged.data import datasets
from unplugged.envs import control, environments
from unplugged.recording.partial import Arrays, Partial

# RL Unplugged's numbers of episodes, of which MuZero Unplugged's Table 3 tells.
EPISODES = dict(zip(control.TASKS, (40, 500, 200, 1_500, 1_500, 200, 200, 300, 3_000)))
STRETCH = 10  # episodes in one environment, after which all is saved
HIGH = 0.5  # of the highest return: from there on a return is high


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hyperparameters of the D4PG.

    Attributes:
      times: episodes of training for each that is kept, at least 3.
      least_episodes: episodes of training at least, for tasks of which few are kept.
      hidden: units of the layers of policy and critic.
      learning_rate: Adam's, of both.
      batch_size: transitions an update.
      steps_per_update: steps of the environment for each update, done when an episode is over.
      replay: episodes that are learned from, the last ones.
      discount: gamma.
      n_step: steps of a target before it bootstraps.
      target_period: updates between refreshes of the target networks.
      atoms: of the critic's distribution.
      highest: return of the last atom; the first one's is 0. Rewards lie in [0, 1].
      noise: standard deviation of the exploration.
    """

    times: int = 3
    least_episodes: int = 300
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    batch_size: int = 256
    steps_per_update: int = 8
    replay: int = 1_000
    discount: float = 0.99
    n_step: int = 5
    target_period: int = 100
    atoms: int = 51
    highest: float = 100.0
    noise: float = 0.3


class Batch(NamedTuple):
    """B transitions of n steps.

    Attributes:
      observation: [B, ...] float32.
      action: [B, D] float32.
      reward: [B] float32, discounted sum of what followed the action before the bootstrap.
      discount: [B] float32, of the value at `following`; 0 where the episode truly ended.
      following: [B, ...] float32, the observation n steps later, or the episode's last one.
    """

    observation: Any
    action: Any
    reward: Any
    discount: Any
    following: Any


class _State(NamedTuple):
    """All that is learned."""

    params: Any  # of policy and critic
    target_params: Any
    opt_state: optax.OptState
    time: jax.Array  # updates done. Shape [].


class Agent:
    """`act(params, observation)` -> action, and `learn(state, batches)` -> state, compiled."""

    def __init__(self, dims: int, settings: Settings):
        self.settings = settings
        self._atoms = jnp.linspace(0.0, settings.highest, settings.atoms)

        def torso(x: jax.Array) -> jax.Array:
            first, *rest = settings.hidden
            x = jnp.tanh(hk.LayerNorm(-1, True, True)(hk.Linear(first)(x)))
            return hk.nets.MLP(rest, activation=jax.nn.elu, activate_final=True)(x)

        def policy(observation: jax.Array) -> jax.Array:
            small = hk.initializers.VarianceScaling(1e-4)
            return jnp.tanh(hk.Linear(dims, w_init=small)(torso(observation)))

        def critic(observation: jax.Array, action: jax.Array) -> jax.Array:
            return hk.Linear(settings.atoms)(torso(jnp.concatenate([observation, action], -1)))

        self._policy = hk.without_apply_rng(hk.transform(policy))
        self._critic = hk.without_apply_rng(hk.transform(critic))
        self._optimizer = optax.adam(settings.learning_rate)
        self.act = jax.jit(lambda params, seen: self._policy.apply(params["policy"], seen))
        self.learn = jax.jit(self._learn, donate_argnums=0)
        self._dims = dims

    def init(self, seed: int, observation: np.ndarray) -> _State:
        """What is learned, before it is; of an observation the shape counts."""
        policy_key, critic_key = jax.random.split(jax.random.key(seed))
        params = {
            "policy": self._policy.init(policy_key, observation),
            "critic": self._critic.init(critic_key, observation, np.zeros(self._dims, np.float32)),
        }
        target_params = jax.tree.map(jnp.copy, params)
        return _State(params, target_params, self._optimizer.init(params), jnp.zeros([], jnp.int32))

    def loss(self, params: Any, target_params: Any, batch: Batch) -> jax.Array:
        """Of the critic (Barth-Maron et al., equation 3) and of the policy (4), one number.

        Each learns from its own only.
        """
        acting = self._policy.apply(target_params["policy"], batch.following)
        following = self._critic.apply(target_params["critic"], batch.following, acting)
        support = batch.reward[:, None] + batch.discount[:, None] * self._atoms
        target = jax.vmap(rlax.categorical_l2_project, (0, 0, None))(
            support, jax.nn.softmax(following), self._atoms
        )
        logits = self._critic.apply(params["critic"], batch.observation, batch.action)
        critic_loss = jnp.mean(optax.softmax_cross_entropy(logits, jax.lax.stop_gradient(target)))
        action = self._policy.apply(params["policy"], batch.observation)
        fixed = jax.lax.stop_gradient(params["critic"])
        chosen = jax.nn.softmax(self._critic.apply(fixed, batch.observation, action))
        return critic_loss - jnp.mean(chosen @ self._atoms)

    def _update(self, state: _State, batch: Batch) -> tuple[_State, None]:
        gradient = jax.grad(self.loss)(state.params, state.target_params, batch)
        change, opt_state = self._optimizer.update(gradient, state.opt_state)
        params = optax.apply_updates(state.params, change)
        target_params = optax.periodic_update(
            params, state.target_params, state.time, self.settings.target_period
        )
        return _State(params, target_params, opt_state, state.time + 1), None

    def _learn(self, state: _State, batches: Batch) -> _State:
        return jax.lax.scan(self._update, state, batches)[0]


class Replay:
    """The last episodes, each of the same length, as transitions of n steps."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._number = 0
        self._arrays: Batch | None = None

    def add(self, episode: Arrays) -> None:
        """Takes an episode: observation [L + 1, ...], action [L, D], reward [L], discount []."""
        of, length = self._settings, len(episode["reward"])
        ends = np.minimum(np.arange(length) + of.n_step, length)
        reward = np.zeros(length)
        for k in range(of.n_step):
            reward[: length - k] += of.discount**k * episode["reward"][k:]
        discount = of.discount ** (ends - np.arange(length))
        discount[ends == length] *= episode["discount"]
        steps = Batch(
            episode["observation"][:-1], episode["action"], reward.astype(np.float32),
            discount.astype(np.float32), episode["observation"][ends],
        )  # fmt: skip
        if self._arrays is None:
            self._arrays = Batch(*(np.zeros([of.replay, *x.shape], np.float32) for x in steps))
        for array, values in zip(self._arrays, steps):
            array[self._number % of.replay] = values
        self._number += 1

    def sample(self, rng: np.random.Generator, updates: int) -> Batch:
        """Batches for some updates, uniform over transitions: arrays [updates, B, ...]."""
        assert self._arrays is not None
        shape = [updates, self._settings.batch_size]
        episode = rng.integers(min(self._number, self._settings.replay), size=shape)
        step = rng.integers(self._arrays.reward.shape[1], size=shape)
        return Batch(*(array[episode, step] for array in self._arrays))


def kept(returns: np.ndarray, number: int) -> np.ndarray:
    """Which episodes of a training are kept, as RL Unplugged's authors describe.

    Of those of high return, `HIGH` of the highest at least, one in three is left, and of what is
    left `number`, evenly spread over training. Where the line is between high and low they do not
    say.

    Args:
      returns: of all episodes. Shape [N].
      number: how many to keep, at most N / 3.

    Returns:
      Their numbers, in order. Shape [number].
    """
    high = np.flatnonzero(returns >= HIGH * returns.max())
    left = np.delete(np.arange(len(returns)), np.setdiff1d(high, high[::3]))
    return left[np.linspace(0, len(left) - 1, number).round().astype(int)]


def _play(world: dm_env.Environment, act: Any, noise: float, rng: np.random.Generator) -> Arrays:
    """An episode of a policy that explores."""
    step = world.reset()
    observation, action, reward = [step.observation], [], []
    (dims,) = world.action_spec().shape
    while not step.last():
        chosen = np.asarray(act(step.observation)) + noise * rng.standard_normal(dims)
        action.append(np.clip(chosen, -1.0, 1.0).astype(np.float32))
        step = world.step(action[-1])
        observation.append(step.observation)
        reward.append(step.reward)
    return {
        "observation": np.stack(observation),
        "action": np.stack(action),
        "reward": np.asarray(reward, np.float32),
        "discount": np.asarray(step.discount, np.float32),
    }


def _stretch(
    world: dm_env.Environment,
    agent: Agent,
    state: _State,
    replay: Replay,
    rng: np.random.Generator,
    number: int,
) -> tuple[Arrays, _State]:
    """Some episodes, stacked, each of which is learned from when it is over."""
    episodes: list[Arrays] = []
    of = agent.settings
    for _ in range(number):
        act = functools.partial(agent.act, state.params)
        episodes.append(_play(world, act, of.noise, rng))
        replay.add(episodes[-1])
        updates = len(episodes[-1]["reward"]) // of.steps_per_update
        state = agent.learn(state, replay.sample(rng, updates))
    return {key: np.stack([one[key] for one in episodes]) for key in episodes[0]}, state


def train(
    name: str,
    *,
    episodes: int,
    seed: int,
    settings: Settings | None = None,
    partial: str | os.PathLike[str] | None = None,
) -> datasets.Dataset:
    """Trains a D4PG on a task and records its episodes.

    Args:
      name: one of `control.TASKS`.
      episodes: how many are kept, see `kept`; training has `Settings.times` as many.
      seed: seed of environment and agent.
      settings: hyperparameters.
      partial: folder for what is recorded so far, from where it goes on after a kill to the same
        bytes; it is the caller's to remove. None: nothing is kept.

    Raises:
      ValueError: if an argument is out of range, there is no such task, or dm_control is not
        installed.
    """
    checks.within("episodes", episodes, 1, integer=True)
    checks.within("seed", seed, 0, integer=True)
    settings = settings or Settings()
    checks.within("times", settings.times, 3, integer=True)
    world = environments.make("control", name, seed=seed)
    shape, actions = environments.form(world)
    world.close()
    dims = actions.shape[0]
    packages = ("jax", "dm_control", "mujoco", "dm-haiku", "optax", "rlax", "numpy")
    identity = {
        "environment": name, "episodes": episodes, "seed": seed,
        "settings": dataclasses.asdict(settings), "code": hashing.of_modules([__name__]),
        "versions": hashing.versions(packages), "device": jax.default_backend(),
    }  # fmt: skip
    store, replay, agent = Partial(partial, identity), Replay(settings), Agent(dims, settings)
    state = agent.init(seed, np.zeros(shape, np.float32))
    recorded: list[Arrays] = []
    if (found := store.restore()) is not None:
        parts, saved = found
        leaves = [jnp.asarray(saved[str(i)]) for i in range(len(saved))]
        state = jax.tree.unflatten(jax.tree.structure(state), leaves)
        recorded = [
            {k: x[i] for k, x in part.items()} for part in parts for i in range(len(part["reward"]))
        ]
        for episode in recorded:
            replay.add(episode)
    total = max(settings.times * episodes, settings.least_episodes)
    progress = tqdm(desc=name, unit="episode", mininterval=5.0, initial=len(recorded), total=total)
    while len(recorded) < total:
        # A stretch has streams of its own, so that none of their states need to be saved.
        seeds = np.random.SeedSequence([seed, len(recorded)]).generate_state(2)
        world = environments.make("control", name, seed=int(seeds[0]))
        rng = np.random.default_rng(seeds[1])
        number = min(STRETCH, total - len(recorded))
        stretch, state = _stretch(world, agent, state, replay, rng, number)
        world.close()
        recorded += [{key: x[i] for key, x in stretch.items()} for i in range(number)]
        store.save(stretch, {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(state))})
        progress.set_postfix({"return": f"{stretch['reward'].sum(axis=1).mean():.0f}"})
        progress.update(number)
    progress.close()
    returns = np.array([episode["reward"].sum(dtype=np.float64) for episode in recorded])
    chosen = [recorded[i] for i in kept(returns, episodes)]
    metadata = {
        "benchmark": "control",
        "environment": name,
        "action_dims": dims,
        "noise": 0.0,
        "episodes": episodes,
        "episodes_seen": total,
        "max_episode_steps": control.LENGTH,
        "seed": seed,
        "collected_by": "unplugged.d4pg, through training, exploration included",
        "settings": dataclasses.asdict(settings),
        "dm_control_version": importlib.metadata.version("dm_control"),
        "mujoco_version": importlib.metadata.version("mujoco"),
        "code_version": datasets.CODE_VERSION,
    }
    return datasets.from_episodes(
        [{**episode, "terminated": bool(episode["discount"] == 0.0)} for episode in chosen],
        metadata,
    )


def random_returns(name: str, *, episodes: int, seed: int) -> np.ndarray:
    """Returns of the uniform policy on a task. Shape [episodes]."""
    checks.within("episodes", episodes, 1, integer=True)
    world = environments.make("control", name, seed=seed)
    rng = np.random.default_rng(seed)
    returns = np.zeros(episodes)
    for i in range(episodes):
        step = world.reset()
        while not step.last():
            step = world.step(environments.uniform(world.action_spec(), rng))
            returns[i] += step.reward
    world.close()
    return returns
