"""MuZero Unplugged's Tables 3 and 4, on DM Control: our returns beside the paper's."""

from __future__ import annotations

import pandas as pd

from reproduction import comparisons, plots, tables

# Our methods, and what the papers' columns of Tables 3 and 4 call them.
IN_TABLE3 = {"bc": "MuZero_BC", "d4pg": "D4PG", "brac": "BRAC", "rabm": "RABM", "mzu": "MZU"}
IN_TABLE4 = {"crr": "CRR", "bc": "MuZero_BC", "mzu": "MZU"}
# What the ablations change, and how a change is called.
VARIED = {
    "injection": "injection {:g}",
    "num_candidates": "K = {:.0f}",
    "num_simulations": "{:.0f} simulations",
    "policy_head": "{} policy",
}


def table3(rows: pd.DataFrame, paper: pd.DataFrame, data: pd.Series) -> pd.DataFrame:
    """Final returns by task and method, mean ± standard deviation over seeds, and their means.

    Args:
      rows: evaluations, one or more of each run.
      paper: Table 3: `task`, `action_dims`, `episodes` and a column a method.
      data: mean return of the recorded episodes, by task.

    Returns:
      A row a task in the paper's order, and the mean over these tasks; a column a method, and
      beside it, in brackets, the paper's number where it has one.
    """
    last = rows[rows["update"] == rows["update"].max()]
    table = _beside(last, paper, IN_TABLE3, ["action_dims", "episodes"])
    means = [f"{data[task]:.1f}" if task in data else "" for task in table["task"]]
    table.insert(table.columns.get_loc("episodes") + 1, "mean of the data", means)
    return table


def table4(rows: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Returns of each run's best evaluation, else as `table3`; `paper` is Table 4.

    Beside `mzu` is what its runs return at the evaluation that the other seeds would choose: the
    highest of several evaluations is above the return of any of them by chance alone.
    """
    best = tables.last_and_best(rows, "mean_return").rename(columns={"best": "mean_return"})
    table = _beside(best, paper, IN_TABLE4, [])
    searched = rows[rows["method"] == "mzu"]
    if len(searched) and searched.groupby("environment")["seed"].nunique().min() > 1:
        others = _beside(comparisons.chosen_by_others(searched), paper, {}, []).set_index("task")
        if len(others) < len(table):
            others = others.drop(index="mean")  # Of some tasks only.
        column = table["task"].map(others["mzu"]).fillna("")
        table.insert(table.columns.get_loc("mzu") + 1, "mzu, by other seeds", column)
    return table


def _beside(
    runs: pd.DataFrame, paper: pd.DataFrame, names: dict[str, str], facts: list[str]
) -> pd.DataFrame:
    tasks = [task for task in paper["task"] if task in set(runs["environment"])]
    theirs, methods = paper.set_index("task"), plots.in_order(runs["method"])
    found = []
    for task in [*tasks, "mean"]:
        of = runs if task == "mean" else runs[runs["environment"] == task]
        row = {"task": task}
        row |= {fact: "" if task == "mean" else f"{theirs.loc[task, fact]:,}" for fact in facts}
        for method in methods:
            values = of[of["method"] == method].groupby("seed")["mean_return"]
            missing = set(tasks) - set(runs.loc[runs["method"] == method, "environment"])
            whole = task != "mean" or not missing
            row[method] = tables.spread(values.mean()) if len(values) and whole else ""
            if method in names:
                column = theirs[names[method]]
                number = column[tasks].mean() if task == "mean" else column[task]
                row[f"{method} (paper)"] = f"{number:.1f}"
        found.append(row)
    return pd.DataFrame(found)


def ablations(rows: pd.DataFrame, changes: dict[str, dict[str, object]]) -> pd.DataFrame:
    """Final returns by task, mean ± standard deviation over seeds, a column a changed setting.

    Args:
      rows: evaluations, those of the preset among them.
      changes: name of a column -> settings that its runs have.
    """
    last = rows[rows["update"] == rows["update"].max()]
    found = []
    for task, of in last.groupby("environment"):
        row: dict[str, object] = {"task": task}
        for name, wanted in changes.items():
            part = having(of, wanted)
            row[name] = tables.spread(part["mean_return"]) if len(part) else ""
        found.append(row)
    return pd.DataFrame(found)


def having(rows: pd.DataFrame, wanted: dict[str, object]) -> pd.DataFrame:
    """Rows with these values in these columns."""
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows


def changes(rows: pd.DataFrame) -> dict[str, dict[str, object]]:
    """The settings of the rows by name: the preset, which most have, and what differs from it.

    Args:
      rows: evaluations that differ from the preset in at most one of `VARIED`.
    """
    preset = {column: rows[column].mode().iloc[0] for column in VARIED}
    found = {"preset": dict(preset)}
    for column, form in VARIED.items():
        for value in sorted(rows[column].unique()):
            if value != preset[column]:
                found[form.format(value)] = {**preset, column: value}
    return found


def not_there(rows: pd.DataFrame, paper: pd.DataFrame) -> str:
    """Which of the paper's tasks are not run, and which methods lack which of those that are."""
    tasks = set(rows["environment"])
    parts = []
    if others := [task for task in paper["task"] if task not in tasks]:
        parts.append(f"Not run: {', '.join(others)}.")
    for method in plots.in_order([*rows["method"], *IN_TABLE3, *IN_TABLE4]):
        if lacking := sorted(tasks - set(rows.loc[rows["method"] == method, "environment"])):
            parts.append(f"{method} lacks {', '.join(lacking)}.")
    return " ".join(parts)
