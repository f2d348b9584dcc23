"""The parts of one update, each to be timed alone in a loop of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from unplugged import improvement, losses, windows
from unplugged.learner import Learner, optimizer

Part = Callable[[jax.Array], Any]


def loop(part: Part, length: int) -> Callable[[], jax.Array]:
    """Compiles `length` repeats of a part, each of which waits for the one before.

    The part gets a number near 0 that comes from its last result, so that no repeat can be
    left out, joined with another or taken out of the loop.
    """

    def body(result: Any, _: None) -> tuple[Any, None]:
        first = jnp.ravel(jax.tree.leaves(result)[0])[0]
        return part(1e-20 * first.astype(jnp.float32)), None

    def run() -> Any:
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(part, jnp.float32(0.0))
        )
        return jax.lax.scan(body, zeros, None, length=length)[0]

    compiled = jax.jit(run).lower().compile()
    return lambda: jax.block_until_ready(compiled())


def of_update(learner: Learner, data: windows.Store) -> dict[str, Part]:
    """The parts of one update of rosmo or mzu, by name, in order.

    "loss forward" is also within "loss forward and backward".
    """
    model, method, settings = learner.model, learner.method, learner.settings
    unroll_steps, td_steps = method.window(settings)
    now, length = unroll_steps + 1, unroll_steps + td_steps + 1
    state, key = jax.jit(learner.init)(0), jax.random.key(1)
    drawn = jax.jit(lambda: windows.sample(data, key, settings.batch_size, length))()

    def sample(near_zero: jax.Array) -> Any:
        again = jax.random.fold_in(key, near_zero.astype(jnp.int32))
        return windows.sample(data, again, settings.batch_size, length)

    def target_roots(near_zero: jax.Array) -> Any:
        states = model.represent(state.target_params, drawn.observation + near_zero)
        return improvement.root_of(model, state.target_params, states)

    roots = jax.jit(target_roots)(0.0)
    improve_all = method.bootstrap == "operator"
    used = roots if improve_all else jax.tree.map(lambda x: x[:now], roots)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), used)

    def improve(near_zero: jax.Array) -> Any:
        again = jax.random.fold_in(key, near_zero.astype(jnp.int32))
        moved = flat.replace(embedding=flat.embedding + near_zero)
        return method.operator(model, state.target_params, moved, again, settings)

    improved = jax.tree.map(
        lambda x: x.reshape(*used.value.shape, *x.shape[1:]), jax.jit(improve)(0.0)
    )

    def loss(params: Any, near_zero: jax.Array) -> jax.Array:
        root = model.represent(params, drawn.observation[0] + near_zero)
        states, reward_logits = losses.unroll(
            model, params, root, drawn.action[:unroll_steps], settings.gradient_scale
        )
        policy_logits, value_logits = model.predict(params, states)
        bootstrap = (improved if improve_all else roots).value
        discounts = losses.step_discounts(drawn, settings.discount)
        returns = losses.n_step_returns(drawn.reward, discounts, bootstrap + near_zero, td_steps)
        value, reward = (
            model.support.two_hot(x + near_zero) for x in (returns, drawn.reward[:unroll_steps])
        )
        imitation = losses.negative_log_probability(policy_logits, drawn.action[:now])
        total = jnp.mean(losses.cross_entropy(improved.policy[:now], policy_logits))
        total += settings.value_weight * jnp.mean(losses.cross_entropy(value, value_logits))
        total += settings.reward_weight * jnp.mean(losses.cross_entropy(reward, reward_logits))
        if method.regularizer is not None:
            total += settings.behavior_weight * jnp.mean(imitation)
        return total

    gradients = jax.jit(jax.grad(loss))(state.params, 0.0)

    def optimise(near_zero: jax.Array) -> Any:
        moved = jax.tree.map(lambda x: x + near_zero, gradients)
        changes, opt_state = optimizer(settings).update(moved, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        refreshed = optax.periodic_update(
            params, state.target_params, state.updates + 1, settings.target_interval
        )
        return params, refreshed, opt_state

    return {
        "sampling": sample,
        "target roots": target_roots,
        "search" if improve_all else "look-ahead": improve,
        "loss forward": lambda near_zero: loss(state.params, near_zero),
        "loss forward and backward": lambda near_zero: jax.value_and_grad(loss)(
            state.params, near_zero
        ),
        "optimiser": optimise,
    }
