"""Updates on data that do not fit the device: the host gathers windows ahead of the learner.

The windows are those that `Learner.run` would draw: the same states come of either.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from unplugged.data import frame_stores, windows
from unplugged.learning import parallel
from unplugged.learning.learner import Learner, LearnerState

_PIECE = 2**28  # bytes of frames that are gathered and sent at once
_AHEAD = 2  # pieces that wait, beside the one in use


def is_fed(data: Any) -> bool:
    """Whether a run's data stay on the host."""
    return isinstance(data, frame_stores.Host)


def placed(learner: Any, data: Any) -> Any:
    """Data, or a state, on all devices of a learner's mesh; as they are if it has none."""
    mesh = getattr(learner, "mesh", None)  # Online and in a world model there is one device.
    if is_fed(data):
        return dataclasses.replace(data, steps=parallel.replicated(data.steps, mesh))
    return parallel.replicated(data, mesh)


def compiled(learner: Any, state: Any, data: Any, updates: int) -> Any:
    """(state, data) -> (state, losses) over some updates, of one seed or of several together.

    Args:
      learner: a `Learner`, or what has its interface.
      state: of one seed, or stacked; see `placed`.
      data: what it trains on; a `frame_stores.Host` feeds it. The same.
      updates: how many a call.

    Raises:
      ValueError: if several seeds at once are to be fed.
    """
    if not is_fed(data):
        run = learner.run_seeds if state.updates.ndim else learner.run
        return run.lower(state, data, updates).compile()
    if state.updates.ndim:
        raise ValueError(
            "frames that do not fit the device feed one seed at a time: set vmap_seeds to false"
        )
    return _Fed(learner, updates)


class _Fed:
    """Calls of a compiled loop over some updates, whose windows come in pieces."""

    def __init__(self, learner: Learner, updates: int):
        self._learner, self._updates = learner, updates
        self._length = sum(learner.method.window(learner.settings)) + 1
        self._run = jax.jit(self._scan, donate_argnums=0)
        self._draw = jax.jit(self._starts)

    def _starts(self, key: jax.Array, first: jax.Array, steps: frame_stores.FedStore) -> jax.Array:
        """First steps [updates, B] of the windows that `windows.sample` draws in each update."""

        def one(update: jax.Array) -> jax.Array:
            sample_key, _ = jax.random.split(jax.random.fold_in(key, update))
            return windows.starts(steps, sample_key, self._learner.settings.batch_size)

        return jax.vmap(one)(first + np.arange(self._updates))

    def _scan(self, state: LearnerState, steps: frame_stores.FedStore, gathered: jax.Array) -> Any:
        def scan(state: LearnerState, steps: frame_stores.FedStore, gathered: jax.Array) -> Any:
            def body(state: LearnerState, some: jax.Array) -> Any:
                data = dataclasses.replace(steps, observation=some)
                return self._learner._sample_and_update(data, state)

            return jax.lax.scan(body, state, gathered)

        return parallel.over(self._learner.mesh, scan, fed=True)(state, steps, gathered)

    def __call__(self, state: LearnerState, data: frame_stores.Host) -> tuple[LearnerState, Any]:
        """As the compiled `Learner.run`."""
        starts = np.asarray(self._draw(state.key, state.updates, data.steps))
        stack, pixels = data.steps.stack, math.prod(data.steps.frame_shape)
        rest = (self._length + stack - 1, pixels)
        of_update = starts.shape[1] * math.prod(rest)
        most = max(1, _PIECE // of_update)
        piece = max(n for n in range(1, most + 1) if self._updates % n == 0)  # one compilation
        pieces = np.split(starts, self._updates // piece)

        def gather(some: np.ndarray) -> jax.Array:
            def part(index: tuple[slice, ...]) -> np.ndarray:
                of = some[index[:2]]
                return data.gather(of.ravel(), self._length).reshape(*of.shape, *rest)

            return parallel.fed((*some.shape, *rest), part, self._learner.mesh)

        losses: list[Any] = []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            ahead = collections.deque(pool.submit(gather, some) for some in pieces[:_AHEAD])
            for number in range(len(pieces)):
                gathered = ahead.popleft().result()
                if number + _AHEAD < len(pieces):
                    ahead.append(pool.submit(gather, pieces[number + _AHEAD]))
                state, found = self._run(state, data.steps, gathered)
                if losses:
                    jax.block_until_ready(losses[-1])  # The device holds no more than two.
                losses.append(found)
        join = functools.partial(np.concatenate, axis=0)
        return state, jax.tree.map(lambda *parts: join(parts), *losses)
