"""Verdicts on made-up results whose answer is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unplugged import claims, reports, statistics

CLAIMS = pd.read_csv(Path(__file__).parents[1] / "results" / "claims.csv")
PRESET = {"noise": 0.0, "fraction": 1.0, "hidden": 256, "num_simulations": 4,
          "search_depth": np.nan, "overrides": "{}"}  # fmt: skip


def runs(method, environment, level, seeds=4, updates=20, spread=0.01, **setting):
    """Rows of a run whose score comes to `level`, plus a little for each seed, by update 20."""
    setting = {**PRESET, **setting, "overrides": str(setting)}
    return pd.DataFrame(
        [
            {"method": method, "environment": environment, "seed": seed, "update": update,
             "score": level * min(1, update / 20) + spread * seed,
             "mean_return": 10 * (level * min(1, update / 20) + spread * seed), **setting}
            for seed in range(seeds) for update in range(0, updates + 1, 10)
        ]
    )  # fmt: skip


def study(**levels):
    """All experiments, at level 1 but where `levels` says otherwise."""

    def level(experiment, method, *setting):
        names = "_".join(map(str, (experiment, method, *setting))), f"{experiment}_{method}", method
        return next((levels[name] for name in names if name in levels), 1.0)

    worlds = ("catch", "cartpole", "mountain_car")
    both = [(m, e) for m in ("rosmo", "mzu") for e in worlds]
    return {
        "curves": pd.concat(
            [runs(m, e, level("curves", m, e), updates=40) for m in claims.PAPER_METHODS
             for e in worlds]
        ),
        "fractions": pd.concat(
            [runs(m, e, level("fractions", m, f), fraction=f) for m, e in both
             for f in (0.01, 0.1)]
        ),
        "noise": pd.concat(
            [runs(m, "catch", level("noise", m), noise=0.5) for m in ("rosmo", "mzu")]
        ),
        "capacity": pd.concat(
            [runs(m, e, level("capacity", m, h), fraction=0.1, hidden=h) for m, e in both
             for h in (16, 1024)]
        ),
        "search": pd.concat(
            [runs("mzu", e, level("search", "mzu", n, d), num_simulations=n,
                  search_depth=np.nan if d is None else d)
             for e in worlds[:2] for n, d in ((1, None), (16, 1), (16, 2), (16, None))]
        ),
    }  # fmt: skip


def verdicts(frames):
    decided = claims.decide(CLAIMS, frames)
    return decided.drop_duplicates("id").set_index("id")["claim_verdict"].to_dict()


def test_where_rosmo_is_better_in_everything_the_paper_is_right():
    found = verdicts(
        study(
            rosmo=1.5, mzu=1.0, crr=0.9, cql=0.8, bc=0.5,
            **{"fractions_mzu_0.01": 0.2, "noise_mzu": 0.3, "capacity_mzu_16": 0.4,
               "search_mzu_1_None": 0.1, "search_mzu_16_None": 0.7, "curves_crr_cartpole": 1.8},
        )
    )  # fmt: skip
    assert {k: found[k] for k in claims.RULES} == dict.fromkeys(claims.RULES, "supported")
    assert found["R10"] == found["M1"] == "not run"


def test_where_all_are_equal_nothing_is_decided():
    found = verdicts(study())
    assert {k: found[k] for k in claims.RULES} == dict.fromkeys(claims.RULES, "undecided")


def test_where_mzu_is_better_the_paper_is_not_right():
    found = verdicts(
        study(
            rosmo=0.5, mzu=1.0, crr=0.2,
            **{"fractions_mzu_0.01": 1.2, "noise_rosmo": 0.1, "capacity_mzu_16": 1.4,
               "search_mzu_1_None": 1.5, "search_mzu_16_None": 1.2},
        )
    )  # fmt: skip
    assert {k: found[k] for k in claims.RULES} == dict.fromkeys(claims.RULES, "not supported")


def test_one_fraction_below_zero_is_enough_against_r1_and_most_above_for_it():
    above = {"rosmo": 1.5, "mzu": 1.0}
    assert verdicts(study(**above))["R1"] == "supported"
    assert verdicts(study(**above, **{"fractions_rosmo_0.1": 1.0}))["R1"] == "supported"
    assert verdicts(study(**above, **{"fractions_rosmo_0.1": 0.2}))["R1"] == "not supported"


def test_r5_wants_rosmo_stable():
    levels = {"rosmo": 1.5, "mzu": 1.0}
    assert verdicts(study(**levels))["R5"] == "supported"
    assert verdicts(study(**levels, capacity_rosmo_1024=1.9))["R5"] == "undecided"


def test_r7_chooses_the_depth_on_other_seeds():
    frames = study()
    rows = frames["search"]
    # Depth 2 looks best to the first half of the seeds only, depth 1 to the others.
    at = rows["num_simulations"] == 16
    first = rows["seed"] < 2
    rows.loc[at & first & (rows["search_depth"] == 2), "score"] += 1.0
    rows.loc[at & ~first & (rows["search_depth"] == 1), "score"] += 1.0
    decided = claims.decide(CLAIMS, frames).set_index("id").loc["R7"]
    assert "depth 2 (chosen on other seeds)" in decided["comparison"]
    assert decided["value"] == pytest.approx(0.0) and decided["seeds"] == 2


def test_comparisons_are_at_equal_updates_and_say_what_they_rest_on():
    frames = study(rosmo=1.5)
    curves = frames["curves"]
    curves.loc[curves["update"] == 40, "score"] = 9.0  # The sweep ends at 20 updates.
    row = claims.decide(CLAIMS, frames).query("id == 'R1' and comparison.str.contains('100%')")
    assert row["updates"].item() == 20 and row["seeds"].item() == 4 and row["runs"].item() == 24
    assert row["value"].item() == pytest.approx(0.5) and row["improvement"].item() == 1.0
    at = curves[curves["update"] == 20].set_index(["method", "environment"])["score"]
    sides = [
        [at[method, world].to_numpy() for world in ("cartpole", "catch", "mountain_car")]
        for method in ("rosmo", "mzu")
    ]
    expected = statistics.difference(*sides)
    assert (row["low"].item(), row["high"].item()) == expected[1:3]


def test_a_claim_without_results_is_not_run_and_keeps_its_text():
    frames = study()
    del frames["noise"]
    decided = claims.decide(CLAIMS, frames)
    row = decided[decided["id"] == "R3"].iloc[0]
    assert row["claim_verdict"] == "not run" and np.isnan(row["value"])
    assert "noise 0.5" in row["stated_comparison"]
    assert list(decided["id"].unique()) == list(CLAIMS["id"])
    assert claims.sentence(decided, "R3") == "R3: not run in this profile."
    assert claims.sentence(decided, "R2").startswith("R2 undecided (IQM normalised score; mzu,")
    assert "R3" in reports.not_run(decided)
    table = reports.claims_table(decided)
    assert table["verdict"].iloc[0] == "undecided" and "R3" not in set(table["id"])
