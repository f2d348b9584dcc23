"""Layers of all families, laid out for speed on a CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from unplugged.model.actions import Actions, Discrete

SMALL = 10  # Pixels a side up to which a convolution's kernel has its gradient by products.


class Linear(hk.Module):
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
        """[..., inputs] to [..., outputs]."""
        inputs, outputs = x.shape[-1], self._output_size
        stddev = 1.0 / (self._fan_in or inputs) ** 0.5
        w_init = jnp.zeros if self._zero else hk.initializers.TruncatedNormal(stddev)
        if outputs < inputs:
            y = x @ _parameter("w", [outputs, inputs], x.dtype, w_init).T
        else:
            y = x @ _parameter("w", [inputs, outputs], x.dtype, w_init)
        if self._with_bias:
            y = y + _parameter("b", [outputs], x.dtype, jnp.zeros)
        return y


def _parameter(name: str, shape: Sequence[int], dtype: Any, init: Any) -> jax.Array:
    """A parameter, which is float32, in the type that is computed in."""
    return hk.get_parameter(name, shape, jnp.float32, init=init).astype(dtype)


def norm(x: jax.Array, axis: int | Sequence[int], name: str) -> jax.Array:
    """Layer normalisation over some axes, in float32 whatever the type of its input."""
    layer = hk.LayerNorm(axis=axis, create_scale=True, create_offset=True, name=name)
    return layer(x.astype(jnp.float32)).astype(x.dtype)


def perceptron(
    x: jax.Array, sizes: Sequence[int], name: str, *, activate_final: bool = False
) -> jax.Array:
    """Linear layers with ReLU between them."""
    for i, size in enumerate(sizes):
        x = Linear(size, name=f"{name}_{i}")(x)
        if activate_final or i < len(sizes) - 1:
            x = jax.nn.relu(x)
    return x


def head(x: jax.Array, size: int, name: str) -> jax.Array:
    """A linear output that starts at zero: a uniform policy, the scalar 0.

    Always in float32: of 601 bins, rounded logits would shift the scalar by as much as actions
    differ.
    """
    return Linear(size, zero=True, name=name)(x.astype(jnp.float32))


def state_action_linear(
    state: jax.Array, action: jax.Array, size: int, actions: Actions
) -> jax.Array:
    """A linear layer on state and encoded action, concatenated, as a sum of two products.

    Shapes of state and action broadcast, so the state's product is shared by all actions.
    """
    fan_in = state.shape[-1] + actions.num_inputs
    of_state = Linear(size, fan_in=fan_in, name="state")(state)
    encoded = actions.encode(action).astype(state.dtype)
    return of_state + Linear(size, fan_in=fan_in, with_bias=False, name="action")(encoded)


def over_images(layer: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
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
    loop as outside of it, but not for matrix products nor for another convolution in the
    forward's layout, of which the gradients here are made. For the kernel's gradient the
    convolution is the faster; up to `SMALL` pixels a side products stay, which the committed
    runs on MinAtar have.

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
    small = min(g.shape[1:3]) <= SMALL
    if stride == 1:
        x_gradient = _spread(g, w, [(low, x.shape[i + 1] + low) for i, (low, _) in enumerate(pads)])
    elif small:
        (x_gradient,) = jax.vjp(lambda x: _correlate(x, w, stride, padding), x)[1](g)
    else:
        x_gradient = _input_by_phases(g, w, stride, x.shape, pads)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    kernel = _kernel_by_products if small else _kernel_by_convolution
    return x_gradient, kernel(padded, g, stride, w.shape[:2])


def _spread(g: jax.Array, w: jax.Array, within: Sequence[tuple[int, int]]) -> jax.Array:
    """What a convolution of stride 1 sends back to the places [begin, end) of its padded input."""
    pads = [
        (k - 1 - begin, end - n) for k, n, (begin, end) in zip(w.shape[:2], g.shape[1:3], within)
    ]
    return _correlate(g, w[::-1, ::-1].swapaxes(2, 3), 1, pads)


def _input_by_phases(
    g: jax.Array,
    w: jax.Array,
    stride: int,
    shape: Sequence[int],
    pads: Sequence[tuple[int, int]],
) -> jax.Array:
    """The input's gradient: places that are equal modulo the stride are a convolution each."""
    (top, bottom), (left, right) = pads
    height, width = shape[1] + top + bottom, shape[2] + left + right
    rows, columns = -(-height // stride), -(-width // stride)
    phases = [
        _spread(g, w[row::stride, column::stride], [(0, rows), (0, columns)])
        for row in range(stride)
        for column in range(stride)
    ]
    images = jnp.stack(phases, 3).reshape(len(g), rows, columns, stride, stride, -1)
    whole = images.swapaxes(2, 3).reshape(len(g), rows * stride, columns * stride, -1)
    return whole[:, top : top + shape[1], left : left + shape[2]]


def _kernel_by_products(
    x: jax.Array, g: jax.Array, stride: int, sides: tuple[int, int]
) -> jax.Array:
    """The kernel's gradient, a matrix product each place in the kernel; x is padded."""
    height, width = ((size - 1) * stride + 1 for size in g.shape[1:3])
    products = [
        jnp.einsum(
            "nyxi,nyxo->io",
            x[:, row : row + height : stride, column : column + width : stride],
            g,
        )
        for row in range(sides[0])
        for column in range(sides[1])
    ]
    return jnp.stack(products).reshape(*sides, x.shape[-1], g.shape[-1])


def _kernel_by_convolution(
    x: jax.Array, g: jax.Array, stride: int, sides: tuple[int, int]
) -> jax.Array:
    """The same as a convolution of which the images are channels and `g` is the kernel."""
    height, width = ((n - 1) * stride + k for n, k in zip(g.shape[1:3], sides))
    gradient = jax.lax.conv_general_dilated(
        x[:, :height, :width].transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        (1, 1),
        "VALID",
        rhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return gradient.transpose(1, 2, 0, 3)


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
        w = _parameter("w", shape, x.dtype, init)
        y = over_images(lambda x: convolve(x, w, self._stride, self._padding), x)
        if self._with_bias:
            y = y + _parameter("b", [self._channels], x.dtype, jnp.zeros)
        return y


def state_action_convolution(
    state: jax.Array, action: jax.Array, channels: int, actions: Actions
) -> jax.Array:
    """A convolution on the state and the action's one-hot planes, as a sum of two.

    Shapes of state [..., height, width, channels] and action [...] broadcast, so that the
    state's part is computed once for all actions, and each action's part once for all states.
    """
    if not isinstance(actions, Discrete):
        raise ValueError(f"networks over images take discrete actions only, not {actions}")
    num_actions, size = actions.num_actions, state.shape[-3:-1]
    planes = jnp.broadcast_to(
        jnp.eye(num_actions, dtype=state.dtype)[:, None, None],
        (num_actions, *size, num_actions),
    )
    of_action = Convolution(channels, with_bias=False, name="action")(planes)
    one_hot = jax.nn.one_hot(action, num_actions, dtype=state.dtype)
    chosen = (one_hot @ flat(of_action)).reshape(*action.shape, *size, channels)
    return Convolution(channels, name="state")(state) + chosen


def flat(x: jax.Array) -> jax.Array:
    """Images [..., height, width, channels] as vectors."""
    return x.reshape(*x.shape[:-3], -1)
