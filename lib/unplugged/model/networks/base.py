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
MASKED = -1e9  # logit, or value, of an action that is not allowed; its probability is exactly 0


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

    def allowed(self, state: jax.Array) -> jax.Array:
        """Which actions are allowed in states [..., S], bool [..., A]; of a model with masks."""
        return state[..., -self.num_actions :] > 0.5

    def keep_to(self, state: jax.Array, values: jax.Array) -> jax.Array:
        """Values of all actions [..., A], those not allowed in the states as `MASKED`."""
        if not (isinstance(self.actions, Discrete) and self.actions.masked):
            return values
        return jnp.where(self.allowed(state), values, MASKED)

    @property
    def num_actions(self) -> int:
        """A, of a discrete action space; raises TypeError if it is continuous."""
        if not isinstance(self.actions, Discrete):
            raise TypeError(f"there is no number of continuous actions ({self.actions})")
        return self.actions.num_actions


def computed_in(model: Model, dtype: str) -> Model:
    """The model, whose layers compute in another type, such as bfloat16.

    Parameters stay float32, and so do all outputs, of which losses and targets are made: layers
    round parameters to the type of what they are given.

    Args:
      model: the networks, made of `layers`.
      dtype: what states and observations are rounded to.
    """

    def represent(params: Params, observation: jax.Array) -> jax.Array:
        return model.represent(params, observation.astype(dtype)).astype(jnp.float32)

    def dynamics(params: Params, state: jax.Array, action: jax.Array) -> Any:
        logits, following = model.dynamics(params, state.astype(dtype), action)
        return logits, following.astype(jnp.float32)

    def predict(params: Params, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        return model.predict(params, state.astype(dtype))

    return dataclasses.replace(model, represent=represent, dynamics=dynamics, predict=predict)


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


def masked(model: Model) -> Model:
    """The model of observations that end with which of the A actions are allowed, as 0 and 1.

    States [..., S + A] carry that along, so that whatever reads logits of the policy or values of
    all actions keeps to it. Of states that the dynamics imagine nobody knows it: all are allowed,
    as in MuZero's search below the root.

    Args:
      model: networks of observations [D], without masks, whose states are vectors.
    """
    number = model.num_actions

    def represent(params: Params, observation: jax.Array) -> jax.Array:
        state = model.represent(params, observation[..., :-number])
        return jnp.concatenate([state, observation[..., -number:]], axis=-1)

    def dynamics(params: Params, state: jax.Array, action: jax.Array) -> Any:
        logits, following = model.dynamics(params, state[..., :-number], action)
        all_of_them = jnp.ones([*following.shape[:-1], number])
        return logits, jnp.concatenate([following, all_of_them], axis=-1)

    def predict(params: Params, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        policy_logits, value_logits = model.predict(params, state[..., :-number])
        return jnp.where(state[..., -number:] > 0.5, policy_logits, MASKED), value_logits

    return dataclasses.replace(model, represent=represent, dynamics=dynamics, predict=predict)
