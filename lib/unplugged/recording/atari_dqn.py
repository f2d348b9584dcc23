"""A DQN on Atari whose training is recorded, as DQN Replay and RL Unplugged are.

Mnih et al. (2015) with double Q-learning (rlax) and sticky actions, on ale-py's vector environment.
A recording grows by checkpoints: of each the games begin anew, every environment plays its steps
and then to the end of its episode, and what the agent is goes to the disk. What it replays at a
checkpoint's beginning are the frames of the one before, as recorded. So a recording that is cut off
goes on at its last checkpoint, to the same bytes.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import rlax

from unplugged.common import checks, files
from unplugged.common.checks import Count, Positive, Share
from unplugged.data import frames, npz
from unplugged.data.datasets import DatasetError
from unplugged.envs import atari, environments


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hyperparameters of the DQN.

    Attributes:
      environments: games played at once.
      checkpoint: transitions between checkpoints, and as many that are replayed.
      channels: channels of its three convolutions, half of those of Mnih et al. (2015).
      hidden: units of its hidden layer, half as well.
      learning_rate: Adam's.
      batch_size: transitions an update.
      period: transitions played an update.
      learn_after: transitions before the first update.
      discount: gamma.
      target_interval: updates between refreshes of the target network.
      epsilon_end: share of random actions in the end, linear from 1.
      epsilon_share: share of training over which it falls.
    """

    environments: Count = 8
    checkpoint: Count = 100_000
    channels: tuple[Count, ...] = (16, 32, 32)
    hidden: Count = 256
    learning_rate: Positive = 1e-4
    batch_size: Count = 32
    period: Count = 4
    learn_after: Count = 10_000
    discount: Share = 0.99
    target_interval: Count = 2_000
    epsilon_end: Share = 0.01
    epsilon_share: Positive = 0.2

    def __post_init__(self) -> None:
        checks.fields(self, within="agent")
        if len(self.channels) != 3:
            raise ValueError(f"channels must be three numbers, got {list(self.channels)}")
        if self.checkpoint < self.environments or self.learn_after < self.environments:
            raise ValueError("checkpoint and learn_after must be at least environments")


def settings(given: Mapping[str, Any]) -> Settings:
    """Settings of which some are given by name.

    Raises:
      ValueError: if there is no such setting, naming the nearest, or its value is wrong.
    """
    for name in given:
        checks.one_of("setting of the agent", name, [x.name for x in dataclasses.fields(Settings)])
    return Settings(**given)


class _State(NamedTuple):
    """What the agent has learned."""

    params: Any
    target_params: Any
    opt_state: optax.OptState
    updates: jax.Array


class _Rows:
    """The frames of E environments in the order of time, and what belongs to them; R rows each."""

    def __init__(self, number: int, rows: int):
        self.frames = np.zeros([number, rows, atari.SIZE, atari.SIZE], np.uint8)
        self.action = np.zeros([number, rows], np.int32)
        self.reward = np.zeros([number, rows], np.float32)
        self.terminated = np.zeros([number, rows], np.bool_)
        self.cut = np.zeros([number, rows], np.bool_)  # What follows is another episode's.
        self.begin = np.zeros([number, rows], np.int64)  # the first row of each row's episode

    def _stacks(self, environment: np.ndarray, row: np.ndarray, ahead: int) -> np.ndarray:
        """Frames up to some rows or, one ahead, the next of their episodes, [..., 4, 84, 84]."""
        back = np.arange(atari.STACK - 1, -1, -1)
        begin = self.begin[environment, row][..., None]
        return self.frames[environment[..., None], np.maximum(row[..., None] + ahead - back, begin)]

    def batches(
        self, low: int, high: int, updates: int, settings: Settings, rng: np.random.Generator
    ) -> tuple[np.ndarray, ...]:
        """Transitions of the rows low to high - 1, arrays [updates, B, ...], for `_Agent.learn`."""
        shape = (updates, settings.batch_size)
        row, environment = rng.integers(low, high, shape), rng.integers(0, len(self.action), shape)
        of = environment, row
        return (
            self._stacks(*of, ahead=0),
            self._stacks(*of, ahead=1),
            self.action[of],
            self.reward[of],
            np.where(self.terminated[of], 0.0, settings.discount).astype(np.float32),
            (~self.cut[of]).astype(np.float32),  # What followed there is not known.
        )

    def refill(self, episodes: Iterable[frames.Episode], length: int) -> None:
        """Takes the first `length` rows of each environment from a checkpoint's episodes."""
        environment = at = 0
        for episode in episodes:
            end = min(at + len(episode.action), length)
            some = slice(0, end - at)
            part = (environment, slice(at, end))
            self.frames[part], self.begin[part] = episode.frames[some], at
            self.action[part], self.reward[part] = episode.action[some], episode.reward[some]
            at += len(episode.action)
            ended = at <= length and episode.terminated
            self.terminated[environment, end - 1], self.cut[environment, end - 1] = ended, not ended
            if at >= length:
                environment, at = environment + 1, 0

    def episodes(
        self, environment: int, begin: int, rest: _Rest
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]:
        """Frames, actions, rewards and end of each episode from a row on; the last has a rest."""
        over = (self.terminated | self.cut)[environment, begin:]
        edges = [begin, *(np.flatnonzero(over) + begin + 1).tolist()]
        for first, end in itertools.pairwise(edges):
            part = (environment, slice(first, end))
            ended = bool(self.terminated[environment, end - 1])
            yield self.frames[part], self.action[part], self.reward[part], ended
        if rest.frames:
            part = (environment, slice(edges[-1], None))
            yield (
                np.concatenate([self.frames[part], rest.frames]),
                np.append(self.action[part], rest.action),
                np.append(self.reward[part], rest.reward).astype(np.float32),
                rest.terminated,
            )


class _Agent:
    """A network and how it learns: `learn(state, batch)` -> state, an update, compiled.

    Updates are no compiled loop: in one, XLA's gradients of convolutions are slow on a CPU (see
    `networks.convolve`).
    """

    def __init__(self, num_actions: int, settings: Settings):
        self._settings, self._num_actions = settings, num_actions
        self._optimizer = optax.adam(settings.learning_rate, eps=1.5e-4)

        def q(stacks: jax.Array) -> jax.Array:
            x = jnp.moveaxis(stacks, -3, -1).astype(jnp.float32) * atari.SCALE
            for channels, size, stride in zip(settings.channels, (8, 4, 3), (4, 2, 1)):
                x = jax.nn.relu(hk.Conv2D(channels, size, stride, padding="VALID")(x))
            x = jax.nn.relu(hk.Linear(settings.hidden)(hk.Flatten()(x)))
            return hk.Linear(num_actions)(x)

        self._q = hk.without_apply_rng(hk.transform(q))
        self._best = jax.jit(lambda params, x: jnp.argmax(self._q.apply(params, x), axis=-1))
        self.learn = jax.jit(self._learn, donate_argnums=0)

    def init(self, seed: int) -> _State:
        """The state before the first update."""
        example = jnp.zeros([1, atari.STACK, atari.SIZE, atari.SIZE], jnp.uint8)
        params = self._q.init(jax.random.key(seed), example)
        copy = jax.tree.map(jnp.copy, params)
        return _State(params, copy, self._optimizer.init(params), jnp.zeros([], jnp.int32))

    def chosen(
        self, state: _State, stacks: np.ndarray, epsilon: float, rng: np.random.Generator
    ) -> np.ndarray:
        """The best actions [E] at stacks [E, 4, 84, 84], or with probability epsilon any."""
        best = np.asarray(self._best(state.params, stacks))
        at_random = rng.integers(0, self._num_actions, len(best))
        return np.where(rng.random(len(best)) < epsilon, at_random, best).astype(np.int64)

    def _loss(self, params: Any, target_params: Any, batch: Any) -> jax.Array:
        stacks, following, action, reward, discount, weight = batch
        error = jax.vmap(rlax.double_q_learning)(
            self._q.apply(params, stacks), action, reward, discount,
            self._q.apply(target_params, following), self._q.apply(params, following),
        )  # fmt: skip
        return jnp.mean(weight * rlax.huber_loss(error))

    def _learn(self, state: _State, batch: Any) -> _State:
        """An update on arrays [B, ...]."""
        gradient = jax.grad(self._loss)(state.params, state.target_params, batch)
        change, opt_state = self._optimizer.update(gradient, state.opt_state)
        params, updates = optax.apply_updates(state.params, change), state.updates + 1
        target_params = optax.periodic_update(
            params, state.target_params, updates, self._settings.target_interval
        )
        return _State(params, target_params, opt_state, updates)


def vector(name: str, number: int) -> Any:
    """ale-py's vector environment at the papers' protocol: every setting of its own named."""
    ale_py = atari.emulator()
    return ale_py.AtariVectorEnv(
        atari.check(name), number,
        max_num_frames_per_episode=atari.LENGTH * atari.Atari.skip,
        repeat_action_probability=atari.Atari.sticky, full_action_space=False,
        autoreset_mode="SameStep", img_height=atari.SIZE, img_width=atari.SIZE, grayscale=True,
        stack_num=1, frameskip=atari.Atari.skip, maxpool=True, noop_max=0, episodic_life=False,
        life_loss_info=False, reward_clipping=False, use_fire_reset=False,
    )  # fmt: skip


def record(
    name: str,
    *,
    transitions: int,
    seed: int,
    folder: str | os.PathLike[str],
    settings: Settings | None = None,
) -> frames.Recording:
    """Trains a DQN on a game and records every episode, or goes on with that.

    Args:
      name: one of `atari.GAMES`.
      transitions: how many it learns from; rounded up to whole checkpoints.
      seed: of games and agent.
      folder: where the recording goes.
      settings: hyperparameters.

    Raises:
      ValueError: if an argument is out of range, there is no such game, or ale-py is missing.
      DatasetError: if the folder holds another recording.
    """
    checks.within("transitions", transitions, 1, integer=True)
    checks.within("seed", seed, 0, integer=True)
    atari.check(name)
    atari.emulator()
    settings = settings or Settings()
    folder = files.writable_folder(folder)
    number = -(-transitions // settings.checkpoint)
    facts = {
        **frames.of_game(name, 0, "unplugged.atari_dqn, through training"),
        "seed": seed,
        "transitions_seen": number * settings.checkpoint,
        "settings": dataclasses.asdict(settings),
        "ale_py_version": importlib.metadata.version("ale-py"),
    }
    play = functools.partial(_checkpoint, name, seed, folder, settings, number)
    shards = [f"checkpoint {i}" for i in range(number)]
    return frames.convert(frames.Source(facts, shards, lambda i, share: play(i)), folder)


def _checkpoint(
    name: str, seed: int, folder: Path, settings: Settings, total: int, checkpoint: int
) -> Iterator[frames.Episode]:
    """Plays and learns until a checkpoint; its episodes, environment by environment."""
    agent = _Agent(atari.GAMES[name], settings)
    state = agent.init(seed)
    number, length = settings.environments, settings.checkpoint // settings.environments
    filled = length if checkpoint else 0
    rows = _Rows(number, filled + length)
    if checkpoint:
        state = _restored(_agent_file(folder, checkpoint - 1), state)
        rows.refill(frames.episodes_of(folder, checkpoint - 1), length)
    rng = np.random.default_rng([seed, checkpoint])
    seeds = np.random.SeedSequence([seed, checkpoint]).generate_state(number) & 0x7FFFFFFF
    world = vector(name, number)
    owed, begun = 0.0, np.full(number, filled)
    try:
        seen, _ = world.reset(seed=seeds.astype(np.int64))
        stacks = np.repeat(seen, atari.STACK, axis=1)
        for at in range(filled, filled + length):
            done = checkpoint * settings.checkpoint + (at - filled) * number
            share = done / (settings.epsilon_share * total * settings.checkpoint)
            epsilon = max(settings.epsilon_end, 1.0 - (1.0 - settings.epsilon_end) * share)
            action = agent.chosen(state, stacks, epsilon, rng)
            rows.frames[:, at], rows.begin[:, at] = seen[:, -1], begun
            seen, reward, terminated, truncated, _ = world.step(action)
            over = terminated | truncated
            rows.action[:, at], rows.reward[:, at] = action, np.clip(reward, -1.0, 1.0)
            rows.terminated[:, at], rows.cut[:, at] = terminated, truncated
            stacks = _shifted(stacks, seen, over)
            begun = np.where(over, at + 1, begun)
            if done + number > settings.learn_after:
                owed += number / settings.period
                if updates := int(owed):
                    owed -= updates
                    drawn = rows.batches(max(0, at - length), at, updates, settings, rng)
                    for i in range(updates):
                        state = agent.learn(state, tuple(x[i] for x in drawn))
        rests = _rests(world, agent, state, seen, stacks, ~over, epsilon, rng)
    finally:
        world.close()
    files.write_whole(_agent_file(folder, checkpoint), _saved(state))
    if checkpoint > 1:  # The one before may be needed, if this one is cut off here.
        _agent_file(folder, checkpoint - 2).unlink(missing_ok=True)
    for environment, rest in enumerate(rests):
        episodes = rows.episodes(environment, filled, rest)
        for count, (images, action, reward, ended) in enumerate(episodes):
            yield frames.Episode(
                images, action, reward, ended, checkpoint, count, frames.TRANSITION
            )


class _Rest(NamedTuple):
    """How an episode goes on to its end; its frames and the like are lists, a row each."""

    frames: list[np.ndarray]
    action: list[int]
    reward: list[float]
    terminated: bool


def _rests(
    world: Any, agent: _Agent, state: _State, seen: np.ndarray, stacks: np.ndarray,
    going_on: np.ndarray, epsilon: float, rng: np.random.Generator,
) -> list[_Rest]:  # fmt: skip
    """Plays to their ends the episodes that go on; nothing is learned from that."""
    rests = [_Rest([], [], [], False) for _ in going_on]
    while going_on.any():
        before, action = seen, agent.chosen(state, stacks, epsilon, rng)
        seen, reward, terminated, truncated, _ = world.step(action)
        for i in np.flatnonzero(going_on):
            rests[i].frames.append(before[i, -1])
            rests[i].action.append(int(action[i]))
            rests[i].reward.append(float(np.clip(reward[i], -1.0, 1.0)))
            rests[i] = rests[i]._replace(terminated=bool(terminated[i]))
        over = terminated | truncated
        going_on = going_on & ~over
        stacks = _shifted(stacks, seen, over)
    return rests


def _shifted(stacks: np.ndarray, seen: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """Stacks [E, 4, 84, 84] with new frames [E, 1, 84, 84], alone where an episode begins."""
    shifted = np.concatenate([stacks[:, 1:], seen], axis=1)
    return np.where(fresh[:, None, None, None], np.repeat(seen, atari.STACK, axis=1), shifted)


def _agent_file(folder: Path, checkpoint: int) -> Path:
    return folder / f"agent-{checkpoint:05d}.npz"


def _saved(state: _State) -> bytes:
    buffer = io.BytesIO()
    leaves = {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(state))}
    np.savez(buffer, **leaves)  # type: ignore[arg-type]  # names are no options
    return buffer.getvalue()


def _restored(path: Path, like: _State) -> _State:
    """A state that was saved; raises DatasetError if it is not there or damaged."""
    leaves, tree = jax.tree.flatten(like)
    names = [str(i) for i in range(len(leaves))]
    try:
        with npz.opened(path, names) as archive:
            return jax.tree.unflatten(tree, [jnp.asarray(archive.read(name)) for name in names])
    except (npz.NpzError, OSError) as error:
        raise DatasetError(
            f"{path}: {error}; remove the folder {path.parent} and record anew"
        ) from error


def random_returns(name: str, *, episodes: int, seed: int, clipped: bool = False) -> np.ndarray:
    """Returns of the uniform policy on a game. Shape [episodes].

    Args:
      name: one of `atari.GAMES`.
      episodes: how many.
      seed: of the games and the policy.
      clipped: whether rewards are clipped to [-1, 1], as recordings have them.
    """
    checks.within("episodes", episodes, 1, integer=True)
    world = environments.make("atari", name, seed=seed)
    rng = np.random.default_rng(seed)
    number = world.action_spec().num_values
    returns = np.zeros(episodes)
    for i in range(episodes):
        step = world.reset()
        while not step.last():
            step = world.step(int(rng.integers(number)))
            returns[i] += np.clip(step.reward, -1.0, 1.0) if clipped else step.reward
    return returns
