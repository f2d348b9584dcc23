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


def _head(size: int) -> hk.Linear:
    """A linear output that starts at zero: uniform policy, scalars 0."""
    return hk.Linear(size, w_init=jnp.zeros)


class _ActionLinear(hk.Module):
    """A linear layer on state and one-hot action, concatenated, as a sum of two products.

    Shapes of state and action broadcast, so the state's product is shared by all actions.
    """

    def __init__(self, output_size: int, num_actions: int):
        super().__init__(name="linear_0")
        self._output_size = output_size
        self._num_actions = num_actions

    def __call__(self, state: jax.Array, action: jax.Array) -> jax.Array:
        fan_in = state.shape[-1] + self._num_actions
        w_init = hk.initializers.TruncatedNormal(1.0 / fan_in**0.5)
        of_state = hk.Linear(self._output_size, w_init=w_init, name="state")
        of_action = hk.Linear(self._output_size, w_init=w_init, with_bias=False, name="action")
        return of_state(state) + of_action(jax.nn.one_hot(action, self._num_actions))


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
        return hk.nets.MLP(representation, name="representation")(flat)

    def step(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = _ActionLinear(dynamics[0], num_actions)(state, action)
        if len(dynamics) > 1:
            hidden = hk.nets.MLP(dynamics[1:], name="dynamics")(jax.nn.relu(hidden))
        trunk = hk.nets.MLP(prediction, activate_final=True, name="reward_trunk")(hidden)
        return _head(num_bins)(trunk), hidden

    def predict(state: jax.Array) -> tuple[jax.Array, jax.Array]:
        trunk = hk.nets.MLP(prediction, activate_final=True, name="prediction")(state)
        return _head(num_actions)(trunk), _head(num_bins)(trunk)

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
