"""The search over a batch of trees, against mctx's."""

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

from unplugged.planning import improvement

TREES, ACTIONS, STATE, SIMULATIONS = 7, 4, 5, 30


def model(key):
    """A random recurrent function whose values and priors are far from equal, and N roots."""
    keys = jax.random.split(key, 5)
    of_state = 1.5 * jax.random.normal(keys[0], (STATE, STATE))
    of_action = jax.random.normal(keys[1], (ACTIONS, STATE))
    out = jax.random.normal(keys[2], (STATE, ACTIONS + 2))

    def predict(state):
        found = state @ out
        return 2.0 * found[:, :ACTIONS], found[:, ACTIONS], found[:, ACTIONS + 1]

    def step(params, key, action, state):
        del params, key
        state = jnp.tanh(state @ of_state + of_action[action])
        logits, value, reward = predict(state)
        output = mctx.RecurrentFnOutput(
            reward=reward, discount=jnp.full_like(value, 0.9), prior_logits=logits, value=value
        )
        return output, state

    state = jax.random.normal(keys[3], (TREES, STATE))
    logits, value, _ = predict(state)
    return step, mctx.RootFnOutput(prior_logits=logits, value=value, embedding=state)


@pytest.mark.parametrize(
    "stretch", [improvement.between_siblings, improvement.differences, improvement.over_tree]
)
@pytest.mark.parametrize(("depth", "barred"), [(None, False), (None, True), (3, False), (1, True)])
def test_trees_are_those_of_mctx(stretch, depth, barred):
    invalid = None
    if barred:
        invalid = jnp.zeros((TREES, ACTIONS), bool).at[:, 1].set(True).at[2, 3].set(True)
    qtransform = improvement._qtransform(stretch)

    def select(_, tree, node, at=0):
        total, prior = tree.node_visits[node], jax.nn.softmax(tree.children_prior_logits[node])
        weight = jnp.sqrt(total) * (1.25 + jnp.log((total + 19_653.0) / 19_652.0))
        score = qtransform(tree, node) + tree.extra_data[node]
        score += weight * prior / (tree.children_visits[node] + 1)
        if invalid is not None:
            score = jnp.where((at == 0) & (tree.root_invalid_actions > 0), -jnp.inf, score)
        return jnp.argmax(score).astype(jnp.int32)

    @jax.jit  # Compiled once for all seeds.
    def both(key):
        step, root = model(key)
        ours = improvement._search_with_ties_of_nodes(
            None, key, root, step, SIMULATIONS, max_depth=depth, stretch=stretch,
            invalid_actions=invalid,
        )  # fmt: skip
        mine = ours.search_tree
        theirs = mctx.search(
            None, jax.random.key(0), recurrent_fn=step, num_simulations=SIMULATIONS,
            root=root.replace(prior_logits=mine.children_prior_logits[:, 0]),
            root_action_selection_fn=select, interior_action_selection_fn=select, max_depth=depth,
            invalid_actions=invalid, extra_data=mine.extra_data,
        )  # fmt: skip
        return ours, theirs

    for seed in range(3):
        assert_same_trees(*both(jax.random.key(seed)), limited=depth is not None)


def assert_same_trees(ours, theirs, limited):
    np.testing.assert_array_equal(ours.action_weights, theirs.summary().visit_probs)
    ours = ours.search_tree
    there = np.asarray(theirs.node_visits) > 0
    assert theirs.node_visits[:, 0].tolist() == [SIMULATIONS + 1] * TREES
    assert limited or there.all()
    for name in ("node_visits", "children_visits", "children_index", "parents"):
        np.testing.assert_array_equal(ours[name], theirs[name], name)
    for name in ("raw_values", "node_values", "children_prior_logits", "embeddings"):
        np.testing.assert_allclose(
            ours[name][there], theirs[name][there], rtol=1e-4, atol=1e-6, err_msg=name
        )
    for name in ("children_rewards", "children_discounts", "children_values"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for one in (lambda tree: tree.summary().value, lambda tree: tree.summary().qvalues):
        np.testing.assert_allclose(one(ours), one(theirs), rtol=1e-4, atol=1e-6)
