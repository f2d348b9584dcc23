"""Model FLOPs of one rosmo update, counted from the shapes of its matrix products."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

import workload
from unplugged.settings import Settings


def _chain(inputs: int, sizes: Sequence[int]) -> int:
    """Multiply-adds of a perceptron for one input."""
    return sum(a * b for a, b in zip((inputs, *sizes), sizes))


def _convolution(size: int, inputs: int, outputs: int, stride: int = 1) -> int:
    """Multiply-adds of a 3 x 3 convolution of one square image, those with its padding left out."""
    images = -(-size // stride)
    before = max((images - 1) * stride + 3 - size, 0) // 2
    taps = sum(0 <= o * stride + k - before < size for o in range(images) for k in range(3))
    return taps**2 * inputs * outputs


def layers(name: str, settings: Settings) -> dict[str, int]:
    """Multiply-adds of each part of the model, for one observation or state.

    The action's share of the first dynamics layer is the look-up of a row: no product.
    """
    if settings.network == "conv":
        return _image_layers(name, settings)
    observation = math.prod(workload.FORMS[name].observation_shape)
    state, first = settings.representation[-1], settings.dynamics[0]
    width = settings.prediction[-1]
    return {
        "observation": observation * settings.representation[0],
        "representation": _chain(settings.representation[0], settings.representation[1:]),
        "state share": state * first,
        "dynamics": _chain(first, settings.dynamics[1:]),
        "reward": _chain(state, settings.prediction) + width * settings.num_bins,
        "trunk": _chain(state, settings.prediction),
        "policy": width * workload.NUM_ACTIONS,
        "value": width * settings.num_bins,
    }


def _image_layers(name: str, settings: Settings) -> dict[str, int]:
    """`layers` of the small convolutional networks."""
    size, _, channels = workload.FORMS[name].observation_shape
    half, (first, *others) = -(-size // 2), settings.representation
    widths, steps = [first, *others], [*settings.dynamics]
    state = half * half * widths[-1]

    def chain(sizes: Sequence[int]) -> int:
        return sum(_convolution(half, a, b) for a, b in itertools.pairwise(sizes))

    return {
        "observation": _convolution(size, channels, first, stride=2),
        "representation": chain(widths),
        "state share": _convolution(half, widths[-1], steps[0]),
        "dynamics": chain(steps),
        "reward": _chain(state, settings.prediction) + settings.prediction[-1] * settings.num_bins,
        "trunk": _chain(state, settings.prediction),
        "policy": settings.prediction[-1] * workload.NUM_ACTIONS,
        "value": settings.prediction[-1] * settings.num_bins,
    }


def rosmo_update(name: str, settings: Settings) -> dict[str, int]:
    """FLOPs (two a multiply-add) of one rosmo update, by part and in total.

    Counted is what the mathematics needs: in the look-ahead, the state's share of the first
    dynamics layer once a state and no policy head; the policy head of targets at K + 1 of
    the T steps; the behaviour regulariser for nothing, as it reads the look-ahead. Backward
    is twice forward, less the gradient of the observation. Elementwise work is left out.
    """
    n = layers(name, settings)
    batch, steps, td = settings.batch_size, settings.unroll_steps, settings.td_steps
    encode = n["observation"] + n["representation"]
    step = n["state share"] + n["dynamics"] + n["reward"]
    predict = n["trunk"] + n["policy"] + n["value"]
    forward = encode + steps * step + (steps + 1) * predict
    value = n["trunk"] + n["value"]
    each_action = n["dynamics"] + n["reward"] + value
    parts = {
        "target roots": (steps + td + 1) * (encode + value) + (steps + 1) * n["policy"],
        "look-ahead": (steps + 1) * (n["state share"] + workload.NUM_ACTIONS * each_action),
        "forward": forward,
        "backward": 2 * forward - n["observation"],
    }
    parts = {part: 2 * batch * count for part, count in parts.items()}
    return {**parts, "total": sum(parts.values())}


def check(name: str) -> float:
    """Ratio of XLA's own count to ours for one forward pass of h, g and f.

    XLA also counts elementwise work and the one-hot product.

    Raises:
      AssertionError: if the ratio is outside 1 to 1.1.
    """
    settings = workload.FORMS[name].settings
    model = workload.model(name)

    def forward(params, observation, action):
        state = model.represent(params, observation)
        return model.predict(params, state), model.dynamics(params, state, action)

    batch = settings.batch_size
    compiled = (
        jax.jit(forward)
        .lower(
            jax.eval_shape(model.init, jax.random.key(0)),
            jax.ShapeDtypeStruct((batch, *workload.FORMS[name].observation_shape), jnp.float32),
            jax.ShapeDtypeStruct((batch,), jnp.int32),
        )
        .compile()
    )
    ratio = compiled.cost_analysis()["flops"] / (2 * batch * sum(layers(name, settings).values()))
    assert 1.0 <= ratio <= 1.1, f"XLA counts {ratio:.3f} times our FLOPs for {name}"
    return ratio
