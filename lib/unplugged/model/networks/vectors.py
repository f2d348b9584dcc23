"""The bundle of networks whose states are vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import haiku as hk
import jax
import jax.numpy as jnp

from unplugged.model import transforms
from unplugged.model.actions import Actions
from unplugged.model.networks.base import Model, Params


def check_state(representation: Sequence[int], dynamics: Sequence[int]) -> None:
    """Raises ValueError unless representation and dynamics end in states of one size."""
    if representation[-1] != dynamics[-1]:
        raise ValueError(
            f"representation ends in {representation[-1]} units and dynamics in "
            f"{dynamics[-1]}: both must give the same state size"
        )


def bundle(
    represent: Callable[[jax.Array], jax.Array],
    step: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    predict: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    observation_shape: Sequence[int],
    state_size: int,
    actions: Actions,
    num_bins: int,
) -> Model:
    """A `Model` of three haiku functions, its states vectors of `state_size` units."""
    h, g, f = (hk.without_apply_rng(hk.transform(fn)) for fn in (represent, step, predict))

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, 3)
        state = jnp.zeros([1, state_size])
        return {
            "representation": h.init(keys[0], jnp.zeros([1, *observation_shape])),
            "dynamics": g.init(keys[1], state, jnp.zeros([1, *actions.shape], actions.dtype)),
            "prediction": f.init(keys[2], state),
        }

    return Model(
        init=init,
        represent=lambda params, observation: h.apply(params["representation"], observation),
        dynamics=lambda params, state, action: g.apply(params["dynamics"], state, action),
        predict=lambda params, state: f.apply(params["prediction"], state),
        actions=actions,
        support=transforms.Support(num_bins),
    )
