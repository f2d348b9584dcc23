"""Action selectors: how an agent acts, one for each way in the papers.

A selector is any function

    (model, params, observation [B, ...], key, settings) -> probabilities [B, A]

of the actions that the agent then draws from. Of continuous actions it gives a `Choice`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unplugged.model.actions import Continuous, draw
from unplugged.model.critic import critic_logits, critic_values, implicit_values, likely
from unplugged.model.networks import Model, Params
from unplugged.planning import improvement


class Choice(NamedTuple):
    """Continuous actions that one is drawn from.

    Attributes:
      actions: [B, K, D].
      probabilities: of each. Shape [B, K].
    """

    actions: jax.Array
    probabilities: jax.Array


def _root(model: Model, params: Params, observation: jax.Array) -> Any:
    return improvement.root_of(model, params, model.represent(params, observation))


def _sure(action: jax.Array) -> Choice:
    """The choice of actions [B, D] alone."""
    return Choice(action[:, None], jnp.ones([action.shape[0], 1]))


def _choice(better: improvement.AnyImprovement) -> Any:
    """What an operator returned, as a selector's answer."""
    return better.policy if better.actions is None else Choice(better.actions, better.policy)


def _best(better: improvement.AnyImprovement) -> Any:
    """The action of highest action value."""
    q = better.action_values
    best = jax.nn.one_hot(jnp.argmax(q, axis=-1), q.shape[-1])
    return _choice(better._replace(policy=best))


def policy(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> Any:
    """The policy head."""
    del settings
    parameters = _root(model, params, observation).prior_logits
    if isinstance(model.actions, Continuous):
        return _sure(draw(model.actions, key, parameters))
    return jax.nn.softmax(parameters)


def greedy(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> Any:
    """The most probable action of the policy head, of continuous ones its mode."""
    del key, settings
    logits = _root(model, params, observation).prior_logits
    if model.actions.continuous:
        return _sure(model.actions.mode(logits))
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), model.num_actions)


def value(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> Any:
    """The action of highest value after one step of the dynamics (ROSMO, eq. 7)."""
    root = _root(model, params, observation)
    return _best(improvement.one_step(model, params, root, key, settings))


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
    state = model.represent(params, observation)
    q = model.keep_to(state, implicit_values(params, critic_logits(model, params, state), key))
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
) -> Any:
    """The one-step improved policy: how ROSMO acts ("policy learning and acting", Section 1)."""
    root = _root(model, params, observation)
    return _choice(improvement.one_step(model, params, root, key, settings))


def search(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> Any:
    """The visit distribution of a search without noise: how MuZero acts."""
    root = _root(model, params, observation)
    return _choice(improvement.mcts(model, params, root, key, settings, noise=False))


def search_q(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Any
) -> Any:
    """MZU-Q's policy from the Q of a search without noise."""
    root = _root(model, params, observation)
    return _choice(improvement.mcts_q(model, params, root, key, settings, noise=False))


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

# Selectors that can act in environments with continuous actions.
OF_CONTINUOUS = ("policy", "greedy", "value", "improved", "search", "search_q")

# Selectors of methods that learn a critic and no model.
BY_CRITIC = ("critic", "implicit", "constrained")
