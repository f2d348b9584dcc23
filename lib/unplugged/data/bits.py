"""Observations that are all 0 and 1, eight to a byte on disk and in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def pack(observation: jax.Array, dimensions: int) -> jax.Array:
    """Bits [..., *shape], `shape` of that many dimensions, to bytes [..., bytes] uint8.

    Raises:
      ValueError: if there are not that many dimensions; or, outside of compiled code, if a value
        is neither 0 nor 1.
    """
    if not 0 <= dimensions <= observation.ndim:
        raise ValueError(f"{dimensions} dimensions of an array {list(observation.shape)}")
    if not isinstance(observation, jax.core.Tracer) and not np.isin(observation, (0, 1)).all():
        raise ValueError("only 0 and 1 can be packed to bits")
    flat = observation.reshape(*observation.shape[: observation.ndim - dimensions], -1)
    return jnp.packbits(flat.astype(bool), axis=-1)


def unpack(packed: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Bytes [..., bytes] to observations [..., *shape] float32, the inverse of `pack`.

    Raises:
      ValueError: if they are not as many bytes, uint8, as `shape` needs.
    """
    size = -(-math.prod(shape) // 8)
    if packed.dtype != np.uint8 or packed.shape[-1:] != (size,):
        raise ValueError(
            f"observations of shape {tuple(shape)} packed to bits must be uint8 [..., {size}], got "
            f"{packed.dtype} {list(packed.shape)}"
        )
    flat = jnp.unpackbits(packed, axis=-1, count=math.prod(shape))
    return flat.reshape(*packed.shape[:-1], *shape).astype(jnp.float32)
