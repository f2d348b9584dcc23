"""What networks on images share: the check of their form, and the bundle of flattened states."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import haiku as hk
import jax
import jax.numpy as jnp

from unplugged.model import transforms
from unplugged.model.actions import Actions
from unplugged.model.networks import layers
from unplugged.model.networks.base import Model, Params


def check_image(observation_shape: Sequence[int]) -> None:
    """Raises ValueError unless observations are images [height, width, channels]."""
    if len(observation_shape) != 3:
        raise ValueError(
            f"observations of shape {list(observation_shape)} are no images [height, width, "
            'channels], which convolutions need; use network "mlp"'
        )


def bundle(
    represent: Callable[[jax.Array], jax.Array],
    step: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    predict: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    observation_shape: Sequence[int],
    actions: Actions,
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

    def encode(params: Params, observation: jax.Array) -> jax.Array:
        if not jnp.issubdtype(observation.dtype, jnp.floating):
            raise TypeError(
                f"observations must be floating-point numbers, got {observation.dtype}; "
                "convolutions would round their weights to it"
            )
        return layers.flat(r.apply(params["representation"], observation))

    def image(state: jax.Array) -> jax.Array:
        return state.reshape(*state.shape[:-1], *shape)

    def dynamics(
        params: Params, state: jax.Array, action: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        reward_logits, following = g.apply(params["dynamics"], image(state), action)
        return reward_logits, layers.flat(following)

    return Model(
        init=init,
        represent=encode,
        dynamics=dynamics,
        predict=lambda params, state: f.apply(params["prediction"], image(state)),
        actions=actions,
        support=transforms.Support(num_bins),
    )
