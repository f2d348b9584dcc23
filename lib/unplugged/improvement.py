"""Improvement operators: from a root state to a better policy, a value and action values.

An operator is any function

    (model, params, root, key, settings) -> Improvement

with `root` a `mctx.RootFnOutput` of N states: prior_logits [N, A], value [N], embedding
[N, S]. `settings` gives what the operator needs (`discount`, `num_simulations`, ...). A
function of your own is as good as these.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import mctx

from unplugged.networks import Model, Params


class Improvement(NamedTuple):
    """What an operator returns for N root states.

    Attributes:
      policy: improved policy, probabilities. Shape [N, A].
      value: value of the root, in units of return. Shape [N].
      action_values: Q(s, a), in units of return. Shape [N, A].
    """

    policy: jax.Array
    value: jax.Array
    action_values: jax.Array


class Operator(Protocol):
    """The signature of an improvement operator, see the module's docstring."""

    def __call__(
        self, model: Model, params: Params, root: mctx.RootFnOutput, key: jax.Array, settings: Any
    ) -> Improvement:
        """Improves on the prior at N root states."""
        ...


def root_of(model: Model, params: Params, state: jax.Array) -> mctx.RootFnOutput:
    """Predictions at the states [N, S], as the root of an improvement operator."""
    policy_logits, value_logits = model.predict(params, state)
    return mctx.RootFnOutput(
        prior_logits=policy_logits, value=model.support.scalar(value_logits), embedding=state
    )


def action_values(
    model: Model, params: Params, state: jax.Array, action: jax.Array, discount: float
) -> jax.Array:
    """q_g(s, a) = r_g + discount * v(s'_g), one step of the learned dynamics (ROSMO, eq. 7).

    Shapes broadcast as in `Model.dynamics`: states [..., S] and actions [...] to values [...].
    """
    reward_logits, next_state = model.dynamics(params, state, action)
    _, value_logits = model.predict(params, next_state)
    return model.support.scalar(reward_logits) + discount * model.support.scalar(value_logits)


def one_step(
    model: Model, params: Params, root: mctx.RootFnOutput, key: jax.Array, settings: Any
) -> Improvement:
    """Exact one-step look-ahead: p ~ prior * exp(q_g - v) over all actions (ROSMO, eq. 6).

    The value is the network's own, which the value target bootstraps from (eq. 8).
    """
    del key
    actions = jnp.arange(model.num_actions)[None, :]
    q = action_values(model, params, root.embedding[:, None], actions, settings.discount)
    policy = jax.nn.softmax(root.prior_logits + q - root.value[:, None])
    return Improvement(policy=policy, value=root.value, action_values=q)


def search(
    model: Model,
    params: Params,
    root: mctx.RootFnOutput,
    key: jax.Array,
    settings: Any,
    *,
    noise: bool = True,
) -> mctx.PolicyOutput:
    """Monte-Carlo tree search with pUCT in the learned model (ROSMO, Section 2.3).

    Args:
      model: the learned model.
      params: its parameters.
      root: N root states.
      key: randomness of the noise and of tie-breaking.
      settings: `num_simulations`, `search_depth` (None: not limited), `discount`.
      noise: whether Dirichlet noise is mixed into the prior at the root, as for learning
        targets; off for acting.

    Returns:
      mctx's output: `action` [N] drawn from the visit distribution, `action_weights` [N, A],
      the visit distribution, and the `search_tree`.
    """

    def recurrent(params: Params, key: jax.Array, action: jax.Array, state: jax.Array) -> Any:
        del key
        reward_logits, next_state = model.dynamics(params, state, action)
        policy_logits, value_logits = model.predict(params, next_state)
        value = model.support.scalar(value_logits)
        output = mctx.RecurrentFnOutput(
            reward=model.support.scalar(reward_logits),
            discount=jnp.full_like(value, settings.discount),
            prior_logits=policy_logits,
            value=value,
        )
        return output, next_state

    return mctx.muzero_policy(
        params,
        key,
        root,
        recurrent,
        settings.num_simulations,
        max_depth=settings.search_depth,
        **({} if noise else {"dirichlet_fraction": 0.0}),
    )


def mcts(
    model: Model, params: Params, root: mctx.RootFnOutput, key: jax.Array, settings: Any
) -> Improvement:
    """MuZero's operator: visit distribution, value and Q of the root (ROSMO, eq. 3)."""
    output = search(model, params, root, key, settings)
    summary = output.search_tree.summary()
    return Improvement(
        policy=output.action_weights, value=summary.value, action_values=summary.qvalues
    )
