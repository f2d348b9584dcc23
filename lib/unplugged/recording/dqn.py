"""A DQN that is one compiled loop, and records every episode of its training.

Mnih et al. (2015) with double Q-learning (rlax), on environments that are JAX functions. Its
recordings stand for RL Unplugged's: all that one online agent saw, from random to trained.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import rlax
from tqdm.auto import tqdm

from unplugged.common import checks, hashing
from unplugged.data import bits, datasets
from unplugged.envs import games
from unplugged.model.networks import Convolution
from unplugged.recording.partial import Arrays, Partial

CHUNK = 2_000  # steps of all environments in one call of the loop, after which its state is saved


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hyperparameters of the DQN.

    Attributes:
      environments: environments stepped at once.
      channels: channels of its convolution.
      hidden: units of its hidden layer.
      learning_rate: Adam's.
      batch_size: transitions an update; one update a step of all environments.
      replay: transitions that are kept.
      learn_after: transitions before the first update.
      discount: gamma.
      target_interval: updates between refreshes of the target network.
      epsilon_end: share of random actions in the end, linear from 1.
      epsilon_share: share of training over which it falls.
    """

    environments: int = 8
    channels: int = 16
    hidden: int = 128
    learning_rate: float = 2.5e-4
    batch_size: int = 64
    replay: int = 100_000
    learn_after: int = 5_000
    discount: float = 0.99
    target_interval: int = 250
    epsilon_end: float = 0.05
    epsilon_share: float = 0.2


class _Replay(NamedTuple):
    """The last transitions of every environment, time first; observations as packed bits.

    Attributes:
      observation: [replay / E, E, bytes] uint8; the next row is the next observation, but
        where an episode ended.
      following: [replay / E, E, bytes] uint8, the observation after the action.
      action: [replay / E, E] int32.
      reward: [replay / E, E] float32.
      discount: [replay / E, E] float32, gamma or 0.
    """

    observation: jax.Array
    following: jax.Array
    action: jax.Array
    reward: jax.Array
    discount: jax.Array


def network(num_actions: int, settings: Settings) -> hk.Transformed:
    """Convolution, hidden layer, Q of each action: MinAtar's own (Young and Tian, 2019)."""

    def q(observation: jax.Array) -> jax.Array:
        x = jax.nn.relu(Convolution(settings.channels, padding="VALID")(observation))
        x = jax.nn.relu(hk.Linear(settings.hidden)(hk.Flatten()(x)))
        return hk.Linear(num_actions)(x)

    return hk.without_apply_rng(hk.transform(q))


class _State(NamedTuple):
    """All of the agent and its worlds."""

    params: Any
    target_params: Any
    opt_state: optax.OptState
    replay: _Replay
    world: Any
    observation: jax.Array
    time: jax.Array  # steps of all environments done. Shape [].


_Array = TypeVar("_Array", jax.Array, np.ndarray)


class Recorded(NamedTuple, Generic[_Array]):
    """What happened in T steps of E environments; observations as packed bits.

    Of the loop they are JAX arrays, for `whole_episodes` NumPy's.

    Attributes:
      observation: [T, E, bytes] uint8.
      action: [T, E] int8, what the agent chose.
      reward: [T, E] float32.
      discount: [T, E] float32, 0 where the episode truly ended.
      last: [T, E] bool.
      following: [T, E, bytes] uint8, the observation after the action.
    """

    observation: _Array
    action: _Array
    reward: _Array
    discount: _Array
    last: _Array
    following: _Array


class _Agent:
    """The compiled loop: `init(key)` and `run(state, key, steps)` -> (state, Recorded)."""

    def __init__(self, game: games.Game, settings: Settings, total_steps: int):
        self._game, self._settings, self._total = game, settings, total_steps
        self._network = network(game.num_actions, settings)
        self._optimizer = optax.adam(settings.learning_rate)
        self._rows = settings.replay // settings.environments
        self.init = jax.jit(self._init)
        self.run = jax.jit(self._run, static_argnums=2, donate_argnums=0)

    def _init(self, key: jax.Array) -> _State:
        world_key, network_key = jax.random.split(key)
        number, rows = self._settings.environments, self._rows
        world, observation = jax.vmap(self._game.reset)(jax.random.split(world_key, number))
        params = self._network.init(network_key, observation)
        packed = jnp.zeros([rows, *self._pack(observation).shape], jnp.uint8)
        scalars = jnp.zeros([rows, number])
        return _State(
            params=params,
            target_params=params,
            opt_state=self._optimizer.init(params),
            replay=_Replay(packed, packed, scalars.astype(jnp.int32), scalars, scalars),
            world=world,
            observation=observation,
            time=jnp.zeros([], jnp.int32),
        )

    def _pack(self, observation: jax.Array) -> jax.Array:
        return bits.pack(observation, len(self._game.observation_shape))

    def _loss(self, params: Any, target_params: Any, batch: _Replay) -> jax.Array:
        shape = self._game.observation_shape
        observation, following = (
            bits.unpack(batch.observation, shape),
            bits.unpack(batch.following, shape),
        )
        q = self._network.apply(params, observation)
        q_following = self._network.apply(target_params, following)
        selector = self._network.apply(params, following)
        error = jax.vmap(rlax.double_q_learning)(
            q, batch.action, batch.reward, batch.discount, q_following, selector
        )
        return jnp.mean(rlax.huber_loss(error))

    def _learn(self, state: _State, key: jax.Array) -> _State:
        settings = self._settings
        filled = jnp.minimum(state.time + 1, self._rows)
        row_key, column_key = jax.random.split(key)
        row = jax.random.randint(row_key, [settings.batch_size], 0, filled)
        column = jax.random.randint(column_key, [settings.batch_size], 0, settings.environments)
        batch = jax.tree.map(lambda x: x[row, column], state.replay)
        gradient = jax.grad(self._loss)(state.params, state.target_params, batch)
        change, opt_state = self._optimizer.update(gradient, state.opt_state)
        params = optax.apply_updates(state.params, change)
        target_params = optax.periodic_update(
            params, state.target_params, state.time, settings.target_interval
        )
        return state._replace(params=params, target_params=target_params, opt_state=opt_state)

    def _step(self, state: _State, key: jax.Array) -> tuple[_State, Recorded[jax.Array]]:
        settings, game = self._settings, self._game
        number = settings.environments
        keys = jax.random.split(key, 5)
        share = state.time / (settings.epsilon_share * self._total)
        epsilon = jnp.maximum(settings.epsilon_end, 1.0 - (1.0 - settings.epsilon_end) * share)
        greedy = jnp.argmax(self._network.apply(state.params, state.observation), axis=-1)
        at_random = jax.random.randint(keys[0], [number], 0, game.num_actions)
        action = jnp.where(jax.random.bernoulli(keys[1], epsilon, [number]), at_random, greedy)
        world, step = jax.vmap(game.step)(state.world, action, jax.random.split(keys[2], number))
        recorded = Recorded(
            observation=self._pack(state.observation),
            action=action.astype(jnp.int8),
            reward=step.reward,
            discount=step.discount,
            last=step.last,
            following=self._pack(step.observation),
        )
        row = state.time % self._rows
        now = _Replay(
            recorded.observation, recorded.following, action, step.reward,
            settings.discount * step.discount,
        )  # fmt: skip
        replay = jax.tree.map(lambda all_, one: all_.at[row].set(one), state.replay, now)
        fresh = jax.vmap(game.reset)(jax.random.split(keys[3], number))

        def begin(new: jax.Array, old: jax.Array) -> jax.Array:
            over = step.last.reshape(-1, *[1] * (old.ndim - 1))
            return jnp.where(over, new, old)

        world, observation = jax.tree.map(begin, fresh, (world, step.observation))
        state = state._replace(replay=replay, world=world, observation=observation)
        enough = (state.time + 1) * number >= settings.learn_after
        state = jax.lax.cond(enough, self._learn, lambda state, _: state, state, keys[4])
        return state._replace(time=state.time + 1), recorded

    def _run(self, state: _State, key: jax.Array, steps: int) -> tuple[_State, Recorded[jax.Array]]:
        def body(state: _State, _: None) -> tuple[_State, Recorded[jax.Array]]:
            return self._step(state, jax.random.fold_in(key, state.time))

        return jax.lax.scan(body, state, None, length=steps)


def whole_episodes(parts: list[Recorded[np.ndarray]]) -> dict[str, np.ndarray]:
    """Episodes that ended, by the time of their end, laid out as `datasets.Dataset` arrays."""
    recorded = Recorded(*(np.concatenate(x) for x in zip(*parts)))
    time, column = np.nonzero(recorded.last)
    begins = np.zeros_like(time)
    for environment in range(recorded.last.shape[1]):
        mine = column == environment
        begins[mine] = np.concatenate([[0], time[mine][:-1] + 1])
    lengths = time - begins + 1
    offsets = np.concatenate([[0], np.cumsum(lengths + 1)])
    steps = offsets[-1]
    episode = np.repeat(np.arange(len(time)), lengths + 1)
    within = np.arange(steps) - offsets[episode]
    final = within == lengths[episode]
    at = np.minimum(begins[episode] + within, time[episode]), column[episode]
    ended = recorded.discount[time, column] == 0.0
    return {
        "observation": np.where(final[:, None], recorded.following[at], recorded.observation[at]),
        "action": np.where(final, 0, recorded.action[at]).astype(np.int32),
        "reward": np.where(final, 0.0, recorded.reward[at]).astype(np.float32),
        "discount": np.where(
            ended[episode] & (within >= lengths[episode] - 1), 0.0, 1.0
        ).astype(np.float32),
        "is_first": within == 0,
        "is_last": final,
    }  # fmt: skip


def _saved(state: _State) -> Arrays:
    return {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(state))}


def _unsaved(saved: Arrays, like: _State) -> _State:
    leaves = [jnp.asarray(saved[str(i)]) for i in range(len(saved))]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def train(
    name: str,
    *,
    transitions: int,
    seed: int,
    settings: Settings | None = None,
    report: Callable[[str], None] = print,
    partial: str | os.PathLike[str] | None = None,
) -> datasets.Dataset:
    """Trains a DQN on a MinAtar game with sticky actions and records every whole episode.

    Args:
      name: one of `games.MINATAR`.
      transitions: how many it sees; rounded up to whole chunks of the loop.
      seed: seed of game and agent.
      settings: hyperparameters.
      report: called with a line now and then.
      partial: folder for what is recorded so far, from where it goes on after a kill to the same
        bytes; it is the caller's to remove. None: nothing is kept.

    Raises:
      ValueError: if an argument is out of range or there is no such game.
    """
    checks.within("transitions", transitions, 1, integer=True)
    checks.within("seed", seed, 0, integer=True)
    settings = settings or Settings()
    game = games.make("minatar", name)
    total = -(-transitions // settings.environments)
    chunk = min(total, CHUNK)
    agent = _Agent(game, settings, total)
    init_key, key = jax.random.split(jax.random.key(seed))
    state, parts = agent.init(init_key), []
    packages = ("jax", "gymnax", "dm-haiku", "optax", "rlax", "numpy")
    identity = {
        "environment": name, "transitions": transitions, "seed": seed,
        "settings": dataclasses.asdict(settings), "code": hashing.of_modules([__name__]),
        "versions": hashing.versions(packages), "device": jax.default_backend(),
    }  # fmt: skip
    kept = Partial(partial, identity)
    if (found := kept.restore()) is not None:
        state, parts = _unsaved(found[1], state), [Recorded(**part) for part in found[0]]
    chunks = -(-total // chunk)
    for number in tqdm(
        range(len(parts), chunks), unit="chunk", desc=name, mininterval=5.0,
        initial=len(parts), total=chunks,
    ):  # fmt: skip
        state, recorded = agent.run(state, key, chunk)
        parts.append(jax.tree.map(np.asarray, recorded))
        kept.save(parts[-1]._asdict(), _saved(state))
        if number % 10 == 9:
            report(f"{name}: {(number + 1) * chunk * settings.environments:,} transitions")
    metadata = {
        "benchmark": "minatar",
        "environment": name,
        "num_actions": game.num_actions,
        "noise": 0.0,
        "sticky": games.STICKY,
        "packed_shape": list(game.observation_shape),
        "transitions_seen": len(parts) * chunk * settings.environments,
        "seed": seed,
        "collected_by": "unplugged.dqn, through training",
        "settings": dataclasses.asdict(settings),
        "gymnax_version": importlib.metadata.version("gymnax"),
        "code_version": datasets.CODE_VERSION,
    }
    return datasets.Dataset(**whole_episodes(parts), metadata=metadata)


def random_returns(name: str, *, episodes: int, seed: int) -> np.ndarray:
    """Returns of the uniform policy on a MinAtar game with sticky actions. Shape [episodes]."""
    checks.within("episodes", episodes, 1, integer=True)
    game = games.make("minatar", name)

    def act(observation: jax.Array, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, [len(observation)], 0, game.num_actions)

    play = jax.jit(lambda key: games.play(game, act, key, episodes)[0])
    return np.asarray(play(jax.random.key(seed)))
