"""Panels of what `make bench` measured, from the frame that `speed.load` gives. No jax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reproduction import plots, speed

ONLINE = ("environment steps/s", "searches/s", "updates/s")


def ratio_bars(
    ax: Axes, bench: pd.DataFrame, data: Sequence[str], targets: Mapping[str, float]
) -> None:
    """Fused over reference, a bar a method and dataset: the median, a dot each pair.

    Args:
      ax: where to.
      bench: rows of `speed.load`.
      data: the datasets drawn.
      targets: our target, a dashed line, by method.
    """
    found = speed.select(bench, "fused / reference")
    found = found[found["data"].isin(data)]
    groups = list(found.groupby(["method", "data"], sort=False))
    for i, ((method, _), group) in enumerate(groups):
        median = group.loc[group["statistic"] == "median", "value"]
        each = group.loc[group["pair"].notna(), "value"]
        ax.bar(i, median, color=plots.look(method).color, alpha=0.6)
        ax.plot([i] * len(each), each, "k.", markersize=4)
        ax.hlines(targets[method], i - 0.45, i + 0.45, "k", linestyles="--")
    ax.set_xticks(range(len(groups)), [f"{method}\n{data}" for (method, data), _ in groups])
    ax.set(ylabel="updates/s, fused / reference", title="Two cores; dashed: our target")


def method_ratios(ax: Axes, bench: pd.DataFrame, data: str, target: float) -> None:
    """Fused over reference of every method on one dataset, the slowest below.

    Args:
      ax: where to.
      bench: rows of `speed.load`.
      data: the dataset.
      target: our target for all of them, a dashed line.
    """
    found = speed.select(bench, "fused / reference", data=data)
    medians = speed.ratios(bench, [data]).sort_values().droplevel("data")
    for i, (method, value) in enumerate(medians.items()):
        each = found.loc[found["pair"].notna() & (found["method"] == method), "value"]
        ax.barh(i, value, color=plots.look(method).color, alpha=0.6)
        ax.plot(each, [i] * len(each), "k.", markersize=4)
    ax.set_yticks(range(len(medians)), medians.index)
    ax.axvline(target, color="k", linestyle="--")
    ax.set(xlabel="updates/s, fused / reference", title="One core; dashed: our target")


def time_split(ax: Axes, bench: pd.DataFrame, data: str) -> None:
    """Milliseconds an update by part, a stacked bar a method; a dash is the whole's own timing.

    Where several networks were timed each has its bar.
    """
    table = speed.time_of_parts(bench)
    found = table.columns.get_level_values("data").str.partition(", ").get_level_values(0)
    table = table.loc[:, found == data].dropna(how="all")
    names = [f"{method}\n{of.removeprefix(f'{data}, ')}" for method, of in table.columns]
    parts = [part for part in table.index if part != "whole"]
    below: float | np.ndarray = 0.0
    for i, part in enumerate(parts):
        height = table.loc[part].fillna(0.0).to_numpy() / 1e3
        ax.bar(names, height, bottom=below, label=part, color=f"C{i}")
        below = below + height
    ax.plot(names, table.loc["whole"] / 1e3, "k_", markersize=30, label="whole")
    ax.set(ylabel="ms/update", title="Where the time goes, one core")
    ax.legend(fontsize="small", loc="upper left", markerscale=0.4)


def growth(
    ax: Axes, bench: pd.DataFrame, column: str, unit: str, title: str, data: str = "catch"
) -> None:
    """A rate against a setting, a curve a method and way: the median, a line from least to most.

    Args:
      ax: where to.
      bench: rows of `speed.load`.
      column: the setting.
      unit: of the rate.
      title: the panel's.
      data: the dataset.
    """
    found = speed.select(bench, "growth", unit=unit, data=data)
    found = found[found[column].notna()] if column in found else found.iloc[:0]
    ways = ["method", "way"] if "way" in found else ["method"]
    for names, group in found.groupby(ways, sort=False):
        style, line = plots.look(names[0]), "--" if "vmapped" in names else "-"
        x = group[column].astype(int)
        y, label = group["value"], ", ".join(names)
        ax.plot(x, y, line, color=style.color, marker=style.marker, label=label)
        ends = group["note"].str.extract(r"min ([^,]+), max (.+)").astype(float)
        ax.vlines(x, ends[0], ends[1], color=style.color, linewidth=1)
        ax.set_xticks(sorted(found[column].astype(int).unique()))
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.set(xlabel=column.replace("_", " "), ylabel=unit, title=title, ylim=(0, None))
    ax.legend(fontsize="small")


def cost_of_search(ax: Axes, bench: pd.DataFrame, data: str) -> None:
    """Time of an mzu update over that of a rosmo update, by the number of simulations."""
    ratio, style = speed.cost_of_search(bench, data), plots.look("mzu")
    ax.plot(ratio.index, ratio, color=style.color, marker=style.marker)
    ax.axhline(1.0, color=plots.look("rosmo").color, linestyle="--")
    ax.set_xscale("log", base=2)
    ax.set_xticks(ratio.index, ratio.index)
    ax.set(xlabel="simulations", ylabel="time of an update, mzu / rosmo", ylim=(0, None),
           title="One core; dashed: rosmo")  # fmt: skip


def online_rates(ax: Axes, bench: pd.DataFrame, column: str, title: str, **fixed: str) -> None:
    """Environment steps, searches and updates a second against a setting, others held fixed.

    Args:
      ax: where to.
      bench: rows of `speed.load`.
      column: the setting.
      title: the panel's.
      fixed: the other settings.
    """
    found = speed.select(bench, "online", **fixed)
    x = sorted(found[column].astype(float).unique())
    for unit, marker in zip(ONLINE, "osD"):
        of_unit = found[found["unit"] == unit].astype({column: float})
        rates = of_unit.groupby(column)["value"].mean()
        ax.plot(x, rates.reindex(x), marker=marker, label=unit)
    ax.set(xscale="log" if min(x) > 0 else "linear", yscale="log", title=title,
           xlabel=column, ylabel="per second")  # fmt: skip
    ax.set_xticks(x, [f"{value:g}" for value in x])
    ax.minorticks_off()
    ax.legend(fontsize="small")


def online_split(ax: Axes, bench: pd.DataFrame) -> None:
    """Milliseconds an update online by part, a stacked bar a Reanalyse fraction."""
    table = speed.time_of_online_parts(bench)
    below = np.zeros(table.shape[1])
    for part in table.index:
        ax.bar(table.columns, table.loc[part], bottom=below, label=part)
        below = below + table.loc[part].to_numpy()
    ax.set(xlabel="Reanalyse fraction", ylabel="ms/update", title="Where the time goes",
           ylim=(0, 1.25 * below.max()))  # fmt: skip
    ax.legend(fontsize="small", ncols=3, loc="upper center")
