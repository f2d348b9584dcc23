"""Results as tidy frames, and the sentences about them that stand beside figures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reproduction import claims, plots, statistics, tables

# From a run's settings, as its provenance has them, to what sweeps vary. Records from before 0.2.0
# may lack a setting that came later, and are at its default.
_OF_SETTINGS = {
    "hidden": lambda one: one["dynamics"][1] if len(one["dynamics"]) > 1 else np.nan,
    "num_simulations": lambda one: one["num_simulations"],
    "search_depth": lambda one: one["search_depth"] or np.nan,
    "unroll_steps": lambda one: one["unroll_steps"],
    "decay": lambda one: "staircase" if one.get("decay_staircase") else "continuous",
}


def load(results: str | os.PathLike[str], experiment: str) -> pd.DataFrame:
    """Rows of an experiment with their normalised score and the settings that sweeps vary.

    Args:
      results: folder of a profile's results.
      experiment: name of the CSV in it, without suffix; its provenance lies beside it.

    Returns:
      The CSV's rows and the columns `score` (0: random policy, 1: the online agent that made
      the noise-free data; NaN where none did), `hidden` (units of the dynamics' hidden
      layer), `num_simulations`, `search_depth` (NaN: not limited), `unroll_steps` and `decay` (of
      the learning rate: continuous or staircase).
    """
    rows = pd.read_csv(Path(results) / f"{experiment}.csv")
    benchmark = rows["benchmark"].iloc[0]
    rows["score"] = np.nan
    recordings = Path(results, f"{benchmark}_statistics.csv")
    if recordings.exists():
        ends = pd.read_csv(recordings).query("noise == 0").set_index("environment")
        rows["score"] = statistics.normalise(
            rows["mean_return"],
            rows["environment"].map(ends["random_return"]),
            rows["environment"].map(ends["online_return"]),
        )
    records = json.loads(Path(results, f"{experiment}.provenance.json").read_text())
    settings = {run.rpartition("/")[2]: record["settings"] for run, record in records.items()}
    for column, of in _OF_SETTINGS.items():
        rows[column] = [of(settings[run]) for run in rows["run"]]
    return rows


class Study(Mapping[str, pd.DataFrame]):
    """The experiments that claims rest on and a profile has results of, each read when used.

    Args:
      results: folder of the profile's CSVs.
    """

    def __init__(self, results: str | os.PathLike[str]):
        self._folder = Path(results)
        self._read: dict[str, pd.DataFrame] = {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self:
            raise KeyError(name)
        if name not in self._read:
            times = name == claims.TIMES
            read = pd.read_csv(self._folder / f"{name}.csv") if times else load(self._folder, name)
            self._read[name] = read
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in claims.EXPERIMENTS and (self._folder / f"{name}.csv").exists()

    def __iter__(self) -> Iterator[str]:
        return (name for name in claims.EXPERIMENTS if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def decide(results: str | os.PathLike[str], only: Sequence[str] | None = None) -> pd.DataFrame:
    """`claims.decide` on a profile's results, of some claims or of all (None)."""
    stated = pd.read_csv(Path(results).parent / "claims.csv")
    return claims.decide(stated, Study(results), only)


def verdicts(results: str | os.PathLike[str], *ids: str) -> str:
    """What a profile's results say on some claims, a sentence each, for a caption."""
    decided = decide(results, ids)
    return " ".join(claims.sentence(decided, claim) for claim in ids)


def final(rows: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of each run."""
    by = ["environment", "noise", "fraction", "method", "overrides", "seed"]
    by += [name for name in ("reanalyse_fraction", "sources") if name in rows]
    return rows[rows["update"] == rows.groupby(by)["update"].transform("max")]


def _provenance(results: str | os.PathLike[str], experiment: str) -> list[dict[str, Any]]:
    """The record of each run of an experiment."""
    text = Path(results, f"{experiment}.provenance.json").read_text()
    return list(json.loads(text).values())


def parameter(results: str | os.PathLike[str], experiment: str, name: str) -> str:
    """The values that a parameter had in an experiment's runs, for a caption."""
    values = {str(record["parameters"][name]) for record in _provenance(results, experiment)}
    return ", ".join(sorted(values))


def run_facts(rows: pd.DataFrame, results: str | os.PathLike[str], *experiments: str) -> str:
    """Seeds, updates, episodes and device of runs from some experiments, in one sentence."""
    runs = rows.groupby(["environment", "noise", "fraction", "method", "overrides"])
    seeds, updates = runs["seed"].nunique(), runs["update"].max()
    devices = {
        one["device"].partition(": ")[2].replace("cpu", "CPU")
        for name in experiments
        for record in _provenance(results, name)
        for one in (record, record.get("adopted"))
        if one
    }
    counts = ((seeds, "seed"), (updates, "update"), (rows["episodes"], "episode"))
    return (
        f"{', '.join(tables.span(values, noun) for values, noun in counts)} an evaluation; "
        f"device {', '.join(sorted(devices))}."
    )


def uneven(rows: pd.DataFrame) -> str:
    """Which methods were trained for how long, if not all for the same; else nothing."""
    ends = rows.groupby("method")["update"].max()
    if ends.nunique() == 1:
        return ""
    parts = [
        f"{updates:,} updates: {', '.join(plots.in_order(of.index))}"
        for updates, of in ends.groupby(ends)
    ]
    return f"Each method at its own last update ({'; '.join(parts)})."


def not_there(final: pd.DataFrame) -> str:
    """Which methods lack runs at which shares of the data, if some do; else nothing."""
    every = plots.in_order(final["method"])
    parts = [
        f"{method} at {fraction:.0%}"
        for fraction, of in final.groupby("fraction")
        for method in every
        if method not in set(of["method"])
    ]
    return f"Not run: {', '.join(parts)}." if parts else ""


def flatness(rows: pd.DataFrame, by: Sequence[str] = ("environment",)) -> str:
    """Says which mean curves still moved at the end, as the gallery's head explains.

    A curve moves if the means of the last fifth of its evaluations and of the fifth before
    differ by more than 5% of the range of all mean curves on that environment.

    Args:
      rows: evaluations.
      by: what makes a curve beside the method, the environment among it.
    """
    spans = rows.groupby([*by, "method", "update"])["mean_return"].mean()
    spans = spans.groupby("environment").agg(np.ptp)
    moving: dict[str, list[str]] = {}
    total = 0
    for (*where, method), of in rows.groupby([*by, "method"]):
        curve = of.groupby("update")["mean_return"].mean().sort_index().to_numpy()
        fifth = max(1, len(curve) // 5)
        before, after = curve[-2 * fifth : -fifth].mean(), curve[-fifth:].mean()
        total += 1
        if abs(after - before) > 0.05 * spans[of["environment"].iloc[0]]:
            moving.setdefault(method, []).append(" ".join(map(str, where)))
    if not moving:
        return "Every curve is flat at the end."
    curves = [f"{method} ({', '.join(moving[method])})" for method in plots.in_order(moving)]
    count = sum(map(len, moving.values()))
    return f"Not flat at the end, {count} of {total} curves: {', '.join(curves)}."


def ranking(estimates: pd.DataFrame) -> str:
    """Each method's value and interval, best first; those of different updates apart."""
    parts = []
    for update, of in estimates.groupby("update", sort=False):
        rows = of.sort_values("value", ascending=False, kind="stable").itertuples()
        text = "; ".join(f"{r.method} {r.value:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in rows)
        several = estimates["update"].nunique() > 1
        parts.append(f"at {update:,} updates: {text}" if several else text)
    return f"{'; and '.join(parts)}."


def selection_statement(chosen: pd.DataFrame) -> str:
    """Each rule against the last checkpoint, over all methods and environments."""
    texts = []
    for rule in tables.SELECTION:
        if rule == "final" or rule not in chosen:
            continue
        gain = (chosen[rule] - chosen["final"]).rename("gain")
        keys = [chosen["environment"], chosen["method"]]
        estimate = statistics.bootstrap(
            [part.to_numpy() for _, part in gain.groupby(keys)], statistics.mean
        )
        texts.append(f"{rule} {estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]")
    return (
        f"Mean gain in normalised score over the final checkpoint, run by run: {'; '.join(texts)}."
    )


def not_run(decided: pd.DataFrame) -> str:
    """Ids of the claims that this profile says nothing on, and of those that no code decides."""
    missing = decided.loc[decided["claim_verdict"] == "not run", "id"]
    coded = missing.isin(claims.RULES)
    text = ", ".join(missing[coded]) or "none"
    return f"{text}; not implemented: {', '.join(missing[~coded]) or 'none'}"


def missing_recordings(table5: pd.DataFrame) -> str:
    """Names the recordings of Table 5 that this profile did not make."""
    missing = table5[table5["episodes"].isna()]
    if missing.empty:
        return ""
    names = ", ".join(f"{row.environment} at noise {row.noise:g}" for row in missing.itertuples())
    return f" Not recorded in this profile: {names}."
