"""Losses and targets over windows, each one pure function.

Time comes first: T = K + n + 1 steps of B windows, K the unroll length and n the TD steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mctx

from unplugged.data.windows import Windows
from unplugged.model.actions import Actions
from unplugged.model.critic import critic_logits, critic_values
from unplugged.model.networks import Model, Params
from unplugged.planning import improvement

__all__ = [
    "Recorded", "always", "conservative_gap", "critic_logits", "critic_values", "cross_entropy",
    "dynamics_advantage", "exponential", "heaviside", "lookahead_advantage", "n_step_returns",
    "n_steps", "of_action", "policy_cross_entropy", "policy_target", "recorded_advantage",
    "scale_gradient", "step_discounts", "unroll", "where",
]  # fmt: skip


def cross_entropy(target: jax.Array, logits: jax.Array) -> jax.Array:
    """-target . log softmax(logits) over the last axis (ROSMO, eq. 12 to 14)."""
    return -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)


def where(condition: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """`jnp.where` by steps: a condition [...], and x and y of shape [...] or [..., D]."""
    return jnp.where(condition if condition.ndim == x.ndim else condition[..., None], x, y)


def policy_target(
    actions: Actions, improved: improvement.AnyImprovement, windows: Windows, key: jax.Array
) -> improvement.AnyImprovement:
    """The improved policy; a uniform one in absorbing states.

    Args:
      actions: the action space.
      improved: arrays [..., B, K] over K candidates, or all discrete actions.
      windows: the steps [..., B].
      key: draws the candidates of absorbing states, if there are candidates.
    """
    uniform = jnp.full_like(improved.policy, 1.0 / improved.policy.shape[-1])
    policy = jnp.where(windows.absorbing[..., None], uniform, improved.policy)
    if improved.actions is None:
        return improved._replace(policy=policy)
    at_random = actions.uniform(jax.random.fold_in(key, 1), policy.shape)
    candidates = jnp.where(windows.absorbing[..., None, None], at_random, improved.actions)
    return improved._replace(policy=policy, actions=candidates)


def policy_cross_entropy(
    actions: Actions, target: improvement.AnyImprovement, parameters: jax.Array
) -> jax.Array:
    """-sum_k w_k log pi(a_k) over the target's candidates, or over all discrete actions.

    Args:
      actions: the action space.
      target: weights [..., K].
      parameters: of the policy, [..., P].

    Returns:
      [...].
    """
    if target.actions is None:
        return cross_entropy(target.policy, parameters)
    log_prob = actions.log_prob(parameters[..., None, :], target.actions)
    return -jnp.sum(target.policy * log_prob, axis=-1)


def scale_gradient(x: jax.Array, scale: float) -> jax.Array:
    """The identity, whose gradient is scaled."""
    return scale * x + (1.0 - scale) * jax.lax.stop_gradient(x)


def unroll(
    model: Model, params: Params, state: jax.Array, actions: jax.Array, gradient_scale: float
) -> tuple[jax.Array, jax.Array]:
    """Unrolls the dynamics from one state (ROSMO, Algorithm 2, UNROLL).

    Args:
      model: the learned model.
      params: its parameters.
      state: root states. Shape [B, S].
      actions: K actions. Shape [K, B], or [K, B, D].
      gradient_scale: factor on the gradient at the start of each dynamics step.

    Returns:
      states [K + 1, B, S], the root among them, and reward logits [K, B, bins].
    """
    states, rewards = [state], []
    for action in actions:
        reward_logits, state = model.dynamics(params, scale_gradient(state, gradient_scale), action)
        states.append(state)
        rewards.append(reward_logits)
    return jnp.stack(states), jnp.stack(rewards)


def n_step_returns(
    reward: jax.Array, discount: jax.Array, value: jax.Array, td_steps: int
) -> jax.Array:
    """n-step returns that bootstrap from `value` (ROSMO, eq. 3 and 8).

    Args:
      reward: rewards. Shape [T, B].
      discount: how much the next step counts: gamma, 0 where the episode ends (and after),
        1 where a truncated episode has no further step to take. Shape [T, B].
      value: values to bootstrap from. Shape [T, B].
      td_steps: n.

    Returns:
      Returns of the first T - n steps. Shape [T - n, B].
    """
    length = reward.shape[0] - td_steps
    returns = value[td_steps:]
    for i in reversed(range(td_steps)):
        returns = reward[i : i + length] + discount[i : i + length] * returns
    return returns


def step_discounts(windows: Windows, discount: float) -> jax.Array:
    """Discounts [T, B] for `n_step_returns`: gamma where a step was really taken.

    Past a true end they are 0. Past a truncation they are 1 and rewards are 0, so that the
    value of the last observation is carried back undiscounted to the step where it stands.
    """
    return jnp.where(windows.real, discount * windows.discount, windows.discount)


def n_steps(windows: Windows, discount: float, td_steps: int) -> tuple[jax.Array, jax.Array]:
    """What n steps bring, and how much counts what follows: z = reward + discount * next.

    Args:
      windows: T = n + 1 steps.
      discount: gamma.
      td_steps: n.

    Returns:
      Discounted reward [B] and discount [B], of what is bootstrapped from the last step.
    """
    discounts = step_discounts(windows, discount)
    reward = n_step_returns(windows.reward, discounts, jnp.zeros_like(discounts), td_steps)[0]
    return reward, jnp.prod(discounts[:td_steps], axis=0)


def of_action(x: jax.Array, action: jax.Array) -> jax.Array:
    """What belongs to each action [B], of x [B, A, ...]. Shape [B, ...]."""
    index = jnp.expand_dims(action, tuple(range(1, x.ndim)))
    return jnp.take_along_axis(x, index, axis=1)[:, 0]


def conservative_gap(q: jax.Array, action: jax.Array) -> jax.Array:
    """log sum_a exp Q(s, a) - Q(s, a_recorded), CQL(H)'s penalty, of q [B, A]. Shape [B]."""
    return jax.nn.logsumexp(q, axis=-1) - of_action(q, action)


def heaviside(advantage: jax.Array) -> jax.Array:
    """1 where the advantage is above 0, else 0 (ROSMO, eq. 11; CRR's binary weights)."""
    return (advantage > 0.0).astype(jnp.float32)


def always(advantage: jax.Array) -> jax.Array:
    """1 whatever the advantage: imitation of every recorded action."""
    return jnp.ones_like(advantage)


def exponential(
    advantage: jax.Array, *, temperature: float = 1.0, limit: float = 20.0
) -> jax.Array:
    """min(exp(advantage / temperature), limit): CRR's exponential weights, its constants."""
    return jnp.minimum(jnp.exp(advantage / temperature), limit)


class Recorded(NamedTuple):
    """What was recorded at steps, arrays [..., B].

    Attributes:
      action: the action taken.
      reward: what followed it.
      discount: how much the next step counts, see `n_step_returns`.
      next_value: the target network's value of the next observation.
    """

    action: jax.Array
    reward: jax.Array
    discount: jax.Array
    next_value: jax.Array


def lookahead_advantage(
    model: Model,
    params: Params,
    root: mctx.RootFnOutput,
    improved: improvement.AnyImprovement,
    recorded: Recorded,
    settings: Any,
) -> jax.Array:
    """adv_g(s, a) of the dataset's action, read off a one-step operator's result.

    Both its action values and its value, which is the network's own, so that they belong
    together where the operator was applied some time ago.
    """
    del model, params, root, settings
    chosen = jax.nn.one_hot(recorded.action, improved.action_values.shape[-1])
    return jnp.sum(chosen * improved.action_values, axis=-1) - improved.value


def dynamics_advantage(
    model: Model,
    params: Params,
    root: mctx.RootFnOutput,
    improved: improvement.AnyImprovement,
    recorded: Recorded,
    settings: Any,
) -> jax.Array:
    """adv_g(s, a) of the dataset's action, from one step of the dynamics (ROSMO, Algorithm 2).

    For any operator: where the operator looks one step ahead itself, `lookahead_advantage`
    gives the same numbers for free.
    """
    del improved
    action = recorded.action
    q = improvement.action_values(model, params, root.embedding, action, settings.discount)
    return q - root.value


def recorded_advantage(
    model: Model,
    params: Params,
    root: mctx.RootFnOutput,
    improved: improvement.AnyImprovement,
    recorded: Recorded,
    settings: Any,
) -> jax.Array:
    """r + discount * v(s') - v(s) of what was recorded, with no model.

    ROSMO's authors' code takes v of the recorded next observation too, but the reward predicted
    there, and does not leave out v where an episode truly ended.
    """
    del model, params, improved, settings
    return recorded.reward + recorded.discount * recorded.next_value - root.value
