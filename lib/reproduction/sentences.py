"""What captions say of results, in words and numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from reproduction import claims, claims_rosmo, comparisons, plots, reports, statistics, tables

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
    after = int(times["after"].max()) if "after" in times else 0
    trained = f"after {after:,} updates of training" if after else "of untrained networks"
    return (
        f"Each is the mean over the games of the median of {times['repeat'].nunique()} "
        f"measurements, {trained}, with nothing else of ours running; the interval of R11's ratio "
        "takes these times as exact."
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


def settled(rows: pd.DataFrame) -> str:
    """By how much the training loss changed over the last fifth of training, by environment.

    Args:
      rows: evaluations with `loss`.

    Returns:
      Such as "-1.5% on asterix, +0.2% on breakout": the loss at the end over that at the last
      evaluation before the fifth.
    """
    parts = []
    for game, of in rows.dropna(subset="loss").groupby("environment"):
        loss = of.groupby("update")["loss"].mean()
        before = loss[loss.index <= 0.8 * loss.index.max()].iloc[-1]
        parts.append(f"{loss.iloc[-1] / before - 1.0:+.1%} on {game}")
    return ", ".join(parts)


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
    """In how many games each method has the highest mean, such as "cql in 4, rosmo in 1".

    Args:
      rows: `method`, the game and the value.
      game: column of the game.
      value: column of the value.

    Returns:
      The counts; of a single method, that it is alone.
    """
    if rows["method"].nunique() == 1:
        return f"{rows['method'].iloc[0]} alone is there"
    means = rows.groupby([game, "method"])[value].mean().reset_index()
    counts = means.loc[means.groupby(game)[value].idxmax(), "method"].value_counts()
    return ", ".join(f"{method} in {count}" for method, count in counts.items())


def leaders_greedy(rows: pd.DataFrame) -> str:
    """`leaders` by the greedy return, in a sentence; nothing of one method, or if one has none."""
    known = "greedy_return" in rows and rows["greedy_return"].notna().all()
    if not known or rows["method"].nunique() == 1:
        return ""
    return f"All acting greedily: {leaders(rows, 'environment', 'greedy_return')}."


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
    if study == reports.PIXELS:
        frames = claims.Longer(frames)
    if "minatar_curves" in frames:
        found["cloning"] = beside_cloning(reports.final(frames["minatar_curves"]))
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
        name: caveats(frames, reports.PIXELS if claim in longer else "minatar")[name]
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
