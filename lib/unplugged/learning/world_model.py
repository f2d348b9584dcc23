"""Learning a world model from recorded windows, and following an episode with it.

Time comes first: T steps of B windows, whose first step begins with an empty memory.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from unplugged.data.windows import Windows
from unplugged.learning.method import Loss, Method
from unplugged.model.world import Params, World, WorldState, straight_through


def follow(
    world: World, params: Params, observation: jax.Array, action: jax.Array, key: jax.Array
) -> tuple[WorldState, jax.Array]:
    """States of recorded steps, each latent drawn from the posterior.

    Args:
      world: the world model.
      params: its parameters.
      observation: shape [T, B, ...].
      action: shape [T, B].
      key: randomness of the draws.

    Returns:
      The states [T, B, ...] and the posterior's logits [T, B, C, K].
    """
    embedding = world.encode(params, observation)

    def step(recurrent: jax.Array, now: tuple) -> tuple[jax.Array, tuple]:
        embedded, action, key = now
        logits = world.posterior(params, recurrent, embedded)
        state = WorldState(recurrent, straight_through(logits, key))
        return world.recur(params, state, action), (state, logits)

    keys = jax.random.split(key, action.shape[0])
    begin = world.beginning(action.shape[1:])
    return jax.lax.scan(step, begin, (embedding, action, keys))[1]


def divergence(p: jax.Array, q: jax.Array) -> jax.Array:
    """KL(p || q) of categoricals [..., C, K] given as logits, summed over the C. Shape [...]."""
    p, q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
    return jnp.sum(jnp.exp(p) * (p - q), axis=(-2, -1))


def balanced_divergence(
    posterior: jax.Array, prior: jax.Array, balance: float, free_nats: float = 0.0
) -> jax.Array:
    """KL(posterior || prior), of whose gradient the share `balance` goes to the prior.

    The rest goes to the posterior (Hafner et al., 2021, Algorithm 2), which pays nothing for
    `free_nats` of it.

    Args:
      posterior: logits [..., C, K].
      prior: the same.
      balance: share, in [0, 1].
      free_nats: below which the posterior is left alone.

    Returns:
      The divergence. Shape [...].
    """
    to_prior = divergence(jax.lax.stop_gradient(posterior), prior)
    to_posterior = divergence(posterior, jax.lax.stop_gradient(prior))
    return balance * to_prior + (1.0 - balance) * jnp.maximum(to_posterior, free_nats)


def inside(windows: Windows) -> jax.Array:
    """Which steps lie within their episode, its last observation included. Shape [T, B]."""
    return jnp.concatenate([jnp.ones_like(windows.real[:1]), windows.real[:-1]])


def evidence(
    params: Params,
    target_params: Params,
    windows: Windows,
    key: jax.Array,
    *,
    model: World,
    method: Method,
    settings: Any,
) -> Loss:
    """The world model's loss: what the states do not tell (Hafner et al., 2021, eq. 2).

    An objective, see `objectives`. Observations are Bernoulli, rewards normal with unit variance,
    going on is Bernoulli; a state tells the reward and the discount of the step that led to it.
    The divergence is the mean over the ensemble's members. Each is summed over what a step has,
    and averaged over steps and windows.
    """
    del target_params, method
    states, posterior = follow(model, params, windows.observation, windows.action, key)
    prior = model.prior(params, states.recurrent)
    decoded = model.decode(params, states.features)
    here = inside(windows)
    bits = optax.sigmoid_binary_cross_entropy(decoded.observation, windows.observation)
    going_on = optax.sigmoid_binary_cross_entropy(decoded.discount[1:], windows.discount[:-1])
    balance, free = settings.kl_balance, settings.free_nats
    kl = jax.vmap(lambda member: balanced_divergence(posterior, member, balance, free))
    parts = {
        "observation": jnp.mean(here * jnp.sum(bits, axis=range(2, bits.ndim))),
        "reward": jnp.mean(here[1:] * 0.5 * (decoded.reward[1:] - windows.reward[:-1]) ** 2),
        "discount": jnp.mean(here[1:] * going_on),
        "kl": jnp.mean(here * jnp.mean(kl(prior), axis=0)),
    }
    total = parts["observation"] + parts["reward"] + parts["discount"]
    return total + settings.kl_weight * parts["kl"], parts


def disagreement(prior: jax.Array) -> jax.Array:
    """The largest distance between what two members expect (ROSMO, Appendix F.1.2).

    Args:
      prior: logits by each member [M, ..., C, K].

    Returns:
      max_ij || p_i - p_j ||_2 of the classes' probabilities. Shape [...].
    """
    p = jax.nn.softmax(prior)
    return jnp.max(jnp.sqrt(jnp.sum((p[:, None] - p[None]) ** 2, axis=(-2, -1))), axis=(0, 1))


def recorded_disagreement(
    world: World, params: Params, windows: Windows, key: jax.Array
) -> jax.Array:
    """The members' disagreement after each recorded step; 0 where there is none. Shape [T, B].

    Of the last step of the windows it is 0 too, since what follows lies beyond.
    """
    states, _ = follow(world, params, windows.observation, windows.action, key)
    after = disagreement(world.prior(params, states.recurrent[1:]))
    return jnp.concatenate([windows.real[:-1] * after, jnp.zeros_like(after[:1])])
