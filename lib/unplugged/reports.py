"""Sentences and tables that stand beside figures, computed from tidy frames."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

from unplugged import plots


def _span(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def run_facts(rows: pd.DataFrame, provenance: str | os.PathLike[str]) -> str:
    """Seeds, updates, episodes and device of a set of runs, in one sentence."""
    runs = rows.groupby(["environment", "method"])
    seeds, updates = runs["seed"].nunique(), runs["update"].max()
    records = json.loads(Path(provenance).read_text())
    devices = sorted({record["device"] for record in records.values()})
    return (
        f"{_span(seeds)} seeds, {_span(updates)} updates, {_span(rows['episodes'])} episodes an "
        f"evaluation; device {', '.join(devices)}."
    )


def flatness(rows: pd.DataFrame) -> str:
    """Says which mean curves still moved in their last fifth, by more than a twentieth.

    A curve moves if the means of its last tenth and of the tenth before differ by more than
    5% of the range of all curves on that environment.
    """
    moving = []
    for environment, world in rows.groupby("environment"):
        span = np.ptp(world.groupby(["method", "update"])["mean_return"].mean())
        for method, part in world.groupby("method"):
            curve = part.groupby("update")["mean_return"].mean().sort_index().to_numpy()
            tenth = max(1, len(curve) // 10)
            before, after = curve[-2 * tenth : -tenth].mean(), curve[-tenth:].mean()
            if abs(after - before) > 0.05 * span:
                moving.append(f"{method} on {environment}")
    if not moving:
        return "Every curve has flattened by the end (last tenth against the tenth before)."
    return f"Not flat at the end: {', '.join(moving)}."


def ranking(ends: pd.DataFrame) -> str:
    """Per environment, methods by return, "=" where 95% intervals overlap."""
    sentences = []
    for environment, rows in ends.groupby("environment"):
        rows = rows.sort_values("value", ascending=False).reset_index(drop=True)
        text = str(rows.loc[0, "method"])
        for i in range(1, len(rows)):
            apart = rows.loc[i - 1, "low"] > rows.loc[i, "high"]
            text += f" {'>' if apart else '≥'} {rows.loc[i, 'method']}"
        sentences.append(f"{environment}: {text}")
    return "; ".join(sentences) + " (≥ where the 95% intervals overlap)."


def iqm_statement(last: pd.DataFrame) -> str:
    """IQM and interval of each method, best first."""
    rows = last.sort_values("value", ascending=False)
    return (
        "; ".join(
            f"{row.method} {row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
            for row in rows.itertuples()
        )
        + "."
    )


def final_returns(final: pd.DataFrame, datasets: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Mean ± standard deviation per environment and method, beside the paper's Table 6.

    Args:
      final: rows of the last evaluation of each run.
      datasets: our dataset statistics, indexed by environment.
      paper: the paper's Table 6, indexed by environment.
    """
    rows = []
    for environment, part in final.groupby("environment"):
        row: dict[str, object] = {"environment": environment}
        for method in plots.in_order(part["method"]):
            seeds = part.loc[part["method"] == method, "mean_return"]
            row[method] = f"{seeds.mean():.2f} ± {seeds.std(ddof=1):.2f}"
        row["dataset mean"] = datasets.loc[environment, "mean_return"]
        row["online DQN"] = datasets.loc[environment, "online_return"]
        row["online DQN (paper)"] = paper.loc[environment, "online_dqn"]
        row["random"] = datasets.loc[environment, "random_return"]
        row["random (paper)"] = paper.loc[environment, "random"]
        rows.append(row)
    return pd.DataFrame(rows)


def beside_table5(ours: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """ROSMO's Table 5 with our recordings in the same rows; blank where we have none."""
    both = paper.merge(ours, on=["environment", "noise"], how="left", suffixes=(" (paper)", ""))
    return both[
        [
            "environment", "noise", "episodes", "episodes (paper)", "transitions",
            "transitions (paper)", "mean_return", "mean_return (paper)",
        ]
    ].astype({"episodes": "Int64", "transitions": "Int64"})  # fmt: skip


def missing_recordings(table5: pd.DataFrame) -> str:
    """Names the recordings of Table 5 that this profile did not make."""
    missing = table5[table5["episodes"].isna()]
    if missing.empty:
        return ""
    names = ", ".join(f"{row.environment} at noise {row.noise:g}" for row in missing.itertuples())
    return f" Not recorded in this profile: {names}."


def beside_table6(ours: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """ROSMO's Table 6 with our noise-free recordings beside it."""
    clean = ours[ours["noise"] == 0][["environment", "random_return", "online_return"]]
    return paper.rename(columns={"random": "random (paper)", "online_dqn": "online (paper)"}).merge(
        clean.rename(columns={"random_return": "random", "online_return": "online"}),
        on="environment",
        how="left",
    )[["environment", "random", "random (paper)", "online", "online (paper)"]]
