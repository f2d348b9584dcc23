"""Action spaces as records: how actions are drawn, weighed, and shown to networks.

Continuous actions lie in [-1, 1] in every dimension; environments with other bounds are rescaled.
A policy head gives `num_parameters` numbers a state, of which a record makes a distribution. Its
`sample` is a function of uniform numbers, so that whoever draws decides how many are made.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

SMALLEST_UNIFORM = 2.0**-24  # 0 itself would be drawn as minus infinity
SMALLEST_SCALE = 0.05  # of a normal policy, so that no recorded action is infinitely likely


def _inverse(probabilities: jax.Array, uniform: jax.Array) -> jax.Array:
    """Places [...] by probabilities [..., n], at the quantiles [...]."""
    below = jnp.cumsum(probabilities, axis=-1)[..., :-1]
    return jnp.sum(uniform[..., None] >= below, axis=-1)


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Actions 0 to n - 1; a policy's parameters are its logits.

    Attributes:
      num_actions: how many there are, n.
      masked: whether only some are allowed in each state, of which its observation then tells, see
        `networks.masked`.
    """

    num_actions: int
    masked: bool = False

    dtype: ClassVar[Any] = np.int32
    shape: ClassVar[tuple[int, ...]] = ()
    continuous: ClassVar[bool] = False

    @property
    def num_parameters(self) -> int:
        """Outputs of a policy head."""
        return self.num_actions

    @property
    def num_inputs(self) -> int:
        """Numbers that encode an action."""
        return self.num_actions

    def encode(self, action: jax.Array) -> jax.Array:
        """Actions [...] as networks see them, one-hot [..., n]."""
        return jax.nn.one_hot(action, self.num_actions)

    def sample(self, parameters: jax.Array, uniform: jax.Array) -> jax.Array:
        """Actions [...], of parameters [..., n] and numbers [...] uniform in (0, 1)."""
        return _inverse(jax.nn.softmax(parameters), uniform)

    def log_prob(self, parameters: jax.Array, action: jax.Array) -> jax.Array:
        """log pi(action), of parameters [..., n] and actions [...]. Shape [...]."""
        one_hot = jax.nn.one_hot(action, parameters.shape[-1])
        return jnp.sum(one_hot * jax.nn.log_softmax(parameters), axis=-1)

    def mode(self, parameters: jax.Array) -> jax.Array:
        """The most probable action, of parameters [..., n]. Shape [...]."""
        return jnp.argmax(parameters, axis=-1)

    def uniform(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Actions of the uniform policy. Shape `shape`."""
        return jax.random.randint(key, shape, 0, self.num_actions)


@dataclasses.dataclass(frozen=True)
class Normal:
    """Actions in [-1, 1]^D; a policy is an independent normal distribution in each dimension.

    It is not squashed: what is drawn beyond the bounds is clipped by the environment only. About a
    fifth of the actions that people record stand at a bound, where the density of a squashed one
    has no limit. Of the 2 D parameters the first D give the mean, by tanh, the others the
    scale, by softplus plus `SMALLEST_SCALE`.

    Attributes:
      dims: D.
    """

    dims: int

    dtype: ClassVar[Any] = np.float32
    continuous: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one action."""
        return (self.dims,)

    @property
    def num_parameters(self) -> int:
        """Outputs of a policy head."""
        return 2 * self.dims

    @property
    def num_inputs(self) -> int:
        """Numbers that encode an action."""
        return self.dims

    def moments(self, parameters: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and scale, each [..., D], of parameters [..., 2 D]."""
        mean, scale = jnp.split(parameters, 2, axis=-1)
        return jnp.tanh(mean), jax.nn.softplus(scale) + SMALLEST_SCALE

    def encode(self, action: jax.Array) -> jax.Array:
        """Actions [..., D] as networks see them: clipped to the bounds, as the environment does."""
        return jnp.clip(action, -1.0, 1.0)

    def sample(self, parameters: jax.Array, uniform: jax.Array) -> jax.Array:
        """Actions [..., D], of parameters [..., 2 D] and numbers [..., D] uniform in (0, 1)."""
        mean, scale = self.moments(parameters)
        return mean + scale * jax.scipy.special.ndtri(uniform)

    def log_prob(self, parameters: jax.Array, action: jax.Array) -> jax.Array:
        """Log density of actions [..., D], of parameters [..., 2 D]. Shape [...]."""
        mean, scale = self.moments(parameters)
        z = (action - mean) / scale
        return jnp.sum(-0.5 * z**2 - jnp.log(scale) - 0.5 * math.log(2.0 * math.pi), axis=-1)

    def kl(self, parameters: jax.Array, others: jax.Array) -> jax.Array:
        """KL(pi || other), of parameters [..., 2 D] each. Shape [...]."""
        (mean, scale), (mean_too, scale_too) = self.moments(parameters), self.moments(others)
        ratio = scale / scale_too
        apart = (mean - mean_too) / scale_too
        return jnp.sum(0.5 * (ratio**2 + apart**2 - 1.0) - jnp.log(ratio), axis=-1)

    def mode(self, parameters: jax.Array) -> jax.Array:
        """The mean [..., D], of parameters [..., 2 D]."""
        return self.moments(parameters)[0]

    def uniform(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Actions of the uniform policy within the bounds. Shape [*shape, D]."""
        return jax.random.uniform(key, (*shape, self.dims), minval=-1.0, maxval=1.0)


@dataclasses.dataclass(frozen=True)
class Factored:
    """Actions in [-1, 1]^D, each dimension cut into bins with a categorical policy of its own.

    (Tang and Agrawal, 2020.) What is drawn are the bins' centres, equally spaced from -1 to 1; any
    action counts as the nearest of them. The parameters are logits, D times `bins`.

    Attributes:
      dims: D.
      bins: how many each dimension has, at least 2.
    """

    dims: int
    bins: int

    dtype: ClassVar[Any] = np.float32
    continuous: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one action."""
        return (self.dims,)

    @property
    def num_parameters(self) -> int:
        """Outputs of a policy head."""
        return self.dims * self.bins

    @property
    def num_inputs(self) -> int:
        """Numbers that encode an action."""
        return self.dims

    def logits(self, parameters: jax.Array) -> jax.Array:
        """Parameters [..., D * bins] as logits [..., D, bins]."""
        return parameters.reshape(*parameters.shape[:-1], self.dims, self.bins)

    def _centre(self, index: jax.Array) -> jax.Array:
        return index * (2.0 / (self.bins - 1)) - 1.0

    def encode(self, action: jax.Array) -> jax.Array:
        """Actions [..., D] as networks see them: clipped to the bounds, as the environment does."""
        return jnp.clip(action, -1.0, 1.0)

    def sample(self, parameters: jax.Array, uniform: jax.Array) -> jax.Array:
        """Actions [..., D], of parameters [..., D * bins] and uniform numbers [..., D]."""
        return self._centre(_inverse(jax.nn.softmax(self.logits(parameters)), uniform))

    def log_prob(self, parameters: jax.Array, action: jax.Array) -> jax.Array:
        """Log probability of the bins of actions [..., D]. Shape [...]."""
        index = jnp.round((jnp.clip(action, -1.0, 1.0) + 1.0) * ((self.bins - 1) / 2.0))
        one_hot = jax.nn.one_hot(index, self.bins)
        return jnp.sum(one_hot * jax.nn.log_softmax(self.logits(parameters)), axis=(-2, -1))

    def kl(self, parameters: jax.Array, others: jax.Array) -> jax.Array:
        """KL(pi || other), of parameters [..., D * bins] each. Shape [...]."""
        mine, theirs = (jax.nn.log_softmax(self.logits(x)) for x in (parameters, others))
        return jnp.sum(jnp.exp(mine) * (mine - theirs), axis=(-2, -1))

    def mode(self, parameters: jax.Array) -> jax.Array:
        """The most probable bins' centres [..., D]."""
        return self._centre(jnp.argmax(self.logits(parameters), axis=-1))

    def uniform(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Actions of the uniform policy over the bins. Shape [*shape, D]."""
        return self._centre(jax.random.randint(key, (*shape, self.dims), 0, self.bins))


Continuous = Normal | Factored
Actions = Discrete | Continuous


def of_metadata(metadata: Any) -> Discrete | Normal:
    """The space of a dataset's actions: its metadata have `num_actions` or `action_dims`."""
    if metadata.get("action_dims") is not None:
        return Normal(metadata["action_dims"])
    return Discrete(metadata["num_actions"])


def described(actions: Actions) -> str:
    """For messages: "3 discrete actions", "actions of 6 dimensions"."""
    if isinstance(actions, Discrete):
        return f"{actions.num_actions} discrete actions{' with masks' * actions.masked}"
    return f"continuous actions of {actions.dims} dimension{'s' * (actions.dims > 1)}"


def draw(
    actions: Continuous, key: jax.Array, parameters: jax.Array, number: int | None = None
) -> jax.Array:
    """Actions of policies with parameters [..., P].

    Returns:
      One of each, [..., D]; or `number` of them, [..., number, D].
    """
    shape = parameters.shape[:-1] if number is None else (*parameters.shape[:-1], number)
    uniform = jax.random.uniform(key, (*shape, actions.dims), minval=SMALLEST_UNIFORM)
    return actions.sample(parameters if number is None else parameters[..., None, :], uniform)
