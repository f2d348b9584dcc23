"""The learned model: representation, dynamics and prediction as three pure functions.

Every network is the same bundle, `Model`, so nothing else knows which one it is.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from unplugged.model import transforms

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


# --- Pixels ------------------------------------------------------------------------------


def _over_images(layer: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Applies a layer for [N, height, width, channels] to [..., height, width, channels]."""
    y = layer(x.reshape(-1, *x.shape[-3:]))
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def _pads(x: jax.Array, w: jax.Array, stride: int, padding: str) -> Sequence[tuple[int, int]]:
    return jax.lax.padtype_to_pads(x.shape[1:3], w.shape[:2], (stride, stride), padding)


def _correlate(
    x: jax.Array, w: jax.Array, stride: int, pads: str | Sequence[tuple[int, int]]
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, w: jax.Array, stride: int, padding: str) -> jax.Array:
    """A convolution whose gradients are fast on a CPU, also inside a compiled loop.

    XLA's CPU backend takes ten times as long for the gradients of a convolution inside a
    loop as outside of it, but not for matrix products nor for another convolution, of
    which the gradients here are made.

    Args:
      x: [N, height, width, channels].
      w: [rows, columns, channels, outputs].
      stride: of both axes.
      padding: "SAME" (with zeros) or "VALID".

    Returns:
      [N, height', width', outputs].
    """
    return _correlate(x, w, stride, padding)


def _convolve_forward(x: jax.Array, w: jax.Array, stride: int, padding: str) -> Any:
    return _correlate(x, w, stride, padding), (x, w)


def _convolve_backward(stride: int, padding: str, saved: Any, g: jax.Array) -> Any:
    x, w = saved
    pads = _pads(x, w, stride, padding)
    if stride == 1:
        inverse = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(w.shape[:2], pads)]
        x_gradient = _correlate(g, w[::-1, ::-1].swapaxes(2, 3), 1, inverse)
    else:
        (x_gradient,) = jax.vjp(lambda x: _correlate(x, w, stride, padding), x)[1](g)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = ((size - 1) * stride + 1 for size in g.shape[1:3])
    w_gradient = [
        jnp.einsum(
            "nyxi,nyxo->io",
            padded[:, row : row + height : stride, column : column + width : stride],
            g,
        )
        for row in range(w.shape[0])
        for column in range(w.shape[1])
    ]
    return x_gradient, jnp.stack(w_gradient).reshape(w.shape)


convolve.defvjp(_convolve_forward, _convolve_backward)


class Convolution(hk.Module):
    """A 3 x 3 convolution over the last three axes of [..., height, width, channels]."""

    def __init__(
        self,
        channels: int,
        *,
        stride: int = 1,
        padding: str = "SAME",
        with_bias: bool = True,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self._channels, self._stride, self._padding = channels, stride, padding
        self._with_bias = with_bias

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., height, width, channels] to [..., height', width', outputs]."""
        shape = [3, 3, x.shape[-1], self._channels]
        init = hk.initializers.TruncatedNormal(1.0 / (9 * x.shape[-1]) ** 0.5)
        w = hk.get_parameter("w", shape, x.dtype, init=init)
        y = _over_images(lambda x: convolve(x, w, self._stride, self._padding), x)
        if self._with_bias:
            y = y + hk.get_parameter("b", [self._channels], x.dtype, init=jnp.zeros)
        return y


def _state_action_convolution(
    state: jax.Array, action: jax.Array, channels: int, num_actions: int
) -> jax.Array:
    """A convolution on the state and the action's one-hot planes, as a sum of two.

    Shapes of state [..., height, width, channels] and action [...] broadcast, so that the
    state's part is computed once for all actions, and each action's part once for all states.
    """
    size = state.shape[-3:-1]
    planes = jnp.broadcast_to(
        jnp.eye(num_actions)[:, None, None], (num_actions, *size, num_actions)
    )
    of_action = Convolution(channels, with_bias=False, name="action")(planes)
    one_hot = jax.nn.one_hot(action, num_actions)
    chosen = (one_hot @ _flat(of_action)).reshape(*action.shape, *size, channels)
    return Convolution(channels, name="state")(state) + chosen


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-3], -1)


def _check_image(observation_shape: Sequence[int]) -> None:
    """Raises ValueError unless observations are images [height, width, channels]."""
    if len(observation_shape) != 3:
        raise ValueError(
            f"observations of shape {list(observation_shape)} are no images [height, width, "
            'channels], which convolutions need; use network "mlp"'
        )


def _bundle(
    represent: Callable[[jax.Array], jax.Array],
    step: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    predict: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    observation_shape: Sequence[int],
    num_actions: int,
    num_bins: int,
) -> Model:
    """A `Model` of three haiku functions on images, its states flattened to vectors."""
    r = hk.without_apply_rng(hk.transform(represent))
    g = hk.without_apply_rng(hk.transform(step))
    f = hk.without_apply_rng(hk.transform(predict))
    example = jnp.zeros([1, *observation_shape])
    shape = jax.eval_shape(lambda: r.apply(r.init(jax.random.key(0), example), example)).shape[1:]

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, 3)
        state = jnp.zeros([1, *shape])
        return {
            "representation": r.init(keys[0], example),
            "dynamics": g.init(keys[1], state, jnp.zeros([1], jnp.int32)),
            "prediction": f.init(keys[2], state),
        }

    def image(state: jax.Array) -> jax.Array:
        return state.reshape(*state.shape[:-1], *shape)

    def dynamics(
        params: Params, state: jax.Array, action: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        reward_logits, following = g.apply(params["dynamics"], image(state), action)
        return reward_logits, _flat(following)

    return Model(
        init=init,
        represent=lambda params, observation: _flat(r.apply(params["representation"], observation)),
        dynamics=dynamics,
        predict=lambda params, state: f.apply(params["prediction"], image(state)),
        num_actions=num_actions,
        support=transforms.Support(num_bins),
    )


def conv(
    *,
    observation_shape: Sequence[int],
    num_actions: int,
    num_bins: int,
    representation: Sequence[int],
    dynamics: Sequence[int],
    prediction: Sequence[int],
) -> Model:
    """Small convolutional networks for images such as MinAtar's 10 x 10 x C.

    Args:
      observation_shape: height, width, channels.
      num_actions: size of the discrete action space.
      num_bins: bins of the reward and value distributions.
      representation: channels of the 3 x 3 convolutions of h; the first halves the image.
      dynamics: channels of the convolutions of g, whose output is added to the state; the
        last equals the last of `representation`.
      prediction: hidden units of the trunks of f and of the reward head.

    Raises:
      ValueError: if representation and dynamics end in different channels, or observations are
        no images.
    """
    _check_image(observation_shape)
    if representation[-1] != dynamics[-1]:
        raise ValueError(
            f"representation ends in {representation[-1]} channels and dynamics in "
            f"{dynamics[-1]}: both must give the same state"
        )

    def represent(observation: jax.Array) -> jax.Array:
        x = observation
        for i, channels in enumerate(representation):
            x = jax.nn.relu(x) if i else x
            x = Convolution(channels, stride=1 if i else 2, name=f"representation_{i}")(x)
        return x

    def step(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = _state_action_convolution(jax.nn.relu(state), action, dynamics[0], num_actions)
        for i, channels in enumerate(dynamics[1:]):
            x = Convolution(channels, name=f"dynamics_{i}")(jax.nn.relu(x))
        following = state + x
        trunk = _perceptron(
            _flat(jax.nn.relu(following)), prediction, "reward_trunk", activate_final=True
        )
        return _head(trunk, num_bins, "reward"), following

    def predict(state: jax.Array) -> tuple[jax.Array, jax.Array]:
        trunk = _perceptron(_flat(jax.nn.relu(state)), prediction, "trunk", activate_final=True)
        return _head(trunk, num_actions, "policy"), _head(trunk, num_bins, "value")

    return _bundle(represent, step, predict, observation_shape, num_actions, num_bins)


def _norm(x: jax.Array, name: str) -> jax.Array:
    """Layer normalisation over height, width and channels."""
    return hk.LayerNorm(axis=(-3, -2, -1), create_scale=True, create_offset=True, name=name)(x)


def _residual(x: jax.Array, name: str) -> jax.Array:
    """A ResNet v2 block: twice normalisation, ReLU, 3 x 3 convolution; then the input added."""
    channels = x.shape[-1]
    y = Convolution(channels, name=f"{name}_conv_0")(jax.nn.relu(_norm(x, f"{name}_norm_0")))
    y = Convolution(channels, name=f"{name}_conv_1")(jax.nn.relu(_norm(y, f"{name}_norm_1")))
    return x + y


def _last(x: jax.Array) -> jax.Array:
    """What the heads see of the last block: normalised and rectified, as vectors."""
    return _flat(jax.nn.relu(_norm(x, "norm")))


def _halve(x: jax.Array) -> jax.Array:
    """Average pooling, 3 x 3, stride 2."""
    return _over_images(hk.AvgPool((3, 3, 1), (2, 2, 1), "SAME"), x)


def resnet(
    *,
    observation_shape: Sequence[int],
    num_actions: int,
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
      num_actions: size of the discrete action space.
      num_bins: bins of the reward and value distributions.
      representation: channels of the residual blocks of h after the shrinking, all equal.
      dynamics: channels of the residual blocks of g, the same; f has as many blocks.
      prediction: hidden units of the policy, value and reward heads.

    Raises:
      ValueError: if the channels are not all equal, or observations are no images.
    """
    _check_image(observation_shape)
    if len({*representation, *dynamics}) != 1:
        raise ValueError(
            f"a ResNet's blocks have equal channels, got representation {list(representation)} "
            f"and dynamics {list(dynamics)}"
        )
    channels = dynamics[0]

    def represent(observation: jax.Array) -> jax.Array:
        if observation.shape[-2] >= 32:
            x = Convolution(channels // 2, stride=2, name="down_0")(observation)
            x = _residual(x, "down_block_0")
            x = Convolution(channels, stride=2, name="down_1")(x)
            x = _residual(_residual(x, "down_block_1"), "down_block_2")
            x = _halve(_residual(_halve(x), "down_block_3"))
        else:
            x = Convolution(channels, name="down_0")(observation)
        for i in range(len(representation)):
            x = _residual(x, f"block_{i}")
        return x

    def step(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = _state_action_convolution(state, action, channels, num_actions)
        for i in range(len(dynamics)):
            x = _residual(x, f"block_{i}")
        trunk = _perceptron(_last(x), prediction, "reward_trunk", activate_final=True)
        return _head(trunk, num_bins, "reward"), x

    def predict(state: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = state
        for i in range(len(dynamics)):
            x = _residual(x, f"block_{i}")
        last = _last(x)
        policy = _perceptron(last, prediction, "policy_trunk", activate_final=True)
        value = _perceptron(last, prediction, "value_trunk", activate_final=True)
        return _head(policy, num_actions, "policy"), _head(value, num_bins, "value")

    return _bundle(represent, step, predict, observation_shape, num_actions, num_bins)


NETWORKS = {"mlp": mlp, "conv": conv, "resnet": resnet}
