"""Scalars as categorical distributions: the invertible transform and the two-hot code.

ROSMO, Appendix A.2; Pohlen et al. (2018). Rewards and values are squashed by `h`, then
spread over the two nearest of equally spaced bins; networks predict logits over the bins.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

EPSILON = 1e-3


def squash(x: jax.Array) -> jax.Array:
    """h(x) = sign(x)(sqrt(|x| + 1) - 1) + 0.001 x, elementwise, any shape.

    ROSMO prints the last term inside the bracket, by which h would not be odd.
    """
    return jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1.0) - 1.0) + EPSILON * x


def unsquash(y: jax.Array) -> jax.Array:
    """The inverse of `squash`, elementwise, any shape."""
    root = jnp.sqrt(1.0 + 4.0 * EPSILON * (jnp.abs(y) + 1.0 + EPSILON))
    # (root - 1) / (2 eps), written without the cancellation of root - 1 near 1.
    magnitude = 2.0 * (jnp.abs(y) + 1.0 + EPSILON) / (root + 1.0)
    return jnp.sign(y) * (magnitude**2 - 1.0)


@dataclasses.dataclass(frozen=True)
class Support:
    """Equally spaced bins over squashed scalars.

    Attributes:
      num_bins: how many bins there are.
      spacing: distance between neighbouring bins, in squashed units.

    The bins lie symmetrically about 0: 601 bins span -300..300 (Atari), 20 bins span
    -9.5..9.5 (BSuite), so that uniform logits mean the scalar 0.
    """

    num_bins: int
    spacing: float = 1.0

    @property
    def bins(self) -> jax.Array:
        """Positions of the bins, squashed units. Shape [num_bins]."""
        return (jnp.arange(self.num_bins) - (self.num_bins - 1) / 2) * self.spacing

    @property
    def limit(self) -> float:
        """The largest scalar that the bins represent."""
        return float(unsquash(self.bins[-1]))

    def two_hot(self, x: jax.Array) -> jax.Array:
        """Scalars [...] to probabilities [..., num_bins]; values beyond the ends are clipped."""
        limit = self.spacing * (self.num_bins - 1) / 2
        y = jnp.clip(squash(x), -limit, limit)
        distance = jnp.abs(y[..., None] - self.bins) / self.spacing
        return jnp.maximum(0.0, 1.0 - distance)

    def scalar(self, logits: jax.Array) -> jax.Array:
        """Logits [..., num_bins] to the scalars [...] that their mean stands for."""
        return unsquash(jax.nn.softmax(logits) @ self.bins)


@dataclasses.dataclass(frozen=True)
class Returns(Support):
    """Outputs that are returns themselves, such as quantiles or heads; the scalar is their mean.

    Nothing is squashed and nothing is clipped.
    """

    @property
    def limit(self) -> float:
        """There is none."""
        return float("inf")

    def two_hot(self, x: jax.Array) -> jax.Array:
        """Raises: outputs that are returns are learned by regression."""
        raise TypeError("outputs that are returns have no two-hot code; regress them")

    def scalar(self, logits: jax.Array) -> jax.Array:
        """Outputs [..., num_bins] to their means [...]."""
        return jnp.mean(logits, axis=-1)


@dataclasses.dataclass(frozen=True)
class Atoms(Support):
    """Equally spaced returns, not squashed: the bins of D4PG's critic.

    51 atoms with the default spacing span -150..150, as in its authors' code.
    """

    spacing: float = 6.0

    @property
    def limit(self) -> float:
        """The largest return that the atoms represent."""
        return self.spacing * (self.num_bins - 1) / 2

    def two_hot(self, x: jax.Array) -> jax.Array:
        """Returns [...] to probabilities [..., num_bins]; returns beyond the ends are clipped."""
        y = jnp.clip(x, -self.limit, self.limit)
        return jnp.maximum(0.0, 1.0 - jnp.abs(y[..., None] - self.bins) / self.spacing)

    def scalar(self, logits: jax.Array) -> jax.Array:
        """Logits [..., num_bins] to mean returns [...]."""
        return jax.nn.softmax(logits) @ self.bins
