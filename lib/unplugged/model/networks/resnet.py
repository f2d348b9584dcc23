"""Residual networks."""

from __future__ import annotations

from collections.abc import Sequence

import haiku as hk
import jax

from unplugged.model.actions import Actions
from unplugged.model.networks import images, layers
from unplugged.model.networks.base import Model


def _norm(x: jax.Array, name: str) -> jax.Array:
    """Layer normalisation over height, width and channels."""
    return layers.norm(x, (-3, -2, -1), name)


def _residual(x: jax.Array, name: str) -> jax.Array:
    """A ResNet v2 block: twice normalisation, ReLU, 3 x 3 convolution; then the input added."""
    channels = x.shape[-1]
    y = layers.Convolution(channels, name=f"{name}_conv_0")(jax.nn.relu(_norm(x, f"{name}_norm_0")))
    y = layers.Convolution(channels, name=f"{name}_conv_1")(jax.nn.relu(_norm(y, f"{name}_norm_1")))
    return x + y


def _last(x: jax.Array) -> jax.Array:
    """What the heads see of the last block: normalised and rectified, as vectors."""
    return layers.flat(jax.nn.relu(_norm(x, "norm")))


def _halve(x: jax.Array) -> jax.Array:
    """Average pooling, 3 x 3, stride 2."""
    return layers.over_images(hk.AvgPool((3, 3, 1), (2, 2, 1), "SAME"), x)


def resnet(
    *,
    observation_shape: Sequence[int],
    actions: Actions,
    num_bins: int,
    representation: Sequence[int],
    dynamics: Sequence[int],
    prediction: Sequence[int],
) -> Model:
    """ResNet v2 networks with layer normalisation (ROSMO, Appendix D.2.1).

    Images of 32 and more pixels are shrunk sixteenfold as in the paper: at 84 x 84 x 4 a
    convolution to 42 x 42 at half the channels, a block, a convolution to 21 x 21, two
    blocks, pooling to 11 x 11, a block, pooling to 6 x 6. Smaller images are not shrunk.
    As ResNet v2 does behind its last block, the heads' input is normalised and rectified.
    The paper's sizes are representation [64] * 6, dynamics [64] * 2, prediction [128] * 2.

    Args:
      observation_shape: height, width, channels.
      actions: the action space, discrete.
      num_bins: bins of the reward and value distributions.
      representation: channels of the residual blocks of h after the shrinking, all equal.
      dynamics: channels of the residual blocks of g, the same; f has as many blocks.
      prediction: hidden units of the policy, value and reward heads.

    Raises:
      ValueError: if the channels are not all equal, or observations are no images.
    """
    images.check_image(observation_shape)
    if len({*representation, *dynamics}) != 1:
        raise ValueError(
            f"a ResNet's blocks have equal channels, got representation {list(representation)} "
            f"and dynamics {list(dynamics)}"
        )
    channels = dynamics[0]

    def represent(observation: jax.Array) -> jax.Array:
        if observation.shape[-2] >= 32:
            x = layers.Convolution(channels // 2, stride=2, name="down_0")(observation)
            x = _residual(x, "down_block_0")
            x = layers.Convolution(channels, stride=2, name="down_1")(x)
            x = _residual(_residual(x, "down_block_1"), "down_block_2")
            x = _halve(_residual(_halve(x), "down_block_3"))
        else:
            x = layers.Convolution(channels, name="down_0")(observation)
        for i in range(len(representation)):
            x = _residual(x, f"block_{i}")
        return x

    def step(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = layers.state_action_convolution(state, action, channels, actions)
        for i in range(len(dynamics)):
            x = _residual(x, f"block_{i}")
        trunk = layers.perceptron(_last(x), prediction, "reward_trunk", activate_final=True)
        return layers.head(trunk, num_bins, "reward"), x

    def predict(state: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = state
        for i in range(len(dynamics)):
            x = _residual(x, f"block_{i}")
        last = _last(x)
        policy = layers.perceptron(last, prediction, "policy_trunk", activate_final=True)
        value = layers.perceptron(last, prediction, "value_trunk", activate_final=True)
        return layers.head(policy, actions.num_parameters, "policy"), layers.head(
            value, num_bins, "value"
        )

    return images.bundle(represent, step, predict, observation_shape, actions, num_bins)
