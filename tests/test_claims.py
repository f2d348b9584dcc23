"""Verdicts on made-up results whose answer is known."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from claim_frames import BSUITE, CLAIMS, MINATAR, pixels, runs, study, times
from reproduction import (
    claims,
    claims_muzero,
    comparisons,
    measures,
    reports,
    sentences,
    statistics,
    tables,
)


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
    assert {k: found[k] for k in BSUITE} == dict.fromkeys(BSUITE, "supported")
    assert found["R10"] == found["M3"] == "not run"


def test_where_all_are_equal_nothing_is_decided():
    found = verdicts(study())
    assert {k: found[k] for k in BSUITE} == dict.fromkeys(BSUITE, "undecided")


def test_where_mzu_is_better_the_paper_is_not_right():
    found = verdicts(
        study(
            rosmo=0.5, mzu=1.0, crr=0.2,
            **{"fractions_mzu_0.01": 1.2, "noise_rosmo": 0.1, "capacity_mzu_16": 1.4,
               "search_mzu_1_None": 1.5, "search_mzu_16_None": 1.2},
        )
    )  # fmt: skip
    assert {k: found[k] for k in BSUITE} == dict.fromkeys(BSUITE, "not supported")


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
    rows = frames["bsuite_search"]
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
    curves = frames["bsuite_curves"]
    curves.loc[curves["update"] == 40, "score"] = 9.0  # The sweep ends at 20 updates.
    row = claims.decide(CLAIMS, frames).query("id == 'R1' and comparison.str.contains('100%')")
    assert row["updates"].item() == 20 and row["seeds"].item() == 4 and row["runs"].item() == 24
    assert row["value"].item() == pytest.approx(0.5) and row["improvement"].item() == 1.0
    at = curves[curves["update"] == 20].set_index(["method", "environment"])["score"]
    sides = [
        [[at[method, world].to_numpy() for world in ("cartpole", "catch", "mountain_car")]]
        for method in ("rosmo", "mzu")
    ]
    expected = statistics.contrast(*sides)
    assert (row["low"].item(), row["high"].item()) == expected[1:3]


def test_settings_are_not_pooled_as_if_they_were_seeds():
    rows = study(rosmo=1.5)["bsuite_curves"]
    rows = comparisons.some(rows, method="rosmo")
    both = pd.concat([rows, rows.assign(overrides='{"td_steps": 7}', score=0.0)])
    with pytest.raises(comparisons.NotRun, match="several runs of one environment and seed"):
        comparisons.compare("mixed", both, rows)


def test_runs_of_unequal_length_are_cut_and_thinned():
    rows = pd.DataFrame(
        [
            {"environment": "catch", "method": method, "seed": seed, "update": update}
            for method, ends in {"a": (4, 6), "b": (2, 8)}.items()
            for seed, end in enumerate(ends)
            for update in range(0, end + 1)
        ]
    )

    def updates(of, method, seed):
        return of.query("method == @method and seed == @seed")["update"].tolist()

    assert comparisons.even(rows)["update"].max() == 2
    even = comparisons.even(rows, within=["method"])
    assert [updates(even, m, 1)[-1] for m in "ab"] == [4, 2]
    thinned = comparisons.thinned(rows).sort_values("update")  # To the three of b's seed 0.
    assert updates(thinned, "b", 0) == [0, 1, 2] and updates(thinned, "b", 1) == [0, 4, 8]
    assert updates(thinned, "a", 1) == [0, 3, 6]


def test_methods_trained_for_longer_are_compared_where_all_were():
    frames = study(rosmo=1.5, mzu=1.0, crr=0.9, cql=0.8, bc=0.5)
    curves = frames["bsuite_curves"]
    late = curves["method"].isin(("mzu", "cql")) & (curves["update"] > 20)
    frames["bsuite_curves"] = curves[~late]
    decided = claims.decide(CLAIMS, frames, ["R8", "R9"])
    assert set(decided["id"]) == {"R8", "R9"} and set(decided["updates"]) == {20}
    assert set(decided[decided["id"] == "R8"]["comparison"]) == {
        "rosmo - mzu, catch", "rosmo - mzu, mountain_car",
    }  # fmt: skip
    table2 = study(rosmo=0.7, mzu=0.6, crr=0.5, cql=1.0, bc=0.4)["bsuite_curves"]
    for rows in (
        table2[table2["update"] <= 20],
        table2[table2["method"] != "bc"],
        table2[table2["environment"] == "catch"],
        table2[table2["seed"] == 0],
    ):
        frames["bsuite_table2"] = rows  # No longer, or not complete.
        pd.testing.assert_frame_equal(claims.decide(CLAIMS, frames, ["R8", "R9"]), decided)
    frames["bsuite_table2"] = table2
    decided = claims.decide(CLAIMS, frames, ["R8", "R9"])
    assert set(decided["updates"]) == {40}
    assert list(decided["comparison"]) == [
        "rosmo - cql, catch", "rosmo - cql, mountain_car",
        "crr - rosmo, cartpole", "rosmo - cql, cartpole",
    ]  # fmt: skip


def test_a_game_trained_for_longer_drops_no_other():
    frames = pixels(rosmo=2.0, mzu=1.0)
    rows = frames["minatar_curves"]
    longer = rows[(rows["environment"] == "asterix") & (rows["update"] == 20)]
    frames["minatar_curves"] = pd.concat([rows, longer.assign(update=30)])
    for claim in ("R10", "R11", "M5"):
        row = claims.decide(CLAIMS, frames, [claim]).iloc[0]
        assert row["updates"] == 20 and row["runs"] == (8 if claim == "M5" else 16)


def test_one_seed_decides_nothing():
    frames = {name: rows[rows["seed"] == 0] for name, rows in study(rosmo=9.0, mzu=1.0).items()}
    decided = claims.decide(CLAIMS, frames, ["R1", "R3", "R8"])
    assert set(decided["verdict"]) == set(decided["claim_verdict"]) == {"undecided"}
    frames = {
        name: rows if name == "minatar_times" else rows[rows["seed"] == 0]
        for name, rows in pixels(rosmo=2.0, mzu=1.0).items()
    }
    decided = claims.decide(CLAIMS, frames, ["R11", "M5"])
    assert set(decided["verdict"]) == set(decided["claim_verdict"]) == {"undecided"}


def test_without_times_of_both_their_ratio_is_not_run():
    frames = pixels()
    times = frames["minatar_times"]
    frames["minatar_times"] = times[times["method"] == "rosmo"]
    decided = claims.decide(CLAIMS, frames, ["R11"])
    assert decided["claim_verdict"].tolist() == ["not run"]


def test_claims_at_another_fraction_or_noise_than_stated_are_not_run():
    frames = study()
    frames["bsuite_fractions"] = frames["bsuite_fractions"].query("fraction != 0.01")
    frames["bsuite_noise"] = frames["bsuite_noise"].assign(noise=0.3)
    decided = claims.decide(CLAIMS, frames, ["R2", "R3"])
    assert set(decided["claim_verdict"]) == {"not run"}


def test_a_study_reads_only_what_is_asked(tmp_path):
    (tmp_path / "bsuite_noise.csv").write_text("unreadable")
    found = reports.Study(tmp_path)
    assert list(found) == ["bsuite_noise"] and "bsuite_curves" not in found
    with pytest.raises(KeyError):
        found["bsuite_curves"]


def test_a_claim_without_results_is_not_run_and_keeps_its_text():
    frames = study()
    del frames["bsuite_noise"]
    decided = claims.decide(CLAIMS, frames)
    row = decided[decided["id"] == "R3"].iloc[0]
    assert row["claim_verdict"] == "not run" and np.isnan(row["value"])
    assert "noise 0.5" in row["stated_comparison"]
    assert list(decided["id"].unique()) == list(CLAIMS["id"])
    assert claims.sentence(decided, "R3") == "R3: not run in this profile."
    assert claims.sentence(decided, "R2").startswith(
        "R2 is undecided (IQM normalised score): mzu, 100% - 1% of the data = "
    )
    two = claims.sentence(decided, "R8")  # Each comparison's verdict; seeds are not as stated.
    assert two.count("supported") + two.count("undecided") == 3 and "5 seeds" not in two
    assert sentences.by_verdict(decided).startswith("Undecided: R1, R2, ")
    assert ". Not run: R3, R10, " in sentences.by_verdict(decided)
    assert "R3" in sentences.not_run(decided).partition("not implemented: ")[0]
    assert sentences.not_run(decided).endswith("M11, M12; not implemented: none")
    table = tables.claims_table(decided)
    assert table["verdict"].iloc[0] == "undecided" and "R3" not in set(table["id"])


def test_many_comparisons_are_told_by_how_they_came_out():
    above = {"curves_rosmo": 1.4, "fractions_rosmo": 1.4}
    decided = claims.decide(CLAIMS, study(**above, **{"fractions_rosmo_0.1": 0.2}), ["R1", "R2"])
    assert claims.brief(decided, "R1").startswith(
        "R1 is not supported: 2 of 3 comparisons supported, 1 not supported. Against the paper: "
        "rosmo - mzu, 10% of the data = -0.80 ["
    )
    assert claims.brief(decided, "R2") == claims.sentence(decided, "R2")  # A single one.
    decided = claims.decide(CLAIMS, study(**above), ["R1"])
    assert claims.brief(decided, "R1") == "R1 is supported: 3 of 3 comparisons supported."
    assert claims.sentence(decided, "R1").count("], supported") == 3
    lines = claims.listed(decided, "R1").splitlines()
    assert lines[0] == "R1, IQM normalised score:" and len(lines) == 4
    assert re.fullmatch(r"- rosmo - mzu, 1% of the data = \+0\.\d+ \[.*\], supported", lines[1])


def test_a_number_comes_before_a_comparisons_remark():
    row = pd.DataFrame(
        [{"id": "M1", "claim_verdict": "supported", "measure": "score, one game",
          "comparison": "slope; a line explains 91%", "value": 1.0, "low": 0.5, "high": 2.0,
          "verdict": "supported", "study": "main"}]
    )  # fmt: skip
    assert claims.sentence(row, "M1") == (
        "M1 is supported (score): slope = +1.00 [+0.50, +2.00]; a line explains 91%."
    )


def test_what_stands_beside_the_verdicts_on_r11_and_r12():
    assert sentences.caveats({}) == {"cloning": "", "learned": ""}
    frames = study(curves_mzu=0.5)
    final = reports.final(frames["bsuite_curves"])
    said = sentences.beside_cloning(final)
    assert said.startswith("The common score of R11, mzu's final 0.5")
    assert "is below the 1.0" in said and "(difference -0.50 [" in said
    assert sentences.beside_cloning(final[final["method"] != "bc"]) == ""
    rows = pd.concat([runs("mzu", "catch", 0.1), runs("bc", "catch", 1.0)])
    assert sentences.learned(rows) == (
        "On R12: even with all of the data mzu hardly learns catch. It ends at 1.15, and 4 of its "
        "4 seeds stay closer to the untrained 0.15 than to the 10.15 of behaviour cloning."
    )
    rows = pd.concat([runs("mzu", "catch", 0.9), runs("bc", "catch", 1.0)])
    assert "data mzu learns catch. It ends at 9.15, and 0 of its 4 seeds" in sentences.learned(rows)
    assert sentences.learned(rows[rows["method"] == "mzu"]) == ""


def table2(**levels):
    """`pixels` with the runs of MuZero Unplugged's Table 2 under their methods' own names."""
    frames = pixels(**levels)
    rows = frames["minatar_selectors"]
    own = {loss: run["method"] for loss, run in claims_muzero.LOSSES.items()}
    rows["method"] = rows["method"].replace(own)
    return frames


def test_pixels_where_the_papers_are_right():
    columns = ["supervised 1", "supervised 5", "crr 5", "reanalyse 5"]
    selected = {
        f"selectors_{loss}_{selector}": level + bonus
        for loss, level in zip(columns, (0.5, 1.0, 1.2, 2.0))
        for selector, bonus in (("policy", 0.0), ("value", 0.1), ("search", 0.3))
    }
    frames = table2(
        rosmo=2.5, mzu=2.0, crr=1.5, cql=1.2, bc=0.5,
        onestep=1.5, **selected,
        **{"fractions_mzu_0.1": 1.0, "fractions_mzu_0.01": 0.5, "fractions_rosmo_0.01": 1.4,
           "onestep_onestep_0.01": 0.7, "ablations_mzu_4": 0.2, "ablations_mzu_q_4": 0.6,
           "rosmo_sampled": 1.9, "ablations_mzu_1": 0.5, "behavior": 1.2,
           "selectors_supervised_q_critic": 0.1},
    )  # fmt: skip
    # Behaviour learns faster early, and at 1% the middle checkpoint is the best.
    rows = frames["minatar_ablations"]
    rows.loc[(rows["method"] == "behavior") & (rows["update"] == 2), "mean_return"] += 5.0
    for name in ("minatar_fractions", "minatar_onestep"):
        rows = frames[name]
        rows.loc[(rows["fraction"] == 0.01) & (rows["update"] == 10), "score"] += 3.0
    found = verdicts(frames)
    assert {k: found[k] for k in MINATAR} == dict.fromkeys(MINATAR, "supported")


def test_pixels_where_all_are_equal():
    found = verdicts(table2())
    others = [k for k in MINATAR if k != "M5"]
    assert {k: found[k] for k in others} == dict.fromkeys(others, "undecided")
    assert found["M5"] == "supported"  # At least the online agent's score, which is 1.


def test_table_2_alone_does_not_put_mzu_above_crr():
    levels = {"selectors_crr 5_policy": 0.8, "selectors_supervised 5_policy": 0.5, "bc": 0.5}
    decided = claims.decide(CLAIMS, table2(curves_mzu=0.7, **levels), ["M3"])
    assert list(decided["verdict"]) == ["not supported", *["supported"] * 3]
    assert set(decided["environments"]) == {"asterix, breakout"}
    assert set(decided["claim_verdict"]) == {"not supported"}
    frames = table2(**levels)
    del frames["minatar_selectors"]
    decided = claims.decide(CLAIMS, frames, ["M3"])
    assert list(decided["comparison"]) == ["mzu - crr", "crr - bc"]


def test_table_2_has_the_games_one_by_one():
    rows = table2()["minatar_selectors"].query("update == 20").copy()
    rows.loc[rows["environment"] == "asterix", "score"] += 1.0
    published = Path(__file__).parents[1] / "results" / "published"
    paper = tables.table2_of_the_paper(pd.read_csv(published / "mzu_table2_atari_ablation.csv"))
    table = tables.beside_table2(rows, tables.by_loss_and_selector(rows), paper)
    found = table.set_index("acting")["reanalyse 5"]
    assert found["search (paper)"] == "2.65"
    means = [float(found[name].split()[0]) for name in ("search", "search, asterix")]
    assert means[1] - means[0] == pytest.approx(0.5, abs=0.011)
    one = rows[rows["environment"] == "asterix"]
    table = tables.beside_table2(one, tables.by_loss_and_selector(one), paper)
    assert len(table) == 6


def test_ways_to_act_stand_side_by_side():
    frames = table2(**{"selectors_supervised 5_policy": 0.4, "selectors_crr 5_search": 0.7})
    rows, final = frames["minatar_selectors"], frames["minatar_curves"].query("update == 20")
    rows, final = rows.query("update == 20"), final.assign(selector="policy")
    final.loc[final["method"] == "cql", "selector"] = "critic"
    final.loc[final["method"] == "rosmo", "selector"] = "improved"
    searched = ["method", "selector", "score"]
    final.loc[final["method"] == "mzu", searched] = ["reanalyse", "search", 9.0]
    drawn = rows.query("method == 'crr_model' and selector == 'policy'")
    greedy = drawn.assign(selector="greedy", score=2.0)
    table = tables.by_way_to_act(pd.concat([rows, greedy]), final).set_index("method")
    assert list(table) == ["policy", "greedy", "value", "critic", "improved", "search"]
    assert table.loc["crr_model", "greedy"] == "2.00 [2.00, 2.00]"
    assert table.loc["crr_model", "search"].startswith("0.7")
    assert table.loc["supervised, unroll 5", "policy"].startswith("0.4")
    assert table.loc["supervised, unroll 1", "policy"] == table.loc["reanalyse", "policy"]
    assert table.loc["cql", "critic"] and not table.loc["cql", "policy"]  # As while training.
    assert table.loc["rosmo", "improved"] and table.loc["bc", "policy"]
    trained = table.loc["reanalyse"]
    assert trained["search"] == trained["policy"]  # Not the 9 while training.
    without = tables.by_loss_and_selector(rows)
    assert tables.by_loss_and_selector(pd.concat([rows, greedy])).equals(without)
    with pytest.raises(ValueError, match=r"Table 2 is of supervised_q, supervised, .*are mzu"):
        tables.by_loss_and_selector(rows.assign(method="mzu"))


def test_low_data_on_some_of_the_games_is_compared_on_these():
    frames = table2(**{"fractions_mzu_0.1": 0.5, "fractions_mzu_0.01": 0.2})
    for name in ("minatar_fractions", "minatar_onestep"):
        frames[name] = frames[name].query("environment == 'asterix'")
    decided = claims.decide(CLAIMS, frames, ["M4", "R16"])
    assert (decided["runs"] <= 8).all() and decided["claim_verdict"].iloc[-1] == "supported"


def test_rosmo_is_compared_with_the_better_of_what_learns_in_a_world_model():
    frames = {
        "minatar_curves": pd.concat(
            [runs("rosmo", "asterix", 0.9, updates=40), runs("rosmo", "breakout", 0.9),
             runs("rosmo", "freeway", 0.0)]
        ),
        "minatar_imagined": pd.concat(
            [runs("morel", "asterix", 0.2), runs("combo", "asterix", 0.5),
             runs("morel", "breakout", 0.4), runs("combo", "breakout", 0.3)]
        ),
    }  # fmt: skip
    decided = claims.decide(CLAIMS, frames, ["R17"])
    assert decided["comparison"].tolist() == ["rosmo - combo, asterix", "rosmo - morel, breakout"]
    assert decided["claim_verdict"].tolist() == ["supported"] * 2
    np.testing.assert_allclose(decided["value"], [4.0, 5.0])
    for name, rows in frames.items():  # Greedily, morel is the best on both games and above rosmo.
        level = rows["method"].map({"rosmo": 1.0, "morel": 3.0, "combo": 2.0})
        frames[name] = rows.assign(greedy_return=level + rows["seed"] / 100)
    decided = claims.decide(CLAIMS, frames, ["R17"])
    assert decided["comparison"].tolist()[2:] == [
        f"rosmo - morel, {game}, acting greedily (decides nothing)"
        for game in ("asterix", "breakout")
    ]
    np.testing.assert_allclose(decided["value"], [4.0, 5.0, -2.0, -2.0])
    assert set(decided["claim_verdict"]) == {"supported"}
    rows = frames["minatar_imagined"]  # One game is no answer.
    frames["minatar_imagined"] = rows[rows["environment"] == "asterix"]
    for given in (frames, {}):
        found = claims.decide(CLAIMS, given, ["R17"])
        assert found["claim_verdict"].tolist() == ["not run"]


def test_table_7_stands_beside_the_papers():
    rows = pd.concat(
        runs(method, game, level, seeds=2).query("update == 20")
        for method, game, level in (
            ("morel", "asterix", 0.1), ("rosmo", "asterix", 0.3), ("rosmo", "breakout", 0.5),
        )
    )  # fmt: skip
    published = Path(__file__).parents[1] / "results" / "published"
    paper = pd.read_csv(published / "rosmo_table7_mspacman_model_based.csv")
    table = tables.table7(rows, paper).set_index("method")
    assert list(table) == ["asterix", "breakout", "MsPacman (paper)"]
    assert table.loc["rosmo"].tolist() == ["3.05 ± 0.07", "5.05 ± 0.07", "5020 ± 609"]
    assert table.loc["morel"].tolist() == ["1.05 ± 0.07", "", "1476 ± 413"]
    assert table.loc["mzu", "asterix"] == ""
    rows = rows.assign(greedy_return=np.where(rows["method"] == "rosmo", np.nan, 2.0))
    table = tables.table7(rows, paper).set_index("method")
    assert list(table) == ["asterix", "asterix, greedy", "breakout", "MsPacman (paper)"]
    assert table.loc["morel"].tolist()[:2] == ["1.05 ± 0.07", "2.00 ± 0.00"]


def test_the_overall_table_has_the_papers_crr_on_its_network():
    frames = table2(**{"selectors_crr 5_policy": 0.805, "selectors_supervised 5_policy": 0.605})
    published = Path(__file__).parents[1] / "results" / "published"
    table = tables.overall(
        frames["minatar_curves"].query("update == 20"),
        frames["minatar_selectors"].query("update == 20"),
        pd.read_csv(published / "mzu_table1_atari_overall.csv"),
        pd.read_csv(published / "rosmo_atari_headline.csv"),
    ).set_index("method")
    # MuZero Unplugged, Table 1: CRR 155.6%, BC 54.0% on its network; ROSMO's CRR 105%.
    assert table.loc["crr, MuZero network", "median (paper)"] == "1.556"
    assert table.loc["bc, MuZero network", "median (paper)"] == "0.54"
    assert table.loc["crr", "median (paper)"] == "n/a"
    assert table.loc["crr", "IQM (paper)"] == "1.05"
    assert table.loc["bc", "median (paper)"] == "0.533"
    assert table.loc["reanalyse", "mean (paper)"] == table.loc["mzu", "mean (paper)"] == "5.955"
    # Means over seeds 0 to 3 of level + 0.01 seed.
    assert table.loc["crr, MuZero network", "median"].startswith("0.82 [")
    assert table.loc["bc, MuZero network", "median"].startswith("0.62 [")
    rows = tables.played(frames["minatar_selectors"])
    assert set(zip(rows["method"], rows["selector"], rows["unroll_steps"])) == {
        ("reanalyse", "search", 5), ("crr_model", "policy", 5), ("supervised", "policy", 5),
    }  # fmt: skip
    others = frames["minatar_selectors"].query("method == 'supervised_q' or unroll_steps == 1")
    assert tables.played(others).empty


def test_the_ratio_of_times_by_hand():
    fast = runs("rosmo", "catch", 2.0, spread=0.0)
    slow = runs("mzu", "catch", 1.5, spread=0.0)
    # rosmo's curve 0, 1, 2 at updates 0, 10, 20 crosses 1.5 at update 15.
    estimate = measures.time_ratio(fast, slow, 0.1)
    np.testing.assert_allclose(estimate[:3], 15 / 20 * 0.1)
    never = runs("rosmo", "catch", 1.0, spread=0.0)
    assert np.isinf(measures.time_ratio(never, slow, 0.1).value)
    # Where the slower method is at its last score by update 2 already, that is its time.
    slow.loc[slow["update"] > 0, "score"] = 0.75
    np.testing.assert_allclose(measures.time_ratio(fast, slow, 0.1)[:3], 7.5 / 2 * 0.1)
    slow["score"] = 0.0
    with pytest.raises(claims.NotRun, match="no higher"):
        measures.time_ratio(fast, slow, 0.1)


def test_seconds_an_update_are_medians_of_repeats_and_means_of_games():
    assert measures.seconds_an_update(times(rosmo=1.0, mzu=10.0)) == {"mzu": 20.0, "rosmo": 2.0}


def test_the_best_update_is_chosen_on_other_seeds():
    rows = pd.concat([runs("rosmo", "catch", 1.0, seeds=2, spread=0.0)])
    at = (rows["update"] == 10) & (rows["seed"] == 0)
    rows.loc[at, "score"] = 3.0  # Seed 1 would choose update 10 for seed 1's loss of 0.5.
    gains = measures.best_over_final(rows).set_index("seed")["gain"]
    assert gains[0] == 0.0 and gains[1] == -0.5


def online(slope, spread=0.01, **exploitation):
    """Online results: return `slope` a tenfold of steps on one game; sources as given."""
    fractions = {0.0: 1e6, 0.9: 1e5, 0.99: 1e4}
    kinds = {"recent 1": 1.0, "best 1": 1.0, **exploitation}
    return {
        "online_fractions": pd.concat(
            [runs("mzu", world, 1.0, spread=spread, reanalyse_fraction=f, frames=frames).assign(
                 mean_return=lambda rows, frames=frames: slope * np.log10(frames)
                 + spread * rows["seed"])
             for world, of in (("asterix", fractions), ("breakout", {0.0: 1e6, 0.9: 1e5}))
             for f, frames in of.items()]
        ),
        "online_exploitation": pd.concat(
            [runs("mzu", world, level, sources=kind, best_acted=0.99)
             for world in ("deep_sea_4", "deep_sea_9")
             for kind, level in kinds.items()]
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    "claim, numbers, shown",
    [
        ("R1", (0.5, -0.1, 1.0), "+0.50 [-0.10, +1.00]"),
        ("M12", (-0.0014, -0.0024, -0.0005), "-0.0014 [-0.0024, -0.0005]"),
        ("R8", (0.0, 0.0, 0.0), "+0.00 [+0.00, +0.00]"),
        ("R1", (0.28, 0.00396, 0.549), "+0.280 [+0.004, +0.549]"),
        ("R11", (0.05, 0.041, 0.06), "0.050 [0.041, 0.060]"),
    ],
)
def test_how_measurements_are_written(claim, numbers, shown):
    row = pd.Series(dict(zip(("id", "value", "low", "high"), (claim, *numbers))))
    assert claims.measured_as(row) == shown


def test_the_slope_of_a_line_by_hand():
    estimate, intercept, explained = measures.scaling(
        claims_muzero.one_game(online(2.0, spread=0.0)["online_fractions"])
    )
    np.testing.assert_allclose(estimate[:3], 2.0)
    np.testing.assert_allclose([intercept, explained], [0.0, 1.0], atol=1e-9)


def test_an_offline_run_has_no_place_on_the_line():
    rows = online(2.0, spread=0.0)["online_fractions"]
    offline = rows[rows["reanalyse_fraction"] == 0.9].assign(reanalyse_fraction=1.0, frames=0)
    estimate, _, explained = measures.scaling(claims_muzero.one_game(pd.concat([rows, offline])))
    np.testing.assert_allclose([*estimate[:3], explained], [2.0, 2.0, 2.0, 1.0])
    assert verdicts({"online_fractions": offline})["M1"] == "not run"


def test_online_claims():
    found = verdicts(online(2.0, **{"best 1": 2.0}))
    assert [found[k] for k in ("M1", "M2", "M12")] == ["supported"] * 3
    found = verdicts(online(-2.0, **{"best 1": 0.2}))
    assert [found[k] for k in ("M1", "M12")] == ["not supported"] * 2
    found = verdicts(online(0.0, spread=0.5))
    assert [found[k] for k in ("M1", "M12")] == ["undecided"] * 2


def test_where_no_treasure_was_found_keeping_episodes_decides_nothing():
    frames = online(2.0, **{"best 1": 2.0})
    rows = frames["online_exploitation"]
    rows.loc[rows["environment"] == "deep_sea_9", ["best_acted", "mean_return"]] = -0.01
    rows.loc[rows["sources"] == "best 1", "mean_return"] += 0.005
    found = claims.decide(CLAIMS, frames, ["M12"]).set_index("comparison")
    assert list(found["verdict"]) == ["supported", "never found"]
    assert set(found["claim_verdict"]) == {"supported"}
    rows["best_acted"] = -0.01
    assert verdicts(frames)["M12"] == "undecided"


def test_a_slope_whose_line_explains_little_is_undecided():
    frames = online(2.0)
    rows = frames["online_fractions"]
    bump = (rows["reanalyse_fraction"] == 0.9) & (rows["environment"] == "asterix")
    rows.loc[bump, "mean_return"] += 10.0
    assert verdicts(frames)["M1"] == "undecided"


def test_learning_at_every_fraction_but_one_is_not_enough():
    frames = online(2.0)
    rows = frames["online_fractions"]
    rows.loc[rows["reanalyse_fraction"] == 0.9, "score"] = -0.5
    assert verdicts(frames)["M2"] == "not supported"


# --- The longer runs -------------------------------------------------------------------------

TWICE = ("R10", "R11", "R12", "M3", "M4", "M5", "M6", "M7", "M8")


def both(**longer):
    """`table2`, where all is equal, and the same for longer on five games, at own levels."""

    def lengthened(rows):
        rows, more = rows.assign(update=10 * rows["update"]), ("freeway", "seaquest", "venture")
        like = rows[rows["environment"] == "asterix"]
        return pd.concat([rows, *(like.assign(environment=game) for game in more)])

    long = {
        claims.LONGER[name]: rows if name.endswith("_times") else lengthened(rows)
        for name, rows in table2(**longer).items() if name in claims.LONGER
    }  # fmt: skip
    return {**table2(), **long}


def studies(frames, claim):
    """Which studies answer, in order, their verdicts, and the claim's."""
    rows = claims.decide(CLAIMS, frames, [claim])
    each = rows.drop_duplicates("study")
    return list(zip(each["study"], each["study_verdict"])), rows["claim_verdict"].iloc[0]


def test_the_longer_runs_decide_where_they_are_whole_and_the_others_stay_readable():
    frames = both(rosmo=2.5, mzu=2.0, crr=1.5, cql=1.2, bc=0.5)
    found, overall = studies(frames, "R10")
    assert found == [("longer", "supported"), ("main", "undecided")] and overall == "supported"
    decided = claims.decide(CLAIMS, frames)
    assert set(decided[decided["study"] == "longer"]["id"]) == set(TWICE)
    at = decided[decided["id"] == "R10"].groupby("study", sort=False)["updates"].unique()
    assert at.tolist() == [[200], [20]]
    # All that tells of a verdict takes the study that decides, and either can be asked for.
    assert claims.brief(decided, "R10") == "R10 is supported: 4 of 4 comparisons supported."
    main = claims.by(decided, "main")
    assert claims.brief(main, "R10") == "R10 is undecided: 4 of 4 comparisons undecided."
    assert "R10" in sentences.by_verdict(decided).partition(".")[0]
    assert set(claims.by(decided, "longer")["id"]) == {*TWICE, *reports_not_run(decided)}
    table = tables.claims_table(decided)
    rows = table[table["id"] == "R10"]
    assert rows["verdict"].tolist() == ["supported", "", "", "", "undecided", "", "", ""]
    assert rows["claim"].iloc[4] == "(the same at 20 updates, which does not decide)"


def reports_not_run(decided):
    return decided.loc[decided["claim_verdict"] == "not run", "id"]


@pytest.mark.parametrize(
    "kept",
    [
        "method != 'cql'",
        "environment != 'asterix'",
        "method != 'cql' or environment != 'asterix'",
        "method != 'cql' or seed != 3",
        "update <= 20",
        "method != 'cql' or update <= 20",
    ],
)
def test_longer_runs_that_are_not_whole_decide_nothing(kept):
    frames = both(rosmo=2.5, mzu=2.0, crr=1.5, cql=1.2, bc=0.5)
    frames["pixels_curves"] = frames["pixels_curves"].query(kept)
    assert studies(frames, "R10") == ([("main", "undecided")], "undecided")


@pytest.mark.parametrize("claim, experiment", [("M4", "fractions"), ("M7", "selectors")])
@pytest.mark.parametrize("alone", [False, True])
def test_longer_runs_are_not_whole_before_all_of_their_own_games_are_there(
    claim, experiment, alone
):
    frames = both()
    if alone:
        del frames[f"minatar_{experiment}"]
    assert studies(frames, claim)[0][0][0] == "longer"
    rows = frames[f"pixels_{experiment}"]  # One game less than planned, and all of the others'.
    gone = ("venture",) if claim == "M7" else ("venture", "seaquest", "freeway")
    frames[f"pixels_{experiment}"] = rows[~rows["environment"].isin(gone)]
    assert "longer" not in [study for study, _ in studies(frames, claim)[0]]


def test_beside_the_order_is_the_order_of_greedy_agents():
    frames = both(rosmo=2.5, mzu=2.0, crr=1.5, bc=0.5)
    rows = frames["pixels_curves"]
    frames["pixels_curves"] = rows.assign(greedy_score=np.where(rows["method"] == "cql", 0.0, 3.0))
    longer = claims.decide(CLAIMS, frames, ["R10"]).query("study == 'longer'")
    beside = longer["comparison"].str.endswith("acting greedily (decides nothing)")
    assert len(longer) == 8 and beside.sum() == 4
    np.testing.assert_allclose(longer.loc[beside, "value"], [0.0, 0.0, 3.0, -3.0])
    assert set(longer["claim_verdict"]) == {
        comparisons.together(longer[~beside]["verdict"].tolist())
    }


def test_each_claim_waits_for_what_its_own_rule_needs():
    frames = both(rosmo=2.5, mzu=2.0, crr=1.5, bc=0.5)
    del frames["pixels_times"], frames["pixels_selectors"], frames["pixels_fractions"]
    frames["pixels_curves"] = frames["pixels_curves"].query("method == 'mzu'")
    decided = claims.decide(CLAIMS, frames)
    assert set(decided[decided["study"] == "longer"]["id"]) == {"M5"}
    frames = both(rosmo=2.5, mzu=2.0, crr=1.5, bc=0.5)
    del frames["pixels_selectors"]  # The cells of Table 2 beside M3's comparisons decide nothing.
    assert studies(frames, "M3")[0] == [("longer", "supported"), ("main", "undecided")]
    frames = both(rosmo=2.5, mzu=2.0, crr=1.5, bc=0.5)
    rows = frames["pixels_selectors"]  # Nor do they take it back where some of them are there.
    frames["pixels_selectors"] = rows[rows["method"].isin(("supervised", "supervised_q"))]
    assert studies(frames, "M3")[0] == [("longer", "supported"), ("main", "undecided")]
    frames = both()
    rows = frames["pixels_curves"]
    gone = (rows["method"] == "mzu") & (rows["environment"] == "breakout")
    frames["pixels_curves"] = rows[~gone]  # The sides would be of different games.
    assert [study for study, _ in studies(frames, "R11")[0]] == ["main"]


def test_a_figures_verdicts_are_of_its_own_runs_and_name_the_others(monkeypatch):
    frames = both(rosmo=2.5, mzu=2.0, crr=1.5, cql=1.2, bc=0.5)

    def told(study):
        monkeypatch.setattr(reports, "decide", lambda _, ids: claims.decide(CLAIMS, frames, ids))
        return reports.verdicts("results/other", "R10", study=study)

    assert told("pixels")["verdict"] == (
        "R10 is supported: 4 of 4 comparisons supported. At 20 updates it was undecided."
    )
    assert "rosmo - mzu = +0.50" in told("pixels")["compared"]
    assert told("minatar")["verdict"] == (
        "R10 is undecided: 4 of 4 comparisons undecided. "
        "The longer runs decide, at 200 updates: supported."
    )
    assert "rosmo - mzu = +0.00" in told("minatar")["compared"]
    decided = claims.decide(CLAIMS, frames)
    assert "They decide R10, " in sentences.decided_by_longer(decided)
    assert "R10 from undecided to supported" in sentences.decided_by_longer(decided)
    frames["pixels_curves"] = frames["pixels_curves"].query("method != 'bc'")
    assert told("pixels") == {
        "verdict": "R10 is undecided by the runs with 20 updates, which decide until the longer "
        "ones are whole for its rule.",
        "compared": "",
    }
    assert told("minatar")["verdict"] == "R10 is undecided: 4 of 4 comparisons undecided."
    beside = sentences.caveats_beside(decided, both(mzu=2.0, bc=0.5))
    assert "mzu's final 2.0" in beside["cloning"]  # Of the longer runs, where they decide R11.
    only = claims.by(claims.decide(CLAIMS, frames), "main")
    assert "mzu's final 1.0" in sentences.caveats_beside(only, both(mzu=2.0, bc=0.5))["cloning"]
    assert sentences.decided_by_longer(only) == "So far they decide none."
    frames.clear()
    assert "its rule needs runs that are still to come" in told("pixels")["verdict"]
    assert told("minatar")["verdict"] == "R10: not run in this profile."


def test_one_number_over_games_is_of_what_was_run_on_all_of_them():
    there = {"bc": "abc", "rosmo": "ab", "crr": "bc"}
    rows = pd.DataFrame(
        [{"method": m, "environment": game} for m, games in there.items() for game in games]
    )

    def kept(rows, games):
        found = comparisons.shared(rows, games).groupby("method", sort=False)["environment"]
        return {method: "".join(of) for method, of in found}

    assert kept(rows, "abc") == {"bc": "abc"}
    assert kept(rows, "ab") == {"bc": "ab", "rosmo": "ab"}
    assert kept(rows, "abcd") == {"bc": "b", "rosmo": "b", "crr": "b"}  # On all games is nothing.
    apart = rows[rows["method"] != "bc"].query("environment != 'b'")
    assert kept(apart, "abc") == {"rosmo": "a"}  # No game has both.
    assert comparisons.shared(rows[:0], "abc").empty
    cells = pd.concat([rows.assign(unroll_steps=1), rows.query("method != 'bc'").assign(
        unroll_steps=5)])  # fmt: skip
    by = comparisons.shared(cells, "abc", by=["method", "unroll_steps"])
    assert set(zip(by["method"], by["unroll_steps"])) == {("bc", 1)}


def test_methods_that_end_sooner_are_beside_the_others_at_their_end():
    rows = pd.concat([runs("rosmo", "asterix", 1.0, updates=40), runs("dqn", "asterix", 1.0)])
    ends = comparisons.at_ends(rows)
    assert sorted(set(zip(ends["method"], ends["update"]))) == [
        ("dqn", 20), ("rosmo", 20), ("rosmo", 40),
    ]  # fmt: skip
    published = Path(__file__).parents[1] / "results" / "published"
    table = tables.overall(
        ends.assign(greedy_score=np.where(ends["method"] == "dqn", np.nan, 9.0)),
        rows[:0],
        pd.read_csv(published / "mzu_table1_atari_overall.csv"),
        pd.read_csv(published / "rosmo_atari_headline.csv"),
    )
    assert table[["method", "updates"]].values.tolist() == [
        ["rosmo", "20"], ["rosmo", "40"], ["dqn", "20"],
    ]  # fmt: skip
    assert table["median (paper)"].tolist()[2] == "0.862"
    assert table["IQM, greedy"].tolist() == ["9.00 [9.00, 9.00]", "9.00 [9.00, 9.00]", "n/a"]


def test_the_pace_by_the_runs_own_clocks():
    rows = runs("rosmo", "asterix", 1.0).assign(run="one")
    rows = rows.assign(seconds=rows["update"] * (1.0 + (rows["seed"] == 3)))
    assert measures.pace_of_runs(rows) == {"rosmo": 1.0}  # The median of four seeds.


def test_longer_runs_alone_decide():
    frames = {name: rows for name, rows in both(bc=0.5).items() if name.startswith("pixels")}
    found, overall = studies(frames, "R10")
    assert [study for study, _ in found] == ["longer"] and overall == found[0][1]


# --- Our own questions ---------------------------------------------------------------------
