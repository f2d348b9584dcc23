"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from unplugged.model.actions import Actions
from unplugged.model.networks import layers, vectors
from unplugged.model.networks.base import Model


def mlp(
    *,
    observation_shape: Sequence[int],
    actions: Actions,
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
      actions: the action space.
      num_bins: bins of the reward and value distributions.
      representation: layer sizes of h.
      dynamics: layer sizes of g; the last equals the last of `representation`.
      prediction: layer sizes of the trunks of f and of the reward head.

    Raises:
      ValueError: if representation and dynamics end in different state sizes.
    """
    vectors.check_state(representation, dynamics)

    def represent(observation: jax.Array) -> jax.Array:
        flat = observation.reshape(*observation.shape[: -len(observation_shape)], -1)
        return layers.perceptron(flat, representation, "representation")

    def step(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        next_state = layers.state_action_linear(state, action, dynamics[0], actions)
        if len(dynamics) > 1:
            next_state = layers.perceptron(jax.nn.relu(next_state), dynamics[1:], "dynamics")
        trunk = layers.perceptron(next_state, prediction, "reward_trunk", activate_final=True)
        return layers.head(trunk, num_bins, "reward"), next_state

    def predict(state: jax.Array) -> tuple[jax.Array, jax.Array]:
        trunk = layers.perceptron(state, prediction, "trunk", activate_final=True)
        return layers.head(trunk, actions.num_parameters, "policy"), layers.head(
            trunk, num_bins, "value"
        )

    return vectors.bundle(
        represent, step, predict, observation_shape, representation[-1], actions, num_bins
    )
