"""Observations that are all 0 and 1, eight to a byte on disk and in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def pack(observation: jax.Array, dimensions: int) -> jax.Array:
    """Bits [..., *shape], `shape` of that many dimensions, to bytes [..., bytes] uint8."""
    flat = observation.reshape(*observation.shape[: observation.ndim - dimensions], -1)
    return jnp.packbits(flat.astype(bool), axis=-1)


def unpack(packed: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Bytes [..., bytes] to observations [..., *shape] float32, the inverse of `pack`."""
    flat = jnp.unpackbits(packed, axis=-1, count=math.prod(shape))
    return flat.reshape(*packed.shape[:-1], *shape).astype(jnp.float32)
