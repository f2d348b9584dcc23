"""The parts of one update, each to be timed alone in a loop of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from unplugged import improvement, losses, objectives, windows
from unplugged.learner import Learner, LearnerState, optimizer
from unplugged.model.actions import SMALLEST_UNIFORM, draw

Part = Callable[[jax.Array, Any], Any]


def loop(part: Part, length: int, given: Any) -> Callable[[], jax.Array]:
    """Compiles `length` repeats of a part, each of which waits for the one before.

    The part gets a number near 0 that comes from its last result, so that no repeat can be
    left out, joined with another or taken out of the loop; and `given`, arrays that the compiler
    does not know.
    """

    def run(given: Any) -> Any:
        def body(result: Any, _: None) -> tuple[Any, None]:
            first = jnp.ravel(jax.tree.leaves(result)[0])[0]
            return part(1e-20 * first.astype(jnp.float32), given), None

        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(part, jnp.float32(0.0), given)
        )
        return jax.lax.scan(body, zeros, None, length=length)[0]

    compiled = jax.jit(run).lower(given).compile()
    return lambda: jax.block_until_ready(compiled(given))


def of_update(
    learner: Learner, data: windows.Store, state: LearnerState
) -> tuple[dict[str, Part], dict[str, Any]]:
    """The parts of one update of rosmo or mzu, by name, in order; and what they are given.

    "loss forward" is also within "loss forward and backward", and what the model and the drawing of
    candidates take is within "search". A search in a trained model goes deeper than in an untrained
    one, so `state` had better be trained.
    """
    model, method, settings = learner.model, learner.method, learner.settings
    unroll_steps, td_steps = method.window(settings)
    now, length = unroll_steps + 1, unroll_steps + td_steps + 1
    key = jax.random.key(1)
    given: dict[str, Any] = {"state": state, "data": data}
    given["drawn"] = jax.jit(lambda: windows.sample(data, key, settings.batch_size, length))()

    def sample(near_zero: jax.Array, given: Any) -> Any:
        again = jax.random.fold_in(key, near_zero.astype(jnp.int32))
        return windows.sample(given["data"], again, settings.batch_size, length)

    def target_roots(near_zero: jax.Array, given: Any) -> Any:
        params = given["state"].target_params
        states = model.represent(params, given["drawn"].observation + near_zero)
        roots = improvement.root_of(model, params, states)
        return objectives.with_recorded(roots, given["drawn"])

    given["roots"] = roots = jax.jit(target_roots)(0.0, given)
    improve_all = method.bootstrap == "operator"
    used = roots if improve_all else jax.tree.map(lambda x: x[:now], roots)
    given["flat"] = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), used)

    def improve(near_zero: jax.Array, given: Any) -> Any:
        again = jax.random.fold_in(key, near_zero.astype(jnp.int32))
        root = given["flat"]
        replace = root._replace if model.actions.continuous else root.replace
        moved = replace(embedding=root.embedding + near_zero)
        return method.operator(model, given["state"].target_params, moved, again, settings)

    def model_steps(near_zero: jax.Array, given: Any) -> Any:
        root, params = given["flat"], given["state"].target_params
        actions = model.actions.uniform(key, root.value.shape)

        def step(state: jax.Array, _: None) -> tuple[jax.Array, Any]:
            reward_logits, state = model.dynamics(params, state, actions)
            policy_logits, value_logits = model.predict(params, state)
            found = model.support.scalar(reward_logits), model.support.scalar(value_logits)
            return state, (*found, policy_logits)

        start = root.embedding + near_zero
        return jax.lax.scan(step, start, None, length=settings.num_simulations)[1]

    def candidates(near_zero: jax.Array, given: Any) -> Any:
        parameters = given["flat"].prior_logits + near_zero
        seeds = jax.random.bits(key, (parameters.shape[0], 2))

        def one(seed: jax.Array, number: jax.Array) -> jax.Array:
            again = jax.random.fold_in(jax.random.wrap_key_data(seed), number)
            return jax.random.uniform(again, [model.actions.dims], minval=SMALLEST_UNIFORM)

        def step(_: None, number: jax.Array) -> tuple[None, jax.Array]:
            uniform = jax.vmap(one, (0, None))(seeds, number)
            return None, model.actions.sample(parameters, uniform)

        at_root = draw(model.actions, key, parameters, settings.num_candidates)
        return at_root, jax.lax.scan(step, None, jnp.arange(settings.num_simulations))[1]

    given["improved"] = jax.tree.map(
        lambda x: x.reshape(*used.value.shape, *x.shape[1:]), jax.jit(improve)(0.0, given)
    )

    def loss(params: Any, near_zero: jax.Array, given: Any) -> jax.Array:
        drawn, improved = given["drawn"], given["improved"]
        root = model.represent(params, drawn.observation[0] + near_zero)
        states, reward_logits = losses.unroll(
            model, params, root, drawn.action[:unroll_steps], settings.gradient_scale
        )
        policy_logits, value_logits = model.predict(params, states)
        bootstrap = (improved if improve_all else given["roots"]).value
        discounts = losses.step_discounts(drawn, settings.discount)
        returns = losses.n_step_returns(drawn.reward, discounts, bootstrap + near_zero, td_steps)
        value, reward = (
            model.support.two_hot(x + near_zero) for x in (returns, drawn.reward[:unroll_steps])
        )
        imitation = -model.actions.log_prob(policy_logits, drawn.action[:now])
        target = jax.tree.map(lambda x: x[:now], improved)
        total = jnp.mean(losses.policy_cross_entropy(model.actions, target, policy_logits))
        total += settings.value_weight * jnp.mean(losses.cross_entropy(value, value_logits))
        total += settings.reward_weight * jnp.mean(losses.cross_entropy(reward, reward_logits))
        if method.regularizer is not None:
            total += settings.behavior_weight * jnp.mean(imitation)
        return total

    given["gradients"] = jax.jit(jax.grad(loss))(state.params, 0.0, given)

    def optimise(near_zero: jax.Array, given: Any) -> Any:
        state = given["state"]
        moved = jax.tree.map(lambda x: x + near_zero, given["gradients"])
        changes, opt_state = optimizer(settings).update(moved, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        refreshed = optax.periodic_update(
            params, state.target_params, state.updates + 1, settings.target_interval
        )
        return params, refreshed, opt_state

    def forward(near_zero: jax.Array, given: Any) -> Any:
        return loss(given["state"].params, near_zero, given)

    def both(near_zero: jax.Array, given: Any) -> Any:
        return jax.value_and_grad(loss)(given["state"].params, near_zero, given)

    parts = {
        "sampling": sample,
        "target roots": target_roots,
        "search" if improve_all else "look-ahead": improve,
        "loss forward": forward,
        "loss forward and backward": both,
        "optimiser": optimise,
    }
    if improve_all:
        parts["model within search"] = model_steps
        if model.actions.continuous:
            parts["candidates within search"] = candidates
    return parts, given
