"""Critics: what the dynamics' scalar head predicts, read as returns of every action."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import haiku as hk
import jax
import jax.numpy as jnp

from unplugged.model import transforms
from unplugged.model.networks import Model, Params, layers

Critic = Literal["categorical", "scalar", "heads", "quantiles", "implicit", "atoms"]

COSINES = 64  # IQN's embedding of a quantile's level.
DRAWN = 32  # Quantiles whose mean is IQN's value where it chooses an action.


def critic_logits(
    model: Model, params: Params, state: jax.Array, action: jax.Array | None = None
) -> jax.Array:
    """Logits of a categorical Q(s, a), or what else the outputs of a critic stand for.

    The critic is the dynamics without its next state: its scalar head predicts the return
    instead of the reward (ROSMO, Figure 5c and d, Appendix D.2.1).

    Args:
      model: the networks.
      params: their parameters.
      state: states. Shape [..., S].
      action: actions [...]; None: all of them at once.

    Returns:
      Outputs of those actions [..., bins], or of all [..., A, bins].
    """
    if action is None:
        logits, _ = model.dynamics(params, state[..., None, :], jnp.arange(model.num_actions))
    else:
        logits, _ = model.dynamics(params, state, action)
    return logits


def critic_values(model: Model, params: Params, state: jax.Array) -> jax.Array:
    """Q(s, a) of the critic, in units of return, for states [..., S]. Shape [..., A]."""
    return model.keep_to(state, model.support.scalar(critic_logits(model, params, state)))


def num_outputs(critic: Critic, settings: Any) -> int:
    """How many outputs the scalar head has for a critic: `num_bins` of the networks."""
    return {
        "categorical": settings.num_bins,
        "atoms": settings.num_atoms,
        "scalar": 1,
        "heads": settings.num_heads,
        "quantiles": settings.num_quantiles,
        "implicit": settings.sizes()["prediction"][-1],
    }[critic]


def with_critic(model: Model, critic: Critic) -> Model:
    """The same networks, with the outputs of their scalar heads read by a critic.

    Args:
      model: networks with `num_outputs` bins.
      critic: "categorical": logits over bins, as the networks have it. "atoms": logits over
        returns that are not squashed, see `transforms.Atoms`. Otherwise the outputs are
        in units of return and not squashed: "scalar", one value; "heads", values that start
        different; "quantiles", at the midpoints of equal shares. "implicit": features of a state
        and an action, from which `implicit_quantiles` makes any quantile; they start at random,
        and the parameters gain a part `quantiles`.

    Raises:
      ValueError: on `init`, if outputs must start at random and the dynamics of the networks have
        no head of the name "reward".
    """
    if critic == "categorical":
        return model
    size = model.support.num_bins
    if critic == "atoms":
        return dataclasses.replace(model, support=transforms.Atoms(size))

    def init(key: jax.Array) -> Params:
        params = model.init(key)
        head_key, quantiles_key = jax.random.split(jax.random.fold_in(key, 1))
        if critic in ("heads", "implicit"):
            params = _with_random_head(params, head_key)
        if critic == "implicit":
            example = jnp.zeros([1, size]), jnp.zeros([1, 1])
            params = {**params, "quantiles": _IMPLICIT.init(quantiles_key, *example)}
        return params

    return dataclasses.replace(model, init=init, support=transforms.Returns(size))


def _with_random_head(params: Params, key: jax.Array) -> Params:
    """The dynamics' scalar head drawn as other layers are, instead of zero."""
    dynamics = params["dynamics"]
    if "reward" not in dynamics:
        raise ValueError(
            f"the dynamics of these networks have no head of the name 'reward', which this critic "
            f"must draw at random, but {', '.join(dynamics)}; name their scalar head 'reward'"
        )
    head = dynamics["reward"]
    stddev = (head["b"].size / head["w"].size) ** 0.5  # 1 / sqrt(inputs)
    w = stddev * jax.random.truncated_normal(key, -2.0, 2.0, head["w"].shape)
    return {**params, "dynamics": {**dynamics, "reward": {**head, "w": w}}}


def _implicit(features: jax.Array, tau: jax.Array) -> jax.Array:
    size = features.shape[-1]
    cosines = jnp.cos(jnp.pi * jnp.arange(COSINES) * tau[..., None])
    embedding = jax.nn.relu(layers.Linear(size, name="embedding")(cosines))
    x = jax.nn.relu(features)[..., None, :] * embedding
    return layers.head(jax.nn.relu(layers.Linear(size, name="hidden")(x)), 1, "output")[..., 0]


_IMPLICIT = hk.without_apply_rng(hk.transform(_implicit))


def implicit_quantiles(params: Params, features: jax.Array, tau: jax.Array) -> jax.Array:
    """Quantiles of returns at any levels (IQN; Dabney et al., 2018b, eq. 4).

    The features are multiplied by an embedding of the level's cosines, then a hidden layer.

    Args:
      params: parameters of a model with the critic "implicit".
      features: outputs of `critic_logits`. Shape [..., D].
      tau: levels in (0, 1). Shape [..., N]; leading shapes broadcast.

    Returns:
      Quantiles in units of return. Shape [..., N].
    """
    return _IMPLICIT.apply(params["quantiles"], features, tau)


def implicit_values(params: Params, features: jax.Array, key: jax.Array) -> jax.Array:
    """Means of `DRAWN` quantiles at random levels, the same for all actions of a state.

    Features [B, A, D] to values [B, A].
    """
    tau = jax.random.uniform(key, [features.shape[0], 1, DRAWN])
    return jnp.mean(implicit_quantiles(params, features, tau), axis=-1)


def midpoints(number: int) -> jax.Array:
    """Levels in the middle of equal shares, 1 / 2N, 3 / 2N, ... (Dabney et al., 2018a). [N]."""
    return (jnp.arange(number) + 0.5) / number


def likely(policy_logits: jax.Array, threshold: float) -> jax.Array:
    """Actions at least `threshold` times as probable as the most probable one. Shape [..., A].

    Discrete BCQ's choice (Fujimoto et al., 2019): all actions at 0, at 1 the best alone.
    """
    policy = jax.nn.softmax(policy_logits)
    return policy >= threshold * jnp.max(policy, axis=-1, keepdims=True)
