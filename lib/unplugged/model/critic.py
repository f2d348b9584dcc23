"""The dynamics read as a critic: Q(s, a) as a categorical distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from unplugged.model.networks import Model, Params


def critic_logits(model: Model, params: Params, state: jax.Array) -> jax.Array:
    """Logits of a categorical Q(s, a), all actions at once.

    The critic is the dynamics without its next state: its scalar head predicts the return
    instead of the reward (ROSMO, Figure 5c and d, Appendix D.2.1).

    Args:
      model: the networks.
      params: their parameters.
      state: states. Shape [..., S].

    Returns:
      Logits over bins. Shape [..., A, bins].
    """
    logits, _ = model.dynamics(params, state[..., None, :], jnp.arange(model.num_actions))
    return logits


def critic_values(model: Model, params: Params, state: jax.Array) -> jax.Array:
    """Q(s, a) of the critic, in units of return, for states [..., S]. Shape [..., A]."""
    return model.support.scalar(critic_logits(model, params, state))
