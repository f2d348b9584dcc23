"""Rollouts in a world model, and what MOReL and COMBO learn from them.

Policies and critics are `networks` whose observation is the world model's state. Time comes
first: a rollout has H steps, which H + 1 states surround.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import rlax

from unplugged.data import windows as recorded
from unplugged.data.windows import Store, Windows
from unplugged.learning import losses, objectives
from unplugged.learning.method import Loss, Method
from unplugged.learning.world_model import disagreement
from unplugged.model.networks import Model
from unplugged.model.world import Params, World, WorldState, straight_through
from unplugged.planning import improvement


class Rollouts(NamedTuple):
    """R imagined rollouts of H steps.

    Attributes:
      features: the states before the first step and after each. Shape [H + 1, R, F].
      action: shape [H, R].
      reward: what followed the action. Shape [H, R].
      discount: 0 where the episode ended with this step, else 1. Shape [H, R].
      disagreement: of the ensemble about this step. Shape [H, R].
    """

    features: jax.Array
    action: jax.Array
    reward: jax.Array
    discount: jax.Array
    disagreement: jax.Array

    @property
    def real(self) -> jax.Array:
        """Whether a step was taken: the episode had not ended before it. Shape [H, R] bool."""
        ended = jnp.cumsum(self.discount == 0.0, axis=0) > 0
        return ~jnp.concatenate([jnp.zeros_like(ended[:1]), ended[:-1]])


def members_of(world: World, params: Params, start: WorldState, key: jax.Array) -> jax.Array:
    """A member of the ensemble for each of R rollouts, drawn at random. Shape [R]."""
    members = world.prior(params, start.recurrent).shape[0]
    return jax.random.randint(key, start.recurrent.shape[:-1], 0, members)


def advance(
    world: World,
    params: Params,
    state: WorldState,
    action: jax.Array,
    member: jax.Array,
    key: jax.Array,
) -> tuple[WorldState, jax.Array]:
    """The next state by a member of the ensemble, and what all members expect of it.

    Args:
      world: the world model.
      params: its parameters.
      state: R states.
      action: shape [R].
      member: which member draws the latent. Shape [R].
      key: randomness.

    Returns:
      The states and the priors' logits [M, R, C, K].
    """
    recurrent = world.recur(params, state, action)
    prior = world.prior(params, recurrent)
    chosen = jnp.take_along_axis(prior, member[None, :, None, None], axis=0)[0]
    return WorldState(recurrent, straight_through(chosen, key)), prior


def imagine(
    world: World,
    params: Params,
    act: Callable[[jax.Array, jax.Array], jax.Array],
    start: WorldState,
    key: jax.Array,
    steps: int,
) -> Rollouts:
    """Rolls a policy out in the world model, each rollout by one member drawn at random.

    An episode ends with the probability that the model gives; what comes after is not real.

    Args:
      world: the world model.
      params: its parameters.
      act: (features [R, F], key) -> action [R].
      start: where the R rollouts begin.
      key: randomness.
      steps: H.
    """
    member_key, key = jax.random.split(key)
    member = members_of(world, params, start, member_key)

    def step(state: WorldState, key: jax.Array) -> tuple[WorldState, tuple]:
        act_key, draw_key, end_key = jax.random.split(key, 3)
        action = act(state.features, act_key)
        following, prior = advance(world, params, state, action, member, draw_key)
        decoded = world.decode(params, following.features)
        goes_on = jax.random.bernoulli(end_key, jax.nn.sigmoid(decoded.discount))
        happened = (
            following.features, action, decoded.reward, goes_on.astype(jnp.float32),
            disagreement(prior),
        )  # fmt: skip
        return following, happened

    _, (features, *rest) = jax.lax.scan(step, start, jax.random.split(key, steps))
    return Rollouts(jnp.concatenate([start.features[None], features]), *rest)


def pessimistic(rollouts: Rollouts, threshold: jax.Array | float, reward: float) -> Rollouts:
    """MOReL's pessimistic MDP: a step beyond the threshold ends the episode (its Definition 4).

    Args:
      rollouts: as the world model has them.
      threshold: of the disagreement.
      reward: what follows such a step.
    """
    unknown = rollouts.disagreement > threshold
    return rollouts._replace(
        reward=jnp.where(unknown, reward, rollouts.reward),
        discount=jnp.where(unknown, 0.0, rollouts.discount),
    )


def stored(
    features: jax.Array,
    action: jax.Array,
    reward: jax.Array,
    discount: jax.Array,
    real: jax.Array,
) -> tuple[Store, jax.Array]:
    """Stretches of states as a store, from which windows are drawn as from a dataset.

    Args:
      features: L states of B stretches. Shape [L, B, F].
      action: between them. Shape [L - 1, B].
      reward: the same.
      discount: the same, 0 where the episode ended.
      real: whether a step was taken, each stretch's first ones. Shape [L - 1, B] bool.

    Returns:
      The store, of L * B steps, in which a stretch ends with its last real step as if cut off,
      unless its episode ended; and which steps are real, the store's windows beginning at them.
      Shape [L * B] bool.
    """
    length, stretches = features.shape[:2]
    last = jnp.sum(real, axis=0)
    ends = jnp.take_along_axis(discount, jnp.maximum(last - 1, 0)[None], axis=0)[0]

    def flat(x: jax.Array, beyond: Any) -> jax.Array:
        x = jnp.concatenate([jnp.where(real, x, beyond), jnp.zeros_like(x[:1])])
        x = jnp.where(jnp.arange(length)[:, None] < last, x, beyond)
        return x.T.reshape(-1)

    begins = jnp.arange(stretches) * length
    store = Store(
        observation=jnp.swapaxes(features, 0, 1).reshape(-1, features.shape[-1]),
        action=flat(action, 0),
        reward=flat(reward, 0.0),
        discount=flat(discount, ends),
        end=jnp.repeat(begins + last, length),
        start=jnp.arange(length * stretches),
    )
    return store, flat(real, False)


def some(real: jax.Array, key: jax.Array, number: int) -> jax.Array:
    """Indices of that many real steps of [N], uniformly, with replacement. Shape [number]."""
    weight = real.astype(jnp.float32)
    return jax.random.choice(key, real.shape[0], (number,), p=weight / jnp.sum(weight))


def draw(store: Store, real: jax.Array, key: jax.Array, number: int, length: int) -> Windows:
    """Windows that begin at real steps of a store, see `stored` and `some`."""
    return recorded.at(store, some(real, key, number), length)


class Experience(NamedTuple):
    """What PPO learns from, a step each, N of them.

    Attributes:
      features: states. Shape [N, F].
      action: what was done. Shape [N].
      log_probability: of it, when it was done. Shape [N].
      advantage: how much better it was than expected. Shape [N].
      target: what the value is to become. Shape [N].
      real: whether the step counts. Shape [N] bool.
    """

    features: jax.Array
    action: jax.Array
    log_probability: jax.Array
    advantage: jax.Array
    target: jax.Array
    real: jax.Array


def experience(
    model: Model, params: Params, rollouts: Rollouts, discount: float, gae_lambda: float
) -> Experience:
    """A round's rollouts with generalised advantages (Schulman et al., 2016), step by step.

    Args:
      model: the agent's networks.
      params: their parameters, those of the rollouts.
      rollouts: what was imagined.
      discount: gamma.
      gae_lambda: lambda.
    """
    root = improvement.root_of(model, params, model.represent(params, rollouts.features))
    log_probability = model.actions.log_prob(root.prior_logits[:-1], rollouts.action)
    advantage = jax.vmap(
        lambda r, d, v: rlax.truncated_generalized_advantage_estimation(r, d, gae_lambda, v),
        in_axes=1,
        out_axes=1,
    )(rollouts.reward, discount * rollouts.discount, root.value)
    taken = Experience(
        rollouts.features[:-1], rollouts.action, log_probability, advantage,
        advantage + root.value[:-1], rollouts.real,
    )  # fmt: skip
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), taken)


def clipped_surrogate(
    params: Params,
    target_params: Params,
    windows: Experience,
    key: jax.Array,
    *,
    model: Model,
    method: Method,
    settings: Any,
) -> Loss:
    """PPO's loss on a minibatch of imagined steps (Schulman et al., 2017, eq. 7 and 9).

    An objective, see `objectives`, on `Experience` instead of windows. Advantages are normalised
    over the minibatch, as in cleanrl. Values are categorical, as those of every method here.
    """
    del target_params, key, method
    steps, weight = windows, windows.real / jnp.maximum(jnp.sum(windows.real), 1.0)
    mean = jnp.sum(weight * steps.advantage)
    spread = jnp.sqrt(jnp.sum(weight * (steps.advantage - mean) ** 2))
    advantage = (steps.advantage - mean) / (spread + 1e-8)
    logits, value_logits = model.predict(params, model.represent(params, steps.features))
    ratio = jnp.exp(model.actions.log_prob(logits, steps.action) - steps.log_probability)
    # rlax averages over all steps, real ones or not.
    share = weight * weight.size
    parts = {
        "policy": rlax.clipped_surrogate_pg_loss(ratio, share * advantage, settings.clip),
        "value": jnp.sum(
            weight * losses.cross_entropy(model.support.two_hot(steps.target), value_logits)
        ),
        "entropy": jnp.sum(weight * losses.cross_entropy(jax.nn.softmax(logits), logits)),
    }
    total = parts["policy"] - settings.entropy_weight * parts["entropy"]
    return total + settings.value_weight * parts["value"], parts


def conservative(
    params: Params,
    target_params: Params,
    windows: Windows,
    key: jax.Array,
    *,
    model: Model,
    method: Method,
    settings: Any,
) -> Loss:
    """COMBO's loss on a batch that ends in imagined windows (Yu et al., 2021; ROSMO, F.1.3).

    An objective, see `objectives`. It is `objectives.conservative`, CQL(H), on the mixed batch;
    read "apart", the penalty is log sum_a exp Q at imagined states less Q of recorded actions.
    """
    total, parts = objectives.conservative(
        params, target_params, windows, key, model=model, method=method, settings=settings
    )
    if settings.conservative_reading == "mixed":
        return total, parts
    q = losses.critic_values(model, params, model.represent(params, windows.observation[0]))
    number = recorded_windows(settings)
    chosen = jnp.take_along_axis(q[:number], windows.action[0, :number, None], axis=1)
    gap = jnp.mean(jax.nn.logsumexp(q[number:], axis=-1)) - jnp.mean(chosen)
    parts = {**parts, "conservative": gap}
    return parts["value"] + settings.conservative_weight * gap, parts


def recorded_windows(settings: Any) -> int:
    """Windows of COMBO's batch that are recorded, the first ones."""
    return settings.batch_size - round(settings.imagined_share * settings.batch_size)
