"""Where stored steps come from: the most recent, the best episodes, a dataset. All on the device.

A source is three pure functions of a state, so that a whole online run compiles and can be
saved: see `Source`. Its windows are the same as an offline learner's (`windows.Windows`).
A tick is one step of all E actors; its rows are laid out as a dataset's steps are: an
episode's final observation has a row of its own, without an action (`is_last`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from unplugged.common import memory
from unplugged.data import bits, windows
from unplugged.planning.improvement import AnyImprovement


class Tick(NamedTuple):
    """One step of E actors, or many steps with further axes in front.

    Attributes:
      observation: [E, bytes] uint8, packed bits; or [E, ...] float32.
      action: [E] int32, or [E, D] float32; 0 in a final row.
      reward: [E] float32; 0 in a final row.
      discount: [E] float32, 0 at a true end and in the final row after it, else 1.
      is_last: [E] bool, whether this is an episode's final row.
      improved: what the acting search gave at the observation, arrays [E, ...]; None: not kept.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    discount: jax.Array
    is_last: jax.Array
    improved: AnyImprovement | None


class Source(Protocol):
    """Stored steps that windows are drawn from."""

    def init(self, like: Tick) -> Any:
        """The empty state; `like` is a tick of zeros."""
        ...

    def add(self, state: Any, tick: Tick) -> Any:
        """The state with a tick more."""
        ...

    def sample(self, state: Any, data: Any, key: jax.Array, batch_size: int) -> windows.Windows:
        """Draws windows [T, B, ...]; `data` is what was recorded, by name, on the device."""
        ...


def window_of(ticks: Tick, shape: Sequence[int] | None, *, improved: bool) -> windows.Windows:
    """Windows of T steps, cut at the end of the episode as `windows.at` does.

    Args:
      ticks: T rows of B windows, arrays [T, B, ...], whatever follows an episode's end.
      shape: shape of an observation whose bits are packed; None: not packed.
      improved: whether the acting search's results go along.
    """
    length = ticks.action.shape[0]
    ended = jnp.cumsum(ticks.is_last, axis=0) > 0  # At the final row and after it.
    at_end = jnp.where(ended[-1], jnp.argmax(ended, axis=0), length)
    step = jnp.arange(length)[:, None]
    index = jnp.minimum(step, at_end)
    cut = jax.tree.map(lambda x: jnp.take_along_axis(x, _like(index, x), axis=0), ticks)
    return windows.Windows(
        observation=cut.observation if shape is None else bits.unpack(cut.observation, shape),
        action=cut.action,
        reward=cut.reward,
        discount=cut.discount,
        real=step < at_end,
        known=(step <= at_end) | (cut.discount == 0.0),
        improved=cut.improved if improved else None,
    )


def _like(index: jax.Array, x: jax.Array) -> jax.Array:
    return index.reshape(*index.shape, *[1] * (x.ndim - index.ndim))


def _draw(weights: jax.Array, key: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """Rows and columns of a table [R, C] of weights that need not sum to 1: a row, then in it."""
    row_key, column_key = jax.random.split(key)
    cumulative = jnp.cumsum(weights.sum(axis=1))
    at = jax.random.uniform(row_key, [number]) * cumulative[-1]
    row = jnp.minimum(jnp.searchsorted(cumulative, at, side="right"), len(cumulative) - 1)
    within = jnp.cumsum(weights[row], axis=1)
    at = jax.random.uniform(column_key, [number, 1]) * within[:, -1:]
    return row, jnp.minimum(jnp.sum(within <= at, axis=1), weights.shape[1] - 1)


def rows_each(capacity: int, actors: int, length: int) -> int:
    """Rows of `Recent` for each of E actors; raises ValueError if two windows do not fit."""
    rows = capacity // actors
    if rows < 2 * length:
        raise ValueError(
            f"a replay of {capacity} rows holds {rows} steps of each of {actors} actors; "
            f"windows of {length} steps need at least {2 * length}: {2 * length * actors} rows"
        )
    return rows


class Ring(NamedTuple):
    """State of `Recent`: the last R ticks.

    Attributes:
      ticks: arrays [R, E, ...].
      whole: [R, E] float32, 1 where a window that is whole may start, else 0.
      count: ticks ever added. Shape [].
    """

    ticks: Tick
    whole: jax.Array
    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as meant


class Recent:
    """The most recent interactions, drawn uniformly over transitions.

    Args:
      capacity: rows, over all actors.
      actors: E.
      length: T, steps of a window.
      shape: shape of an observation whose bits are packed; None: not packed.
    """

    def __init__(self, capacity: int, actors: int, length: int, shape: Sequence[int] | None):
        self._rows = rows_each(capacity, actors, length)
        self._length, self._shape = length, None if shape is None else tuple(shape)

    def init(self, like: Tick) -> Ring:
        """An empty ring."""
        ticks = jax.tree.map(lambda x: jnp.zeros([self._rows, *x.shape], x.dtype), like)
        return Ring(ticks, jnp.zeros([self._rows, *like.reward.shape]), jnp.zeros([], jnp.int32))

    def add(self, state: Ring, tick: Tick) -> Ring:
        """Overwrites the oldest tick; windows that it completes can be drawn from now on."""
        row = state.count % self._rows
        ticks = jax.tree.map(lambda all_, one: all_.at[row].set(one), state.ticks, tick)
        count = state.count + 1
        start = count - self._length
        rows = (start + jnp.arange(self._length)) % self._rows
        of = jax.tree.map(lambda x: x[rows], ticks)
        whole = jnp.ones_like(of.reward[0])
        whole = jnp.where(of.is_last[0] | (start < 0), 0.0, whole)
        return Ring(ticks, state.whole.at[row].set(0.0).at[rows[0]].set(whole), count)

    def sample(
        self, state: Ring, data: Any, key: jax.Array, batch_size: int, *, improved: bool = False
    ) -> windows.Windows:
        """Draws windows; with `improved`, the acting search's results go along."""
        del data
        start, actor = _draw(state.whole, key, batch_size)
        rows = (start + jnp.arange(self._length)[:, None]) % self._rows
        ticks = jax.tree.map(lambda x: x[rows, actor], state.ticks)
        return window_of(ticks, self._shape, improved=improved)


class Episodes(NamedTuple):
    """State of `Best`: N whole episodes, and what the actors are in the midst of.

    Attributes:
      ticks: [N, L, ...] rows of the episodes kept.
      returns: [N] float32; -inf where there is none yet.
      lengths: [N] int32, rows of each, the final one among them.
      current: [L, E, ...] rows of the episodes now played.
      position: [E] int32, rows of them so far.
      running: [E] float32, their returns so far.
    """

    ticks: Tick
    returns: jax.Array
    lengths: jax.Array
    current: Tick
    position: jax.Array
    running: jax.Array


class Best:
    """The N episodes of highest return; one that is no better than the worst is not taken in.

    Args:
      episodes: N.
      max_steps: the longest episode, in transitions.
      length: T, steps of a window.
      shape: shape of an observation whose bits are packed; None: not packed.
    """

    def __init__(self, episodes: int, max_steps: int, length: int, shape: Sequence[int] | None):
        self._episodes, self._rows = episodes, max_steps + 1
        self._length, self._shape = length, None if shape is None else tuple(shape)

    def init(self, like: Tick) -> Episodes:
        """No episode."""
        like = like._replace(improved=None)  # Their targets are always made anew.
        number, actors = self._episodes, like.action.shape[0]

        def zeros(*front: int) -> Tick:
            return jax.tree.map(lambda x: jnp.zeros([*front, *x.shape[1:]], x.dtype), like)

        return Episodes(
            ticks=zeros(number, self._rows),
            returns=jnp.full([number], -jnp.inf),
            lengths=jnp.zeros([number], jnp.int32),
            current=zeros(self._rows, actors),
            position=jnp.zeros([actors], jnp.int32),
            running=jnp.zeros([actors]),
        )

    def add(self, state: Episodes, tick: Tick) -> Episodes:
        """Takes a tick in; episodes that it ends are kept if they are among the best."""
        tick = tick._replace(improved=None)
        actors = jnp.arange(tick.action.shape[0])
        at = jnp.minimum(state.position, self._rows - 1)
        current = jax.tree.map(lambda all_, one: all_.at[at, actors].set(one), state.current, tick)
        running = state.running + tick.reward
        state = state._replace(current=current, running=running)

        def keep(kept: tuple, actor: jax.Array) -> tuple[tuple, None]:
            ticks, returns, lengths = kept
            worst = jnp.argmin(returns)
            better = tick.is_last[actor] & (running[actor] > returns[worst])
            ticks = jax.tree.map(
                lambda all_, one: all_.at[worst].set(jnp.where(better, one[:, actor], all_[worst])),
                ticks,
                current,
            )
            returns = returns.at[worst].set(jnp.where(better, running[actor], returns[worst]))
            rows = jnp.where(better, at[actor] + 1, lengths[worst])
            return (ticks, returns, lengths.at[worst].set(rows)), None

        kept = state.ticks, state.returns, state.lengths
        kept = jax.lax.cond(
            jnp.any(tick.is_last),
            lambda kept: jax.lax.scan(keep, kept, actors)[0],
            lambda kept: kept,
            kept,
        )
        ticks, returns, lengths = kept
        return state._replace(
            ticks=ticks,
            returns=returns,
            lengths=lengths,
            position=jnp.where(tick.is_last, 0, state.position + 1),
            running=jnp.where(tick.is_last, 0.0, running),
        )

    def holds_any(self, state: Episodes) -> jax.Array:
        """Whether there is an episode to draw from. Shape [] bool."""
        return jnp.any(state.lengths > 0)

    def sample(
        self, state: Episodes, data: Any, key: jax.Array, batch_size: int
    ) -> windows.Windows:
        """Draws windows uniformly over the transitions of the episodes kept."""
        del data
        step = jnp.arange(self._rows)
        usable = step < state.lengths[:, None] - 1
        episode, start = _draw(usable.astype(jnp.float32), key, batch_size)
        rows = jnp.minimum(start + jnp.arange(self._length)[:, None], self._rows - 1)
        ticks = jax.tree.map(lambda x: x[episode, rows], state.ticks)
        # What an earlier, longer episode left behind the final row does not matter.
        return window_of(ticks, self._shape, improved=False)


class Recorded:
    """An offline dataset, or demonstrations: `windows.sample`, the very same.

    Args:
      name: which of the data.
      length: T, steps of a window.
    """

    def __init__(self, name: str, length: int):
        self._name, self._length = name, length

    def init(self, like: Tick) -> tuple[()]:
        """Nothing."""
        return ()

    def add(self, state: tuple[()], tick: Tick) -> tuple[()]:
        """Nothing changes."""
        return state

    def sample(
        self, state: tuple[()], data: Mapping[str, windows.Store], key: jax.Array, batch_size: int
    ) -> windows.Windows:
        """Draws windows uniformly over the data's transitions."""
        return windows.sample(data[self._name], key, batch_size, self._length)


RECORDED = ("demonstrations", "dataset")
SOURCES = ("recent", "best", *RECORDED)


def shares(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Splits a batch among sources by weight, whole windows, the largest remainders first."""
    names = [name for name, weight in weights.items() if weight > 0]
    parts = np.array([weights[name] for name in names], float)
    parts = parts / parts.sum() * total
    counts = np.floor(parts).astype(int)
    for i in np.argsort(counts - parts, kind="stable")[: total - counts.sum()]:
        counts[i] += 1
    return dict(zip(names, counts.tolist()))


def size_in_bytes(*states: Any) -> int:
    """Memory of source states, given or only described (`jax.eval_shape`)."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(states))


def check_memory(needed: int, what: str) -> None:
    """Raises MemoryError, before anything is allocated, if `needed` bytes are not there."""
    stats = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    free = stats["bytes_limit"] - stats["bytes_in_use"] if stats else memory.free()
    if needed > free:
        raise MemoryError(
            f"{what} needs {needed / 2**30:.1f} GiB, and at most {free / 2**30:.1f} GiB can be "
            "had; lower replay_capacity or best_episodes"
        )
