"""Search over a batch of trees whose choices depend on nothing random: the trees of `mctx.search`.

mctx walks through each tree by itself and is vmapped, so that a step of the longest walk copies the
numbers of all trees. Here a step changes the nodes that it comes to, and nothing else.
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

    Numbers of a node have an axis for its actions, of length 1.

    Attributes:
      visits: of the node. Shape [N, 1].
      value: mean of what was found below it, its own value included. Shape [N, 1].
      prior: probabilities of the A actions. Shape [N, A].
      children_visits: of the actions. Shape [N, A].
      action_values: Q(s, a), 0 where an action was not tried. Shape [N, A].
      ties: what breaks ties. Shape [N, A].
      low: the lowest Q(s, a) of the whole tree, infinite where nothing was tried. Shape [N, 1].
      high: the highest, likewise. Shape [N, 1].
    """

    visits: jax.Array
    value: jax.Array
    prior: jax.Array
    children_visits: jax.Array
    action_values: jax.Array
    ties: jax.Array
    low: jax.Array
    high: jax.Array


def node_of(tree: mctx.Tree, index: jax.Array) -> Node:
    """A node of a single one of mctx's trees, with N = 1."""
    there = (tree.node_visits > 0).at[0].set(False)  # An edge leads to each node but the root.
    edges = jnp.where(there, tree.parents, 0), jnp.where(there, tree.action_from_parent, 0)
    q = tree.children_rewards[edges] + tree.children_discounts[edges] * tree.node_values
    found = Node(
        visits=tree.node_visits[index],
        value=tree.node_values[index],
        prior=jax.nn.softmax(tree.children_prior_logits[index]),
        children_visits=tree.children_visits[index],
        action_values=tree.qvalues(index),
        ties=jnp.zeros(tree.num_actions),
        low=jnp.min(jnp.where(there, q, jnp.inf)),
        high=jnp.max(jnp.where(there, q, -jnp.inf)),
    )
    return Node(*(jnp.reshape(x, (1, -1)) for x in found))


class _Trees(NamedTuple):
    """N trees of M nodes: numbers of nodes are [M, N], those of their actions [M, N, A]."""

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
    """`mctx.search`, for a choice of actions that is not random.

    Args:
      params: of the model.
      key: passed to `recurrent_fn`, the same in each simulation: what is random there must come
        from the embedding.
      root: of N trees.
      recurrent_fn: one step of the model, as mctx wants it.
      score: node to scores [N, A]; the action of the highest is chosen.
      num_simulations: how many.
      max_depth: most edges from the root to a leaf; None: not limited.
      invalid_actions: those that the root must not choose, as truths. Shape [N, A].
      ties: of each node, see `Node`. Shape [N, num_simulations + 1, A].
    """
    number, actions = root.prior_logits.shape
    size = num_simulations + 1
    lanes, depth_limit = jnp.arange(number), max_depth or num_simulations
    limited = depth_limit < num_simulations

    def choose(node: Node, at_root: Any) -> jax.Array:
        found = score(node)
        if invalid_actions is not None:
            found = jnp.where(at_root & invalid_actions, -jnp.inf, found)
        return jnp.argmax(found, axis=-1).astype(jnp.int32)

    def down(trees: _Trees) -> tuple[jax.Array, jax.Array]:
        """The last node of a walk from each root, and the action that is tried there."""
        there = (jnp.arange(size) > 0)[:, None] & (trees.visits > 0)
        q = trees.reward + trees.discount * trees.value
        low = jnp.min(jnp.where(there, q, jnp.inf), axis=0)
        high = jnp.max(jnp.where(there, q, -jnp.inf), axis=0)

        def step(carried: Any) -> Any:
            node, action, going = carried
            here = Node(
                trees.visits[node, lanes][:, None], trees.value[node, lanes][:, None],
                trees.prior[node, lanes], trees.children_visits[node, lanes],
                trees.action_values[node, lanes], trees.ties[node, lanes], low[:, None],
                high[:, None],
            )  # fmt: skip
            action = jnp.where(going, choose(here, (node == 0)[:, None]), action)
            child = trees.child[node, lanes, action]
            going &= child >= 0
            if limited:
                going &= trees.depth[node, lanes] + 1 < depth_limit
            return jnp.where(going, child, node), action, going

        start = jnp.zeros(number, jnp.int32)
        begin = start, start, jnp.ones(number, bool)
        return jax.lax.while_loop(lambda x: jnp.any(x[2]), step, begin)[:2]

    def up(carried: Any) -> Any:
        """One level up in every tree that is not at its root yet."""
        trees, node, below, total = carried
        going = node != 0
        at = jnp.where(going, trees.parent[node, lanes], size)  # Outside: nothing is written.
        action = trees.action[node, lanes]
        reward, discount = trees.reward[node, lanes], trees.discount[node, lanes]
        total = reward + discount * total
        count = trees.visits[at, lanes]
        value = (trees.value[at, lanes] * count + total) / (count + 1.0)
        tried = trees.children_visits[at, lanes, action] + 1.0
        q = reward + discount * below

        def put(x: jax.Array, new: jax.Array, *of: jax.Array) -> jax.Array:
            return x.at[(at, lanes, *of)].set(new, mode="drop")

        trees = trees._replace(
            value=put(trees.value, value),
            visits=put(trees.visits, count + 1.0),
            children_visits=put(trees.children_visits, tried, action),
            action_values=put(trees.action_values, q, action),
        )
        return trees, jnp.where(going, at, 0), jnp.where(going, value, below), total

    def with_node(trees: _Trees, at: Any, output: Any, embedding: Any, **edge: Any) -> _Trees:
        """The trees with what the model says of a node, and of the edge to it, at one place."""
        found = {
            "raw": output.value,
            "value": output.value,
            "visits": jnp.ones(number),
            "logits": output.prior_logits,
            "prior": jax.nn.softmax(output.prior_logits),
            **edge,
        }
        embeddings = jax.tree.map(lambda x, y: x.at[at].set(y), trees.embedding, embedding)
        changed = {name: getattr(trees, name).at[at].set(x) for name, x in found.items()}
        return trees._replace(embedding=embeddings, **changed)

    def simulate(i: jax.Array, trees: _Trees) -> _Trees:
        node, action = down(trees)
        output, embedding = recurrent_fn(
            params, key, action, jax.tree.map(lambda x: x[node, lanes], trees.embedding)
        )
        edge = {
            "parent": node, "action": action, "reward": output.reward, "discount": output.discount,
            "depth": trees.depth[node, lanes] + 1,
        }  # fmt: skip
        new = jnp.full(number, i + 1, jnp.int32)
        known = trees.child[node, lanes, action]
        trees = with_node(trees, i + 1, output, embedding, **edge)
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

    none, nothing = jnp.full([size, number], -1, jnp.int32), jnp.zeros([size, number])
    of_actions = jnp.zeros([size, number, actions])
    empty = _Trees(
        parent=none, action=none, reward=nothing, discount=nothing, depth=none + 1, raw=nothing,
        embedding=jax.tree.map(lambda x: jnp.zeros([size, *x.shape], x.dtype), root.embedding),
        logits=of_actions, prior=of_actions, ties=ties.swapaxes(0, 1),
        child=jnp.full(of_actions.shape, -1, jnp.int32), value=nothing, visits=nothing,
        children_visits=of_actions, action_values=of_actions,
    )  # fmt: skip
    trees = with_node(empty, 0, root, root.embedding)
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
