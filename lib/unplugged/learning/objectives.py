"""Training objectives: a method's whole loss over a batch of windows, one function each.

An objective is any function

    (params, target_params, windows, key, *, model, method, settings) -> (loss, parts)

with `method` a `methods.Method`, `windows` of T = K + n + 1 steps (`Method.window`), time
first, and `parts` the loss's parts before weighting, scalars by name. Targets come from the
target parameters, but for what `windows.improved` brings. Averages are over windows and
steps; steps of which nothing is known count as 0.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rlax

from unplugged.data.windows import Windows
from unplugged.learning import continuous, contracts, losses, parallel
from unplugged.learning.method import Loss, Method
from unplugged.learning.settings import Settings
from unplugged.model.critic import implicit_quantiles, implicit_values, likely, midpoints
from unplugged.model.networks import Model, Params
from unplugged.planning import improvement

# BCQ's authors add this times the mean square of the cloned policy's logits.
LOGITS_WEIGHT = 0.01


def cloning(
    params: Params,
    target_params: Params,
    windows: Windows,
    key: jax.Array,
    *,
    model: Model,
    method: Method,
    settings: Settings,
) -> Loss:
    """Behaviour cloning: -log pi(a) of the recorded action (ROSMO, Figure 5b)."""
    del target_params, key, method
    state = model.represent(params, windows.observation[0])
    policy_logits, _ = model.predict(params, state)
    imitation = -model.actions.log_prob(policy_logits, windows.action[0])
    policy_loss = jnp.mean(windows.real[0] * imitation)
    return settings.policy_weight * policy_loss, {"policy": policy_loss}


def planning(
    params: Params,
    target_params: Params,
    windows: Windows,
    key: jax.Array,
    *,
    model: Model,
    method: Method,
    settings: Settings,
    mesh: jax.sharding.Mesh | None = None,
) -> Loss:
    """The unrolled model's loss (ROSMO, eq. 1 and Algorithm 2).

    With an operator, the policy learns its improved policy, and the regulariser imitates
    the recorded actions beside it. Without one, that imitation is the policy loss: ROSMO's
    Behavior (Section 4.2 d). Policy, value and regulariser are averaged over K + 1 steps,
    the reward over K.

    On each device of a mesh (see `parallel`) it is that of the device's windows: actions at random
    are its share of those that one device draws, what the operator draws is its own.
    """
    unroll_steps, td_steps = method.window(settings)
    steps = windows._replace(improved=None)
    now = jax.tree.map(lambda x: x[: unroll_steps + 1], steps)
    state = model.represent(params, windows.observation[0])

    # Predictions along the imagined steps.
    action_key, improve_key = jax.random.split(key)
    whole = now.real.shape[0], now.real.shape[1] * (mesh.size if mesh else 1)
    at_random = parallel.share(model.actions.uniform(action_key, whole), mesh, axis=1)
    action_key, improve_key = (parallel.own(one, mesh) for one in (action_key, improve_key))
    actions = losses.where(now.real, now.action, at_random)[:unroll_steps]
    states, reward_logits = losses.unroll(model, params, state, actions, settings.gradient_scale)
    policy_logits, value_logits = model.predict(params, states)

    # Targets, from the observed states and the target network.
    roots = improvement.root_of(
        model, target_params, model.represent(target_params, windows.observation)
    )
    roots = with_recorded(roots, windows)
    improved = windows.improved
    if improved is None and method.operator is not None:
        improved = improve(target_params, roots, improve_key, model, method, settings)
    value = improved.value if method.bootstrap == "operator" else roots.value
    returns = losses.n_step_returns(
        windows.reward, losses.step_discounts(steps, settings.discount), value, td_steps
    )
    recorded = losses.Recorded(
        now.action,
        now.reward,
        losses.step_discounts(now, settings.discount),
        roots.value[1 : unroll_steps + 2],
    )
    roots, improved = jax.tree.map(lambda x: x[: unroll_steps + 1], (roots, improved))
    value_target = model.support.two_hot(jnp.where(now.absorbing, 0.0, returns))
    reward_target = model.support.two_hot(windows.reward[:unroll_steps])
    value_target, reward_target = jax.lax.stop_gradient((value_target, reward_target))

    known, real = now.known, now.real
    reward_known = (now.real | now.absorbing)[:unroll_steps]
    parts = {
        "value": jnp.mean(known * losses.cross_entropy(value_target, value_logits)),
        "reward": jnp.mean(reward_known * losses.cross_entropy(reward_target, reward_logits)),
    }
    total = settings.value_weight * parts["value"] + settings.reward_weight * parts["reward"]
    imitated = None
    if method.regularizer is not None:
        advantage = contracts.advantage(
            method.regularizer, model, target_params, roots, improved, recorded, settings
        )
        weight = jax.lax.stop_gradient(real * method.weighting(advantage))
        imitation = -model.actions.log_prob(policy_logits, now.action)
        imitated = jnp.mean(weight * imitation)
    if improved is None:
        assert imitated is not None  # `Method` demands an operator or a regularizer.
        parts["policy"] = imitated
    else:
        target = losses.policy_target(model.actions, improved, now, action_key)
        target = jax.lax.stop_gradient(target)
        parts["policy"] = jnp.mean(
            known * losses.policy_cross_entropy(model.actions, target, policy_logits)
        )
        if imitated is not None:
            parts["behavior"] = imitated
            total += settings.behavior_weight * imitated
    return total + settings.policy_weight * parts["policy"], parts


def with_recorded(roots: Any, windows: Windows) -> Any:
    """Roots that know what was done there, if actions are continuous; else as they are."""
    if not isinstance(roots, improvement.Root):
        return roots
    return roots._replace(action=windows.action, recorded=windows.real)


def improve(
    params: Params,
    roots: Any,
    key: jax.Array,
    model: Model,
    method: Method,
    settings: Settings,
) -> improvement.AnyImprovement:
    """The method's operator at the T steps of B windows, or only where its targets need it.

    Args:
      params: parameters of the model.
      roots: predictions at the steps, arrays [T, B, ...].
      key: the operator's randomness.
      model: the learned model.
      method: a `methods.Method` with an operator.
      settings: hyperparameters.

    Returns:
      Arrays [T, B, ...] where values bootstrap from the operator's, n steps further, else
      [K + 1, B, ...]. Steps between, which no target needs, are 0.
    """
    assert method.operator is not None  # As the arguments say.
    unroll_steps, td_steps = method.window(settings)
    gap = np.arange(unroll_steps + 1, td_steps)
    if method.bootstrap != "operator":
        roots, gap = jax.tree.map(lambda x: x[: unroll_steps + 1], roots), gap[:0]
    if len(gap):
        roots = jax.tree.map(lambda x: jnp.delete(x, gap, axis=0), roots)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), roots)
    better = contracts.improve(method.operator, model, params, flat, key, settings)
    better = jax.tree.map(lambda x: x.reshape(*roots.value.shape, *x.shape[1:]), better)
    if len(gap):
        better = jax.tree.map(lambda x: jnp.insert(x, gap - np.arange(len(gap)), 0, axis=0), better)
    return better


def conservative(
    params: Params,
    target_params: Params,
    windows: Windows,
    key: jax.Array,
    *,
    model: Model,
    method: Method,
    settings: Settings,
) -> Loss:
    """Discrete CQL(H) on a categorical Q (Kumar et al., 2020, eq. 4; ROSMO, Figure 5d).

    Cross-entropy to the n-step return that bootstraps from max_a Q of the target network,
    plus `conservative_weight` times log sum_a exp Q(s, a) - Q(s, a_recorded), Q in units of
    return. Maximum and sum are over the actions that are allowed.
    """
    del key
    _, td_steps = method.window(settings)
    target_q = losses.critic_values(
        model, target_params, model.represent(target_params, windows.observation)
    )
    discounts = losses.step_discounts(windows, settings.discount)
    target = losses.n_step_returns(windows.reward, discounts, target_q.max(axis=-1), td_steps)[0]
    target = jax.lax.stop_gradient(model.support.two_hot(target))

    state = model.represent(params, windows.observation[0])
    logits = losses.critic_logits(model, params, state)
    action = windows.action[0]
    chosen = losses.of_action(logits, action)
    gap = losses.conservative_gap(model.keep_to(state, model.support.scalar(logits)), action)
    parts = {
        "value": jnp.mean(losses.cross_entropy(target, chosen)),
        "conservative": jnp.mean(gap),
    }
    return parts["value"] + settings.conservative_weight * parts["conservative"], parts


def critic_regularized(
    params: Params,
    target_params: Params,
    windows: Windows,
    key: jax.Array,
    *,
    model: Model,
    method: Method,
    settings: Settings,
) -> Loss:
    """Critic-regularised regression with a categorical Q (Wang et al., 2020; Figure 5c).

    The critic learns the n-step return that bootstraps from sum_a pi(a|s) Q(s, a); the
    policy imitates recorded actions, weighted by `method.weighting` of Q(s, a) minus that
    sum, all of the target network. The sums over actions are exact; for continuous actions see
    `continuous.critic_regularized`.
    """
    if model.actions.continuous:
        return continuous.critic_regularized(
            params, target_params, windows, key, model=model, method=method, settings=settings
        )
    del key
    _, td_steps = method.window(settings)
    target_state = model.represent(target_params, windows.observation)
    target_q = losses.critic_values(model, target_params, target_state)
    target_policy = jax.nn.softmax(model.predict(target_params, target_state)[0])
    value = jnp.sum(target_policy * target_q, axis=-1)
    discounts = losses.step_discounts(windows, settings.discount)
    target = losses.n_step_returns(windows.reward, discounts, value, td_steps)[0]
    action = windows.action[0]
    advantage = jnp.take_along_axis(target_q[0], action[:, None], axis=1)[:, 0] - value[0]
    target, weight = jax.lax.stop_gradient(
        (model.support.two_hot(target), method.weighting(advantage))
    )

    state = model.represent(params, windows.observation[0])
    logits = losses.critic_logits(model, params, state)
    chosen = jnp.take_along_axis(logits, action[:, None, None], axis=1)[:, 0]
    imitation = -model.actions.log_prob(model.predict(params, state)[0], action)
    parts = {
        "policy": jnp.mean(weight * imitation),
        "value": jnp.mean(losses.cross_entropy(target, chosen)),
    }
    return settings.policy_weight * parts["policy"] + settings.value_weight * parts["value"], parts


def q_learning(
    params: Params,
    target_params: Params,
    windows: Windows,
    key: jax.Array,
    *,
    model: Model,
    method: Method,
    settings: Settings,
) -> Loss:
    """Q-learning with a Huber loss, in units of return: DQN, REM and discrete BCQ.

    The n-step target bootstraps from the target network's Q at its best action, or at the current
    network's if `method.double` (van Hasselt et al., 2016). Heads are mixed by weights drawn once
    for the batch, the same ones in prediction and target (REM; Agarwal et al., 2020). A method
    that learns a policy clones the recorded actions with it, and bootstraps only from actions that
    this policy, the current one, finds likely (discrete BCQ; Fujimoto et al., 2019).
    """
    _, td_steps = method.window(settings)
    reward, discount = losses.n_steps(windows, settings.discount, td_steps)
    mixture = jnp.ones([1])
    if method.critic == "heads":
        drawn = jax.random.uniform(key, [model.support.num_bins])
        mixture = drawn / jnp.sum(drawn)

    def values(params: Params, state: jax.Array, action: jax.Array | None = None) -> jax.Array:
        return losses.critic_logits(model, params, state, action) @ mixture

    ahead = windows.observation[td_steps]
    q_ahead = values(target_params, model.represent(target_params, ahead))
    current = jax.lax.stop_gradient(params)
    state = model.represent(current, ahead)
    judged = values(current, state) if method.double else q_ahead
    judged = model.keep_to(state, judged)
    if method.learns_policy:
        allowed = likely(model.predict(current, state)[0], settings.bcq_threshold)
        judged = jnp.where(allowed, judged, -jnp.inf)
    best = jnp.argmax(judged, axis=-1)
    target = jax.lax.stop_gradient(reward + discount * losses.of_action(q_ahead, best))

    state, action = model.represent(params, windows.observation[0]), windows.action[0]
    parts = {"value": jnp.mean(rlax.huber_loss(target - values(params, state, action)))}
    total = parts["value"]
    if method.learns_policy:
        logits, _ = model.predict(params, state)
        parts["policy"] = jnp.mean(-model.actions.log_prob(logits, action))
        if model.actions.masked:  # type: ignore[union-attr]  # They are discrete.
            logits = jnp.where(model.allowed(state), logits, 0.0)
        parts["logits"] = jnp.mean(logits**2)
        total += settings.policy_weight * parts["policy"] + LOGITS_WEIGHT * parts["logits"]
    return total, parts


def quantile_regression(
    params: Params,
    target_params: Params,
    windows: Windows,
    key: jax.Array,
    *,
    model: Model,
    method: Method,
    settings: Settings,
) -> Loss:
    """Q-learning by quantile regression with a Huber loss, in units of return.

    QR-DQN has quantiles at fixed midpoints (Dabney et al., 2018a, eq. 10), IQN at drawn ones, other
    draws for prediction, target and choice of its action (2018b, eq. 3). The n-step target
    bootstraps from the target network at its action of highest mean. `method.conservative` adds
    `conservative_weight` times log sum_a exp Q(s, a) - Q(s, a_recorded), Q the mean of quantiles:
    CQL(H) as its authors run it on Atari.
    """
    _, td_steps = method.window(settings)
    reward, discount = losses.n_steps(windows, settings.discount, td_steps)
    implicit = method.critic == "implicit"
    choice_key, tau_key = jax.random.split(key)

    def quantiles(params: Params, outputs: jax.Array, tau: jax.Array) -> jax.Array:
        return implicit_quantiles(params, outputs, tau) if implicit else outputs

    ahead = model.represent(target_params, windows.observation[td_steps])
    outputs = losses.critic_logits(model, target_params, ahead)
    if implicit:
        tau, target_tau = jax.random.uniform(tau_key, [2, len(reward), settings.num_taus])
        q_ahead = implicit_values(target_params, outputs, choice_key)
    else:
        tau = target_tau = jnp.tile(midpoints(model.support.num_bins), [len(reward), 1])
        q_ahead = model.support.scalar(outputs)
    q_ahead = model.keep_to(ahead, q_ahead)
    best = losses.of_action(outputs, jnp.argmax(q_ahead, axis=-1))
    following = quantiles(target_params, best, target_tau)
    target = jax.lax.stop_gradient(reward[:, None] + discount[:, None] * following)

    state, action = model.represent(params, windows.observation[0]), windows.action[0]
    outputs = losses.critic_logits(model, params, state, None if method.conservative else action)
    gap = None
    if method.conservative:
        q = model.keep_to(state, jnp.mean(quantiles(params, outputs, tau[:, None]), axis=-1))
        gap = jnp.mean(losses.conservative_gap(q, action))
        outputs = losses.of_action(outputs, action)
    regression = functools.partial(rlax.quantile_regression_loss, huber_param=1.0)
    of_window = jax.vmap(regression)(quantiles(params, outputs, tau), tau, target)
    value = jnp.mean(of_window)
    if gap is None:
        return value, {"value": value}
    return value + settings.conservative_weight * gap, {"value": value, "conservative": gap}
