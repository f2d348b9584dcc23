"""Candidate actions: what a search over continuous actions enumerates (Hubert et al., 2021).

A node's K candidates are drawn from its policy, so that the prior over them is uniform. Those of
the root are drawn at once, since the policy learns from them. Within the tree a candidate is drawn
when it is first tried: until then nothing depends on it. A node so carries its policy's parameters
and a seed instead of K actions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mctx

from unplugged.model.actions import SMALLEST_UNIFORM, Continuous, draw
from unplugged.model.networks import Model, Params


class Root(NamedTuple):
    """N states of an environment with continuous actions, the root of an operator.

    Attributes:
      prior_logits: the policy's parameters, see `actions`. Shape [N, P].
      value: the network's value, in units of return. Shape [N].
      embedding: [N, S].
      action: what was done there, [N, D]; None: nothing is known, as in acting.
      recorded: whether `action` means anything. Shape [N]; None as `action`.
    """

    prior_logits: jax.Array
    value: jax.Array
    embedding: jax.Array
    action: jax.Array | None = None
    recorded: jax.Array | None = None


class Candidates(NamedTuple):
    """Actions that are weighed at N states.

    Attributes:
      actions: [N, K, D].
      prior: probabilities [N, K].
    """

    actions: jax.Array
    prior: jax.Array


class _Node(NamedTuple):
    """What a search keeps of a state.

    Attributes:
      state: [N, S].
      parameters: of the policy, [N, P].
      seed: of the candidates and of the nodes that they lead to, [N, 2] uint32.
      within: whether it is below the root, [N].
    """

    state: jax.Array
    parameters: jax.Array
    seed: jax.Array
    within: jax.Array


def space(model: Model) -> Continuous:
    """The action space of a model; raises TypeError if it is discrete."""
    if not isinstance(model.actions, Continuous):
        raise TypeError(f"candidates are drawn from continuous actions, not from {model.actions}")
    return model.actions


def offer(model: Model, root: Root, key: jax.Array, settings: Any) -> Candidates:
    """`num_candidates` actions drawn from the policy, with a uniform prior.

    Where an action was recorded it takes the last one's place, its prior is `injection`, and the
    others share the rest (MuZero Unplugged, Section 6). With an `injection` of 0 it does not.
    """
    number, share = settings.num_candidates, settings.injection
    actions = draw(space(model), key, root.prior_logits, number)
    prior = jnp.full(actions.shape[:2], 1.0 / number)
    if root.action is None or root.recorded is None or not share:
        return Candidates(actions, prior)
    there = root.recorded[:, None]
    last = jnp.where(there, root.action, actions[:, -1])
    injected = jnp.append(jnp.full(number - 1, (1.0 - share) / (number - 1)), share)
    return Candidates(
        jnp.concatenate([actions[:, :-1], last[:, None]], axis=1), jnp.where(there, injected, prior)
    )


def begin(model: Model, root: Root, key: jax.Array, settings: Any) -> Any:
    """What a search over candidates begins with.

    Returns:
      The root's candidates, the root as mctx wants it, and the recurrent function.
    """
    offer_key, seed_key = jax.random.split(key)
    offered = offer(model, root, offer_key, settings)
    number, of = root.value.shape[0], space(model)
    node = _Node(
        root.embedding, root.prior_logits, jax.random.bits(seed_key, [number, 2]),
        jnp.zeros(number, bool),
    )  # fmt: skip
    start = mctx.RootFnOutput(prior_logits=jnp.log(offered.prior), value=root.value, embedding=node)

    def folded(seed: jax.Array, index: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.wrap_key_data(seed), index)

    def lazily(seed: jax.Array, index: jax.Array) -> jax.Array:
        return jax.random.uniform(folded(seed, index), [of.dims], minval=SMALLEST_UNIFORM)

    def below(seed: jax.Array, index: jax.Array) -> jax.Array:
        """The seed of the node that a candidate leads to."""
        return jax.random.key_data(folded(seed, offered.prior.shape[1] + index))

    def step(params: Params, key: jax.Array, index: jax.Array, node: _Node) -> Any:
        del key  # The same in each simulation, see `trees.search`.
        of_root = jnp.take_along_axis(offered.actions, index[:, None, None], axis=1)[:, 0]
        drawn = of.sample(node.parameters, jax.vmap(lazily)(node.seed, index))
        action = jnp.where(node.within[:, None], drawn, of_root)
        reward_logits, state = model.dynamics(params, node.state, action)
        parameters, value_logits = model.predict(params, state)
        value = model.support.scalar(value_logits)
        output = mctx.RecurrentFnOutput(
            reward=model.support.scalar(reward_logits),
            discount=jnp.full_like(value, settings.discount),
            prior_logits=jnp.zeros_like(offered.prior),
            value=value,
        )
        seed = jax.vmap(below)(node.seed, index)
        return output, _Node(state, parameters, seed, jnp.ones_like(node.within))

    return offered, start, step
