"""What `make bench` measured, as tidy frames. No jax."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

PARTS = ("sampling", "target roots", "look-ahead", "search", "forward", "backward", "optimiser")


def load(results: str | os.PathLike[str]) -> pd.DataFrame:
    """The rows of bench.csv, with the `key=value` pairs of `setting` as columns of text.

    Args:
      results: folder of bench.csv.
    """
    rows = pd.read_csv(Path(results, "bench.csv"), keep_default_na=False)
    pairs = rows["setting"].map(lambda x: dict(p.split("=", 1) for p in x.split(", ") if "=" in p))
    return rows.join(pd.DataFrame(pairs.tolist(), index=rows.index))


def select(bench: pd.DataFrame, measure: str, **settings: str) -> pd.DataFrame:
    """Rows of one measure with these settings, without the columns that none of them has."""
    chosen = bench[bench["measure"] == measure]
    for column, value in settings.items():
        chosen = chosen[chosen[column] == value] if column in chosen else chosen.iloc[:0]
    return chosen if chosen.empty else chosen.dropna(axis=1, how="all")


def value(bench: pd.DataFrame, measure: str, **settings: str) -> float:
    """The first of the rows' values; NaN if there is none."""
    found = select(bench, measure, **settings)["value"]
    return found.iloc[0] if len(found) else float("nan")


def time_of_parts(bench: pd.DataFrame) -> pd.DataFrame:
    """Microseconds an update, a row a part and "whole"; a column each method and dataset.

    Datasets on which several networks were timed have a column for each. Backward is the time of
    the loss with its gradient less that without.
    """
    found = select(bench, "time of part")
    if "network" in found:
        several = found.groupby("data")["network"].transform("nunique") > 1
        found["data"] = found["data"].where(~several, found["data"] + ", " + found["network"])
    table = found.pivot(index="part", columns=["method", "data"], values="value")
    table.loc["forward"] = table.loc["loss forward"]
    table.loc["backward"] = table.loc["loss forward and backward"] - table.loc["loss forward"]
    return table.reindex([*PARTS, "whole"]).dropna(how="all")


def cost_of_search(bench: pd.DataFrame, data: str) -> pd.Series:
    """Time of an mzu update over that of a rosmo update, by the number of simulations."""
    found = select(bench, "growth", unit="updates/s", data=data)
    rosmo = found.loc[found["method"] == "rosmo", "value"].iloc[0]
    mzu = found[found["method"] == "mzu"].set_index("num_simulations")["value"]
    mzu.index = mzu.index.astype(int)
    return rosmo / mzu.sort_index()


ONLINE_PARTS = ("acting", "reanalysing", "learning")


def time_of_online_parts(bench: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds an update online, a row a part, a column each Reanalyse fraction."""
    found = select(bench, "time of part online")
    table = found.pivot(index="part", columns="reanalysed", values="value")
    return table.reindex(list(ONLINE_PARTS))


def ratios(bench: pd.DataFrame, data: Sequence[str]) -> pd.Series:
    """Fused over reference, the median of a run's pairs, by `method` and `data`."""
    found = select(bench, "fused / reference", statistic="median")
    found = found[found["data"].isin(data)]
    return found.set_index(["method", "data"])["value"]


def in_words(values: pd.Series) -> str:
    """Ratios of `ratios` for a caption, such as "rosmo 9.2 on cartpole, mzu 3.4 on catch"."""
    return ", ".join(f"{method} {value:.1f} on {data}" for (method, data), value in values.items())


def missed(values: pd.Series, targets: Mapping[str, float]) -> str:
    """Which of `ratios` are below their method's target, as `in_words`; "none" if none is."""
    of = values.index.get_level_values("method").map(targets.get)
    return in_words(values[values.to_numpy() < of.to_numpy()]) or "none"


def measured_where(about: Mapping[str, Any]) -> str:
    """Machine, day and version of a run, for a caption.

    Args:
      about: content of bench.json.
    """
    quick = "; QUICK run, not a result" if about["quick"] else ""
    return f"{about['cpu']}, jax {about['packages']['jax']}, {about['time'][:10]}{quick}"
