"""What is said of rows, against what they say."""

import numpy as np
import pandas as pd
import pytest

from reproduction import comparisons, reports, sentences, tables


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
    assert sentences.uneven(rows) == ""
    longer = pd.concat([rows, rows[rows["method"] == "rosmo"].assign(update=40)])
    assert sentences.uneven(longer) == (
        "Each method is taken at its own last update: 20 updates for bc; 40 updates for rosmo."
    )
    moving = "1 of 2 curves was not flat at the end: bc on catch."
    assert sentences.flatness(rows) == moving
    flat = rows[rows["method"] == "rosmo"]
    assert sentences.flatness(flat) == "Every curve was flat at the end."
    panels = {"some": rows.assign(decay="staircase"), "all": flat.assign(decay="continuous")}
    assert sentences.flatness_of_panels(panels) == (
        f"Some (20 updates, staircase decay): {moving}\n"
        "All (20 updates, continuous decay): Every curve was flat at the end."
    )
    named = rows.assign(share=reports.labels(rows["fraction"], "{:.0%}"))
    assert sentences.flatness(named, ["environment", "share"]).endswith("bc on catch 100%.")
    last = pd.DataFrame(
        [("bc", 20, 0.5, 0.4, 0.6), ("rosmo", 20, 1.0, 0.9, 1.1)],
        columns=["method", "update", "value", "low", "high"],
    )
    assert sentences.ranking(last) == "rosmo 1.00 [0.90, 1.10]; bc 0.50 [0.40, 0.60]."
    assert sentences.ranking(last.assign(update=[20, 4000])) == (
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
    text = sentences.selection_statement(tables.choose(both, "score"))
    assert "held-out loss +0.70 [+0.70, +0.70]" in text


def test_final_and_best(rows):
    rows.loc[(rows["method"] == "bc") & (rows["update"] == 10), "mean_return"] = 0.9
    chosen = tables.last_and_best(rows, "mean_return")
    table = tables.final_and_best(chosen).set_index("method")
    assert table.columns.tolist() == ["catch, final", "catch, best"]
    assert table.loc["bc"].tolist() in (["0.51", "0.90"], ["0.50", "0.90"])  # Half of 0.01.
    assert table.loc["rosmo"].tolist() == ["1.00", "1.00"]
    assert sentences.selection_statement(chosen).endswith("best +0.20 [+0.20, +0.20].")


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
    assert sentences.missing_recordings(table) == (
        " Not recorded in this profile: catch at noise 0.1."
    )
    assert sentences.missing_recordings(table[:1]) == ""
    paper6 = pd.DataFrame({"environment": ["catch"], "random": [-0.66], "online_dqn": [1.0]})
    assert tables.beside_table6(ours, paper6).iloc[0].tolist() == ["catch", -0.6, -0.66, 0.9, 1.0]


def test_what_is_not_there_is_named():
    pairs = [("rosmo", 0.1), ("rosmo", 1.0), ("mzu", 1.0), ("bc", 0.1)]
    final = pd.DataFrame(pairs, columns=["method", "fraction"])
    assert sentences.not_there(final) == "Not run: mzu at 10%, bc at 100%."
    assert sentences.not_there(final[final["method"] == "rosmo"]) == ""


def test_how_methods_act_and_were_timed():
    rows = pd.DataFrame({"method": ["rosmo", "cql"], "selector": ["improved", "critic"]})
    assert sentences.how_acting(rows) == (
        "cql takes the action of highest Q, the others sample theirs."
    )
    both = pd.concat([rows, rows.assign(method="bcq", selector="constrained", greedy_score=0.0)])
    assert sentences.how_acting(both) == (
        f"cql, bcq take the action of highest Q, the others sample theirs. {sentences.GREEDY}"
    )
    assert sentences.how_acting(rows[:1]) == "All sample their actions."
    assert "median of 3 measurements" in sentences.how_timed(pd.DataFrame({"repeat": [0, 1, 2]}))
    assert "of untrained networks" in sentences.how_timed(pd.DataFrame({"repeat": [0]}))
    timed = pd.DataFrame({"repeat": [0], "after": [1000]})
    assert "after 1,000 updates of training" in sentences.how_timed(timed)
    assert "clocks of the runs" in sentences.how_timed(None)


def test_who_leads_in_how_many_games():
    rows = pd.DataFrame(
        {"game": list("aabbcc"), "method": ["cql", "rosmo"] * 3, "value": [2, 1, 2, 1, 1, 2]}
    )
    assert sentences.leaders(rows, "game", "value") == "cql in 2, rosmo in 1"
    seeds = pd.concat([rows, rows.assign(value=[0, 9] * 3)])  # By the mean of two seeds.
    assert sentences.leaders(seeds, "game", "value") == "rosmo in 3"
    greedy = rows.rename(columns={"game": "environment", "value": "greedy_return"})
    assert sentences.leaders_greedy(greedy) == ("All acting greedily: cql in 2, rosmo in 1.")
    assert sentences.leaders_greedy(greedy.assign(greedy_return=[np.nan, *[1.0] * 5])) == ""
    assert sentences.leaders_greedy(rows) == ""
    one = greedy[greedy["method"] == "cql"]
    assert sentences.leaders(one, "environment", "greedy_return") == "cql alone is there"
    assert sentences.leaders_greedy(one) == ""


def test_how_far_a_loss_has_settled():
    updates, loss = [0, 10, 20, 30, 40, 50], [np.nan, 9.0, 8.0, 4.0, 2.0, 1.9]
    rows = pd.concat(
        pd.DataFrame({"environment": game, "update": updates, "loss": loss * np.array(factor)})
        for game, factor in (("asterix", 1.0), ("breakout", [1.0] * 5 + [1.1]))
    )
    assert sentences.settled(rows) == "-5.0% on asterix, +4.5% on breakout"


def test_games_above_the_random_policy_by_fraction():
    cells = {("a", 0.0): (0.5, 0.7), ("b", 0.0): (-0.2, 0.4), ("a", 0.985): (-0.1, 0.1)}
    final = pd.DataFrame(
        [
            {"environment": game, "reanalyse_fraction": fraction, "seed": seed, "score": score}
            for (game, fraction), scores in cells.items() for seed, score in enumerate(scores)
        ]
    )  # fmt: skip
    assert sentences.above_random(final) == "1 of 2 at 0%, 0 of 1 at 98.5%"


def test_two_kinds_are_told_in_the_order_asked_for():
    final = pd.DataFrame(
        {"environment": ["catch"] * 3, "kind": ["without", "with", "with"],
         "mean_return": [0.25, 0.4, 0.6]}
    )  # fmt: skip
    assert sentences.pairs_of_ends(final, ("with", "without")) == "catch 0.50 and 0.25"


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
    scores, returns = comparisons.decay_differences(final)
    assert scores["method"].tolist() == ["bc", "rosmo"]  # Of cql there is one decay only.
    assert scores["value"].tolist() == pytest.approx([0.0, 0.5])
    assert returns["comparison"].tolist()[-1] == "rosmo at 20, catch" and len(returns) == 4
    assert sentences.differences(scores).startswith("bc at 20 = +0.00 [")
    assert sentences.differences(scores, only_clear=True).startswith("rosmo at 20 = +0.50 [")
    assert sentences.differences(scores[:1], only_clear=True) == "none"
    none, of_none = comparisons.decay_differences(final[final["method"] == "cql"])
    assert none.empty and of_none.empty and sentences.differences(none) == "none"
