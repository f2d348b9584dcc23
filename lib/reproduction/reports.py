"""Results as tidy frames, and the sentences about them that stand beside figures."""

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
    claims_rosmo,
    comparisons,
    plots,
    profiles,
    statistics,
    tables,
)
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


def load(
    results: str | os.PathLike[str], experiment: str, *, runs_of: str | None = None
) -> pd.DataFrame:
    """Rows of an experiment with their normalised score and the settings that sweeps vary.

    Args:
      results: folder of a profile's results.
      experiment: name of the CSV in it, without suffix.
      runs_of: the experiment whose provenance tells of its runs; None: its own.

    Returns:
      The CSV's rows and the columns `score` (0: random policy, 1: the online agent that made
      the noise-free data; NaN where none did), `hidden` (units of the dynamics' hidden
      layer), `num_simulations`, `search_depth` (NaN: not limited), `unroll_steps`,
      `target_interval`, `rescale_values`, `cloning_updates`, `injection`, `num_candidates`,
      `policy_head` and `decay` (of the learning rate: continuous or staircase); `greedy_score`
      where there is a `greedy_return`.
    """
    rows = pd.read_csv(Path(results) / f"{experiment}.csv")
    benchmark = rows["benchmark"].iloc[0]
    rows["score"] = np.nan
    recordings = Path(results, f"{benchmark}_statistics.csv")
    if recordings.exists():
        ends = pd.read_csv(recordings).query("noise == 0").set_index("environment")
        low, high = (rows["environment"].map(ends[f"{end}_return"]) for end in ("random", "online"))
        rows["score"] = statistics.normalise(rows["mean_return"], low, high)
        if "greedy_return" in rows:
            rows["greedy_score"] = statistics.normalise(rows["greedy_return"], low, high)
    records = json.loads(Path(results, f"{runs_of or experiment}.provenance.json").read_text())
    settings = {run.rpartition("/")[2]: record["settings"] for run, record in records.items()}
    for column, of in _OF_SETTINGS.items():
        rows[column] = [of(settings[run]) for run in rows["run"]]
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

    Args:
      results: folder of a profile's results.
      study: one of `STUDIES`.
      names: of the experiments, without the study's.
    """
    first, *others = (f"{checks.one_of('study', study, STUDIES)}_{name}" for name in names)
    found = [first, *there(results, *others)]
    return found, pd.concat([load(results, name) for name in found])


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
            times = name.endswith("_times")
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
    return claims.decide(stated(results), Study(results), only)


def stated(results: str | os.PathLike[str]) -> pd.DataFrame:
    """The papers' claims and our own questions, with their rules; `results` as for `decide`."""
    names = ("claims.csv", "claims_own.csv")
    return pd.concat([pd.read_csv(Path(results).parent / name) for name in names])


def _wanted(results: str | os.PathLike[str], experiments: Sequence[str]) -> pd.DataFrame:
    """Runs of the profile's grids: `method`, `setting`, `game`, `updates` and `seeds`; how far
    they are in the results, `reached` and `trained`, is NaN where they are not there.
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
    return pd.DataFrame(found)


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
    runs = _wanted(results, experiments)
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

    # What lacks the same games is named together: the settings of a method, then the methods.
    left = absent.groupby(["method", "setting"], sort=False)["game"].agg(of_games).reset_index()
    left = left.groupby(["method", "game"], sort=False)["setting"].agg(", with ".join).reset_index()
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


def _told(decided: pd.DataFrame, claim: str, study: str | None) -> str:
    """A claim's verdict for the caption of one study's figure, and the other study's."""
    rows = decided[decided["id"] == claim]
    if rows["claim_verdict"].iloc[0] == "not run" and (
        study == PIXELS or claim in claims_own.RULES
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
        "verdict": " ".join(_told(decided, claim, study) for claim in ids),
        "compared": "\n".join(claims.listed(own, claim) for claim in shortened),
    }


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


def setting(results: str | os.PathLike[str], experiment: str, name: str) -> str:
    """The values that a setting had in an experiment's runs, for a caption."""
    values = {record["settings"][name] for record in _provenance(results, experiment)}
    return ", ".join(f"{value:.4g}" for value in sorted(values))


def devices(results: str | os.PathLike[str], *experiments: str) -> str:
    """Devices that runs of some experiments were made on, such as "CPU"."""
    found = {
        one["device"].partition(": ")[2].replace("cpu", "CPU")
        for name in experiments
        for record in _provenance(results, name)
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


GREEDY = "Greedy is every method by its most probable or highest-valued action."


def how_acting(rows: pd.DataFrame) -> str:
    """Which methods of some evaluations take the best action, and which sample theirs."""
    best = rows["selector"].isin(("critic", "greedy", "implicit", "constrained"))
    names = plots.in_order(rows.loc[best, "method"])
    takes = "takes" if len(names) == 1 else "take"
    text = f"{', '.join(names)} {takes} the action of highest Q, the others sample theirs."
    if best.all() or not best.any():
        text = "All take their best action." if best.any() else "All sample their actions."
    return f"{text} {GREEDY}" if "greedy_score" in rows else text


def how_timed(times: pd.DataFrame | None) -> str:
    """How the time of an update was found: rows of `timing.measure`; None: by the runs' clocks."""
    if times is None:
        return "Each is by the clocks of the runs, which shared the machine with others."
    return (
        f"Each is the mean over the games of the median of {times['repeat'].nunique()} "
        "measurements, with nothing else of ours running; the interval of R11's ratio takes these "
        "times as exact."
    )


def uneven(rows: pd.DataFrame) -> str:
    """Which methods were trained for how long, if not all for the same; else nothing."""
    ends = rows.groupby("method")["update"].max()
    if ends.nunique() == 1:
        return ""
    parts = [
        f"{updates:,} updates for {', '.join(plots.in_order(of.index))}"
        for updates, of in ends.groupby(ends)
    ]
    return f"Each method is taken at its own last update: {'; '.join(parts)}."


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


def flatness(rows: pd.DataFrame, by: Sequence[str] = ("environment",)) -> str:
    """Says which mean curves still moved at the end, as the gallery's head explains.

    A curve moves if the means of the last fifth of its evaluations and of the fifth before
    differ by more than 5% of the range of all mean curves on that environment.

    Args:
      rows: evaluations.
      by: what makes a curve beside the method, the environment among it.
    """
    spans = rows.groupby([*by, "method", "update"], observed=True)["mean_return"].mean()
    spans = spans.groupby("environment").agg(np.ptp)
    moving: dict[str, list[str]] = {}
    total = 0
    for (*where, method), of in rows.groupby([*by, "method"], observed=True):
        curve = of.groupby("update")["mean_return"].mean().sort_index().to_numpy()
        fifth = max(1, len(curve) // 5)
        before, after = curve[-2 * fifth : -fifth].mean(), curve[-fifth:].mean()
        total += 1
        if abs(after - before) > 0.05 * spans[of["environment"].iloc[0]]:
            moving.setdefault(method, []).append(" ".join(map(str, where)))
    if not moving:
        return "Every curve was flat at the end."
    curves = [f"{method} on {', '.join(moving[method])}" for method in plots.in_order(moving)]
    count = sum(map(len, moving.values()))
    were = "was" if count == 1 else "were"
    return f"{count} of {total} curves {were} not flat at the end: {'; '.join(curves)}."


def flatness_of_panels(panels: Mapping[str, pd.DataFrame]) -> str:
    """`flatness` of each panel, a line with its updates and its decay of the learning rate."""
    return "\n".join(
        f"{name[0].upper()}{name[1:]} ({of['update'].max():,} updates, "
        f"{' and '.join(sorted(of['decay'].unique()))} decay): {flatness(of)}"
        for name, of in panels.items()
    )


def ranking(estimates: pd.DataFrame) -> str:
    """Each method's value and interval, best first; those of different updates apart."""
    several = estimates["update"].nunique() > 1
    parts = []
    for update, of in estimates.groupby("update", sort=False):
        rows = of.sort_values("value", ascending=False, kind="stable").itertuples()
        text = "; ".join(f"{r.method} {r.value:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in rows)
        parts.append(f"At {update:,} updates: {text}." if several else f"{text}.")
    return " ".join(parts)


def leaders(rows: pd.DataFrame, game: str, value: str) -> str:
    """In how many games each method has the highest value, such as "cql in 4, rosmo in 1".

    Args:
      rows: `method`, the game and the value, a row a game and method.
      game: column of the game.
      value: column of the value.
    """
    counts = rows.loc[rows.groupby(game)[value].idxmax(), "method"].value_counts()
    return ", ".join(f"{method} in {count}" for method, count in counts.items())


def beside_cloning(final: pd.DataFrame) -> str:
    """The score that R11 times both methods to, beside behaviour cloning's, in a sentence.

    Args:
      final: rows of the last evaluation of each run, with `score`.

    Returns:
      The sentence; nothing if mzu or bc was not run, or not on the same games.
    """
    sides = [final[final["method"] == name] for name in ("mzu", "bc")]
    games = [set(of["environment"]) for of in sides]
    if not games[0] or games[0] != games[1]:
        return ""
    ours, theirs = (statistics.bootstrap(comparisons.tasks(of, "score")).value for of in sides)
    difference = comparisons.with_interval(comparisons.compare("", *sides))
    how = "below" if ours < theirs else "above" if ours > theirs else "equal to"
    return (
        f"The common score of R11, mzu's final {ours:.2f}, is {how} the {theirs:.2f} of behaviour "
        f"cloning (difference {difference})."
    )


def learned(rows: pd.DataFrame) -> str:
    """How far mzu comes with all of the data on the game of R12, in a sentence.

    Args:
      rows: evaluations on one game of runs with the preset, update 0 among them.

    Returns:
      The sentence; nothing if mzu or bc was not run.
    """
    first = rows[rows["update"] == 0]
    last = rows[rows["update"] == rows["update"].max()]
    if not {"mzu", "bc"} <= set(last["method"]):
        return ""
    ends = last.loc[last["method"] == "mzu", "mean_return"]
    untrained = first.loc[first["method"] == "mzu", "mean_return"].mean()
    cloning = last.loc[last["method"] == "bc", "mean_return"].mean()
    near = int(((ends - untrained).abs() < (ends - cloning).abs()).sum())
    game = rows["environment"].iloc[0]
    how = "even with all of the data mzu hardly" if 2 * near > len(ends) else "with all data mzu"
    return (
        f"On R12: {how} learns {game}. It ends at {ends.mean():.2f}, and {near} of its {len(ends)} "
        f"seeds stay closer to the untrained {untrained:.2f} than to the {cloning:.2f} of "
        "behaviour cloning."
    )


def caveats(frames: comparisons.Frames, study: str = "minatar") -> dict[str, str]:
    """What has to be known beside the verdicts on R11 (`cloning`) and R12 (`learned`).

    Args:
      frames: experiment -> rows of `load`, such as a `Study`.
      study: of which runs: "minatar", or "pixels" for the longer ones.

    Returns:
      A sentence each; nothing where the runs are not there.
    """
    found = dict.fromkeys(("cloning", "learned"), "")
    if study == PIXELS:
        frames = claims.Longer(frames)
    if "minatar_curves" in frames:
        found["cloning"] = beside_cloning(final(frames["minatar_curves"]))
    if "minatar_ablations" in frames or "minatar_fractions" in frames:
        rows = claims_rosmo.ablations(frames)
        for column, value in claims_rosmo.PRESET.items():
            rows = rows[rows[column] == value]
        found["learned"] = learned(rows)
    return found


def caveats_beside(decided: pd.DataFrame, frames: comparisons.Frames) -> dict[str, str]:
    """`caveats`, each of the study that decides its claim: R11's of `cloning`, R12's of `learned`.

    Args:
      decided: as `claims.decide` gives it.
      frames: see `caveats`.
    """
    longer = set(decided.loc[decided["study"] == "longer", "id"])
    return {
        name: caveats(frames, PIXELS if claim in longer else "minatar")[name]
        for name, claim in (("cloning", "R11"), ("learned", "R12"))
    }


def above_random(final: pd.DataFrame) -> str:
    """How many games lie above the random policy, interval and all, by Reanalyse fraction.

    Args:
      final: rows of the last evaluation of each run, with `score`.

    Returns:
      Such as "3 of 5 at 0%, 1 of 1 at 50%".
    """
    alone = statistics.summarise(final, "score", ["environment", "reanalyse_fraction"])
    above = (alone["low"] > 0).groupby(alone["reanalyse_fraction"]).agg(["sum", "size"])
    return ", ".join(f"{of['sum']} of {of['size']} at {100 * x:g}%" for x, of in above.iterrows())


def pairs_of_ends(final: pd.DataFrame, kinds: Sequence[str]) -> str:
    """Mean return of two kinds of runs by environment, such as "catch 0.50 and 0.25".

    Args:
      final: rows of the last evaluation of each run, with `kind`.
      kinds: the two kinds, in the order in which they are told.
    """
    means = final.groupby(["environment", "kind"])["mean_return"].mean().unstack()
    first, second = kinds
    return "; ".join(
        f"{world} {row[first]:.2f} and {row[second]:.2f}" for world, row in means.iterrows()
    )


def decay_differences(final: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Staircase less continuous decay of the learning rate, where both were run equally long.

    Args:
      final: evaluations with `score` and `decay`, one of each run and update.

    Returns:
      The IQM score by method and update, and the mean return by method, update and environment:
      `method`, `update`, of the second `environment`, and the columns of a `Comparison`.
    """
    scores, returns = [], []
    for (method, update), of in final.groupby(["method", "update"]):
        sides = dict(list(of.groupby("decay")))
        if len(sides) < 2:
            continue
        about = {"method": method, "update": update}
        name = f"{method} at {update:,}"
        found = comparisons.compare(name, sides["staircase"], sides["continuous"])
        scores.append({**about, **found._asdict()})
        for environment, runs in of.groupby("environment"):
            sides = dict(list(runs.groupby("decay")))
            found = comparisons.compare(
                f"{name}, {environment}", sides["staircase"], sides["continuous"],
                "mean_return", statistics.mean,
            )  # fmt: skip
            returns.append({**about, "environment": environment, **found._asdict()})
    columns = ["method", "update", *comparisons.Comparison._fields]
    return (
        pd.DataFrame(scores, columns=columns),
        pd.DataFrame(returns, columns=[*columns[:2], "environment", *columns[2:]]),
    )


def differences(found: pd.DataFrame, only_clear: bool = False) -> str:
    """Comparisons in words and numbers; only those whose interval excludes 0, if wanted."""
    if only_clear:
        found = found[(found["low"] > 0.0) | (found["high"] < 0.0)]
    parts = [f"{row.comparison} = {comparisons.with_interval(row)}" for row in found.itertuples()]
    return "; ".join(parts) or "none"


def decided_by_decay(
    results: str | os.PathLike[str], *parts: pd.DataFrame, ids: Sequence[str] = ("R8", "R9")
) -> dict[str, str]:
    """The claims about Table 2 by each decay of the learning rate, all methods equally long.

    Args:
      results: folder of a profile's CSVs.
      parts: evaluations up to some update, with `decay`; each is decided by itself.
      ids: the claims.

    Returns:
      Decay and updates -> the claims' sentences.
    """
    of_papers = pd.read_csv(Path(results).parent / "claims.csv")
    said = {}
    for rows in parts:
        for decay, of in rows.groupby("decay"):
            of = comparisons.even(of)
            decided = claims.decide(of_papers, {"bsuite_curves": of}, ids)
            said[f"{decay[0].upper()}{decay[1:]} decay, {of['update'].max():,} updates"] = " ".join(
                claims.sentence(decided, claim) for claim in ids
            )
    return said


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
        f"Mean gain in normalised score over the last checkpoint, run by run: {'; '.join(texts)}."
    )


def by_verdict(decided: pd.DataFrame) -> str:
    """Ids of the claims by verdict, such as "Supported: R1, R2. Undecided: R5."."""
    ids = decided.drop_duplicates("id").groupby("claim_verdict")["id"].agg(", ".join)
    order = ("supported", "not supported", "undecided", "not run")
    return " ".join(f"{one.capitalize()}: {ids[one]}." for one in order if one in ids)


def decided_by_longer(decided: pd.DataFrame) -> str:
    """Which claims the longer runs decide, and where their verdict differs from the others'."""
    ids = decided.loc[decided["study"] == "longer", "id"].unique()
    if not len(ids):
        return "So far they decide none."
    each = decided.groupby(["id", "study"])["study_verdict"].first().unstack()
    changed = [
        f"{claim} from {each.loc[claim, 'main']} to {each.loc[claim, 'longer']}"
        for claim in ids
        if each.loc[claim].nunique() > 1
    ]
    text = f"They decide {', '.join(ids)}."
    return f"{text} Verdicts that differ: {'; '.join(changed)}." if changed else text


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
