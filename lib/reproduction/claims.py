"""What the papers claim, decided by our committed results through rules fixed before any run.

`results/claims.csv` states each claim and its rule, `results/claims_own.csv` our own questions. A
rule (`claims_rosmo`, `claims_muzero`, `claims_own`) turns tidy frames into comparisons, each with a
95% interval and a verdict, and those into the claim's verdict: "supported" if the interval lies
above 0, "not supported" if below, else "undecided", unless the claim's own rule says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from reproduction import claims_muzero, claims_own, claims_rosmo, comparisons
from reproduction.comparisons import Comparison, Frames, NotRun, Rule

RULES: dict[str, Rule] = {**claims_rosmo.RULES, **claims_muzero.RULES, **claims_own.RULES}

# What the rules read, and of it what has rows of `timing.measure`.
TIMES = "minatar_times"
EXPERIMENTS = (
    "bsuite_curves", "bsuite_table2", "bsuite_fractions", "bsuite_noise", "bsuite_capacity",
    "bsuite_search",
    "minatar_curves", "minatar_fractions", "minatar_ablations", "minatar_onestep",
    "minatar_selectors", "minatar_imagined", "online_fractions", "online_exploitation", TIMES,
    "pixels_curves", "pixels_start", "pixels_search", "control_curves", "control_ablations",
)  # fmt: skip


def decide(claims: pd.DataFrame, frames: Frames, only: Sequence[str] | None = None) -> pd.DataFrame:
    """Claims with their comparisons and verdicts, one row a comparison.

    Args:
      claims: `results/claims.csv`.
      frames: experiment of `EXPERIMENTS` -> rows of `reports.load` (of `TIMES`: of
        `timing.measure`); those not there make their claims "not run".
      only: ids of the claims to decide; None: all.

    Returns:
      The claims' columns, those of `Comparison` (empty where not run), and `claim_verdict`.
    """
    rows = []
    for claim in claims.to_dict("records"):
        if only is not None and claim["id"] not in only:
            continue
        try:
            if claim["id"] not in RULES:
                raise NotRun("no rule yet")
            found, overall = RULES[claim["id"]](frames)
        except NotRun:
            rows.append({**claim, "claim_verdict": "not run"})
            continue
        stated = claim.pop("comparison")
        for one in found:
            rows.append(
                {**claim, "stated_comparison": stated, **one._asdict(), "claim_verdict": overall}
            )
    columns = [
        *[c for c in claims.columns if c != "comparison"], "stated_comparison",
        *Comparison._fields, "claim_verdict",
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    missing = frame["claim_verdict"] == "not run"
    frame.loc[missing, "stated_comparison"] = frame.loc[missing, "comparison"]
    frame.loc[missing, "comparison"] = None
    counts = {name: "Int64" for name in ("runs", "seeds", "updates") if name in frame}
    return frame.reindex(columns=columns).astype(counts)


def measured_as(row: Any) -> str:
    """What a row of `decide` measured, with its interval; ratios and shares without a sign."""
    if row.id in ("R11", "M5"):
        return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
    return comparisons.with_interval(row)


def sentence(decided: pd.DataFrame, claim: str) -> str:
    """A claim's verdict and everything that was measured for it."""
    rows = decided[decided["id"] == claim]
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
    rows = decided[decided["id"] == claim]
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
    rows = decided[decided["id"] == claim]
    lines = [f"- {_one(row, verdict=True)}" for row in rows.itertuples()]
    return "\n".join([f"{claim}, {_measure(rows)}:", *lines])
