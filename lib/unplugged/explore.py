"""Looking at one state: prior, one-step improvement, search, and the search tree.

For the notebooks `00_explore` and `03_explore_recording`: numbers first (`examine`, `tree_nodes`),
then figures of them (`show`, `draw_tree`), which are plain matplotlib figures.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets
import jax
import mctx
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unplugged import videos
from unplugged.common import checks, files
from unplugged.data import datasets
from unplugged.learning.settings import Settings
from unplugged.model.networks import Model, Params
from unplugged.planning import improvement
from unplugged.recording import collect

CATCH_BOARD = (10, 5)
CATCH_MOVES = ("left", "stay", "right")

# Colour, hatch and marker of what the two ways of looking ahead give, and of the prior.
_PRIOR = ("0.6", "", "_")
_ONE_STEP = ("#0173b2", "//", "o")
_SEARCHED = ("#de8f05", "..", "s")
_BELOW = dict(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize=8, frameon=False)


class Examination(NamedTuple):
    """What a trained model makes of one observation; A actions, NumPy arrays.

    Values are discounted returns.

    Attributes:
      observation: the observation. Shape [...].
      prior: pi, the policy head's probabilities. Shape [A].
      improved: p, the one-step improved policy (ROSMO, eq. 6). Shape [A].
      visited: the search's visit distribution, searched without noise. Shape [A].
      one_step_q: q_g(s, a) of one step of the dynamics (ROSMO, eq. 7). Shape [A].
      search_q: Q(s, a) of the search's root; NaN where it never went. Shape [A].
      value: v(s), the value head's.
      search_value: value of the search's root.
      tree: the search tree of this one state: mctx's arrays, first axis of size 1.
    """

    observation: np.ndarray
    prior: np.ndarray
    improved: np.ndarray
    visited: np.ndarray
    one_step_q: np.ndarray
    search_q: np.ndarray
    value: float
    search_value: float
    tree: mctx.Tree


class TreeNode(NamedTuple):
    """A node of a search tree and its place in the drawing.

    Attributes:
      index: number of the node in mctx's arrays; 0 is the root.
      parent: index of the parent; -1 at the root.
      action: action from the parent; -1 at the root.
      depth: steps from the root.
      x: horizontal place, in leaves from the left: leaves stand at 0, 1, 2, ...
      visits: how often a simulation came through.
      value: the search's mean value, a discounted return.
      reward: predicted reward of the step from the parent; 0 at the root.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, as meant
    parent: int
    action: int
    depth: int
    x: float
    visits: int
    value: float
    reward: float


def catch_dataset(folder: str | os.PathLike[str], *, episodes: int, seed: int) -> Path:
    """The file in `folder` with a DQN's training on catch, recorded if it is not there yet."""
    path = files.expanded(folder) / f"catch_{episodes}episodes_seed{seed}.npz"
    if not path.exists():
        recorded = collect.train_dqn("catch", episodes=episodes, noise=0.0, seed=seed)
        datasets.save(recorded, path)
    return path


def catch_board(ball_row: int, ball_column: int, paddle_column: int) -> np.ndarray:
    """The observation of a state of catch, from 0 at the top and at the left. Shape [10, 5].

    Raises:
      ValueError: if a place is off the board.
    """
    checks.within("ball_row", ball_row, 0, CATCH_BOARD[0] - 1, integer=True)
    for what, column in (("ball_column", ball_column), ("paddle_column", paddle_column)):
        checks.within(what, column, 0, CATCH_BOARD[1] - 1, integer=True)
    observation = np.zeros(CATCH_BOARD, np.float32)
    observation[ball_row, ball_column] = observation[-1, paddle_column] = 1.0
    return observation


def times_recorded(dataset: datasets.Dataset, observation: np.ndarray) -> int:
    """At how many transitions of the dataset an action was taken at this observation."""
    same = (dataset.observation == observation).reshape(dataset.num_steps, -1).all(axis=1)
    return int((same & ~dataset.is_last).sum())


@functools.partial(jax.jit, static_argnums=(0, 4))
def _look(
    model: Model, params: Params, observation: jax.Array, key: jax.Array, settings: Settings
) -> tuple[mctx.RootFnOutput, improvement.AnyImprovement, jax.Array, mctx.Tree]:
    """One-step improvement and search at [1, ...]; compiled once for each settings record."""
    root = improvement.root_of(model, params, model.represent(params, observation))
    one_step = improvement.one_step(model, params, root, key, settings)
    searched = improvement.search(model, params, root, key, settings, noise=False)
    return root, one_step, searched.action_weights, searched.search_tree


def examine(
    model: Model, params: Params, observation: np.ndarray, settings: Settings, *, seed: int = 0
) -> Examination:
    """All numbers that `show` draws, for one observation.

    Args:
      model: the learned model.
      params: its parameters.
      observation: one observation, without a batch axis.
      settings: `num_simulations`, `search_depth` and `discount` of the look-ahead.
      seed: randomness of the search (it breaks ties).
    """
    observation = np.asarray(observation, np.float32)
    key = jax.random.key(seed)
    found = _look(model, params, observation[None], key, settings)
    root, one_step, visited, tree = jax.device_get(found)
    children_visits = tree.children_visits[0, mctx.Tree.ROOT_INDEX]
    return Examination(
        observation=observation,
        prior=jax.device_get(jax.nn.softmax(root.prior_logits[0])),
        improved=one_step.policy[0],
        visited=visited[0],
        one_step_q=one_step.action_values[0],
        search_q=np.where(children_visits > 0, tree.summary().qvalues[0], np.nan),
        value=float(root.value[0]),
        search_value=float(tree.node_values[0, mctx.Tree.ROOT_INDEX]),
        tree=tree,
    )


def tree_nodes(tree: mctx.Tree, batch: int = 0) -> list[TreeNode]:
    """The nodes of a search tree with places to draw them at, parents before children.

    Leaves stand side by side in the order of actions; a parent stands midway between its
    first and last child.

    Args:
      tree: mctx's search tree: children_index and children_rewards [B, N, A], node_values and
        node_visits [B, N].
      batch: which of the B trees.
    """
    children = np.asarray(tree.children_index[batch])
    rewards = np.asarray(tree.children_rewards[batch])
    found: list[TreeNode] = []
    leaves = 0

    def place(index: int, parent: int, action: int, depth: int) -> float:
        nonlocal leaves
        here = len(found)
        node = TreeNode(
            index=index,
            parent=parent,
            action=action,
            depth=depth,
            x=0.0,
            visits=int(tree.node_visits[batch, index]),
            value=float(tree.node_values[batch, index]),
            reward=float(rewards[parent, action]) if parent >= 0 else 0.0,
        )
        found.append(node)
        below = [
            place(int(child), index, a, depth + 1)
            for a, child in enumerate(children[index])
            if child != mctx.Tree.UNVISITED
        ]
        if below:
            x = (below[0] + below[-1]) / 2
        else:
            x, leaves = float(leaves), leaves + 1
        found[here] = node._replace(x=x)
        return x

    place(mctx.Tree.ROOT_INDEX, mctx.Tree.NO_PARENT, -1, 0)
    return found


def _number(x: float) -> str:
    """Two decimals, without a minus before zero."""
    return f"{round(x, 2) + 0.0:.2f}"


def draw_tree(ax: Axes, nodes: Sequence[TreeNode], moves: Sequence[str] = CATCH_MOVES) -> None:
    """Draws a search tree: nodes with value and visits, edges with action and reward.

    Args:
      ax: axes to draw into.
      nodes: see `tree_nodes`.
      moves: names of the actions.
    """
    by_index = {node.index: node for node in nodes}
    largest = max(1.0, *(abs(node.value) for node in nodes))
    text: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 0.95}
    white = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    for node in nodes:
        if node.parent >= 0:
            parent = by_index[node.parent]
            width = 0.6 + 4.0 * node.visits / by_index[0].visits
            ends = [parent.x, node.x], [-parent.depth, -node.depth]
            ax.plot(*ends, color="0.7", lw=width, zorder=1)
            label = f"{moves[node.action]}\nr {_number(node.reward)}"
            x = 0.3 * parent.x + 0.7 * node.x
            ax.text(x, 0.47 - node.depth, label, fontsize=6, bbox=white, zorder=2, **text)
        shade = colormaps["PuOr_r"](0.5 + 0.3 * node.value / largest)
        box = {"boxstyle": "round,pad=0.25", "facecolor": shade, "edgecolor": "0.3", "lw": 0.6}
        label = f"{_number(node.value)}\nN={node.visits}"
        ax.text(node.x, -node.depth, label, fontsize=7, bbox=box, zorder=3, **text)
    ax.set_xlim(-0.6, max(node.x for node in nodes) + 0.6)
    ax.set_ylim(-max(node.depth for node in nodes) - 0.4, 0.4)
    ax.set(yticks=[], xticks=[])
    ax.spines[:].set_visible(False)


def _draw_board(ax: Axes, observation: np.ndarray) -> None:
    if observation.ndim > 2:
        ax.imshow(videos.picture(observation))
        ax.set(xticks=[], yticks=[])
        return
    rows, columns = observation.shape
    ax.imshow(observation, cmap="Greys", vmin=0.0, vmax=1.3)
    ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="0.85", lw=0.8)
    ax.tick_params(which="minor", length=0)
    ax.set(xticks=range(columns), yticks=range(rows), xlabel="column", ylabel="row")


def _draw_policies(ax: Axes, seen: Examination, moves: Sequence[str]) -> None:
    bars = [
        ("prior $\\pi$", seen.prior, _PRIOR),
        ("one-step $p$ (eq. 6)", seen.improved, _ONE_STEP),
        ("search's visits", seen.visited, _SEARCHED),
    ]
    for i, (label, heights, style) in enumerate(bars):
        x = np.arange(len(moves)) + 0.28 * (i - 1)
        drawn = ax.bar(x, heights, 0.26, label=label, color=style[0], hatch=style[1], ec="white")
        ax.bar_label(drawn, [f"{height:.2f}" for height in heights], fontsize=7, padding=1)
    ax.set(xticks=range(len(moves)), xticklabels=moves, ylim=(0.0, 1.1), ylabel="probability")
    ax.set_title("policies", fontsize=10)
    ax.legend(ncols=3, columnspacing=0.8, handlelength=1.2, **_BELOW)


def _draw_values(ax: Axes, seen: Examination, moves: Sequence[str]) -> None:
    x = np.arange(len(moves))
    ax.axhline(seen.value, color="0.5", ls="--", label=f"$v(s)$ = {_number(seen.value)}")
    ax.axhline(
        seen.search_value,
        color=_SEARCHED[0],
        ls=":",
        label=f"search's root = {_number(seen.search_value)}",
    )
    points = [
        ("one-step $q_g(s, a)$ (eq. 7)", seen.one_step_q, _ONE_STEP, -0.12),
        ("search's $Q(s, a)$", seen.search_q, _SEARCHED, 0.12),
    ]
    for label, heights, style, shift in points:
        ax.plot(x + shift, heights, style[2], color=style[0], label=label)
    everything = np.concatenate([seen.one_step_q, seen.search_q, [seen.value, seen.search_value]])
    low, high = np.nanmin(everything), np.nanmax(everything)
    margin = max(0.05, 0.15 * (high - low))
    ax.set_ylim(low - 2 * margin, high + margin)
    for i in np.flatnonzero(np.isnan(seen.search_q)):
        ax.text(i + 0.12, low - 1.6 * margin, "no visit", fontsize=7, ha="center")
    ax.set(xticks=x, xticklabels=moves, xlim=(-0.5, len(moves) - 0.5))
    ax.set_ylabel("discounted return")
    ax.set_title("action values", fontsize=10)
    ax.legend(ncols=2, columnspacing=0.8, **_BELOW)


def show(
    model: Model,
    params: Params,
    observation: np.ndarray,
    settings: Settings,
    *,
    note: str = "",
    moves: Sequence[str] = CATCH_MOVES,
    seed: int = 0,
) -> Figure:
    """Draws one state: observation, policies, action values and the search tree.

    Args:
      model: the learned model.
      params: its parameters.
      observation: a board [rows, columns], or an image that `videos.picture` takes.
      settings: `num_simulations`, `search_depth` and `discount` of the look-ahead.
      note: what to write above the board.
      moves: names of the actions.
      seed: randomness of the search.

    Raises:
      ValueError: if there are not as many `moves` as the model has actions.
    """
    if len(moves) != model.num_actions:
        raise ValueError(f"{len(moves)} names for the {model.num_actions} actions of the model")
    seen = examine(model, params, observation, settings, seed=seed)
    nodes = tree_nodes(seen.tree)
    depth = max(node.depth for node in nodes)
    width = max(11.0, 0.64 * (1 + max(node.x for node in nodes)))
    tree_height = 0.7 * (depth + 1)
    figure = Figure(figsize=(width, 3.4 + tree_height), layout="constrained")
    (above,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.4, tree_height])
    board, policies, values = above.subplots(1, 3, width_ratios=[1, 2.4, 2.4])
    _draw_board(board, seen.observation)
    board.set_title(note or "observation", fontsize=10)
    _draw_policies(policies, seen, moves)
    _draw_values(values, seen, moves)
    tree = below.subplots()
    draw_tree(tree, nodes, moves)
    tree.set_title(
        f"search tree, {settings.num_simulations} simulations: value and visits N of each node, "
        "action and predicted reward r of each edge",
        fontsize=10,
    )
    return figure


def interactive(
    draw: Callable[..., Figure], controls: Mapping[str, ipywidgets.IntSlider]
) -> ipywidgets.VBox:
    """Sliders above the figure that `draw` makes of their values, by name, drawn anew on a move.

    The figure is an image widget: an output widget, as `ipywidgets.interact` makes it, now and
    then hangs a notebook that runs headless.
    """
    image = ipywidgets.Image(format="png")

    def redraw(_: object = None) -> None:
        buffer = io.BytesIO()
        values = {name: control.value for name, control in controls.items()}
        draw(**values).savefig(buffer, format="png")
        image.value = buffer.getvalue()

    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*controls.values(), image])
