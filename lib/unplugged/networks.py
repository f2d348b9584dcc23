"""The learned model: representation, dynamics and prediction as three pure functions.

Every network is the same bundle, `Model`, so nothing else knows which one it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from unplugged import transforms

Params = Any


@dataclasses.dataclass(frozen=True)
class Model:
    """The functions h, g and f of the papers (ROSMO, Section 2.2).

    Attributes:
      init: key -> parameters, one pytree for the three functions.
      represent: (params, observation [B, ...]) -> state [B, S].
      dynamics: (params, state [..., S], action [...]) -> (reward_logits [..., bins],
        state [..., S]). Leading shapes broadcast: a state [B, 1, S] with actions [1, A] is
        unrolled with every action, and what depends on the state alone is computed once.
      predict: (params, state [..., S]) -> (policy_logits [..., A], value_logits [..., bins]).
      num_actions: A.
      support: what the bins of reward and value logits stand for.
    """

    init: Callable[[jax.Array], Params]
    represent: Callable[[Params, jax.Array], jax.Array]
    dynamics: Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    predict: Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
    num_actions: int
    support: transforms.Support


class _Linear(hk.Module):
    """A linear layer whose weights lie with their longer side last.

    XLA's CPU backend takes four times as long for the weight gradient of a wide-to-narrow
    layer stored the usual way, input first.
    """

    def __init__(
        self,
        output_size: int,
        *,
        with_bias: bool = True,
        fan_in: int | None = None,
        zero: bool = False,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self._output_size = output_size
        self._with_bias = with_bias
        self._fan_in = fan_in
        self._zero = zero

    def __call__(self, x: jax.Array) -> jax.Array:
        inputs, outputs = x.shape[-1], self._output_size
        stddev = 1.0 / (self._fan_in or inputs) ** 0.5
        w_init = jnp.zeros if self._zero else hk.initializers.TruncatedNormal(stddev)
        if outputs < inputs:
            y = x @ hk.get_parameter("w", [outputs, inputs], x.dtype, init=w_init).T
        else:
            y = x @ hk.get_parameter("w", [inputs, outputs], x.dtype, init=w_init)
        if self._with_bias:
            y = y + hk.get_parameter("b", [outputs], x.dtype, init=jnp.zeros)
        return y


def _perceptron(
    x: jax.Array, sizes: Sequence[int], name: str, *, activate_final: bool = False
) -> jax.Array:
    """Linear layers with ReLU between them."""
    for i, size in enumerate(sizes):
        x = _Linear(size, name=f"{name}_{i}")(x)
        if activate_final or i < len(sizes) - 1:
            x = jax.nn.relu(x)
    return x


def _head(x: jax.Array, size: int, name: str) -> jax.Array:
    """A linear output that starts at zero: a uniform policy, the scalar 0."""
    return _Linear(size, zero=True, name=name)(x)


def _state_action_linear(
    state: jax.Array, action: jax.Array, size: int, num_actions: int
) -> jax.Array:
    """A linear layer on state and one-hot action, concatenated, as a sum of two products.

    Shapes of state and action broadcast, so the state's product is shared by all actions.
    """
    fan_in = state.shape[-1] + num_actions
    of_state = _Linear(size, fan_in=fan_in, name="state")(state)
    one_hot = jax.nn.one_hot(action, num_actions)
    return of_state + _Linear(size, fan_in=fan_in, with_bias=False, name="action")(one_hot)


def mlp(
    *,
    observation_shape: Sequence[int],
    num_actions: int,
    num_bins: int,
    representation: Sequence[int],
    dynamics: Sequence[int],
    prediction: Sequence[int],
) -> Model:
    """Fully connected networks for vector observations (ROSMO, Table 4).

    Each list holds the output sizes of a perceptron with ReLU between its layers; the last
    layers of `representation` and `dynamics` give the state and are linear. `prediction`
    is the trunk of the policy and value heads; the reward head has a trunk of the same
    sizes on the next state. All heads start at zero.

    Args:
      observation_shape: shape of one observation; observations are flattened.
      num_actions: size of the discrete action space.
      num_bins: bins of the reward and value distributions.
      representation: layer sizes of h.
      dynamics: layer sizes of g; the last equals the last of `representation`.
      prediction: layer sizes of the trunks of f and of the reward head.

    Raises:
      ValueError: if representation and dynamics end in different state sizes.
    """
    if representation[-1] != dynamics[-1]:
        raise ValueError(
            f"representation ends in {representation[-1]} units and dynamics in "
            f"{dynamics[-1]}: both must give the same state size"
        )

    def represent(observation: jax.Array) -> jax.Array:
        flat = observation.reshape(*observation.shape[: -len(observation_shape)], -1)
        return _perceptron(flat, representation, "representation")

    def step(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        next_state = _state_action_linear(state, action, dynamics[0], num_actions)
        if len(dynamics) > 1:
            next_state = _perceptron(jax.nn.relu(next_state), dynamics[1:], "dynamics")
        trunk = _perceptron(next_state, prediction, "reward_trunk", activate_final=True)
        return _head(trunk, num_bins, "reward"), next_state

    def predict(state: jax.Array) -> tuple[jax.Array, jax.Array]:
        trunk = _perceptron(state, prediction, "trunk", activate_final=True)
        return _head(trunk, num_actions, "policy"), _head(trunk, num_bins, "value")

    h, g, f = (hk.without_apply_rng(hk.transform(fn)) for fn in (represent, step, predict))

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, 3)
        state = jnp.zeros([1, representation[-1]])
        return {
            "representation": h.init(keys[0], jnp.zeros([1, *observation_shape])),
            "dynamics": g.init(keys[1], state, jnp.zeros([1], jnp.int32)),
            "prediction": f.init(keys[2], state),
        }

    return Model(
        init=init,
        represent=lambda params, observation: h.apply(params["representation"], observation),
        dynamics=lambda params, state, action: g.apply(params["dynamics"], state, action),
        predict=lambda params, state: f.apply(params["prediction"], state),
        num_actions=num_actions,
        support=transforms.Support(num_bins),
    )
