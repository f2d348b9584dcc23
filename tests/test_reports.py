"""Rows read with their scores, the tables of them, and the sentences about them."""

import json

import numpy as np
import pandas as pd
import pytest

from reproduction import reports, tables


@pytest.fixture
def results(tmp_path):
    """Two runs on catch; the ends of its score are -1 and 3 without noise, other with noise."""
    (tmp_path / "bsuite_statistics.csv").write_text(
        "environment,noise,random_return,online_return,mean_return\n"
        "catch,0.0,-1.0,3.0,2.0\ncatch,0.5,0.0,1.0,0.5\n"
    )
    (tmp_path / "bsuite_curves.csv").write_text(
        "run,benchmark,environment,noise,fraction,method,overrides,seed,update,mean_return\n"
        "one,bsuite,catch,0.0,1.0,rosmo,{},0,10,3.0\n"
        "one,bsuite,catch,0.0,1.0,rosmo,{},0,20,2.0\n"
        "one,bsuite,catch,0.0,1.0,rosmo,{},1,20,1.0\n"
        'two,bsuite,catch,0.5,1.0,mzu,"{""dynamics"": [8, 64, 8], ""search_depth"": 2}",0,20,0.0\n'
    )
    settings = {"dynamics": [32, 256, 32], "num_simulations": 4, "search_depth": None,
                "unroll_steps": 5, "target_interval": 200}  # fmt: skip
    deep = {**settings, "dynamics": [8, 64, 8], "search_depth": 2, "decay_staircase": True}
    records = {"one": {"settings": settings}, "two": {"settings": deep}}  # Not today's presets.
    (tmp_path / "bsuite_curves.provenance.json").write_text(json.dumps(records))
    return tmp_path


def test_rows_are_read_with_their_score_and_settings(results):
    rows = reports.load(results, "bsuite_curves")
    assert rows["score"].tolist() == [1.0, 0.75, 0.5, 0.25]  # Noise-free ends for all.
    assert rows["hidden"].tolist() == [256, 256, 256, 64]
    assert rows["num_simulations"].tolist() == [4] * 4
    assert rows["decay"].tolist() == ["continuous"] * 3 + ["staircase"]
    np.testing.assert_array_equal(rows["search_depth"], [np.nan] * 3 + [2.0])


def test_table_2_by_hand(results):
    rows = reports.load(results, "bsuite_curves")
    ours = pd.read_csv(results / "bsuite_statistics.csv").query("noise == 0")
    ours = ours.set_index("environment")
    paper = pd.DataFrame({"environment": ["catch"], "random": [-0.5], "online_dqn": [0.9]})
    paper = paper.set_index("environment")
    table = tables.table2(reports.final(rows), ours, paper).set_index("method")
    assert table["catch"].to_dict() == {
        "rosmo": "1.50 ± 0.71",
        "mzu": "0.00",
        "online DQN": "3.00",
        "online DQN (paper)": "0.90",
        "mean of the dataset": "2.00",
        "random policy": "-1.00",
        "random policy (paper)": "-0.50",
    }
    assert table.loc["mzu", "IQM score"] == "0.25 [0.25, 0.25]"
    assert table.loc["rosmo", "IQM score"].startswith("0.62 [0.50, 0.75]")
    assert table["updates"].tolist()[:2] == ["20", "20"]
    earlier = rows[(rows["method"] == "rosmo") & (rows["update"] == 10)]
    both = tables.table2(pd.concat([earlier, reports.final(rows)]), ours, paper)
    assert both[["method", "catch", "updates"]].values.tolist()[:3] == [
        ["rosmo", "3.00", "10"], ["rosmo", "1.50 ± 0.71", "20"], ["mzu", "0.00", "20"],
    ]  # fmt: skip
    steps = earlier.assign(decay="staircase", mean_return=0.0)
    both = tables.returns(pd.concat([earlier, steps]))
    assert both[["catch", "decay"]].values.tolist() == [
        ["3.00", "continuous"], ["0.00", "staircase"],
    ]  # fmt: skip
    without = tables.table2(reports.final(rows), ours, paper.drop("catch")).set_index("method")
    assert without.loc["random policy (paper)", "catch"] == ""  # An environment of one's own.


def test_table_1_is_by_noise(results):
    rows = reports.load(results, "bsuite_curves")
    ours = pd.read_csv(results / "bsuite_statistics.csv")
    table = tables.by_noise(reports.final(rows), ours).set_index("method")
    assert table.loc["mean of the dataset"].tolist() == ["2.00", "0.50"]
    assert table.loc["mzu", "noise 0.5"] == "0.00"


def test_returns_by_game_have_the_papers_below():
    final = pd.DataFrame(
        {"environment": ["space_invaders"] * 2, "method": ["rosmo"] * 2, "mean_return": [1.0, 3.0]}
    )
    ends = pd.DataFrame({"random_return": [0.5], "online_return": [9.0]}, index=["space_invaders"])
    paper = pd.DataFrame(
        {"game": ["SpaceInvaders", "SpaceInvaders"], "method": ["ROSMO", "BC"],
         "iqm_return": [900.0, 1.0], "std": [20.0, 1.0]}
    )  # fmt: skip
    ours, theirs = tables.returns_by_game(final, ends, paper).to_dict("records")
    twice = pd.concat([final.assign(update=50), final[:1].assign(method="dqn", update=20)])
    both = tables.returns_by_game(twice, ends, paper)
    assert both["game"].tolist() == [
        "space_invaders, 50 updates", "space_invaders, 20 updates", "space_invaders (paper)",
    ]  # fmt: skip
    assert both["dqn"].tolist() == ["n/a", "1.00", "n/a"]
    assert ours == {"game": "space_invaders", "random policy": "0.50", "online DQN": "9.00",
                    "rosmo": "2.00 ± 1.41"}  # fmt: skip
    assert theirs == {"game": "space_invaders (paper)", "random policy": "n/a",
                      "online DQN": "n/a", "rosmo": "900 ± 20"}  # fmt: skip


def test_low_data_by_hand():
    final = pd.DataFrame(
        {"fraction": [0.01, 0.1], "environment": ["asterix"] * 2, "method": ["rosmo", "mzu"],
         "mean_return": [1.0, 2.0]}
    )  # fmt: skip
    ends = pd.DataFrame({"online_return": [9.0]}, index=["asterix"])
    paper = pd.DataFrame(
        {"data_fraction": [0.01], "game": ["asterix"], "method": ["MZU"], "return": [7.4]}
    )
    table = tables.low_data(final, ends, paper)
    assert table["data"].tolist() == ["1%", "1%", "10%"]
    assert table["game"].tolist() == ["asterix", "asterix (paper)", "asterix"]
    assert table["mzu"].tolist() == ["n/a", "7", "2.00"]
    assert table["rosmo"].tolist() == ["1.00", "n/a", "n/a"]


@pytest.fixture
def rows():
    values = {"rosmo": [0.0, 1.0, 1.0], "bc": [0.0, 0.2, 0.5]}
    return pd.DataFrame(
        [
            {"environment": "catch", "noise": 0.0, "fraction": 1.0, "overrides": "{}",
             "method": method, "seed": seed, "update": 10 * i,
             "episodes": 5, "mean_return": value + 0.01 * seed}
            for method, curve in values.items() for seed in (0, 1) for i, value in enumerate(curve)
        ]
    )  # fmt: skip


def test_reports_say_what_the_rows_say(rows, tmp_path):
    (tmp_path / "p.provenance.json").write_text('{"a": {"device": "cpu: cpu"}}')
    facts = reports.run_facts(rows, tmp_path, "p")
    assert facts == "2 seeds, 20 updates, 5 episodes per evaluation, on CPU."
    one = reports.run_facts(rows[rows["seed"] == 0], tmp_path, "p")
    assert one.startswith("1 seed, 20 updates")
    assert reports.uneven(rows) == ""
    longer = pd.concat([rows, rows[rows["method"] == "rosmo"].assign(update=40)])
    assert reports.uneven(longer) == (
        "Each method is taken at its own last update: 20 updates for bc; 40 updates for rosmo."
    )
    moving = "1 of 2 curves was not flat at the end: bc on catch."
    assert reports.flatness(rows) == moving
    flat = rows[rows["method"] == "rosmo"]
    assert reports.flatness(flat) == "Every curve was flat at the end."
    panels = {"some": rows.assign(decay="staircase"), "all": flat.assign(decay="continuous")}
    assert reports.flatness_of_panels(panels) == (
        f"Some (20 updates, staircase decay): {moving}\n"
        "All (20 updates, continuous decay): Every curve was flat at the end."
    )
    named = rows.assign(share=reports.labels(rows["fraction"], "{:.0%}"))
    assert reports.flatness(named, ["environment", "share"]).endswith("bc on catch 100%.")
    last = pd.DataFrame(
        [("bc", 20, 0.5, 0.4, 0.6), ("rosmo", 20, 1.0, 0.9, 1.1)],
        columns=["method", "update", "value", "low", "high"],
    )
    assert reports.ranking(last) == "rosmo 1.00 [0.90, 1.10]; bc 0.50 [0.40, 0.60]."
    assert reports.ranking(last.assign(update=[20, 4000])) == (
        "At 20 updates: bc 0.50 [0.40, 0.60]. At 4,000 updates: rosmo 1.00 [0.90, 1.10]."
    )


def test_choosing_a_checkpoint_by_each_rule():
    run = pd.DataFrame(
        {
            "environment": "catch", "method": "bc", "seed": 0, "update": [30, 10, 20],
            "holdout_loss": [0.3, 0.2, 0.1], "fqe_return": [1.0, 9.0, 5.0],
            "score": [0.2, 0.4, 0.9],
        }
    )  # fmt: skip
    chosen = tables.choose(run, "score").iloc[0]
    assert chosen[["final", "held-out loss", "FQE", "best"]].tolist() == [0.2, 0.9, 0.4, 0.9]
    assert chosen["average"] == pytest.approx(0.5)
    both = pd.concat([run, run.assign(seed=1)])
    table = tables.selected(tables.choose(both, "score"))
    assert table["method"].tolist() == ["bc", "all methods"]
    assert table["best"].tolist() == ["0.90 [0.90, 0.90]"] * 2
    text = reports.selection_statement(tables.choose(both, "score"))
    assert "held-out loss +0.70 [+0.70, +0.70]" in text


def test_final_and_best(rows):
    rows.loc[(rows["method"] == "bc") & (rows["update"] == 10), "mean_return"] = 0.9
    chosen = tables.last_and_best(rows, "mean_return")
    table = tables.final_and_best(chosen).set_index("method")
    assert table.columns.tolist() == ["catch, final", "catch, best"]
    assert table.loc["bc"].tolist() in (["0.51", "0.90"], ["0.50", "0.90"])  # Half of 0.01.
    assert table.loc["rosmo"].tolist() == ["1.00", "1.00"]
    assert reports.selection_statement(chosen).endswith("best +0.20 [+0.20, +0.20].")


def test_tables_beside_the_papers():
    ours = pd.DataFrame(
        {"environment": ["catch"], "noise": [0.0], "episodes": [2000], "transitions": [18000],
         "mean_return": [0.8], "online_return": [0.9], "random_return": [-0.6]}
    )  # fmt: skip
    paper5 = pd.DataFrame(
        {"environment": ["catch", "catch"], "noise": [0.0, 0.1], "episodes": [2000, 2000],
         "transitions": [18000, 18000], "mean_return": [0.71, 0.6]}
    )  # fmt: skip
    table = tables.beside_table5(ours, paper5)
    assert table["mean_return"].tolist()[0] == 0.8 and table["mean_return"].isna().tolist()[1]
    assert reports.missing_recordings(table) == (
        " Not recorded in this profile: catch at noise 0.1."
    )
    assert reports.missing_recordings(table[:1]) == ""
    paper6 = pd.DataFrame({"environment": ["catch"], "random": [-0.66], "online_dqn": [1.0]})
    assert tables.beside_table6(ours, paper6).iloc[0].tolist() == ["catch", -0.6, -0.66, 0.9, 1.0]


def test_what_is_not_there_is_named():
    pairs = [("rosmo", 0.1), ("rosmo", 1.0), ("mzu", 1.0), ("bc", 0.1)]
    final = pd.DataFrame(pairs, columns=["method", "fraction"])
    assert reports.not_there(final) == "Not run: mzu at 10%, bc at 100%."
    assert reports.not_there(final[final["method"] == "rosmo"]) == ""


PROFILE = """
profile: mine
experiments:
  pixels_curves:
    grid: {environment: [asterix, breakout, freeway], method: [rosmo, bc]}
    common: &common {seeds: [0, 1], updates: 20}
  pixels_fractions:
    grid: {environment: [asterix], method: [rosmo], fraction: [0.01, 0.1]}
    common: *common
"""


def test_runs_that_a_profile_wants_and_that_are_not_there_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text(PROFILE)
    results = tmp_path / "results" / "mine"
    results.mkdir(parents=True)
    curves, fractions = "pixels_curves", "pixels_fractions"

    def of(**kept):
        return reports.missing("results/mine", curves, fractions, "unknown", **kept)

    assert of() == (
        "Still to come: rosmo, bc on 3 games; rosmo with fraction 0.01, with fraction 0.1 on "
        "asterix."
    )
    assert of(methods=["bc"], games=["freeway"]) == "Still to come: bc on freeway."
    rows = [
        {"run": f"{game}_{method}", "seed": seed, "update": update}
        for game, method in (("asterix", "rosmo"), ("asterix", "bc"), ("breakout", "bc"))
        for seed in (0, 1) for update in (0, 10, 20)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(results / f"{curves}.csv", index=False)
    assert reports.missing("results/mine", curves) == (
        "Still to come: rosmo on breakout, freeway; bc on freeway."
    )
    part = pd.DataFrame(rows).query("run != 'breakout_bc' or (seed == 1 and update < 20)")
    part.to_csv(results / f"{curves}.csv", index=False)
    assert reports.missing("results/mine", curves, methods=["bc"]) == (
        "Still to come: bc on freeway. "
        "Not at their end: bc on breakout, at 10 of 20 updates with 1 of 2 seeds."
    )
    runs = [f"{game}_{method}" for game in ("asterix", "breakout", "freeway")
            for method in ("rosmo", "bc")]  # fmt: skip
    whole = [{"run": run, "seed": seed, "update": 20} for run in runs for seed in (0, 1)]
    pd.DataFrame(whole).to_csv(results / f"{curves}.csv", index=False)
    assert reports.missing("results/mine", curves) == ""
    assert reports.missing("results/another", curves) == ""  # Of no profile nothing is known.


def test_a_studys_experiments_are_those_that_are_there(results):
    for name in ("pixels_curves", "pixels_baselines"):
        for suffix in (".csv", ".provenance.json"):
            text = (results / f"bsuite_curves{suffix}").read_text()
            (results / f"{name}{suffix}").write_text(text)
        names, rows = reports.load_all(results, "pixels", "curves", "baselines", "losses")
        assert names == ["pixels_curves", "pixels_baselines"][: len(names)]
        assert len(rows) == 4 * len(names)
    with pytest.raises(ValueError, match="unknown study 'pixel': did you mean 'pixels'"):
        reports.load_all(results, "pixel", "curves")


def test_how_methods_act_and_were_timed():
    rows = pd.DataFrame({"method": ["rosmo", "cql"], "selector": ["improved", "critic"]})
    assert reports.how_acting(rows) == (
        "cql takes the action of highest Q, the others sample theirs."
    )
    both = pd.concat([rows, rows.assign(method="bcq", selector="constrained", greedy_score=0.0)])
    assert reports.how_acting(both) == (
        f"cql, bcq take the action of highest Q, the others sample theirs. {reports.GREEDY}"
    )
    assert reports.how_acting(rows[:1]) == "All sample their actions."
    assert "median of 3 measurements" in reports.how_timed(pd.DataFrame({"repeat": [0, 1, 2]}))
    assert "clocks of the runs" in reports.how_timed(None)


def test_labels_sort_as_their_numbers():
    texts = reports.labels(pd.Series([0.1, np.nan, 0.03, 1.0]), "{:.0%}", missing="none")
    assert texts.tolist() == ["10%", "none", "3%", "100%"]
    assert texts.sort_values().tolist() == ["3%", "10%", "100%", "none"]


def test_who_leads_in_how_many_games():
    rows = pd.DataFrame(
        {"game": list("aabbcc"), "method": ["cql", "rosmo"] * 3, "value": [2, 1, 2, 1, 1, 2]}
    )
    assert reports.leaders(rows, "game", "value") == "cql in 2, rosmo in 1"


def test_games_above_the_random_policy_by_fraction():
    cells = {("a", 0.0): (0.5, 0.7), ("b", 0.0): (-0.2, 0.4), ("a", 0.985): (-0.1, 0.1)}
    final = pd.DataFrame(
        [
            {"environment": game, "reanalyse_fraction": fraction, "seed": seed, "score": score}
            for (game, fraction), scores in cells.items() for seed, score in enumerate(scores)
        ]
    )  # fmt: skip
    assert reports.above_random(final) == "1 of 2 at 0%, 0 of 1 at 98.5%"


def test_two_kinds_are_told_in_the_order_asked_for():
    final = pd.DataFrame(
        {"environment": ["catch"] * 3, "kind": ["without", "with", "with"],
         "mean_return": [0.25, 0.4, 0.6]}
    )  # fmt: skip
    assert reports.pairs_of_ends(final, ("with", "without")) == "catch 0.50 and 0.25"


def test_decays_are_compared_where_both_were_run():
    final = pd.DataFrame(
        [
            {"environment": world, "method": method, "decay": decay, "update": 20, "seed": seed,
             "noise": 0.0, "fraction": 1.0, "overrides": decay,
             "score": level + 0.01 * seed, "mean_return": 10 * level + 0.1 * seed}
            for world in ("catch", "cartpole") for seed in range(3)
            for method, decay, level in (("rosmo", "staircase", 1.0), ("rosmo", "continuous", 0.5),
                                         ("bc", "staircase", 1.0), ("bc", "continuous", 1.0),
                                         ("cql", "staircase", 1.0))
        ]
    )  # fmt: skip
    scores, returns = reports.decay_differences(final)
    assert scores["method"].tolist() == ["bc", "rosmo"]  # Of cql there is one decay only.
    assert scores["value"].tolist() == pytest.approx([0.0, 0.5])
    assert returns["comparison"].tolist()[-1] == "rosmo at 20, catch" and len(returns) == 4
    assert reports.differences(scores).startswith("bc at 20 = +0.00 [")
    assert reports.differences(scores, only_clear=True).startswith("rosmo at 20 = +0.50 [")
    assert reports.differences(scores[:1], only_clear=True) == "none"
    none, of_none = reports.decay_differences(final[final["method"] == "cql"])
    assert none.empty and of_none.empty and reports.differences(none) == "none"
