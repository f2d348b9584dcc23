"""What a learned agent says about states: how it acts, and what it expects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unplugged.learning import contracts
from unplugged.learning.learner import Learner
from unplugged.model.actions import Normal
from unplugged.model.critic import critic_logits, critic_values, implicit_quantiles, midpoints
from unplugged.model.networks import Params
from unplugged.planning import acting, improvement

_LEVELS = 32  # midpoints of quantiles whose mean is an implicit critic's value
_DRAWN = 8  # of a policy of continuous actions


class Expected(NamedTuple):
    """What an agent expects, discounted, in units of return.

    Attributes:
      value: of each state. Shape [B].
      action_values: of each action; minus infinity where it is not allowed. Shape [B, A].
    """

    value: jax.Array
    action_values: jax.Array


def probabilities(
    learner: Learner, selector: str
) -> Callable[[Params, jax.Array, jax.Array], jax.Array]:
    """(params, observation [B, ...], key) -> how probable each action is [B, A].

    Args:
      learner: of discrete actions.
      selector: a name in `acting.SELECTORS`.
    """
    return _selecting(learner, selector)


def _selecting(learner: Learner, selector: str) -> Callable[[Params, jax.Array, jax.Array], Any]:
    """(params, observation [B, ...], key) -> what a selector answers."""
    select = acting.SELECTORS[selector]

    def found(params: Params, observation: jax.Array, key: jax.Array) -> Any:
        return contracts.select(select, learner.model, params, observation, key, learner.settings)

    return found


def choices(
    learner: Learner, selector: str
) -> Callable[[Params, jax.Array, jax.Array], acting.Choice]:
    """(params, observation [B, ...], key) -> continuous actions and how probable each is.

    Those that the selector draws from; of the policy itself `_DRAWN` draws.

    Args:
      learner: of continuous actions.
      selector: a name in `acting.OF_CONTINUOUS`.
    """
    one = _selecting(learner, selector)

    def several(params: Params, observation: jax.Array, key: jax.Array) -> acting.Choice:
        found = [one(params, observation, of) for of in jax.random.split(key, _DRAWN)]
        actions = jnp.concatenate([of.actions for of in found], axis=1)
        return acting.Choice(actions, jnp.full(actions.shape[:2], 1.0 / _DRAWN))

    return several if selector == "policy" else one


def density(learner: Learner) -> Callable[[Params, jax.Array, jax.Array], jax.Array]:
    """(params, observation [B, ...], action [B, D]) -> density of the policy there [B]."""
    model = learner.model

    def found(params: Params, observation: jax.Array, action: jax.Array) -> jax.Array:
        parameters, _ = model.predict(params, model.represent(params, observation))
        return jnp.exp(model.actions.log_prob(parameters, action))

    return found


def no_density(learner: Learner, selector: str, recorded: bool) -> str:
    """Why a run of continuous actions has no importance weights; nothing if it has."""
    if not recorded:
        return "the log has no densities of its actions"
    if selector != "policy":
        return f"selector {selector} has no density, only policy has one"
    if not isinstance(learner.model.actions, Normal):
        return "a policy of bins has no density; policy_head normal has"
    return ""


def expected(learner: Learner) -> Callable[[Params, jax.Array], Expected] | None:
    """(params, observation [B, ...]) -> what the agent expects; None: it learns no values.

    A method with a model looks one step ahead (ROSMO, eq. 7) and has its own value; one with a
    critic asks that, and its value is the mean under its policy, or the best where it has none.
    """
    method, model = learner.method, learner.model
    if model.actions.continuous or not method.bootstraps:
        return None

    def _allowed(state: jax.Array, q: jax.Array) -> jax.Array:
        kept = model.keep_to(state, q)
        return q if kept is q else jnp.where(model.allowed(state), q, -jnp.inf)

    def of_model(params: Params, observation: jax.Array) -> Expected:
        root = improvement.root_of(model, params, model.represent(params, observation))
        q = improvement.action_values(
            model, params, root.embedding[:, None], jnp.arange(model.num_actions)[None, :],
            learner.settings.discount,
        )  # fmt: skip
        return Expected(root.value, _allowed(root.embedding, q))

    def of_critic(params: Params, observation: jax.Array) -> Expected:
        state = model.represent(params, observation)
        if method.critic == "implicit":
            features = critic_logits(model, params, state)
            levels = jnp.broadcast_to(midpoints(_LEVELS), (observation.shape[0], 1, _LEVELS))
            q = jnp.mean(implicit_quantiles(params, features, levels), axis=-1)
        else:
            q = critic_values(model, params, state)
        q = model.keep_to(state, q)
        if not method.learns_policy:
            return Expected(jnp.max(q, axis=-1), _allowed(state, q))
        policy: Any = jax.nn.softmax(model.predict(params, state)[0])
        return Expected(jnp.sum(policy * q, axis=-1), _allowed(state, q))

    return of_model if method.unrolls else of_critic
