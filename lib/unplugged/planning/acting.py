"""Action selectors: how an agent acts, one for each way in the papers.

A selector is any function

    (model, params, observation [B, ...], key, settings) -> probabilities [B, A]

of the actions that the agent then draws from.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import mctx

from unplugged.model.critic import critic_logits, critic_values, implicit_values, likely
from unplugged.model.networks import Model, Params
from unplugged.planning import improvement


def _root(model: Model, params: Params, observation: jax.Array) -> mctx.RootFnOutput:
    return improvement.root_of(model, params, model.represent(params, observation))


def policy(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """The policy head."""
    del key, settings
    return jax.nn.softmax(_root(model, params, observation).prior_logits)


def greedy(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """The most probable action of the policy head."""
    del key, settings
    logits = _root(model, params, observation).prior_logits
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), model.num_actions)


def value(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """The action of highest value after one step of the dynamics (ROSMO, eq. 7)."""
    root = _root(model, params, observation)
    better = improvement.one_step(model, params, root, key, settings)
    return jax.nn.one_hot(jnp.argmax(better.action_values, axis=-1), model.num_actions)


def critic(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """The action of highest Q: how CQL acts."""
    del key, settings
    q = critic_values(model, params, model.represent(params, observation))
    return jax.nn.one_hot(jnp.argmax(q, axis=-1), model.num_actions)


def implicit(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """The action of highest mean over drawn quantiles: how IQN acts."""
    del settings
    features = critic_logits(model, params, model.represent(params, observation))
    q = implicit_values(params, features, key)
    return jax.nn.one_hot(jnp.argmax(q, axis=-1), model.num_actions)


def constrained(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """The action of highest Q among those that the policy head finds likely: how BCQ acts."""
    del key
    state = model.represent(params, observation)
    allowed = likely(model.predict(params, state)[0], settings.bcq_threshold)
    q = jnp.where(allowed, critic_values(model, params, state), -jnp.inf)
    return jax.nn.one_hot(jnp.argmax(q, axis=-1), model.num_actions)


def improved(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """The one-step improved policy: how ROSMO acts ("policy learning and acting", Section 1)."""
    root = _root(model, params, observation)
    return improvement.one_step(model, params, root, key, settings).policy


def search(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """The visit distribution of a search without noise: how MuZero acts."""
    root = _root(model, params, observation)
    return improvement.mcts(model, params, root, key, settings, noise=False).policy


def search_q(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """MZU-Q's policy from the Q of a search without noise."""
    root = _root(model, params, observation)
    return improvement.mcts_q(model, params, root, key, settings, noise=False).policy


def gumbel(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> jax.Array:
    """The action that Gumbel MuZero's search ends with, without noise."""
    root = _root(model, params, observation)
    output = improvement.gumbel_search(model, params, root, key, settings, noise=False)
    return jax.nn.one_hot(output.action, model.num_actions)


SELECTORS = {
    "policy": policy,
    "greedy": greedy,
    "value": value,
    "critic": critic,
    "implicit": implicit,
    "constrained": constrained,
    "improved": improved,
    "search": search,
    "search_q": search_q,
    "gumbel": gumbel,
}

# Selectors of methods that learn a critic and no model.
BY_CRITIC = ("critic", "implicit", "constrained")
