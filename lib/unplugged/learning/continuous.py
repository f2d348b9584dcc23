"""Objectives over continuous actions: the baselines of MuZero Unplugged's Tables 3 and 4.

Each is an objective, see `objectives`, in the networks that the other methods have: the policy
head is the actor, the dynamics' scalar head the critic (`critic.critic_logits`). Critics learn
n-step returns. Sums over actions are means over `num_samples` draws of the policy.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import rlax

from unplugged.data.windows import Windows
from unplugged.learning import losses
from unplugged.learning.method import Loss, Method
from unplugged.learning.settings import Settings
from unplugged.model.actions import draw
from unplugged.model.critic import critic_logits
from unplugged.model.networks import Model, Params
from unplugged.planning.candidates import space

# D4PG's limit of the norm of dQ/da, as in its authors' code.
LARGEST_SLOPE = 1.0
# MPO's bounds: of the improved policy's KL from the prior, and of a step's (Abdolmaleki et al.,
# 2018), and what both multipliers begin at.
IMPROVEMENT_BOUND, STEP_BOUND, FIRST_MULTIPLIER = 0.1, 0.01, 1.0


# --- Parameters of a method's own --------------------------------------------------------------


def with_actor(model: Model) -> Model:
    """The networks with a representation of the policy's own, `actor`: the critic shares nothing.

    As in RL Unplugged's code. A state is what both representations make of it, side by side. Of
    discrete actions the networks stay as they are, as in ROSMO's Figure 5.
    """
    if not model.actions.continuous:
        return model

    def init(key: jax.Array) -> Params:
        other = model.init(jax.random.fold_in(key, 3))
        return {**model.init(key), "actor": {k: v for k, v in other.items() if k != "dynamics"}}

    def represent(params: Params, observation: jax.Array) -> jax.Array:
        both = (model.represent(of, observation) for of in (params["actor"], params))
        return jnp.concatenate([*both], axis=-1)

    def dynamics(params: Params, state: jax.Array, action: jax.Array) -> tuple:
        actors, critics = jnp.split(state, 2, axis=-1)
        logits, following = model.dynamics(params, critics, action)
        actors = jnp.broadcast_to(actors, following.shape)
        return logits, jnp.concatenate([actors, following], axis=-1)

    def predict(params: Params, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        return model.predict(params["actor"], jnp.split(state, 2, axis=-1)[0])

    return dataclasses.replace(
        model, init=init, represent=represent, dynamics=dynamics, predict=predict
    )


def with_behavior(model: Model) -> Model:
    """`with_actor` and another representation and policy, by which data are cloned: `behavior`."""
    acting = with_actor(model)

    def init(key: jax.Array) -> Params:
        other = acting.init(jax.random.fold_in(key, 2))
        return {**acting.init(key), "behavior": {k: v for k, v in other.items() if k != "dynamics"}}

    return dataclasses.replace(acting, init=init)


def with_multipliers(model: Model) -> Model:
    """`with_behavior` and MPO's two Lagrange multipliers, each as what softplus makes it of."""
    behaving = with_behavior(model)

    def init(key: jax.Array) -> Params:
        first = jnp.log(jnp.expm1(jnp.full([2], FIRST_MULTIPLIER)))
        multipliers = {"temperature": first[0], "step": first[1]}  # No buffer is there twice.
        return {**behaving.init(key), "multipliers": multipliers}

    return dataclasses.replace(behaving, init=init)


# --- What they share -----------------------------------------------------------------------------


def policy_of(model: Model, params: Params, observation: jax.Array) -> jax.Array:
    """The policy's parameters [..., P] at observations [..., *shape]."""
    return model.predict(params, model.represent(params, observation))[0]


def values(model: Model, params: Params, observation: jax.Array, actions: jax.Array) -> jax.Array:
    """The critic's Q [B, K], in units of return, at observations [B, ...], actions [B, K, D]."""
    state = model.represent(params, observation)
    return model.support.scalar(critic_logits(model, params, state[:, None], actions))


def regression(params: Params, windows: Windows, target: jax.Array, model: Model) -> jax.Array:
    """Cross-entropy of the recorded actions' categorical Q to returns [B]. Shape []."""
    state = model.represent(params, windows.observation[0])
    logits = critic_logits(model, params, state, windows.action[0])
    target = jax.lax.stop_gradient(model.support.two_hot(target))
    return jnp.mean(losses.cross_entropy(target, logits))


def ascent(params: Params, windows: Windows, actions: jax.Array, model: Model) -> jax.Array:
    """-Q(s, a) of the windows' first states and actions [B, K, D], which alone have a gradient."""
    fixed = jax.lax.stop_gradient(params)
    return -jnp.mean(values(model, fixed, windows.observation[0], actions))


# --- Objectives ----------------------------------------------------------------------------------


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
    """Critic-regularised regression (Wang et al., 2020, Algorithm 1).

    The critic's target bootstraps from the mean Q of actions that the target policy draws; the
    advantage of a recorded action is its Q less that mean.
    """
    reward, discount = losses.n_steps(windows, settings.discount, settings.td_steps)
    steps = jnp.stack([windows.observation[0], windows.observation[settings.td_steps]])
    policies = policy_of(model, target_params, steps)
    drawn = draw(space(model), key, policies, settings.num_samples)
    q = functools.partial(values, model, target_params)
    now, ahead = (jnp.mean(q(x, a), axis=-1) for x, a in zip(steps, drawn))
    action = windows.action[0]
    advantage = q(windows.observation[0], action[:, None])[:, 0] - now
    weight = jax.lax.stop_gradient(method.weighting(advantage))
    policy = policy_of(model, params, windows.observation[0])
    parts = {
        "policy": jnp.mean(-weight * model.actions.log_prob(policy, action)),
        "value": regression(params, windows, reward + discount * ahead, model),
    }
    return settings.policy_weight * parts["policy"] + settings.value_weight * parts["value"], parts


def distributional_gradient(
    params: Params,
    target_params: Params,
    windows: Windows,
    key: jax.Array,
    *,
    model: Model,
    method: Method,
    settings: Settings,
) -> Loss:
    """D4PG (Barth-Maron et al., 2018): a deterministic policy climbs a distributional critic.

    The critic's target is the n-step distribution of returns at the target policy's action,
    projected onto the atoms (Bellemare et al., 2017). dQ/da is limited in norm.
    """
    del key, method
    reward, discount = losses.n_steps(windows, settings.discount, settings.td_steps)
    ahead = windows.observation[settings.td_steps]
    state = model.represent(target_params, ahead)
    best = model.actions.mode(model.predict(target_params, state)[0])
    following = jax.nn.softmax(critic_logits(model, target_params, state, best))
    atoms = model.support.bins
    moved = reward[:, None] + discount[:, None] * atoms
    project = jax.vmap(rlax.categorical_l2_project, in_axes=(0, 0, None))
    target = jax.lax.stop_gradient(project(moved, following, atoms))

    now = windows.observation[0]
    state = model.represent(params, now)
    logits = critic_logits(model, params, state, windows.action[0])
    action = model.actions.mode(model.predict(params, state)[0])
    slope = jax.grad(lambda a: -len(a) * ascent(params, windows, a[:, None], model))(action)
    climb = functools.partial(rlax.dpg_loss, dqda_clipping=LARGEST_SLOPE)
    parts = {
        "policy": jnp.mean(jnp.sum(jax.vmap(climb)(action, slope), axis=-1)),
        "value": jnp.mean(losses.cross_entropy(target, logits)),
    }
    return settings.policy_weight * parts["policy"] + settings.value_weight * parts["value"], parts


def behavior_regularized(
    params: Params,
    target_params: Params,
    windows: Windows,
    key: jax.Array,
    *,
    model: Model,
    method: Method,
    settings: Settings,
) -> Loss:
    """BRAC-v with the KL divergence (Wu et al., 2019, Section 3).

    The policy climbs the critic and pays `behavior_penalty` times its KL from the cloned policy; so
    does the value that the critic's target bootstraps from. Both policies are normal, whose KL is
    known, where the authors estimate it from samples.
    """
    del method
    reward, discount = losses.n_steps(windows, settings.discount, settings.td_steps)
    now, ahead = windows.observation[0], windows.observation[settings.td_steps]
    keys, of = jax.random.split(key), space(model)

    policy = policy_of(model, target_params, ahead)
    drawn = draw(of, keys[0], policy, settings.num_samples)
    value = jnp.mean(values(model, target_params, ahead, drawn), axis=-1)
    cloned = policy_of(model, target_params["behavior"], ahead)
    value -= settings.behavior_penalty * of.kl(policy, cloned)

    policy = policy_of(model, params, now)
    drawn = draw(of, keys[1], policy, settings.num_samples)
    cloned = policy_of(model, params["behavior"], now)
    divergence = jnp.mean(of.kl(policy, jax.lax.stop_gradient(cloned)))
    parts = {
        "policy": ascent(params, windows, drawn, model) + settings.behavior_penalty * divergence,
        "value": regression(params, windows, reward + discount * value, model),
        "behavior": jnp.mean(-of.log_prob(cloned, windows.action[0])),
    }
    weighted = settings.policy_weight * parts["policy"] + settings.value_weight * parts["value"]
    return weighted + parts["behavior"], parts


def advantage_weighted_prior(
    params: Params,
    target_params: Params,
    windows: Windows,
    key: jax.Array,
    *,
    model: Model,
    method: Method,
    settings: Settings,
) -> Loss:
    """ABM with MPO, RL Unplugged's RABM (Siegel et al., 2020, Algorithm 1).

    The prior imitates recorded actions whose n-step return is above the policy's value. MPO
    improves on it: actions drawn from the prior are weighed by exp(Q / temperature), and the policy
    learns those weights, its KL from the target policy bounded (Abdolmaleki et al., 2018).
    """
    del method
    reward, discount = losses.n_steps(windows, settings.discount, settings.td_steps)
    now, ahead = windows.observation[0], windows.observation[settings.td_steps]
    keys, of = jax.random.split(key, 3), space(model)

    def value(observation: jax.Array, key: jax.Array) -> jax.Array:
        drawn = draw(of, key, policy_of(model, target_params, observation), settings.num_samples)
        return jnp.mean(values(model, target_params, observation, drawn), axis=-1)

    returns = jax.lax.stop_gradient(reward + discount * value(ahead, keys[0]))
    good = losses.heaviside(returns - jax.lax.stop_gradient(value(now, keys[1])))
    prior = policy_of(model, params["behavior"], now)

    drawn = draw(
        of, keys[2], policy_of(model, target_params["behavior"], now), settings.num_candidates
    )
    policy, before = policy_of(model, params, now), policy_of(model, target_params, now)
    multipliers = jax.tree.map(jax.nn.softplus, params["multipliers"])
    step = of.kl(jax.lax.stop_gradient(before), policy)
    improved, _ = rlax.mpo_loss(
        sample_log_probs=of.log_prob(policy[:, None], jax.lax.stop_gradient(drawn)),
        sample_q_values=jax.lax.stop_gradient(values(model, target_params, now, drawn)),
        temperature_constraint=rlax.LagrangePenalty(multipliers["temperature"], IMPROVEMENT_BOUND),
        kl_constraints=[(step, rlax.LagrangePenalty(multipliers["step"], STEP_BOUND))],
        sample_axis=1,
    )
    parts = {
        "policy": jnp.mean(improved),
        "value": regression(params, windows, returns, model),
        "behavior": jnp.mean(-good * of.log_prob(prior, windows.action[0])),
    }
    weighted = settings.policy_weight * parts["policy"] + settings.value_weight * parts["value"]
    return weighted + parts["behavior"], parts
