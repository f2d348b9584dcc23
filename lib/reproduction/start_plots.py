"""How a planner begins: returns, entropies and commonest actions with one change each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduction import plots, statistics

# What is drawn below the returns, of the policy and, dashed, of its target.
DIAGNOSED = {
    "entropy": "mean entropy, nats",
    "commonest": "share of states with\nthe commonest action",
}


_COLORS = plots.sns.color_palette("colorblind")
_LOOKS = (
    plots.Look((0.0, 0.0, 0.0), "o", "-"),
    plots.Look(_COLORS[0], "s", "-"),
    plots.Look(_COLORS[2], "^", "-"),
    plots.Look(_COLORS[1], "D", "-"),
    plots.Look(_COLORS[4], "X", "-"),
)
# What a change is called.
_NAMES = {
    "cloning_updates": "{:,} updates of cloning first",
    "target_interval": "target interval {}",
    "rescale_values": "values not rescaled",
    "rosmo_recorded": "filter by the recorded step",
}
MAIN = "no change"


def by_change(changed: pd.DataFrame, main: pd.DataFrame, preset: Mapping[str, Any]) -> pd.DataFrame:
    """Runs with one change and the main ones in one frame, `change` saying which, main ones first.

    Args:
      changed: rows of an experiment on the start, as `reports.load` gives them.
      main: rows of the main runs of the same method, maybe none.
      preset: what all main runs have, see `claims_own.preset`.

    Raises:
      ValueError: if a run has several changes, or none.
    """
    methods = set(main["method"]) or {changed["method"].iloc[0]}
    named = []
    for _, row in changed[["method", *preset]].iterrows():
        parts = {name: row[name] for name in preset if row[name] != preset[name]}
        parts |= {row["method"]: None} if row["method"] not in methods else {}
        if len(parts) != 1:
            raise ValueError(f"a run has {len(parts)} changes: {', '.join(parts) or 'none'}")
        [(name, value)] = parts.items()
        named.append(_NAMES.get(name, name).format(value))
    rows = pd.concat([main.assign(change=MAIN), changed.assign(change=named)])
    order = dict.fromkeys(rows["change"])
    return rows.assign(change=rows["change"].astype(pd.CategoricalDtype(list(order), ordered=True)))


def draw(rows: pd.DataFrame, datasets: pd.DataFrame) -> Figure:
    """A column a game: returns, and below the policy's and the target's diagnoses.

    Args:
      rows: as `by_change` gives them, with `policy_` and `target_` of what is `DIAGNOSED`.
      datasets: dataset statistics, indexed by environment.
    """
    games, changes = sorted(rows["environment"].unique()), rows["change"].cat.categories
    figure, axes = plt.subplots(
        1 + len(DIAGNOSED), len(games), figsize=(2.6 * len(games) + 2.2, 7.2),
        squeeze=False, sharex=True,
    )  # fmt: skip
    for column, game in zip(axes.T, games):
        for i, change in enumerate(changes):
            of = rows[(rows["environment"] == game) & (rows["change"] == change)]
            style = _LOOKS[i % len(_LOOKS)]
            if of.empty:
                continue
            returns = statistics.summarise(of, "mean_return", ["update"])
            plots.curve(column[0], returns, str(change), style=style, band=0.12)
            for ax, name in zip(column[1:], DIAGNOSED):
                for whose, linestyle in (("policy", "-"), ("target", "--")):
                    mean = of.groupby("update")[f"{whose}_{name}"].mean().dropna()
                    ax.plot(mean.index, mean, color=style.color, linestyle=linestyle)
        plots.level(column[0], datasets.loc[game, "online_return"], "online DQN", "--")
        column[0].set_title(game)
        column[-1].set_ylim(0.0, 1.02)
        column[-1].set_xlabel("learner updates")
        plots.in_thousands(column[-1])
    for ax, label in zip(axes[:, 0], ("episode return", *DIAGNOSED.values())):
        ax.set_ylabel(label)
    handles = {
        label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels())
    }
    axes[0, -1].legend(handles.values(), handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
    kinds = [Line2D([], [], color="0.3", linestyle=style) for style in ("-", "--")]
    axes[1, -1].legend(kinds, ["policy", "target"], loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure


def told(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns, entropies and commonest shares at the first evaluation after training began, and at
    the last, means over games and seeds, a row a change.
    """
    columns = [
        "mean_return",
        *(f"{of}_{name}" for name in DIAGNOSED for of in ("policy", "target")),
    ]
    trained = rows[rows["update"] > 0]
    ends = {"first": trained["update"].min(), "last": trained["update"].max()}
    parts = {
        name: trained[trained["update"] == at].groupby("change", observed=True)[columns].mean()
        for name, at in ends.items()
    }
    return pd.concat(parts, axis=1)
