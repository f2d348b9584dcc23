"""Measures of estimates whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from reproduction import trust


def rows():
    return pd.DataFrame({
        "environment": "catch", "seed": 0, "mean_return": [0.0, 1.0, 2.0, 4.0],
        "dr_total": [1.0, 2.0, 3.0, 5.0], "wis_total": [4.0, 2.0, 1.0, 0.0],
        "data_total": 2.0, "fqe_return": [0.0, np.nan, 3.0, 2.0],
    })  # fmt: skip


def test_measures_by_hand():
    found = trust.measured(rows()).set_index("estimate")
    assert found.loc["doubly robust", ["error", "rank", "regret"]].tolist() == [0.25, 1.0, 0.0]
    assert found.loc["importance sampling", "rank"] == pytest.approx(-1.0)
    assert found.loc["importance sampling", "regret"] == 1.0
    assert found.loc["the log's own return", "rank"] == 0.0
    assert found.loc["fitted Q (discounted)"].tolist()[-2:] == [0.5, 0.5]
    assert np.isnan(found.loc["fitted Q (discounted)", "error"])  # Of another quantity.
    assert found.loc["fitted Q (discounted)", "known"] == 0.75  # Regret is of the best of all.
    assert len(found) == 4  # No learned values.
    few = trust.measured(rows().assign(dr_total=[1.0, np.nan, np.nan, np.nan]))
    few = few.set_index("estimate").loc["doubly robust"]
    assert few["known"] == 0.25 and few[["error", "rank", "regret"]].isna().all()
    other = trust.measured(rows(), "dr_total", {"mean_return": "itself"})
    assert other["estimate"].tolist() == ["itself"] and other["error"].tolist() == [0.25]
    same = rows().assign(mean_return=1.0)
    assert trust.measured(same).empty
    assert trust.verdict(trust.summary(trust.measured(same))).startswith("No estimate orders")


def test_a_summary_over_tasks_and_what_follows():
    tasks = [rows().assign(environment=name, seed=s) for name in ("a", "b") for s in (0, 1)]
    table = trust.summary(trust.measured(pd.concat(tasks)))
    assert set(table["measure"]) == set(trust.MEASURES) and (table["runs"] == 4).all()
    of = table[table["estimate"] == "fitted Q (discounted)"]
    assert of["measure"].tolist() == ["known", "rank", "regret"]
    assert of["value"].tolist() == [0.75, 0.5, 0.5]
    assert "Doubly robust orders checkpoints best (rank correlation 1.00" in trust.verdict(table)
    many = pd.concat([one.assign(dr_total=[1.0, 2.0, np.nan, 3.0]) for one in tasks])
    assert "Doubly robust" not in trust.verdict(trust.summary(trust.measured(many)))
    worse = table[table["estimate"] == "importance sampling"]
    assert trust.verdict(worse).startswith("No estimate orders")
