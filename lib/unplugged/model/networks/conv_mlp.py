"""Convolutions to a vector, and perceptrons on it."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from unplugged.model.actions import Actions
from unplugged.model.networks import images, layers, vectors
from unplugged.model.networks.base import Model


def conv_mlp(
    *,
    observation_shape: Sequence[int],
    actions: Actions,
    num_bins: int,
    representation: Sequence[int],
    dynamics: Sequence[int],
    prediction: Sequence[int],
) -> Model:
    """Small convolutions for images, whose state is a vector: a step is matrix products only.

    The state of an observation is normalised over its units, since few pixels are on: without,
    MuZero Unplugged began to learn late on breakout.

    Args:
      observation_shape: height, width, channels.
      actions: the action space.
      num_bins: bins of the reward and value distributions.
      representation: channels of the 3 x 3 convolutions of h, of which the first halves the
        image, and last the units of the state.
      dynamics: layer sizes of the perceptron of g, whose output is added to the state; the last
        equals the last of `representation`.
      prediction: hidden units of the trunks of f and of the reward head.

    Raises:
      ValueError: if representation and dynamics end in different state sizes, there is no
        convolution, or observations are no images.
    """
    images.check_image(observation_shape)
    vectors.check_state(representation, dynamics)
    *channels, units = representation
    if not channels:
        raise ValueError(
            f"representation {list(representation)} has no convolution: give channels, then the "
            'units of the state, such as [16, 16, 128]; network "mlp" has none'
        )

    def represent(observation: jax.Array) -> jax.Array:
        x = observation
        for i, size in enumerate(channels):
            x = layers.Convolution(size, stride=1 if i else 2, name=f"representation_{i}")(x)
            x = jax.nn.relu(x)
        x = layers.Linear(units, name="representation")(layers.flat(x))
        return layers.norm(x, -1, "norm")

    def step(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = layers.state_action_linear(jax.nn.relu(state), action, dynamics[0], actions)
        if len(dynamics) > 1:
            x = layers.perceptron(jax.nn.relu(x), dynamics[1:], "dynamics")
        following = state + x
        trunk = layers.perceptron(
            jax.nn.relu(following), prediction, "reward_trunk", activate_final=True
        )
        return layers.head(trunk, num_bins, "reward"), following

    def predict(state: jax.Array) -> tuple[jax.Array, jax.Array]:
        trunk = layers.perceptron(jax.nn.relu(state), prediction, "trunk", activate_final=True)
        return layers.head(trunk, actions.num_parameters, "policy"), layers.head(
            trunk, num_bins, "value"
        )

    return vectors.bundle(represent, step, predict, observation_shape, units, actions, num_bins)
