"""Action selectors: from observations to actions, one per way of acting in the papers.

A selector is any function

    (model, params, observation [B, ...], key, settings) -> action [B]
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import mctx

from unplugged import improvement
from unplugged.networks import Model, Params


def _root(model: Model, params: Params, observation: jax.Array) -> mctx.RootFnOutput:
    return improvement.root_of(model, params, model.represent(params, observation))


def policy(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """Samples the policy head."""
    del settings
    return jax.random.categorical(key, _root(model, params, observation).prior_logits)


def value(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """Takes the action of highest value after one step of the dynamics (ROSMO, eq. 7)."""
    root = _root(model, params, observation)
    improved = improvement.one_step(model, params, root, key, settings)
    return jnp.argmax(improved.action_values, axis=-1)


def improved(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """Samples the one-step improved policy: how ROSMO acts (Section 3.1)."""
    root = _root(model, params, observation)
    better = improvement.one_step(model, params, root, key, settings)
    return jax.random.categorical(key, jnp.log(better.policy))


def search(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """Samples the visit distribution of a search without noise: how MuZero acts."""
    root = _root(model, params, observation)
    return improvement.search(model, params, root, key, settings, noise=False).action


SELECTORS = {"policy": policy, "value": value, "improved": improved, "search": search}
