"""Fully connected residual networks with layer normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from unplugged.model.actions import Actions
from unplugged.model.networks import layers, vectors
from unplugged.model.networks.base import Model


def mlp_resnet(
    *,
    observation_shape: Sequence[int],
    actions: Actions,
    num_bins: int,
    representation: Sequence[int],
    dynamics: Sequence[int],
    prediction: Sequence[int],
) -> Model:
    """The pre-activation residual blocks of the image networks, for vector observations.

    As in Acme's networks for control, the first layer is normalised and goes through
    tanh. States are normalised, and so is every hidden layer before its ReLU. All heads start at
    zero.

    Args:
      observation_shape: shape of one observation; observations are flattened.
      actions: the action space.
      num_bins: bins of the reward and value distributions.
      representation: hidden units of each residual block of h, and last the units of the state.
      dynamics: layer sizes of the block of g, whose output is added to the state; the last
        equals the last of `representation`.
      prediction: layer sizes of the trunk of f; the reward head has a trunk of the same sizes.

    Raises:
      ValueError: if representation and dynamics end in different state sizes.
    """
    vectors.check_state(representation, dynamics)
    *blocks, units = representation

    def represent(observation: jax.Array) -> jax.Array:
        flat = observation.reshape(*observation.shape[: -len(observation_shape)], -1)
        x = jnp.tanh(layers.norm(layers.Linear(units, name="first")(flat), -1, "first_norm"))
        for i, size in enumerate(blocks):
            y = jax.nn.relu(layers.norm(x, -1, f"block_{i}_norm"))
            y = _normalised(y, [size], f"block_{i}")
            x = x + layers.Linear(units, name=f"block_{i}_out")(y)
        return layers.norm(x, -1, "norm")

    def step(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = layers.state_action_linear(jax.nn.relu(state), action, dynamics[0], actions)
        if len(dynamics) > 1:
            x = jax.nn.relu(layers.norm(x, -1, "action_norm"))
            x = _normalised(x, dynamics[1:-1], "dynamics")
            x = layers.Linear(units, name="dynamics_out")(x)
        following = layers.norm(state + x, -1, "norm")
        trunk = _normalised(jax.nn.relu(following), prediction, "reward_trunk")
        return layers.head(trunk, num_bins, "reward"), following

    def predict(state: jax.Array) -> tuple[jax.Array, jax.Array]:
        trunk = _normalised(jax.nn.relu(state), prediction, "trunk")
        return layers.head(trunk, actions.num_parameters, "policy"), layers.head(
            trunk, num_bins, "value"
        )

    return vectors.bundle(represent, step, predict, observation_shape, units, actions, num_bins)


def _normalised(x: jax.Array, sizes: Sequence[int], name: str) -> jax.Array:
    """Linear layers, each normalised before its ReLU."""
    for i, size in enumerate(sizes):
        x = layers.Linear(size, name=f"{name}_{i}")(x)
        x = jax.nn.relu(layers.norm(x, -1, f"{name}_{i}_norm"))
    return x
