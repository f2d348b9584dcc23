"""Verdicts on our own questions, and on those about DM Control, on made-up results."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from claim_frames import CLAIMS, runs
from reproduction import (
    claims,
)

OWN = pd.read_csv(Path(__file__).parents[1] / "results" / "claims_own.csv")


GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
THREE = ("asterix", "breakout", "space_invaders")


def start(method, level, worlds=GAMES, greedy=None, **setting):
    """Rows of the pixel study, at `level` and greedily at `greedy`, with 100,000 updates."""
    setting = {"cloning_updates": 0, "rescale_values": True, "target_interval": 50, **setting}
    rows = pd.concat([runs(method, world, level, **setting) for world in worlds])
    rows["update"] = rows["update"].map({0: 0, 2: 10_000, 10: 30_000, 20: 100_000})
    return rows.assign(greedy_score=rows["score"] if greedy is None else greedy + rows["seed"] / 50)


def own_verdicts(curves=None, begun=(), search=()):
    curves = {"rosmo": 1.0, "mzu": 1.0, "crr": 1.0, "cql": 1.0} | (curves or {})
    frames = {
        "pixels_curves": pd.concat(start(name, level) for name, level in curves.items()),
        **{
            f"pixels_{name}": pd.concat(parts)
            for name, parts in (("start", begun), ("search", search))
            if parts
        },
    }
    decided = claims.decide(OWN, frames)
    return decided.drop_duplicates("id").set_index("id")["claim_verdict"].to_dict()


def test_own_questions_are_decided_by_their_rules():
    begun = [
        start("rosmo", 1.5, cloning_updates=2_000),
        start("rosmo", 0.2, cloning_updates=1_000),  # is no part of the rule
        start("rosmo", 0.99, target_interval=200),
        start("rosmo_recorded", 0.5),
    ]
    search = [
        start("mzu", 1.2, THREE, target_interval=200),
        start("mzu", 1.3, THREE, rescale_values=False),
    ]
    found = own_verdicts(begun=begun, search=search)
    assert {found[name] for name in ("O1", "O4", "O5")} == {"supported"}
    assert found["O3"] == "not supported" and found["O6"] == "not run"
    assert found["O2"] == "supported"  # 0.01 worse, and the seeds do not differ


@pytest.mark.parametrize("level, expected", [(0.5, "not supported"), (0.9, "undecided")])
def test_a_longer_target_interval_must_not_cost_much(level, expected):
    def wide(rows):  # seeds that differ by 0.06
        return rows.assign(score=rows["score"] + 0.05 * rows["seed"])

    begun = [wide(start("rosmo", level, target_interval=200))]
    search = [start("mzu", 1.0, THREE, target_interval=200)]
    assert own_verdicts(begun=begun, search=search)["O2"] == expected


def test_cleverness_by_acting_greedily():
    greedy = {"cql": 2.0}
    rows = [start(m, 1.0, greedy=greedy.get(m, 1.0)) for m in ("rosmo", "mzu", "crr", "cql")]
    decided = claims.decide(OWN, {"pixels_curves": pd.concat(rows)}, ["O5"])
    assert set(decided["claim_verdict"]) == {"not supported"}
    rows[2] = start("crr", 1.0, greedy=2.0)
    decided = claims.decide(OWN, {"pixels_curves": pd.concat(rows)}, ["O5"])
    assert set(decided["claim_verdict"]) == {"undecided"}
    assert decided["verdict"].tolist() == ["supported", "not supported", "not supported"]


def test_own_questions_wait_for_all_the_games_that_their_rules_speak_of():
    begun = [start("rosmo", 1.5, GAMES[:4], cloning_updates=2_000)]
    search = [start("mzu", 1.3, THREE[:2], rescale_values=False)]
    found = own_verdicts(begun=begun, search=search)
    assert found["O1"] == found["O4"] == "not run" and found["O5"] == "supported"
    begun.append(start("rosmo", 1.5, GAMES[4:], cloning_updates=2_000))
    assert own_verdicts(begun=begun)["O1"] == "supported"
    rows = pd.concat(start(m, 1.0, GAMES[:3]) for m in ("rosmo", "mzu", "crr", "cql"))
    decided = claims.decide(OWN, {"pixels_curves": rows}, ["O5"])
    assert decided["claim_verdict"].tolist() == ["not run"]


def test_own_questions_wait_for_the_updates_that_their_rules_speak_of():
    begun = [start("rosmo", 1.5, cloning_updates=2_000), start("rosmo_recorded", 0.5)]
    search = [start("mzu", 1.3, THREE, rescale_values=False)]
    for update, decided in ((10_000, set()), (30_000, {"O4"}), (100_000, {"O1", "O3", "O4"})):
        found = own_verdicts(
            begun=[rows[rows["update"] <= update] for rows in begun],
            search=[rows[rows["update"] <= update] for rows in search],
        )
        assert {name for name in ("O1", "O3", "O4") if found[name] != "not run"} == decided
    late = begun[0][begun[0]["update"] != 10_000]  # has no early evaluation
    assert own_verdicts(begun=[late])["O1"] == "not run"


def control(**levels):
    """Methods on five tasks of DM Control at level 1, but where `levels` says otherwise."""
    tasks = ("cartpole.swingup", "cheetah.run", "fish.swim", "walker.stand", "walker.walk")
    preset = {"injection": 0.25, "num_candidates": 8.0, "policy_head": "normal"}

    def rows(method, name=None, only=tasks, **change):
        level = levels.get(name or method, 1.0)
        return [runs(method, task, level, **{**preset, **change}) for task in only]

    methods = ("mzu", "bc", "d4pg", "brac", "rabm", "rosmo_sampled")
    three = ("cartpole.swingup", "fish.swim", "walker.walk")
    return {
        "control_curves": pd.concat([x for m in methods for x in rows(m)]),
        "control_ablations": pd.concat(
            [*rows("mzu", "without", three, injection=0.0),
             *rows("mzu", "few", three, num_candidates=4.0)]
        ),
    }  # fmt: skip


def test_mzu_on_dm_control_beside_cloning_and_the_baselines():
    low = dict.fromkeys(("bc", "d4pg", "brac", "rabm"), 0.5)
    decided = claims.decide(CLAIMS, control(**low), ["M9"])
    assert len(decided) == 8 and set(decided["claim_verdict"]) == {"supported"}
    assert decided["comparison"].iloc[0] == "mzu - bc, cartpole.swingup"
    np.testing.assert_allclose(decided["value"], 5.0)
    decided = claims.decide(CLAIMS, control(**{**low, "d4pg": 1.5}), ["M9"])
    assert set(decided["claim_verdict"]) == {"not supported"}
    frames = control()
    rows = frames["control_curves"]
    for some in (rows["method"] != "brac", rows["environment"] == "cartpole.swingup"):
        frames["control_curves"] = rows[some]
        assert claims.decide(CLAIMS, frames, ["M9"])["claim_verdict"].tolist() == ["not run"]


def test_injection_by_action_dimensions():
    decided = claims.decide(CLAIMS, control(without=0.5), ["M10"])
    assert decided["comparison"].tolist() == [
        "with - without, cartpole.swingup (1 action dimension)",
        "with - without, fish.swim (5 action dimensions)",
        "with - without, walker.walk (6 action dimensions)",
        "with - without, where dimensions are most less where they are fewest (decides nothing)",
    ]
    assert set(decided["claim_verdict"]) == {"supported"}
    np.testing.assert_allclose(decided["value"], [5.0, 5.0, 5.0, 0.0], atol=1e-9)
    frames = control()
    rows = frames["control_ablations"]
    frames["control_ablations"] = rows[rows["environment"] != "fish.swim"]
    assert claims.decide(CLAIMS, frames, ["M10"])["claim_verdict"].tolist() == ["not run"]


def test_the_best_checkpoint_beside_the_last():
    frames = control()
    rows = frames["control_curves"]
    at = (rows["update"] == 10) & (rows["method"] == "mzu")
    frames["control_curves"] = rows.assign(
        mean_return=np.where(at, 30.0 + rows["seed"], rows["mean_return"])
    )
    decided = claims.decide(CLAIMS, frames, ["M11"])
    # At the end each seed has 10 + 0.1 times its number.
    np.testing.assert_allclose(decided["value"], [20.0 + 0.9 * 1.5] * 2)
    assert decided["claim_verdict"].tolist() == ["supported"] * 2
    rows = frames["control_curves"]
    lucky = at & (rows["seed"] == 0)  # One seed alone is best in the middle.
    frames["control_curves"] = rows.assign(
        mean_return=np.where(lucky, 16.0, np.where(at, 0.0, rows["mean_return"]))
    )
    best, others = claims.decide(CLAIMS, frames, ["M11"]).to_dict("records")
    assert best["value"] > 1.0 and others["value"] == 0.0  # They choose the last.
    assert others["comparison"].endswith("(decides nothing)")
    assert {best["claim_verdict"], others["claim_verdict"]} == {best["verdict"]}


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ({"bc": 0.5}, "supported"),
        ({"bc": 0.5, "mzu": 2.0}, "undecided"),
        ({"bc": 2.0}, "not supported"),
    ],
)
def test_the_sampled_look_ahead_on_continuous_actions(levels, verdict):
    frames = control(**levels)
    frames["control_curves"]["update"] *= 1_000
    decided = claims.decide(OWN, frames, ["O8"])
    assert set(decided["claim_verdict"]) == {verdict} and len(decided) == 2


WORLDS = ("catch", "cartpole", "mountain_car", "asterix", "breakout")


def estimates(true, estimate, worlds=WORLDS):
    """Checkpoints of each task and of two seeds; `true` and `estimate` may depend on the seed."""
    rows = pd.concat(
        pd.DataFrame({
            "environment": world, "seed": seed, "update": 10, "mean_return": true,
            "fqe_return": estimate[seed],
        }) for world in worlds for seed in (0, 1)
    )  # fmt: skip
    pixels = rows["environment"].isin(GAMES)
    return {"bsuite_estimates": rows[~pixels], "minatar_estimates": rows[pixels]}


RIGHT, LAST_BUT_ONE = (0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 5, 4)


@pytest.mark.parametrize(
    ("estimate", "verdict", "rank", "regret"),
    [
        ([RIGHT, RIGHT], "supported", 1.0, 0.0),
        ([LAST_BUT_ONE, LAST_BUT_ONE], "undecided", 1 - 12 / 210, 0.2),  # Ordered, but regretted.
        ([RIGHT[::-1], RIGHT[::-1]], "not supported", -1.0, 1.0),
        # A constant cannot tell: its regret is the mean of all, and the interval holds 0.5.
        ([RIGHT, (0,) * 6], "undecided", 0.5, 0.25),
    ],
)
def test_whether_fitted_q_evaluation_is_good_enough_to_choose_by(estimate, verdict, rank, regret):
    decided = claims.decide(OWN, estimates(RIGHT, estimate), ["O6"])
    assert set(decided["claim_verdict"]) == {verdict}
    np.testing.assert_allclose(decided["value"], [rank, regret])
    assert (decided["runs"] == 10).all() and (decided["seeds"] == 2).all()


def test_estimates_of_all_tasks_are_needed():
    both = [RIGHT, RIGHT]
    few = estimates(RIGHT, both, ("catch", "cartpole", "asterix", "breakout", "freeway"))
    assert claims.decide(OWN, few, ["O6"])["claim_verdict"].tolist() == ["not run"]
    few = estimates(RIGHT, both)
    del few["minatar_estimates"]
    assert claims.decide(OWN, few, ["O6"])["claim_verdict"].tolist() == ["not run"]


def sepsis(seeds=5, **levels):
    rows = [
        runs(m, "sepsis", levels.get(m, 1.0), seeds) for m in ("bc", "cql", "crr", "mzu", "rosmo")
    ]
    rows = pd.concat(rows)
    return {"sepsis_curves": rows.assign(exact_return=rows["score"])}


@pytest.mark.parametrize(
    ("levels", "comparison", "verdict"),
    [
        ({"crr": 1.5, "mzu": 1.2}, "crr - mzu", "supported"),
        ({"cql": 1.5, "rosmo": 2.0}, "cql - rosmo", "not supported"),
        ({"crr": 0.2, "mzu": 0.2}, "cql - rosmo", "undecided"),
    ],
)
def test_planners_where_the_world_is_stochastic(levels, comparison, verdict):
    decided = claims.decide(OWN, sepsis(**levels), ["O7"])
    assert decided["comparison"].tolist() == [comparison]
    assert decided["claim_verdict"].tolist() == [verdict]
    few = claims.decide(OWN, sepsis(4, **levels), ["O7"])
    assert few["claim_verdict"].tolist() == ["not run"]
