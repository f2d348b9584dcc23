"""Windows drawn from a dataset on the device.

A window starts at any recorded transition and may run over its episode's end. Then it
repeats the last step, marked as not real; the absorbing-state rules of the losses follow
from the marks (value and reward 0 and a uniform policy past a true end; past a
truncation nothing is known).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unplugged.common import checks
from unplugged.data import bits, datasets
from unplugged.model.actions import Actions, Discrete


@dataclasses.dataclass(frozen=True)
class Store:
    """A dataset's N steps on the device.

    Attributes:
      observation: [N, ...] float32, or [N, bytes] uint8 if packed. Of a dataset with masks [N, D +
        A], which actions are allowed at its end, as `networks.masked` takes it.
      action: [N] int32, or [N, D] float32 in [-1, 1].
      reward: [N] float32.
      discount: [N] float32, 0 where the episode truly ends.
      end: [N] int32, index of the last step of each step's episode.
      start: [M] int32, indices of the M recorded transitions.
      packed_shape: shape of an observation whose bits are packed; None: not packed.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    discount: jax.Array
    end: jax.Array
    start: jax.Array
    packed_shape: tuple[int, ...] | None = None

    def observe(self, index: jax.Array) -> jax.Array:
        """Observations at steps [...], float32 [..., *shape]."""
        observation = self.observation[index]
        if self.packed_shape is None:
            return observation
        return bits.unpack(observation, self.packed_shape)


jax.tree_util.register_dataclass(
    Store,
    data_fields=["observation", "action", "reward", "discount", "end", "start"],
    meta_fields=["packed_shape"],
)


class Windows(NamedTuple):
    """B windows of T steps, time first.

    Attributes:
      observation: [T, B, ...] float32.
      action: [T, B] int32, or [T, B, D] float32; meaningless where not real.
      reward: [T, B] float32, what followed the action; 0 where not real.
      discount: [T, B] float32, 0 at and after a true end, else 1.
      real: [T, B] bool, whether an action was recorded at this step.
      known: [T, B] bool, whether the state is known: within the episode, its last
        observation included, or absorbed after a true end.
      improved: an `improvement.Improvement` that is known already, arrays [T, B, ...], or
        [K + 1, B, ...] where values do not bootstrap from it; None: the learner makes its own.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    discount: jax.Array
    real: jax.Array
    known: jax.Array
    improved: Any = None

    @property
    def absorbing(self) -> jax.Array:
        """[T, B] bool: the episode has truly ended at or before this state."""
        return ~self.real & (self.discount == 0.0)


def store(dataset: datasets.Dataset) -> Store:
    """Puts a dataset on the device.

    Raises:
      DatasetError: if it breaks the contract of `Dataset`.
    """
    datasets.validate(dataset)
    last = np.flatnonzero(dataset.is_last)
    lengths = np.diff(last, prepend=-1)
    shape = dataset.metadata.get("packed_shape")
    observation = dataset.observation
    if dataset.allowed is not None:
        if shape or observation.ndim != 2:
            raise datasets.DatasetError(
                "masks are for observations that are vectors, not "
                f"{list(dataset.observation_shape)}"
            )
        observation = np.concatenate([observation, dataset.allowed.astype(np.float32)], axis=1)
    return Store(
        observation=jnp.asarray(observation, jnp.uint8 if shape else jnp.float32),
        action=jnp.asarray(dataset.action),
        reward=jnp.asarray(dataset.reward, jnp.float32),
        discount=jnp.asarray(dataset.discount, jnp.float32),
        end=jnp.asarray(np.repeat(last, lengths), jnp.int32),
        start=jnp.asarray(np.flatnonzero(~dataset.is_last), jnp.int32),
        packed_shape=tuple(shape) if shape else None,
    )


def seen(shape: Sequence[int], actions: Actions) -> tuple[int, ...]:
    """The shape of what networks see of an observation: masks, if there are some, are added."""
    if isinstance(actions, Discrete) and actions.masked:
        return (shape[0] + actions.num_actions,)
    return tuple(shape)


def described(
    shape: Sequence[int], packed: bool, steps: int, transitions: int, actions: Actions
) -> Store:
    """The form of a store without its content, for `jax.eval_shape` and lowering.

    Args:
      shape: of one observation.
      packed: whether its bits are packed.
      steps: N.
      transitions: M.
      actions: the action space.
    """

    def array(length: int, kind: Any, *rest: int) -> Any:  # Stands for an array; JAX takes it.
        return jax.ShapeDtypeStruct((length, *rest), kind)

    rest = (-(-math.prod(shape) // 8),) if packed else seen(shape, actions)
    return Store(
        observation=array(steps, jnp.uint8 if packed else jnp.float32, *rest),
        action=array(steps, actions.dtype, *actions.shape),
        reward=array(steps, jnp.float32),
        discount=array(steps, jnp.float32),
        end=array(steps, jnp.int32),
        start=array(transitions, jnp.int32),
        packed_shape=tuple(shape) if packed else None,
    )


def at(data: Store, start: jax.Array, length: int) -> Windows:
    """The windows of `length` steps that begin at the transitions `start` [B], an int32 each.

    Raises:
      ValueError: if `start` has another form or `length` is none; or, outside of compiled code,
        if `start` is no recorded transition.
    """
    checks.within("length of windows", length, 1, integer=True)
    if start.ndim != 1 or not jnp.issubdtype(start.dtype, jnp.integer):
        raise ValueError(f"start must be whole numbers [B], got {start.dtype} {list(start.shape)}")
    if not any(isinstance(x, jax.core.Tracer) for x in (start, data.start)):
        known = np.isin(start, data.start)
        if not known.all():
            raise ValueError(f"no transition begins at step {np.asarray(start)[~known][0]}")
    end = data.end[start]
    wanted = start + jnp.arange(length)[:, None]
    index = jnp.minimum(wanted, end)
    discount = data.discount[index]
    return Windows(
        observation=data.observe(index),
        action=data.action[index],
        reward=data.reward[index],
        discount=discount,
        real=wanted < end,
        known=(wanted <= end) | (discount == 0.0),
    )


def starts(data: Store, key: jax.Array, batch_size: int) -> jax.Array:
    """First steps [B] of the windows that `sample` draws.

    Raises:
      ValueError: if `batch_size` is no positive number.
    """
    checks.within("batch_size", batch_size, 1, integer=True)
    return data.start[jax.random.randint(key, [batch_size], 0, data.start.shape[0])]


def sample(data: Store, key: jax.Array, batch_size: int, length: int) -> Windows:
    """Draws windows uniformly over transitions, with replacement.

    Raises:
      ValueError: if `batch_size` or `length` is no positive number.
    """
    return at(data, starts(data, key, batch_size), length)
