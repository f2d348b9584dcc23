"""A world model in the manner of DreamerV2: recurrent state, categorical latents, decoder.

State s_t = (h_t, z_t). h_t is recurrent and tells what came before; z_t is drawn from the
posterior, which sees the observation x_t, or, in imagination, from the prior, which does not
(Hafner et al., 2021, eq. 1). All is as sizes that suit 10 x 10 pixels of bits and a CPU.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from unplugged.model.actions import Discrete
from unplugged.model.networks import images, layers

Params = Any


class WorldState(NamedTuple):
    """A state of the world model.

    Attributes:
      recurrent: h. Shape [..., H].
      latent: z, one-hot categoricals laid end to end. Shape [..., C * K].
    """

    recurrent: jax.Array
    latent: jax.Array

    @property
    def features(self) -> jax.Array:
        """What decoder, policy and critic see: both, end to end. Shape [..., H + C * K]."""
        return jnp.concatenate([self.recurrent, self.latent], axis=-1)


class Decoded(NamedTuple):
    """What the decoder says of a state.

    Attributes:
      observation: logits of the observation's bits. Shape [..., *observation].
      reward: mean of the reward that led here. Shape [...].
      discount: logit of the episode's going on from here. Shape [...].
    """

    observation: jax.Array
    reward: jax.Array
    discount: jax.Array


@dataclasses.dataclass(frozen=True)
class World:
    """The world model as pure functions; C categoricals of K classes, M members.

    Attributes:
      init: key -> parameters, one pytree.
      encode: (params, observation [..., *shape]) -> embedding [..., E].
      recur: (params, state [...], action [...]) -> the next h [..., H].
      prior: (params, h [..., H]) -> logits of z by each member [M, ..., C, K].
      posterior: (params, h [..., H], embedding [..., E]) -> logits of z [..., C, K].
      decode: (params, features [..., F]) -> `Decoded`.
      num_actions: size of the discrete action space.
      recurrent: H.
      categoricals: C.
      classes: K.
    """

    init: Callable[[jax.Array], Params]
    encode: Callable[[Params, jax.Array], jax.Array]
    recur: Callable[[Params, WorldState, jax.Array], jax.Array]
    prior: Callable[[Params, jax.Array], jax.Array]
    posterior: Callable[[Params, jax.Array, jax.Array], jax.Array]
    decode: Callable[[Params, jax.Array], Decoded]
    num_actions: int
    recurrent: int
    categoricals: int
    classes: int

    @property
    def num_features(self) -> int:
        """F = H + C * K."""
        return self.recurrent + self.categoricals * self.classes

    def beginning(self, shape: Sequence[int]) -> jax.Array:
        """h of the first step of an episode, or of a window: zeros [*shape, H]."""
        return jnp.zeros([*shape, self.recurrent])


EMPTY = -4.0  # logit of a bit before anything is learned


def _normalised(x: jax.Array, name: str) -> jax.Array:
    """A layer norm, without which sparse bits hardly move the latent at first."""
    return hk.LayerNorm(axis=-1, create_scale=True, create_offset=True, name=name)(x)


class _Members(hk.Module):
    """Perceptrons with one hidden layer, of the same form, on the same input."""

    def __init__(self, members: int, hidden: int, outputs: int, name: str):
        super().__init__(name=name)
        self._sizes = (members, hidden, outputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., inputs] to [members, ..., outputs]."""
        members, hidden, outputs = self._sizes
        y = layers.Linear(members * hidden, fan_in=x.shape[-1], name="hidden")(x)
        norm = hk.LayerNorm(-1, create_scale=False, create_offset=False)
        y = norm(y.reshape(*y.shape[:-1], members, hidden))
        scale, offset = (
            hk.get_parameter(name, [members, hidden], x.dtype, init=init)
            for name, init in (("scale", jnp.ones), ("offset", jnp.zeros))
        )
        y = jax.nn.relu(y * scale + offset)
        init = hk.initializers.TruncatedNormal(1.0 / hidden**0.5)
        w = hk.get_parameter("w", [members, hidden, outputs], x.dtype, init=init)
        b = hk.get_parameter("b", [members, outputs], x.dtype, init=jnp.zeros)
        y = jnp.einsum("...mh,mho->m...o", y, w)
        return y + b.reshape(members, *(1,) * (y.ndim - 2), outputs)


def rssm(
    *,
    observation_shape: Sequence[int],
    num_actions: int,
    channels: Sequence[int],
    hidden: int,
    recurrent: int,
    categoricals: int,
    classes: int,
    members: int,
) -> World:
    """The recurrent state-space model, encoder and posterior shared by an ensemble of priors.

    As in DreamerV2's code, the members of the ensemble are heads on one recurrent network.

    Args:
      observation_shape: height, width, channels of an observation of bits.
      num_actions: size of the discrete action space.
      channels: of the encoder's 3 x 3 convolutions; the first halves the image.
      hidden: units of hidden layers, and of the embedding.
      recurrent: units of h, H.
      categoricals: of z, C.
      classes: of each, K.
      members: of the ensemble of priors, M.

    Raises:
      ValueError: if observations are no images.
    """
    images.check_image(observation_shape)
    latent = categoricals * classes

    def encode(observation: jax.Array) -> jax.Array:
        x = observation
        for i, size in enumerate(channels):
            x = jax.nn.relu(x) if i else x
            x = layers.Convolution(size, stride=1 if i else 2, name=f"encoder_{i}")(x)
        return layers.Linear(hidden, name="embedding")(layers.flat(jax.nn.relu(x)))

    def recur(h: jax.Array, z: jax.Array, action: jax.Array) -> jax.Array:
        x = layers.state_action_linear(z, action, hidden, Discrete(num_actions))
        x = jax.nn.relu(_normalised(x, "norm"))
        return hk.GRU(recurrent, name="gru")(x, h)[0]

    def prior(h: jax.Array) -> jax.Array:
        return _grid(_Members(members, hidden, latent, name="prior")(h))

    def posterior(h: jax.Array, embedding: jax.Array) -> jax.Array:
        # The embedding is the observation's part of this layer, which needs no h.
        x = layers.Linear(hidden, name="posterior_hidden")(h) + embedding
        x = jax.nn.relu(_normalised(x, "norm"))
        return _grid(layers.Linear(latent, name="posterior")(x))

    def decode(features: jax.Array) -> Decoded:
        x = layers.perceptron(features, [2 * hidden], "decoder", activate_final=True)
        # Most bits are 0; were this left to be learned, the latent would serve as a constant first.
        bits = layers.Linear(math.prod(observation_shape), name="observation")(x) + EMPTY
        trunk = layers.perceptron(features, [hidden], "outcome", activate_final=True)
        outcome = layers.head(trunk, 2, "reward_discount")
        shape = (*features.shape[:-1], *observation_shape)
        return Decoded(bits.reshape(shape), outcome[..., 0], outcome[..., 1])

    def _grid(logits: jax.Array) -> jax.Array:
        return logits.reshape(*logits.shape[:-1], categoricals, classes)

    parts = {"encode": encode, "recur": recur, "prior": prior, "posterior": posterior,
             "decode": decode}  # fmt: skip
    apply = {name: hk.without_apply_rng(hk.transform(part)) for name, part in parts.items()}

    def init(key: jax.Array) -> Params:
        h, z, embedding = (jnp.zeros([1, size]) for size in (recurrent, latent, hidden))
        examples: dict[str, tuple[jax.Array, ...]] = {
            "encode": (jnp.zeros([1, *observation_shape]),),
            "recur": (h, z, jnp.zeros([1], jnp.int32)),
            "prior": (h,),
            "posterior": (h, embedding),
            "decode": (jnp.concatenate([h, z], axis=-1),),
        }
        keys = jax.random.split(key, len(parts))
        return {name: apply[name].init(one, *examples[name]) for one, name in zip(keys, parts)}

    def of(name: str) -> Callable[..., Any]:
        return lambda params, *arguments: apply[name].apply(params[name], *arguments)

    return World(
        init=init,
        encode=of("encode"),
        recur=lambda params, state, action: of("recur")(params, *state, action),
        prior=of("prior"),
        posterior=of("posterior"),
        decode=of("decode"),
        num_actions=num_actions,
        recurrent=recurrent,
        categoricals=categoricals,
        classes=classes,
    )


def straight_through(logits: jax.Array, key: jax.Array) -> jax.Array:
    """A draw of each categorical, whose gradient is that of its probabilities.

    Args:
      logits: shape [..., C, K].
      key: randomness.

    Returns:
      One-hot draws laid end to end (Hafner et al., 2021, Algorithm 1). Shape [..., C * K].
    """
    probabilities = jax.nn.softmax(logits)
    drawn = jax.nn.one_hot(jax.random.categorical(key, logits), logits.shape[-1])
    drawn = drawn + probabilities - jax.lax.stop_gradient(probabilities)
    return drawn.reshape(*drawn.shape[:-2], -1)
