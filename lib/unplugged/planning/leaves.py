"""A search in which every node knows the leaf below it.

mctx walks down the tree in each simulation, choosing an action at every node, and up again. Where a
choice rests on its node's own numbers, it changes at nodes that a simulation went through, and
nowhere else. So the way up chooses anew at each node it comes through, and keeps there at which
leaf a walk from it would end. The next simulation begins at the root's leaf: nothing is walked
down. The trees are those of `mctx.search`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mctx

from unplugged.model.networks import Params


class Node(NamedTuple):
    """What an action is chosen by, at a node of each of N trees.

    Attributes:
      visits: of the node. Shape [N].
      value: mean of what was found below it, its own value included. Shape [N].
      prior: probabilities of the A actions. Shape [N, A].
      children_visits: of the actions. Shape [N, A].
      action_values: Q(s, a), 0 where an action was not tried. Shape [N, A].
      ties: what breaks ties. Shape [N, A].
    """

    visits: jax.Array
    value: jax.Array
    prior: jax.Array
    children_visits: jax.Array
    action_values: jax.Array
    ties: jax.Array


class _Trees(NamedTuple):
    """N trees of M nodes: numbers of nodes [M, N], of their actions [M, N, A]."""

    parent: jax.Array
    action: jax.Array  # that led to the node
    reward: jax.Array  # on the way to it
    discount: jax.Array
    depth: jax.Array
    raw: jax.Array  # the model's value
    embedding: Any
    logits: jax.Array
    prior: jax.Array
    ties: jax.Array
    child: jax.Array  # the node that an action leads to, or -1
    value: jax.Array
    visits: jax.Array
    children_visits: jax.Array
    action_values: jax.Array
    leaf: jax.Array  # the last node of a walk from here,
    leaf_action: jax.Array  # and what is tried there


def search(
    params: Params,
    key: jax.Array,
    *,
    root: mctx.RootFnOutput,
    recurrent_fn: mctx.RecurrentFn,
    score: Callable[[Node], jax.Array],
    num_simulations: int,
    max_depth: int | None,
    invalid_actions: jax.Array | None,
    ties: jax.Array,
) -> mctx.Tree:
    """`mctx.search` for a choice that depends on a node's own numbers.

    Args:
      params: of the model.
      key: passed to `recurrent_fn`, always the same.
      root: of N trees.
      recurrent_fn: one step of the model, as mctx wants it.
      score: the action of the highest score is chosen. Shape [N, A].
      num_simulations: how many.
      max_depth: most edges from the root to a leaf; None: not limited.
      invalid_actions: those that the root must not choose, as truths. Shape [N, A].
      ties: of each node, see `Node`. Shape [N, num_simulations + 1, A].
    """
    number, actions = root.prior_logits.shape
    lanes, depth_limit = jnp.arange(number), max_depth or num_simulations
    limited = depth_limit < num_simulations

    def choose(node: Node, at_root: Any) -> jax.Array:
        found = score(node)
        if invalid_actions is not None:
            barred = at_root & invalid_actions
            found = jnp.where(barred, -jnp.inf, found)
        return jnp.argmax(found, axis=-1).astype(jnp.int32)

    def fresh(trees: _Trees, at: Any, output: Any, embedding: Any, **edge: Any) -> _Trees:
        """The trees with a node at one place, of which nothing was tried."""
        nothing = jnp.zeros_like(output.prior_logits)
        prior = jax.nn.softmax(output.prior_logits)
        node = Node(jnp.ones(number), output.value, prior, nothing, nothing, trees.ties[at])
        found = {
            "raw": output.value,
            "value": output.value,
            "visits": node.visits,
            "logits": output.prior_logits,
            "prior": prior,
            "leaf": jnp.full(number, at, jnp.int32),
            "leaf_action": choose(node, jnp.asarray(at == 0)),
            **edge,
        }
        embeddings = jax.tree.map(lambda x, y: x.at[at].set(y), trees.embedding, embedding)
        changed = {name: getattr(trees, name).at[at].set(x) for name, x in found.items()}
        return trees._replace(embedding=embeddings, **changed)

    def up(carried: Any) -> Any:
        """One level up in every tree that is not at its root yet."""
        trees, node, below, total = carried
        going = node != 0
        parent, action = trees.parent[node, lanes], trees.action[node, lanes]
        at = jnp.where(going, parent, 0)
        reward, discount = trees.reward[node, lanes], trees.discount[node, lanes]
        total = reward + discount * total
        count = trees.visits[at, lanes]
        value = (trees.value[at, lanes] * count + total) / (count + 1.0)
        taken = jax.nn.one_hot(action, actions, dtype=bool)
        visits = trees.children_visits[at, lanes] + taken
        q = jnp.where(taken, (reward + discount * below)[:, None], trees.action_values[at, lanes])
        here = Node(count + 1.0, value, trees.prior[at, lanes], visits, q, trees.ties[at, lanes])
        chosen = choose(here, (at == 0)[:, None])
        child = trees.child[at, lanes, chosen]
        further = child >= 0
        if limited:
            further &= trees.depth[at, lanes] + 1 < depth_limit
        leaf = jnp.where(further, trees.leaf[child, lanes], at)
        leaf_action = jnp.where(further, trees.leaf_action[child, lanes], chosen)
        where = jnp.where(going, at, num_simulations + 1)  # Outside: nothing is written.

        def put(x: jax.Array, new: jax.Array) -> jax.Array:
            return x.at[where, lanes].set(new, mode="drop")

        trees = trees._replace(
            value=put(trees.value, value),
            visits=put(trees.visits, count + 1.0),
            children_visits=put(trees.children_visits, visits),
            action_values=put(trees.action_values, q),
            leaf=put(trees.leaf, leaf),
            leaf_action=put(trees.leaf_action, leaf_action),
        )
        return trees, at, jnp.where(going, value, below), total

    def simulate(i: jax.Array, trees: _Trees) -> _Trees:
        node, action = trees.leaf[0], trees.leaf_action[0]
        output, embedding = recurrent_fn(
            params, key, action, jax.tree.map(lambda x: x[node, lanes], trees.embedding)
        )
        edge = {
            "parent": node, "action": action, "reward": output.reward, "discount": output.discount,
            "depth": trees.depth[node, lanes] + 1,
        }  # fmt: skip
        new = jnp.full(number, i + 1, jnp.int32)
        known = trees.child[node, lanes, action]
        trees = fresh(trees, i + 1, output, embedding, **edge)
        if limited:
            # At the greatest depth a leaf is met again: it gets a visit, and no new node.
            again = known >= 0
            new = jnp.where(again, known, new)
            visits = trees.visits.at[i + 1].set(jnp.where(again, 0.0, 1.0))
            trees = trees._replace(
                visits=visits.at[new, lanes].add(jnp.where(again, 1.0, 0.0)),
                parent=trees.parent.at[i + 1].set(jnp.where(again, -1, node)),
            )
        trees = trees._replace(child=trees.child.at[node, lanes, action].set(new))
        carried = trees, new, output.value, output.value
        return jax.lax.while_loop(lambda x: jnp.any(x[1] != 0), up, carried)[0]

    size = num_simulations + 1
    none, nothing = jnp.full([size, number], -1, jnp.int32), jnp.zeros([size, number])
    of_actions = jnp.zeros([size, number, actions])
    empty = _Trees(
        parent=none, action=none, reward=nothing, discount=nothing, depth=none + 1, raw=nothing,
        embedding=jax.tree.map(lambda x: jnp.zeros([size, *x.shape], x.dtype), root.embedding),
        logits=of_actions, prior=of_actions, ties=ties.swapaxes(0, 1),
        child=jnp.full(of_actions.shape, -1, jnp.int32), value=nothing, visits=nothing,
        children_visits=of_actions, action_values=of_actions, leaf=none, leaf_action=none,
    )  # fmt: skip
    trees = fresh(empty, 0, root, root.embedding)
    return _as_mctx(jax.lax.fori_loop(0, num_simulations, simulate, trees), invalid_actions)


def _as_mctx(trees: _Trees, invalid_actions: jax.Array | None) -> mctx.Tree:
    """The trees as mctx has them; what nobody looks at is not computed."""
    there = trees.child >= 0
    number = trees.child.shape[1]

    def of_children(x: jax.Array) -> jax.Array:
        found = x[jnp.maximum(trees.child, 0), jnp.arange(number)[:, None]]
        return jnp.where(there, found, 0.0)

    invalid = jnp.zeros_like(trees.logits[0]) if invalid_actions is None else invalid_actions
    found = {
        "node_visits": trees.visits.astype(jnp.int32),
        "raw_values": trees.raw,
        "node_values": trees.value,
        "parents": trees.parent,
        "action_from_parent": trees.action,
        "children_index": trees.child,
        "children_prior_logits": trees.logits,
        "children_visits": trees.children_visits.astype(jnp.int32),
        "children_rewards": of_children(trees.reward),
        "children_discounts": of_children(trees.discount),
        "children_values": of_children(trees.value),
        "embeddings": trees.embedding,
        "extra_data": trees.ties,
    }
    swapped = jax.tree.map(lambda x: x.swapaxes(0, 1), found)
    return mctx.Tree(root_invalid_actions=invalid, **swapped)
