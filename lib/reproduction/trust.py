"""How far estimates that need no environment can be trusted, where the truth is known.

The measures of published benchmarks of off-policy evaluation (Fu et al., 2021; Voloshin et al.,
2021): absolute error, rank correlation, and regret of the best by estimate. Frames only.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy

from reproduction import statistics

ESTIMATED = ("bsuite_estimates", "minatar_estimates")  # a row a checkpoint, of `selection.report`
# What is compared with the undiscounted return in the environment, and how it is called.
ESTIMATES = {
    "data_total": "the log's own return", "wis_total": "importance sampling",
    "dr_total": "doubly robust", "fqe_return": "fitted Q (discounted)",
    "value_return": "learned value (discounted)",
}  # fmt: skip
# The same of the discounted return, where that is known.
DISCOUNTED = {
    "data_return": "the log's own return", "wis_return": "importance sampling",
    "dr_return": "doubly robust", "fqe_return": "fitted Q", "value_return": "learned value",
}  # fmt: skip
MEASURES = {
    "known": "share of checkpoints that have one",
    "error": "absolute error / spread of the truth", "rank": "rank correlation",
    "regret": "regret of the best / spread of the truth",
}  # fmt: skip
_MOST = 0.9  # share of checkpoints that an estimate to choose by must know


def measured(
    rows: pd.DataFrame, truth: str = "mean_return", estimates: Mapping[str, str] = ESTIMATES
) -> pd.DataFrame:
    """The measures of each estimate on each task, over methods and checkpoints.

    Args:
      rows: a row a checkpoint: `environment`, `seed`, the truth and those of the estimates;
        what is not there is left out.
      truth: the column that estimates try to predict.
      estimates: their columns, and how they are called.

    Returns:
      A row an environment, seed and estimate: `known`, the share of checkpoints that have one;
      `error`, the mean of |estimate - truth|, NaN for a discounted estimate of an undiscounted
      return; `rank`, Spearman's correlation, 0 if an estimate is the same for all; and `regret`,
      what the checkpoint of the highest estimate lacks of the best one, of all that there are.
      Error and regret are divided by the range of the truth over the task's checkpoints, so that
      tasks can be averaged. All but `known` are NaN where fewer than two have an estimate.
    """
    found = []
    for (environment, seed), of in rows.groupby(["environment", "seed"]):
        spread = np.ptp(of[truth])
        for name, called in estimates.items():
            if name not in of or spread == 0:
                continue
            row = {"environment": environment, "seed": seed, "estimate": called}
            known = of[of[name].notna()]
            found.append({**row, "known": len(known) / len(of)})
            if len(known) < 2:
                continue
            estimate, true = known[name].to_numpy(), known[truth].to_numpy()
            constant = np.ptp(estimate) == 0 or np.ptp(true) == 0
            rank = 0.0 if constant else float(scipy.stats.spearmanr(estimate, true).statistic)
            chosen = true[estimate == estimate.max()]  # Several of them if it cannot tell.
            other = truth == "mean_return" and name.endswith("_return")
            error = np.nan if other else float(np.abs(estimate - true).mean() / spread)
            regret = float((of[truth].max() - chosen.mean()) / spread)
            found[-1] |= {"error": error, "rank": rank, "regret": regret}
    columns = ["environment", "seed", "estimate", *MEASURES]
    return pd.DataFrame(found, columns=columns)


def summary(measures: pd.DataFrame) -> pd.DataFrame:
    """Mean over tasks and seeds of each measure there is, and its stratified 95% interval.

    Returns:
      `estimate`, `measure`, `value`, `low`, `high` and `runs`.
    """
    found = []
    for name, measure in itertools.product(measures["estimate"].unique(), MEASURES):
        of = measures[(measures["estimate"] == name) & measures[measure].notna()]
        if of.empty:
            continue
        tasks = [part[measure].to_numpy() for _, part in of.groupby("environment")]
        estimate = statistics.bootstrap(tasks, statistics.mean)
        found.append(
            {
                "estimate": name, "measure": measure, "value": estimate.value,
                "low": estimate.low, "high": estimate.high, "runs": estimate.samples,
            }
        )  # fmt: skip
    columns = ["estimate", "measure", "value", "low", "high", "runs"]
    return pd.DataFrame(found, columns=columns)


def verdict(table: pd.DataFrame) -> str:
    """What follows for choosing a checkpoint, in a sentence made from the numbers.

    Of estimates that most checkpoints have: by the others one would choose among few.
    """
    shares = table[table["measure"] == "known"]
    usable = shares.loc[shares["value"] >= _MOST, "estimate"]
    ranks = table[(table["measure"] == "rank") & table["estimate"].isin(usable)]
    good = ranks[ranks["low"] > 0]
    if not len(good):
        return "No estimate orders checkpoints better than chance here: take the last."
    best = good.loc[good["value"].idxmax()]
    regret = table[(table["measure"] == "regret") & (table["estimate"] == best["estimate"])].iloc[0]
    name = best["estimate"][0].upper() + best["estimate"][1:]
    return (
        f"{name} orders checkpoints best (rank correlation {best['value']:.2f} "
        f"[{best['low']:.2f}, {best['high']:.2f}]); the checkpoint that it chooses lacks "
        f"{regret['value']:.0%} [{regret['low']:.0%}, {regret['high']:.0%}] of the range between "
        "the worst and the best."
    )
