import types

import ipywidgets
import jax
import mctx
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from reproduction import plots
from unplugged import datasets, environments, explore, improvement, networks
from unplugged.model.actions import Discrete
from unplugged.settings import Settings

pytestmark = pytest.mark.slow

SMALL = Settings(
    representation=(8,), dynamics=(8,), prediction=(8,), batch_size=4, warmup_updates=1,
    unroll_steps=2, td_steps=1, num_simulations=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> networks.Model:
    return networks.mlp(
        observation_shape=(10, 5), actions=Discrete(3), num_bins=SMALL.num_bins,
        representation=SMALL.representation, dynamics=SMALL.dynamics,
        prediction=SMALL.prediction,
    )  # fmt: skip


@pytest.fixture(scope="module")
def params(model: networks.Model) -> networks.Params:
    # Heads start at zero: shift everything, so that no two actions look the same.
    leaves, tree = jax.tree.flatten(model.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.5 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys)]
    return jax.tree.unflatten(tree, moved)


@pytest.fixture(scope="module")
def dataset() -> datasets.Dataset:
    """Two episodes of catch with the ball in column 1: one that stays, one that goes left."""
    episodes = []
    for action, columns in ((1, [2] * 10), (0, [2, 1] + [0] * 8)):
        boards = [explore.catch_board(row, 1, columns[row]) for row in range(10)]
        episodes.append(
            {
                "observation": boards,
                "action": [action] * 9,
                "reward": [0.0] * 8 + [-1.0],
                "terminated": True,
            }
        )
    return datasets.from_episodes(episodes, {"num_actions": 3, "environment": "catch"})


def handmade_tree() -> types.SimpleNamespace:
    """Root 0 with children 1 (left) and 2 (right); 1 has children 3 (left) and 4 (stay)."""
    children = np.full((1, 5, 3), mctx.Tree.UNVISITED)
    children[0, 0] = [1, -1, 2]
    children[0, 1] = [3, 4, -1]
    rewards = np.zeros((1, 5, 3))
    rewards[0, 0] = [0.5, 9.0, -0.25]
    rewards[0, 1] = [1.0, -1.0, 9.0]
    return types.SimpleNamespace(
        children_index=children,
        children_rewards=rewards,
        node_visits=np.array([[5, 3, 1, 1, 1]]),
        node_values=np.array([[0.1, 0.2, -0.3, 0.4, -0.5]]),
    )


def test_tree_nodes_of_a_handmade_tree():
    node = explore.TreeNode
    assert explore.tree_nodes(handmade_tree()) == [
        node(index=0, parent=-1, action=-1, depth=0, x=1.25, visits=5, value=0.1, reward=0.0),
        node(index=1, parent=0, action=0, depth=1, x=0.5, visits=3, value=0.2, reward=0.5),
        node(index=3, parent=1, action=0, depth=2, x=0.0, visits=1, value=0.4, reward=1.0),
        node(index=4, parent=1, action=1, depth=2, x=1.0, visits=1, value=-0.5, reward=-1.0),
        node(index=2, parent=0, action=2, depth=1, x=2.0, visits=1, value=-0.3, reward=-0.25),
    ]


def test_draw_tree_labels_every_node_and_edge():
    ax = Figure().subplots()
    explore.draw_tree(ax, explore.tree_nodes(handmade_tree()))
    labels = [text.get_text() for text in ax.texts]
    nodes = {"0.10\nN=5", "0.20\nN=3", "-0.30\nN=1", "0.40\nN=1", "-0.50\nN=1"}
    edges = {"left\nr 0.50", "right\nr -0.25", "left\nr 1.00", "stay\nr -1.00"}
    assert len(labels) == 9 and set(labels) == nodes | edges
    assert len(ax.lines) == 4


def test_draw_tree_of_a_root_alone():
    tree = handmade_tree()
    tree.children_index[:] = mctx.Tree.UNVISITED
    ax = Figure().subplots()
    explore.draw_tree(ax, explore.tree_nodes(tree))
    assert [text.get_text() for text in ax.texts] == ["0.10\nN=5"]


def test_catch_board_is_the_environments_own():
    world = environments.make("bsuite", "catch", seed=3)
    first = world.reset().observation
    column = int(first[0].argmax())
    np.testing.assert_array_equal(explore.catch_board(0, column, 2), first)
    step = world.step(explore.CATCH_MOVES.index("left"))
    np.testing.assert_array_equal(explore.catch_board(1, column, 1), step.observation)


def test_catch_board_refuses_a_place_off_the_board():
    with pytest.raises(ValueError, match="paddle_column"):
        explore.catch_board(0, 0, 5)
    with pytest.raises(ValueError, match="ball_row"):
        explore.catch_board(10, 0, 0)


def test_times_recorded_counts_transitions_only(dataset):
    assert explore.times_recorded(dataset, explore.catch_board(0, 1, 2)) == 2
    assert explore.times_recorded(dataset, explore.catch_board(5, 1, 2)) == 1
    assert explore.times_recorded(dataset, explore.catch_board(9, 1, 2)) == 0
    assert explore.times_recorded(dataset, explore.catch_board(5, 4, 4)) == 0


def test_catch_dataset_is_recorded_once(dataset, tmp_path, monkeypatch):
    calls = []

    def record(environment, **arguments):
        calls.append((environment, arguments))
        return dataset

    monkeypatch.setattr(explore.collect, "train_dqn", record)
    first = explore.catch_dataset(tmp_path / "new", episodes=2, seed=7)
    again = explore.catch_dataset(tmp_path / "new", episodes=2, seed=7)
    assert calls == [("catch", {"episodes": 2, "noise": 0.0, "seed": 7})]
    assert first == again
    assert datasets.checksum(datasets.load(first)) == datasets.checksum(dataset)


def test_examine_agrees_with_the_operators(model, params):
    board = explore.catch_board(4, 1, 3)
    seen = explore.examine(model, params, board, SMALL)
    root = improvement.root_of(model, params, model.represent(params, board[None]))
    one_step = improvement.one_step(model, params, root, jax.random.key(0), SMALL)
    np.testing.assert_allclose(seen.prior, jax.nn.softmax(root.prior_logits)[0], atol=1e-6)
    np.testing.assert_allclose(seen.improved, one_step.policy[0], atol=1e-6)
    np.testing.assert_allclose(seen.one_step_q, one_step.action_values[0], rtol=1e-4)
    assert seen.value == pytest.approx(float(root.value[0]), rel=1e-4)
    # The prior and eq. 6 by hand.
    weights = seen.prior * np.exp(seen.one_step_q - seen.value)
    np.testing.assert_allclose(seen.improved, weights / weights.sum(), atol=1e-5)


def test_examine_reads_the_search(model, params):
    seen = explore.examine(model, params, explore.catch_board(4, 1, 3), SMALL)
    nodes = explore.tree_nodes(seen.tree)
    assert len(nodes) == SMALL.num_simulations + 1
    assert nodes[0].visits == SMALL.num_simulations + 1
    assert seen.search_value == pytest.approx(nodes[0].value)
    assert seen.visited.sum() == pytest.approx(1.0)
    for node in (node for node in nodes if node.parent == 0):
        assert seen.visited[node.action] == pytest.approx(node.visits / SMALL.num_simulations)
        expected = node.reward + SMALL.discount * node.value
        assert seen.search_q[node.action] == pytest.approx(expected, rel=1e-5)


def test_examine_leaves_out_what_the_search_never_visited(model, params):
    settings = SMALL.override({"num_simulations": 1})
    seen = explore.examine(model, params, explore.catch_board(4, 1, 3), settings)
    np.testing.assert_array_equal(np.isnan(seen.search_q), seen.visited == 0.0)
    assert np.isnan(seen.search_q).sum() == 2


def test_show_draws_a_figure_that_can_be_saved(model, params, tmp_path):
    board = explore.catch_board(4, 1, 3)
    figure = explore.show(model, params, board, SMALL, note="a state")
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "state.png")
    axes = [ax for part in figure.subfigs for ax in part.axes]
    assert [ax.get_title() for ax in axes[:3]] == ["a state", "policies", "action values"]
    assert "6 simulations" in axes[3].get_title()
    assert len(axes[1].patches) == 9


def test_show_wants_a_name_for_each_action(model, params):
    with pytest.raises(ValueError, match="2 names for the 3 actions"):
        explore.show(model, params, explore.catch_board(0, 0, 2), SMALL, moves=("left", "right"))


def test_draw_curves_says_how_many_seeds():
    rows = [
        {"method": method, "seed": seed, "update": u, "mean_return": 0.1 * u, "episodes": 7}
        for method, seed in (("mine", 0), ("rosmo", 0), ("rosmo", 1))
        for u in (0, 1, 2)
    ]
    ax = plots.draw_curves(pd.DataFrame(rows), {"the data": 0.3}).axes[0]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["rosmo, mean of 2 seeds", "mine, 1 seed", "the data"]
    assert ax.get_ylabel() == "mean return of 7 episodes"


def test_a_moved_slider_draws_anew():
    drawn = []

    def draw(row, column):
        drawn.append((row, column))
        figure = Figure(figsize=(1, 1))
        figure.text(0, 0, f"{row} {column}")
        return figure

    sliders = {name: ipywidgets.IntSlider(value=2, max=9) for name in ("row", "column")}
    box = explore.interactive(draw, sliders)
    first = bytes(box.children[-1].value)
    sliders["column"].value = 7
    assert drawn == [(2, 2), (2, 7)]
    assert first.startswith(b"\x89PNG") and bytes(box.children[-1].value) != first
