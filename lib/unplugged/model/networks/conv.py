"""Small convolutional networks."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from unplugged.model.actions import Actions
from unplugged.model.networks import images, layers
from unplugged.model.networks.base import Model


def conv(
    *,
    observation_shape: Sequence[int],
    actions: Actions,
    num_bins: int,
    representation: Sequence[int],
    dynamics: Sequence[int],
    prediction: Sequence[int],
) -> Model:
    """Small convolutional networks for images such as MinAtar's 10 x 10 x C.

    Args:
      observation_shape: height, width, channels.
      actions: the action space, discrete.
      num_bins: bins of the reward and value distributions.
      representation: channels of the 3 x 3 convolutions of h; the first halves the image.
      dynamics: channels of the convolutions of g, whose output is added to the state; the
        last equals the last of `representation`.
      prediction: hidden units of the trunks of f and of the reward head.

    Raises:
      ValueError: if representation and dynamics end in different channels, or observations are
        no images.
    """
    images.check_image(observation_shape)
    if representation[-1] != dynamics[-1]:
        raise ValueError(
            f"representation ends in {representation[-1]} channels and dynamics in "
            f"{dynamics[-1]}: both must give the same state"
        )

    def represent(observation: jax.Array) -> jax.Array:
        x = observation
        for i, channels in enumerate(representation):
            x = jax.nn.relu(x) if i else x
            x = layers.Convolution(channels, stride=1 if i else 2, name=f"representation_{i}")(x)
        return x

    def step(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = layers.state_action_convolution(jax.nn.relu(state), action, dynamics[0], actions)
        for i, channels in enumerate(dynamics[1:]):
            x = layers.Convolution(channels, name=f"dynamics_{i}")(jax.nn.relu(x))
        following = state + x
        trunk = layers.perceptron(
            layers.flat(jax.nn.relu(following)), prediction, "reward_trunk", activate_final=True
        )
        return layers.head(trunk, num_bins, "reward"), following

    def predict(state: jax.Array) -> tuple[jax.Array, jax.Array]:
        trunk = layers.perceptron(
            layers.flat(jax.nn.relu(state)), prediction, "trunk", activate_final=True
        )
        return layers.head(trunk, actions.num_parameters, "policy"), layers.head(
            trunk, num_bins, "value"
        )

    return images.bundle(represent, step, predict, observation_shape, actions, num_bins)
