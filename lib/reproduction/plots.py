"""One look for every figure and table, and files that are the same bytes each time."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from unplugged.common import files

_PALETTE = sns.color_palette("colorblind")


class Look(NamedTuple):
    """How a method is drawn: colour, marker and line style, so that colour is never alone."""

    color: tuple[float, float, float]
    marker: str
    linestyle: str


_LOOKS = {
    "rosmo": Look(_PALETTE[0], "o", "-"),
    "mzu": Look(_PALETTE[1], "s", "--"),
    "crr": Look(_PALETTE[3], "D", "-."),
    "cql": Look(_PALETTE[4], "v", (0, (5, 1, 1, 1, 1, 1))),
    "bc": Look(_PALETTE[2], "^", ":"),
    "onestep": Look(_PALETTE[5], "P", (0, (7, 2))),
    "behavior": Look(_PALETTE[6], "X", (0, (2, 1))),
    "rosmo_sampled": Look((0.45, 0.25, 0.05), "x", (0, (1, 2))),
    "mzu_q": Look(_PALETTE[7], "*", (0, (4, 1, 1, 1))),
    "mzu_reg": Look((0.2, 0.2, 0.2), "<", (0, (3, 1, 1, 1, 1, 1))),
    "gumbel": Look(_PALETTE[9], ">", (0, (6, 1, 2, 1))),
    "crr_binary": Look(_PALETTE[3], "p", (0, (1, 1))),
    "supervised_q": Look(_PALETTE[8], "d", (0, (3, 3))),
    "supervised": Look(_PALETTE[2], "H", (0, (8, 2, 1, 2))),
    "reanalyse": Look(_PALETTE[1], "+", (0, (5, 3))),
    "crr_model": Look(_PALETTE[6], "8", (0, (9, 1))),
    "dqn": Look((0.45, 0.45, 0.45), "1", (0, (2, 2))),
    "qrdqn": Look((0.55, 0.5, 0.0), "2", (0, (4, 4))),
    "iqn": Look(_PALETTE[9], "3", (0, (2, 2, 6, 2))),
    "rem": Look(_PALETTE[5], "4", (0, (6, 2, 1, 2, 1, 2))),
    "bcq": Look((0.2, 0.2, 0.2), "h", (0, (3, 1))),
    "cql_qr": Look(_PALETTE[4], "|", (0, (8, 3))),
    "morel": Look(_PALETTE[8], "$m$", (0, (4, 2))),
    "combo": Look(_PALETTE[7], "$c$", (0, (2, 3, 6, 3))),
    "world_model": Look((0.6, 0.6, 0.6), "_", (0, (1, 4))),
    "d4pg": Look(_PALETTE[7], "$d$", (0, (11, 2))),
    "brac": Look(_PALETTE[4], "$b$", (0, (1, 5))),
    "rabm": Look(_PALETTE[9], "$r$", (0, (12, 1, 2, 1))),
    "rosmo_recorded": Look(_PALETTE[0], ".", (0, (10, 3))),
}
_SPARE_MARKERS = "dH8x12"
_NEUTRAL = (
    Look((0.0, 0.0, 0.0), "o", "-"),
    Look((0.55, 0.55, 0.55), "s", "--"),
    Look((0.45, 0.25, 0.05), "^", ":"),
    Look((0.75, 0.6, 0.4), "D", "-."),
)


def look(method: str) -> Look:
    """The look of a method; one without a fixed look gets one from its name."""
    if method in _LOOKS:
        return _LOOKS[method]
    number = sum(method.encode())
    return Look(
        _PALETTE[5 + number % (len(_PALETTE) - 5)],
        _SPARE_MARKERS[number % len(_SPARE_MARKERS)],
        (0, (1 + number % 4, 1 + number % 3)),
    )


def neutral(number: int) -> Look:
    """The look of the n-th curve (from 0) where curves differ in something else than method."""
    return _NEUTRAL[number] if number < len(_NEUTRAL) else look(f"curve {number}")


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the order of every legend: those with a fixed look first, then by name."""
    fixed = list(_LOOKS)
    return sorted(set(methods), key=lambda name: (fixed.index(name) if name in fixed else 99, name))


def use_style() -> None:
    """Sets matplotlib up; called once at the top of a figure notebook."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind")
    plt.rcParams.update(
        {
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.dpi": 100,
            "savefig.dpi": 160,
            "savefig.bbox": "tight",
            "pdf.fonttype": 42,
            "legend.frameon": False,
            "lines.markersize": 4,
        }
    )


def curve(
    ax: Axes,
    rows: pd.DataFrame,
    name: str,
    *,
    x: str = "update",
    style: Look | None = None,
    band: float = 0.2,
) -> None:
    """Draws a summarised curve (`value`, `low`, `high` over `x`) with its interval as a band.

    Args:
      ax: where to.
      rows: the curve.
      name: a method; or with `style`, what the legend is to say.
      x: the column along the x axis.
      style: how to draw what is not a method.
      band: the band's opacity, in [0, 1].
    """
    style = style or look(name)
    rows = rows.sort_values(x)
    ax.plot(
        rows[x], rows["value"], color=style.color, linestyle=style.linestyle,
        marker=style.marker, markevery=_marked(ax, rows[x].to_numpy()), label=name,
    )  # fmt: skip
    ax.fill_between(rows[x], rows["low"], rows["high"], color=style.color, alpha=band, linewidth=0)


def _marked(ax: Axes, x: np.ndarray) -> list[int]:
    """Which points of a curve carry a marker: all of 13, of more some evenly along the axis."""
    if len(x) <= 13:
        return list(range(len(x)))
    at = ax.xaxis.get_transform().transform(x)
    marked = [0]
    for i in range(1, len(at)):
        if at[i] - at[marked[-1]] > 0.999 * np.ptp(at) / 12:
            marked.append(i)
    return marked


def points(ax: Axes, rows: pd.DataFrame) -> None:
    """Draws one row a method: the value as a marker, its interval as a bar."""
    methods = in_order(rows["method"])
    for i, method in enumerate(reversed(methods)):
        row, style = rows[rows["method"] == method].iloc[0], look(method)
        ax.plot([row["low"], row["high"]], [i, i], color=style.color, linewidth=3, alpha=0.4)
        ax.plot(row["value"], i, marker=style.marker, color=style.color, markersize=6)
    ax.set_yticks(range(len(methods)), list(reversed(methods)))
    ax.set_ylim(-0.6, len(methods) - 0.4)


def heat_map(
    ax: Axes,
    cells: pd.DataFrame,
    *,
    x: str,
    y: str,
    name: Callable[[Any], str] = str,
    label: str = "IQM normalised score",
) -> None:
    """Draws `value` by two columns, each cell with its interval if it has one.

    Args:
      ax: where to.
      cells: `value`, `low`, `high` (or NaN) and the two columns, a row a cell.
      x: the column along the x axis.
      y: the column along the y axis.
      name: labels a row's value.
      label: what the colours mean.
    """
    table = {
        key: cells.pivot_table(index=y, columns=x, values=key, dropna=False, observed=False)
        for key in ("value", "low", "high")
    }
    value = table["value"]

    def text(row: Any, column: Any) -> str:
        shown = f"{value.loc[row, column]:.2f}"
        low, high = (
            table[key].loc[row, column] if column in table[key] else np.nan
            for key in ("low", "high")
        )
        return shown if np.isnan(low) else f"{shown}\n[{low:.2f}, {high:.2f}]"

    written = [[text(row, column) for column in value.columns] for row in value.index]
    sns.heatmap(
        value, ax=ax, annot=np.array(written), fmt="", cmap="cividis",
        annot_kws={"fontsize": 7}, cbar_kws={"label": label},
    )  # fmt: skip
    drawn = ~np.isnan(value.to_numpy(float).ravel())
    for written_on, colour in zip(ax.texts, ax.collections[0].get_facecolors()[drawn]):
        light = sns.utils.relative_luminance(colour) > 0.18  # As far from black as from white.
        written_on.set_color("black" if light else "white")
    ax.set_yticklabels([name(row) for row in value.index], rotation=0)
    ax.grid(False)


def grouped(
    ax: Axes,
    cells: pd.DataFrame,
    *,
    group: str,
    order: Sequence[str],
    methods: Sequence[str],
    base: float | None = None,
) -> None:
    """Draws a marker with its interval for each method within each group along the x axis.

    Args:
      ax: where to.
      cells: `value`, `low`, `high`, `method` and the group, a row a marker.
      group: the column of groups.
      order: the groups from left to right.
      methods: the methods within a group from left to right.
      base: the level from which a bar goes to each marker; None: no bars.
    """
    width = 0.8 / len(methods)
    for i, method in enumerate(methods):
        style = look(method)
        of = cells[cells["method"] == method].set_index(group).reindex(list(order))
        at = np.arange(len(order)) + (i - (len(methods) - 1) / 2) * width
        if base is not None:
            ax.bar(at, of["value"] - base, 0.9 * width, base, color=style.color, alpha=0.4)
        ax.vlines(at, of["low"], of["high"], color=style.color, linewidth=3, alpha=0.4)
        ax.plot(
            at, of["value"], color=style.color, marker=style.marker, linestyle="none", label=method
        )
    ax.set_xticks(range(len(order)), order)


def to_come(ax: Axes, what: str = "") -> None:
    """Says in an empty panel that what belongs there is still to come."""
    text = f"{what}\nstill to come" if what else "still to come"
    ax.text(0.5, 0.4, text, transform=ax.transAxes, ha="center", va="center", color="0.4")


def in_thousands(ax: Axes) -> None:
    """Labels the x axis 10k, 20k, ..., 1M."""

    def label(x: float, _: int) -> str:
        if x >= 1e6:
            return f"{x / 1e6:g}M"
        return f"{x / 1000:g}k" if x >= 1000 else f"{x:g}"

    ax.xaxis.set_major_formatter(label)


def linear_then_log(ax: Axes, until: float, longest: float) -> None:
    """Makes the x axis linear from 0 to `until`, logarithmic from there to `longest`.

    For curves of which some are much longer than others; to be called before they are drawn.
    Where nothing lies beyond `until`, the axis stays linear.
    """
    if longest <= until:
        return
    ax.set_xscale("symlog", linthresh=until, linscale=0.9)
    beyond = until * np.array([3.0, 10.0, 30.0, 100.0])
    ax.set_xticks([0.0, until / 2, until, *beyond[beyond <= longest]])
    ax.xaxis.set_minor_locator(NullLocator())


def level(ax: Axes, y: float, label: str, linestyle: str) -> None:
    """A horizontal reference line."""
    ax.axhline(y, color="0.35", linestyle=linestyle, linewidth=1, label=label, zorder=0)


def _check_notes(name: str, notes: Mapping[str, Any]) -> None:
    required = {"title", "caption", "paper", "command"}
    if missing := required - set(notes):
        raise ValueError(f"{name}: the gallery needs {', '.join(sorted(missing))}")


def _collapsed(text: str) -> str:
    """A text with single spaces, paragraphs and the lines of lists apart."""
    lines = re.split(r"(\s*\n\s*\n\s*|\s*\n\s*(?=- ))", text.strip())
    parts = [" ".join(line.split()) for line in lines[::2]]
    between = ["\n" * min(mark.count("\n"), 2) for mark in lines[1::2]]
    return "".join(part + gap for part, gap in zip(parts, [*between, ""]))


def _sidecar(folder: Path, name: str, notes: Mapping[str, Any]) -> None:
    notes = {key: _collapsed(x) if isinstance(x, str) else x for key, x in notes.items()}
    files.write_whole(folder / f"{name}.json", json.dumps(notes, indent=1, sort_keys=True))


def save_figure(
    figure: Figure, folder: str | os.PathLike[str], name: str, notes: Mapping[str, Any]
) -> None:
    """Writes `name`.png, .pdf and, for the gallery, .json; the same figure gives the same bytes.

    Args:
      figure: the figure.
      folder: where to.
      name: file name without suffix.
      notes: as `captions.read` gives them: `title`, `caption` (seeds, updates, interval, device),
        `paper` (the paper's statement) and `command` (that redraws it); for the gallery also
        `details`, `verdict`, `order`, `notebook` and `data` (paths of the CSVs).

    Raises:
      ValueError: if a note is missing.
    """
    _check_notes(name, notes)
    folder = files.writable_folder(folder)
    for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, metadata=metadata)
        files.write_whole(folder / f"{name}.{suffix}", buffer.getvalue())
    _sidecar(folder, name, {**notes, "kind": "figure"})


def save_video(
    pictures: Sequence[np.ndarray],
    folder: str | os.PathLike[str],
    name: str,
    notes: Mapping[str, Any],
    fps: float = 15,
) -> None:
    """Writes `name`.gif and, for the gallery, .json; see `save_figure` and `videos.save`."""
    from unplugged import videos  # Imports what trains, which no other figure needs.

    _check_notes(name, notes)
    folder = files.writable_folder(folder)
    videos.save(pictures, folder / f"{name}.gif", fps=fps)
    _sidecar(folder, name, {**notes, "kind": "video"})


def save_table(
    frame: pd.DataFrame, folder: str | os.PathLike[str], name: str, notes: Mapping[str, Any]
) -> None:
    """Writes `name`.table.csv, .md and .tex, and .json for the gallery; see `save_figure`."""
    _check_notes(name, notes)
    folder = files.writable_folder(folder)
    files.write_whole(folder / f"{name}.table.csv", frame.to_csv(index=False))
    shown = frame.map(lambda x: f"{x:.4g}" if isinstance(x, (float, np.floating)) else x)
    shown = shown.replace("nan", "n/a")
    files.write_whole(
        folder / f"{name}.table.md", shown.to_markdown(index=False, disable_numparse=True) + "\n"
    )
    files.write_whole(folder / f"{name}.table.tex", shown.to_latex(index=False, escape=True))
    _sidecar(folder, f"{name}.table", {**notes, "kind": "table"})


def draw_curves(curves: pd.DataFrame, references: Mapping[str, float] | None = None) -> Figure:
    """Learning curves: a thin line for each seed, a thick one for the mean of each method.

    Args:
      curves: rows of `unplugged.runs.train`, of one or more methods and seeds.
      references: returns to mark by a dotted line, by name.
    """
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    ax = figure.subplots()
    for method in in_order(curves["method"]):
        rows, style = curves[curves["method"] == method], look(method)
        for _, one in rows.groupby("seed"):
            ax.plot(one["update"], one["mean_return"], color=style.color, lw=0.8, alpha=0.5)
        mean, seeds = rows.groupby("update")["mean_return"].mean(), rows["seed"].nunique()
        label = f"{method}, mean of {seeds} seeds" if seeds > 1 else f"{method}, 1 seed"
        ax.plot(mean.index, mean, color=style.color, linestyle=style.linestyle,
                marker=style.marker, ms=4, label=label)  # fmt: skip
    for label, height in (references or {}).items():
        level(ax, height, label, ":")
    episodes = int(curves["episodes"].iloc[0])
    ax.set(xlabel="updates", ylabel=f"mean return of {episodes} episodes", ylim=(-1.05, 1.05))
    ax.set_title("catch, without noise")
    ax.legend(fontsize=8, loc="lower right")
    return figure
