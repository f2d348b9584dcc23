"""The bundle of three pure functions that every network is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unplugged.model import transforms
from unplugged.model.actions import Actions, Discrete

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
        Continuous actions have one more axis, [..., D].
      predict: (params, state [..., S]) -> (policy_logits [..., P], value_logits [..., bins]).
        P is `actions.num_parameters`, for discrete actions A.
      actions: the action space.
      support: what the bins of reward and value logits stand for.
    """

    init: Callable[[jax.Array], Params]
    represent: Callable[[Params, jax.Array], jax.Array]
    dynamics: Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    predict: Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
    actions: Actions
    support: transforms.Support

    @property
    def num_actions(self) -> int:
        """A, of a discrete action space; raises TypeError if it is continuous."""
        if not isinstance(self.actions, Discrete):
            raise TypeError(f"there is no number of continuous actions ({self.actions})")
        return self.actions.num_actions


def standardized(model: Model, mean: np.ndarray, scale: np.ndarray) -> Model:
    """The model of observations of which `mean` is subtracted before they are divided by `scale`.

    Both are among its parameters, so that they are saved with them and are used wherever the model
    is. They have no gradient, and no name that weight decay knows.

    Args:
      model: the networks, whose parameters gain a part `observation`.
      mean: of each element of an observation, shape [...].
      scale: the same.
    """
    statistics = {"mean": np.float32(mean), "scale": np.float32(scale)}

    def init(key: jax.Array) -> Params:
        return {**model.init(key), "observation": jax.tree.map(jnp.array, statistics)}

    def represent(params: Params, observation: jax.Array) -> jax.Array:
        of = jax.lax.stop_gradient(params["observation"])
        return model.represent(params, (observation - of["mean"]) / of["scale"])

    return dataclasses.replace(model, init=init, represent=represent)
