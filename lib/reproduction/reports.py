"""Results as tidy frames: what was run, with what settings, what is missing and what it decides."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reproduction import (
    claims,
    claims_own,
    comparisons,
    plots,
    profiles,
    statistics,
    tables,
)
from reproduction.profiles import RECORDINGS
from unplugged.common import checks

# From a run's settings, as its provenance has them, to what sweeps vary. Records from before 0.2.0
# may lack a setting that came later, and are at its default.
_OF_SETTINGS = {
    "hidden": lambda one: one["dynamics"][1] if len(one["dynamics"]) > 1 else np.nan,
    "num_simulations": lambda one: one["num_simulations"],
    "search_depth": lambda one: one["search_depth"] or np.nan,
    "unroll_steps": lambda one: one["unroll_steps"],
    "target_interval": lambda one: one["target_interval"],
    "rescale_values": lambda one: one.get("rescale_values", True),
    "cloning_updates": lambda one: one.get("cloning_updates", 0),
    "injection": lambda one: one.get("injection", np.nan),
    "num_candidates": lambda one: one.get("num_candidates", np.nan),
    "policy_head": lambda one: one.get("policy_head"),
    "decay": lambda one: "staircase" if one.get("decay_staircase") else "continuous",
}


def _provenance(results: str | os.PathLike[str], experiment: str) -> dict[str, dict[str, Any]]:
    """The record of each run of an experiment."""
    return json.loads(Path(results, f"{experiment}.provenance.json").read_text())


def _statistics(results: str | os.PathLike[str], benchmark: str) -> dict[str, pd.DataFrame]:
    """Statistics of the profile's own noise-free recordings ("") and of `RECORDINGS`, if any."""
    found = {}
    for kind, folder in (("", Path(results)), (RECORDINGS, Path(results).parent / RECORDINGS)):
        path = folder / f"{benchmark}_statistics.csv"
        if path.exists():
            found[kind] = pd.read_csv(path).query("noise == 0").set_index("environment")
    return found


def _kept(results: str | os.PathLike[str], benchmark: str) -> set[str]:
    """Environments whose committed recording is the profile's own, by its checksum."""
    found = [x.get("checksum") for x in _statistics(results, benchmark).values()]
    if len(found) < 2 or any(x is None for x in found):
        return set()
    here, there = (set(x.items()) for x in found)
    return {environment for environment, _ in here & there}


def recordings(results: str | os.PathLike[str], rows: pd.DataFrame) -> pd.DataFrame | None:
    """Statistics of the noise-free recordings that runs learned from.

    Args:
      results: folder of a profile's results.
      rows: of `load`, of one benchmark.

    Returns:
      A row an environment, which is the index; those of environments without runs are of the
      profile's own recordings. None if there are no statistics.

    Raises:
      ValueError: if runs in one environment learned from two recordings.
    """
    kinds = rows.groupby("environment")["recording"].agg(set)
    if both := [name for name, found in kinds.items() if len(found) > 1]:
        raise ValueError(
            f"runs in {', '.join(both)} learned from two recordings, and cannot be compared; those "
            "that are not of the recording in the profile are to be trained again"
        )
    kind_of = {name: found.pop() for name, found in kinds.items()}
    parts = [
        found[[kind_of.get(x, "") == kind for x in found.index]]
        for kind, found in _statistics(results, rows["benchmark"].iloc[0]).items()
    ]
    return pd.concat(parts).sort_index() if parts else None


def load(
    results: str | os.PathLike[str], experiment: str, *, runs_of: str | None = None
) -> pd.DataFrame:
    """Rows of an experiment with their normalised score and the settings that sweeps vary.

    Args:
      results: folder of a profile's results.
      experiment: name of the CSV in it, without suffix.
      runs_of: the experiment whose provenance tells of its runs; None: its own.

    Returns:
      The CSV's rows and the columns `recording` (`RECORDINGS` of runs that learned from a dataset
      there or from the same one elsewhere, else ""), `score` (0: random policy, 1: the online agent
      that made the noise-free data; NaN where none did), `hidden` (units of the dynamics' hidden
      layer), `num_simulations`, `search_depth` (NaN: not limited), `unroll_steps`,
      `target_interval`, `rescale_values`, `cloning_updates`, `injection`, `num_candidates`,
      `policy_head` and `decay` (of the learning rate: continuous or staircase); `greedy_score`
      where there is a `greedy_return`.
    """
    rows = pd.read_csv(Path(results) / f"{experiment}.csv")
    provenance = _provenance(results, runs_of or experiment)
    records = {run.rpartition("/")[2]: record for run, record in provenance.items()}
    folders = {
        run: Path(record.get("parameters", {}).get("dataset") or "").parent.name
        for run, record in records.items()
    }
    kept = _kept(results, rows["benchmark"].iloc[0])
    rows["recording"] = [
        RECORDINGS if folders[run] == RECORDINGS or environment in kept else ""
        for run, environment in zip(rows["run"], rows["environment"])
    ]
    rows["score"] = np.nan
    ends = recordings(results, rows)
    if ends is not None:
        low, high = (rows["environment"].map(ends[f"{end}_return"]) for end in ("random", "online"))
        rows["score"] = statistics.normalise(rows["mean_return"], low, high)
        if "greedy_return" in rows:
            rows["greedy_score"] = statistics.normalise(rows["greedy_return"], low, high)
    for column, of in _OF_SETTINGS.items():
        rows[column] = [of(records[run]["settings"]) for run in rows["run"]]
    return rows


# MinAtar was trained twice; experiments' names begin with these. `claims.LONGER` has the second.
STUDIES = ("minatar", "pixels")
PIXELS = STUDIES[1]


def there(results: str | os.PathLike[str], *experiments: str) -> list[str]:
    """Those of the experiments that a profile has results of."""
    return [name for name in experiments if Path(results, f"{name}.csv").exists()]


def load_all(
    results: str | os.PathLike[str], study: str, *names: str
) -> tuple[list[str], pd.DataFrame]:
    """Names and rows of those of a study's experiments that there are, the first at least.

    Rows of the others that learned from other recordings than the first's are left out.

    Args:
      results: folder of a profile's results.
      study: one of `STUDIES`.
      names: of the experiments, without the study's.
    """
    first, *others = (f"{checks.one_of('study', study, STUDIES)}_{name}" for name in names)
    found = [first, *there(results, *others)]
    main, *parts = (load(results, name) for name in found)
    return found, pd.concat([main, *(comparisons.of_same_recordings(main, of) for of in parts)])


class Study(Mapping[str, pd.DataFrame]):
    """The experiments that claims rest on and a profile has results of, each read when used.

    Args:
      results: folder of the profile's CSVs.

    Attributes:
      asked: the experiments that were looked for, there or not.
    """

    def __init__(self, results: str | os.PathLike[str]):
        self._folder = Path(results)
        self._read: dict[str, pd.DataFrame] = {}
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self:
            raise KeyError(name)
        if name not in self._read:
            times = name.endswith("_times")
            read = pd.read_csv(self._folder / f"{name}.csv") if times else load(self._folder, name)
            self._read[name] = read
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return name in claims.EXPERIMENTS and (self._folder / f"{name}.csv").exists()

    def __iter__(self) -> Iterator[str]:
        return (name for name in claims.EXPERIMENTS if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def decide(results: str | os.PathLike[str], only: Sequence[str] | None = None) -> pd.DataFrame:
    """`claims.decide` on a profile's results, of some claims or of all (None)."""
    return claims.decide(stated(results), Study(results), only)


def stated(results: str | os.PathLike[str]) -> pd.DataFrame:
    """The papers' claims and our own questions, with their rules; `results` as for `decide`."""
    names = ("claims.csv", "claims_own.csv")
    return pd.concat([pd.read_csv(Path(results).parent / name) for name in names])


def wanted(results: str | os.PathLike[str], *experiments: str) -> pd.DataFrame:
    """Runs of some experiments by the profile's grids, see `missing`: `method`, `setting`, `game`,
    `updates` and `seeds`; how far they are in the results, `reached` and `trained`, is NaN where
    they are not there.
    """
    path = Path("profiles", f"{Path(results).name}.yaml")
    grids = profiles.load(path)[0]["experiments"] if path.exists() else {}
    found = []
    for experiment in (name for name in experiments if name in grids):
        reached, trained = pd.Series(dtype=float), pd.Series(dtype=float)
        if there(results, experiment):
            rows = pd.read_csv(Path(results, f"{experiment}.csv"))
            reached = rows.groupby(["run", "seed"])["update"].max().groupby("run").min()
            trained = rows.groupby("run")["seed"].nunique()
        for run, values in profiles.runs_of(grids[experiment]).items():
            own = {"method": "", "environment": "", "updates": 0, "seeds": [0], **values.all}
            plain = ("method", "environment", "updates", "seeds")
            named = {k: x for k, x in values.grid.items() if k not in plain}
            found.append(
                {"method": own["method"], "game": own["environment"],
                 "setting": ", ".join(f"{k} {x}" for k, x in named.items()),
                 "updates": own["updates"], "reached": reached.get(run, np.nan),
                 "seeds": len(own["seeds"]), "trained": trained.get(run, np.nan)}
            )  # fmt: skip
    columns = ["method", "game", "setting", "updates", "reached", "seeds", "trained"]
    return pd.DataFrame(found, columns=columns)


def missing(
    results: str | os.PathLike[str],
    *experiments: str,
    methods: Iterable[str] | None = None,
    games: Iterable[str] | None = None,
) -> str:
    """Which runs of some experiments are still to come, or to go on, by the profile's grids.

    Args:
      results: folder of the profile's CSVs; `profiles/<its name>.yaml` has the grids.
      experiments: their names; of those that the profile lacks nothing is missing.
      methods: of which methods; None: all.
      games: of which games; None: all.

    Returns:
      Such as "Still to come: mzu, rosmo on 5 games; bc on freeway."; nothing if all are there.
    """
    runs = wanted(results, *experiments)
    if runs.empty:
        return ""
    for column, kept in (("method", methods), ("game", games)):
        runs = runs if kept is None else runs[runs[column].isin(list(kept))]
    absent = runs[runs["reached"].isna()]
    short = runs[(runs["reached"] < runs["updates"]) | (runs["trained"] < runs["seeds"])]
    every = runs.groupby(["method", "setting"]).size()

    def of_games(games: pd.Series) -> str:
        count = every[absent.loc[games.index[0], "method"], absent.loc[games.index[0], "setting"]]
        return f"{count} games" if len(games) == count > 2 else ", ".join(games)

    # What lacks the same games is named together: the settings of a method, its plain run apart,
    # then the methods.
    left = absent.groupby(["method", "setting"], sort=False)["game"].agg(of_games).reset_index()
    left = left.assign(plain=left["setting"] == "").groupby(["method", "game", "plain"], sort=False)
    left = left["setting"].agg(", with ".join).reset_index()
    left = left.groupby(["setting", "game"], sort=False)["method"].agg(plots.in_order)
    parts = [
        f"{', '.join(methods)}{f' with {setting}' if setting else ''} on {games}"
        for (setting, games), methods in left.items()
    ]
    going = [
        f"{' '.join(filter(None, (run.method, run.setting)))} on {run.game}, at {run.reached:,.0f} "
        f"of {run.updates:,} updates with {run.trained:.0f} of {run.seeds} seeds"
        for run in short.itertuples()
    ]
    texts = [f"Still to come: {'; '.join(parts)}."] if parts else []
    return " ".join(texts + ([f"Not at their end: {'; '.join(going)}."] if going else []))


def _to_come(results: str | os.PathLike[str], claim: str) -> bool:
    """Whether some of the runs that a claim's rule looks for are still to come."""
    frames = Study(results)
    claims.answers(claim, frames)
    return bool(missing(results, *frames.asked))


def _told(
    results: str | os.PathLike[str], decided: pd.DataFrame, claim: str, study: str | None
) -> str:
    """A claim's verdict for the caption of one study's figure, and the other study's."""
    rows = decided[decided["id"] == claim]
    if rows["claim_verdict"].iloc[0] == "not run" and (
        study == PIXELS or claim in claims_own.RULES or _to_come(results, claim)
    ):
        return f"{claim} is not decided yet: its rule needs runs that are still to come."
    if study is None or rows["claim_verdict"].iloc[0] == "not run":
        return claims.brief(decided, claim)
    updates = {
        name: f"{most:,} updates" for name, most in rows.groupby("study")["updates"].max().items()
    }
    rows = rows.drop_duplicates("study").set_index("study")
    verdict = rows["study_verdict"]
    if study != PIXELS:
        text = claims.brief(claims.by(decided, "main"), claim)
        if "longer" not in rows.index:
            return text
        return f"{text} The longer runs decide, at {updates['longer']}: {verdict['longer']}."
    if "longer" not in rows.index:
        return (
            f"{claim} is {verdict['main']} by the runs with {updates['main']}, which decide until "
            "the longer ones are whole for its rule."
        )
    text = claims.brief(decided, claim)
    if "main" not in rows.index:
        return text
    return f"{text} At {updates['main']} it was {verdict['main']}."


def verdicts(
    results: str | os.PathLike[str], *ids: str, study: str | None = None
) -> dict[str, str]:
    """What a profile's results say on some claims, for a caption.

    Args:
      results: folder of the profile's CSVs.
      ids: the claims.
      study: whose figure it is: "minatar", or "pixels" for the longer runs; None: where there is
        one study only.

    Returns:
      `verdict`, a sentence or two a claim, and `compared`, a list of all comparisons of those
      claims of which the verdict has only how many came out how.
    """
    decided = decide(results, ids)
    own = decided
    if study is not None:
        own = claims.by(decided, "longer" if study == PIXELS else "main")
    shortened = [
        claim for claim in ids
        if claim in set(own["id"]) and claims.brief(own, claim) != claims.sentence(own, claim)
    ]  # fmt: skip
    return {
        "verdict": " ".join(_told(results, decided, claim, study) for claim in ids),
        "compared": "\n".join(claims.listed(own, claim) for claim in shortened),
    }


def final(rows: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of each run."""
    by = ["environment", "noise", "fraction", "method", "overrides", "seed"]
    by += [name for name in ("reanalyse_fraction", "sources") if name in rows]
    return rows[rows["update"] == rows.groupby(by)["update"].transform("max")]


def parameter(results: str | os.PathLike[str], experiment: str, name: str) -> str:
    """The values that a parameter had in an experiment's runs, for a caption."""
    values = {
        str(record["parameters"][name]) for record in _provenance(results, experiment).values()
    }
    return ", ".join(sorted(values))


def setting(results: str | os.PathLike[str], experiment: str, name: str) -> str:
    """The values that a setting had in an experiment's runs, for a caption."""
    values = {record["settings"][name] for record in _provenance(results, experiment).values()}
    return ", ".join(f"{value:.4g}" for value in sorted(values))


def devices(results: str | os.PathLike[str], *experiments: str) -> str:
    """Devices that runs of some experiments were made on, such as "CPU"."""
    found = {
        one["device"].partition(": ")[2].replace("cpu", "CPU")
        for name in experiments
        for record in _provenance(results, name).values()
        for one in (record, record.get("adopted"))
        if one
    }
    return ", ".join(sorted(found))


def run_facts(rows: pd.DataFrame, results: str | os.PathLike[str], *experiments: str) -> str:
    """Seeds, updates, episodes and device of runs from some experiments, in one sentence."""
    runs = rows.groupby(["environment", "noise", "fraction", "method", "overrides"])
    seeds, updates = runs["seed"].nunique(), runs["update"].max()
    counts = ((seeds, "seed"), (updates, "update"), (rows["episodes"], "episode"))
    return (
        f"{', '.join(tables.span(values, noun) for values, noun in counts)} per evaluation, "
        f"on {devices(results, *experiments)}."
    )


def labels(values: pd.Series, form: str, missing: str = "") -> pd.Series:
    """Numbers as text that sorts as the numbers do, for what a curve is named by.

    Args:
      values: the numbers.
      form: format of one, such as "{:.0%}".
      missing: text of those that are missing, which sort last.
    """
    ordered = [form.format(value) for value in sorted(values.dropna().unique())]
    texts = values.map(form.format, na_action="ignore").fillna(missing)
    return texts.astype(pd.CategoricalDtype([*ordered, missing], ordered=True))
