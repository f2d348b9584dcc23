"""What the papers claim, decided by our committed results through rules fixed before any run.

`results/claims.csv` states each claim and its rule, `results/claims_own.csv` our own questions. A
rule (`claims_rosmo`, `claims_muzero`, `claims_own`) turns tidy frames into comparisons, each with a
95% interval and a verdict, and those into the claim's verdict: "supported" if the interval lies
above 0, "not supported" if below, else "undecided", unless the claim's own rule says otherwise.

MinAtar was trained twice: by `minatar_*` for 10,000 updates, and longer by `pixels_*`. A rule is
applied to each. The longer runs decide a claim once they are `whole` for it; both answers stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from reproduction import claims_muzero, claims_own, claims_rosmo, comparisons, trust
from reproduction.comparisons import Comparison, Frames, NotRun, Rule

RULES: dict[str, Rule] = {**claims_rosmo.RULES, **claims_muzero.RULES, **claims_own.RULES}

# What the rules read, and of it what has rows of `timing.measure`.
TIMES = "minatar_times"
EXPERIMENTS = (
    "bsuite_curves", "bsuite_table2", "bsuite_fractions", "bsuite_noise", "bsuite_capacity",
    "bsuite_search",
    "minatar_curves", "minatar_fractions", "minatar_ablations", "minatar_onestep",
    "minatar_selectors", "minatar_imagined", "online_fractions", "online_exploitation", TIMES,
    "pixels_curves", "pixels_start", "pixels_search", "pixels_fractions", "pixels_selectors",
    "pixels_times", "control_curves", "control_ablations", *trust.ESTIMATED,
    "sepsis_curves",
)  # fmt: skip

# What rules read, and what stands in its place when they are applied to the longer runs. MOReL and
# COMBO were trained for as long, once.
LONGER = {
    "minatar_curves": "pixels_curves",
    "minatar_fractions": "pixels_fractions",
    "minatar_selectors": "pixels_selectors",
    "minatar_times": "pixels_times",
    "minatar_imagined": "minatar_imagined",
}


# On how many games the longer runs of these claims' experiments are, where those of 10,000 updates
# are on fewer.
GAMES = {"M4": 3, "M6": 5, "M7": 5, "M8": 5}


class Longer(Mapping[str, pd.DataFrame]):
    """Frames of the longer runs, under the names by which rules ask for the others.

    Args:
      frames: all frames, under their own names.
    """

    def __init__(self, frames: Frames):
        self._frames = frames

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self._frames[LONGER[name]]

    def __contains__(self, name: object) -> bool:
        return name in LONGER and LONGER[str(name)] in self._frames

    def __iter__(self) -> Iterator[str]:
        return (name for name in LONGER if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Answer(NamedTuple):
    """What some runs say on a claim: `study` is "main" or "longer"."""

    study: str
    comparisons: list[Comparison]
    verdict: str


def whole(longer: Sequence[Comparison], main: Sequence[Comparison]) -> bool:
    """Whether the longer runs make all comparisons of a claim that the others make.

    Each on at least the same games, with at least as many seeds, after more updates.
    """
    longer, main = comparisons.deciding(longer), comparisons.deciding(main)
    return len(longer) == len(main) and all(
        set(one.environments.split(", ")) >= set(other.environments.split(", "))
        and one.seeds >= other.seeds
        and one.updates > other.updates
        for one, other in zip(longer, main)
    )


def answers(claim: str, frames: Frames) -> list[Answer]:
    """What the runs say on a claim, the answer that decides first; none if they say nothing.

    The longer runs have an answer only if they are `whole` for the claim, or alone; and in either
    case only on as many games as are in `GAMES`.
    """
    found: dict[str, Answer] = {}
    for study, of in {"main": frames, "longer": Longer(frames)}.items():
        try:
            found[study] = Answer(study, *RULES[claim](of))
        except NotRun:
            continue
    if "longer" in found:
        made = found["longer"].comparisons
        fewest = min(len(one.environments.split(", ")) for one in comparisons.deciding(made))
        if fewest < GAMES.get(claim, 0) or (
            "main" in found and not whole(made, found["main"].comparisons)
        ):
            del found["longer"]
    return [found[study] for study in ("longer", "main") if study in found]


def decide(claims: pd.DataFrame, frames: Frames, only: Sequence[str] | None = None) -> pd.DataFrame:
    """Claims with their comparisons and verdicts, one row a comparison.

    Args:
      claims: `results/claims.csv`.
      frames: experiment of `EXPERIMENTS` -> rows of `reports.load` (of `TIMES`: of
        `timing.measure`); those not there make their claims "not run".
      only: ids of the claims to decide; None: all.

    Returns:
      The claims' columns, those of `Comparison` (empty where not run), `study` ("main" or
      "longer") with its `study_verdict`, and `claim_verdict`, by the study that stands first.
    """
    rows = []
    for claim in claims.to_dict("records"):
        if only is not None and claim["id"] not in only:
            continue
        found = answers(claim["id"], frames) if claim["id"] in RULES else []
        if not found:
            rows.append({**claim, "claim_verdict": "not run"})
            continue
        stated = claim.pop("comparison")
        for answer in found:
            about = {
                "stated_comparison": stated,
                "study": answer.study,
                "study_verdict": answer.verdict,
                "claim_verdict": found[0].verdict,
            }
            rows += [{**claim, **one._asdict(), **about} for one in answer.comparisons]
    columns = [
        *[c for c in claims.columns if c != "comparison"], "stated_comparison",
        *Comparison._fields, "study", "study_verdict", "claim_verdict",
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    missing = frame["claim_verdict"] == "not run"
    frame.loc[missing, "stated_comparison"] = frame.loc[missing, "comparison"]
    frame.loc[missing, "comparison"] = None
    counts = {name: "Int64" for name in ("runs", "seeds", "updates") if name in frame}
    return frame.reindex(columns=columns).astype(counts)


def measured_as(row: Any) -> str:
    """What a row of `decide` measured, with its interval; ratios and shares without a sign."""
    if row.id in ("R11", "M5", "O6"):
        return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
    return comparisons.with_interval(row)


def by(decided: pd.DataFrame, study: str) -> pd.DataFrame:
    """Rows of `decide` as one study alone would have them, and of claims that are not run."""
    rows = decided[(decided["study"] == study) | decided["study"].isna()]
    return rows.assign(claim_verdict=rows["study_verdict"].fillna(rows["claim_verdict"]))


def _deciding(decided: pd.DataFrame, claim: str) -> pd.DataFrame:
    """A claim's rows of the study that decides it."""
    rows = decided[decided["id"] == claim]
    study = rows["study"].iloc[0]
    return rows if pd.isna(study) else rows[rows["study"] == study]


def sentence(decided: pd.DataFrame, claim: str) -> str:
    """A claim's verdict and everything that was measured for it."""
    rows = _deciding(decided, claim)
    overall = rows["claim_verdict"].iloc[0]
    if overall == "not run":
        return f"{claim}: not run in this profile."
    return f"{claim} is {overall} ({_measure(rows)}): {_measured(rows, verdicts=len(rows) > 1)}."


def brief(decided: pd.DataFrame, claim: str, most: int = 2) -> str:
    """A claim's verdict for a caption: its comparisons, or if they are many how they came out.

    Args:
      decided: as `decide` gives it.
      claim: its id.
      most: as many comparisons are written out; of more, only those that contradict the paper.
    """
    rows = _deciding(decided, claim)
    if len(rows) <= most:
        return sentence(decided, claim)
    counts = rows["verdict"].value_counts()
    # In this order, whatever else there is behind it.
    order = sorted(counts.index, key=lambda name: (_rank(name), name))
    first, *others = [f"{counts[name]} {name}" for name in order]
    number, _, name = first.partition(" ")
    came_out = ", ".join([f"{number} of {len(rows)} comparisons {name}", *others])
    against = rows[rows["verdict"] == "not supported"]
    contrary = "" if against.empty else f" Against the paper: {_measured(against)}."
    return f"{claim} is {rows['claim_verdict'].iloc[0]}: {came_out}.{contrary}"


_VERDICTS = ("supported", "undecided", "not supported")


def _rank(verdict: str) -> int:
    return _VERDICTS.index(verdict) if verdict in _VERDICTS else len(_VERDICTS)


def _measure(rows: pd.DataFrame) -> str:
    """What a claim's comparisons measure, as far as it is so in every profile."""
    # The stated measure may name seeds and environments, a profile may have others.
    return rows["measure"].iloc[0].partition(", ")[0].partition(" over ")[0]


def _measured(rows: pd.DataFrame, verdicts: bool = False) -> str:
    """Comparisons with their numbers, and with their own verdicts if wanted."""
    return "; ".join(_one(row, verdicts) for row in rows.itertuples())


def _one(row: Any, verdict: bool) -> str:
    """A comparison with its number, which comes before what the comparison adds after a ;."""
    name, also, remark = row.comparison.partition("; ")
    return f"{name} = {measured_as(row)}{also}{remark}{f', {row.verdict}' if verdict else ''}"


def listed(decided: pd.DataFrame, claim: str) -> str:
    """A claim's comparisons, a line each below what they measure, as a list in Markdown."""
    rows = _deciding(decided, claim)
    lines = [f"- {_one(row, verdict=True)}" for row in rows.itertuples()]
    return "\n".join([f"{claim}, {_measure(rows)}:", *lines])
