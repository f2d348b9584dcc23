import numpy as np
import pandas as pd
import pytest
import scipy.stats

from unplugged import plots, reports, statistics, tables


def test_iqm_by_hand():
    # A quarter is cut at both ends: 1 and 100 of four; the mean of 2 and 3 is left.
    assert statistics.iqm([np.array([100.0, 3.0]), np.array([1.0, 2.0])]) == 2.5
    np.testing.assert_allclose(statistics.iqm([np.arange(24).reshape(2, 12)]), [5.5, 17.5])


def test_bootstrap_resamples_within_tasks():
    # Two tasks far apart, each without spread: nothing can vary, however seeds are resampled.
    apart = statistics.bootstrap([np.zeros(5), np.full(5, 10.0)], statistics.mean)
    assert apart == (5.0, 5.0, 5.0, 10)
    # Hardly any spread: resampled as one task, the tasks would mix.
    nearly = statistics.bootstrap([np.arange(5) * 1e-3, 10.0 + np.arange(5) * 1e-3])
    assert 4.999 < nearly.low < nearly.high < 5.006


def test_bootstrap_interval_has_about_the_right_width_and_is_seeded():
    rng = np.random.default_rng(0)
    tasks = [rng.normal(size=200) for _ in range(2)]
    estimate = statistics.bootstrap(tasks, statistics.mean)
    assert estimate == statistics.bootstrap(tasks, statistics.mean)
    assert estimate.low < estimate.value < estimate.high
    np.testing.assert_allclose(estimate.high - estimate.low, 2 * 1.96 / np.sqrt(400), rtol=0.15)


def test_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(1)
    tasks = [rng.normal(loc, 1.0, size=8) for loc in (0, 1, 5)]
    theirs = scipy.stats.bootstrap(
        tasks, lambda *x, axis: statistics.iqm(x),
        n_resamples=4_000, method="percentile", vectorized=True, rng=rng,
    ).confidence_interval  # fmt: skip
    ours = statistics.bootstrap(tasks, statistics.iqm, resamples=4_000)
    np.testing.assert_allclose(ours[1:3], theirs, atol=0.05)


def test_bootstrap_of_one_run_and_of_none():
    estimate = statistics.bootstrap([np.array([1.0]), np.array([2.0, 3.0, 4.0])], statistics.mean)
    assert estimate.value == 2.0 and estimate.samples == 4  # Each task counts the same.
    assert 1.5 <= estimate.low < estimate.high <= 2.5
    with pytest.raises(ValueError, match="at least one task"):
        statistics.bootstrap([])
    with pytest.raises(ValueError, match="at least one"):
        statistics.bootstrap([np.array([])])


def test_mean_median_and_optimality_gap_by_hand():
    tasks = [np.array([0.5, 2.0]), np.array([1.0]), np.array([0.0, 0.2, 0.4])]
    # Means over runs: 1.25, 1 and 0.2.
    assert statistics.median(tasks) == 1.0
    np.testing.assert_allclose(statistics.mean(tasks), 2.45 / 3)
    np.testing.assert_allclose(statistics.optimality_gap(tasks), (0.5 + 1.0 + 0.8 + 0.6) / 6)
    stacked = [np.stack([task, task + 1]) for task in tasks]
    np.testing.assert_allclose(statistics.median(stacked), [1.0, 2.0])


def test_difference_by_hand_and_of_one_with_itself():
    ours, theirs = [np.array([3.0, 3.0]), np.array([5.0])], [np.array([1.0, 1.0]), np.array([2.0])]
    apart = statistics.contrast([ours], [theirs], statistics.mean)
    np.testing.assert_allclose(apart[:3], 4.0 - 1.5)
    x = [np.random.default_rng(0).normal(size=6)]
    same = statistics.contrast([x], [x], statistics.mean)
    assert same.value == 0.0 and same.low < 0.0 < same.high and same.samples == 12


def test_interval_of_a_difference_has_the_width_that_theory_gives():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 1.0, 300), rng.normal(0.0, 2.0, 300)
    estimate = statistics.contrast([[a]], [[b]], statistics.mean)
    np.testing.assert_allclose(estimate.high - estimate.low, 2 * 1.96 * np.sqrt(5 / 300), rtol=0.15)


def test_probability_of_improvement_by_hand():
    ours, theirs = [np.array([1.0, 2.0]), np.array([0.0])], [np.array([1.0, 0.0]), np.array([3.0])]
    # Task one: 1 against 1 is half, 1 against 0, 2 against 1, 2 against 0 are wins: 3.5 of 4.
    value = statistics.probability_of_improvement(ours, theirs).value
    assert value == pytest.approx((3.5 / 4 + 0.0) / 2)
    with pytest.raises(ValueError, match="2 tasks on one side and 1"):
        statistics.probability_of_improvement(ours, theirs[:1])


def test_performance_profile_falls_from_all_to_none():
    tasks = [np.array([0.0, 0.5, 1.0]), np.array([0.5, 0.7])]
    profile = statistics.performance_profile(tasks, np.array([-1.0, 0.5, 0.6, 1.0]))
    np.testing.assert_allclose(profile["value"], [1.0, 0.4, 0.4, 0.0])
    assert (profile["low"] <= profile["value"]).all() and (
        profile["value"] <= profile["high"]
    ).all()


def test_summarise_and_normalise():
    frame = pd.DataFrame(
        {
            "method": ["a"] * 4 + ["b"] * 2,
            "task": ["x", "x", "y", "y", "x", "y"],
            "return": [0.0, 2.0, 10.0, 20.0, 4.0, 4.0],
        }
    )
    rows = statistics.summarise(frame, "return", ["method"], statistic=statistics.mean, task="task")
    assert rows["value"].tolist() == [8.0, 4.0] and rows["runs"].tolist() == [4, 2]
    score = statistics.normalise(pd.Series([0.0, 5.0]), pd.Series([-5.0, 0.0]), pd.Series([5.0, 4]))
    assert score.tolist() == [0.5, 1.25]


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
    assert facts == "2 seeds, 20 updates, 5 episodes an evaluation; device CPU."
    one = reports.run_facts(rows[rows["seed"] == 0], tmp_path, "p")
    assert one.startswith("1 seed, 20 updates")
    assert reports.uneven(rows) == ""
    longer = pd.concat([rows, rows[rows["method"] == "rosmo"].assign(update=40)])
    assert reports.uneven(longer) == (
        "Each method at its own last update (20 updates: bc; 40 updates: rosmo)."
    )
    assert reports.flatness(rows).startswith("Not flat at the end (the last fifth")
    assert reports.flatness(rows).endswith("1 of 2 curves: bc (catch).")
    assert "Every curve is flat" in reports.flatness(rows[rows["method"] == "rosmo"])
    last = pd.DataFrame(
        [("bc", 0.5, 0.4, 0.6), ("rosmo", 1.0, 0.9, 1.1)],
        columns=["method", "value", "low", "high"],
    )
    assert reports.iqm_statement(last).startswith("rosmo 1.00 [0.90, 1.10]; bc")


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
    table = tables.final_and_best(rows).set_index("method")
    assert table.loc["bc"].tolist() == ["0.51", "0.90"] or table.loc["bc"].tolist() == [
        "0.50", "0.90",
    ]  # fmt: skip
    assert table.loc["rosmo"].tolist() == ["1.00", "1.00"]


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


NOTES = {"title": "t", "caption": "c", "paper": "p", "command": "make figures"}


def test_figures_drawn_twice_are_the_same_bytes(rows, tmp_path):
    plots.use_style()
    curves = statistics.summarise(rows, "mean_return", ["method", "update"])
    for name in ("a", "b"):
        figure, ax = plots.plt.subplots()
        for method in plots.in_order(rows["method"]):
            plots.curve(ax, curves[curves["method"] == method], method)
        plots.save_figure(figure, tmp_path / name, "f", NOTES)
        plots.save_table(rows, tmp_path / name, "f", NOTES)
        plots.plt.close(figure)
    first = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    assert set(first) == {
        "f.png", "f.pdf", "f.json", "f.table.csv", "f.table.md", "f.table.tex", "f.table.json",
    }  # fmt: skip
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()}


def test_a_figure_without_its_caption_is_refused(tmp_path):
    notes = {key: value for key, value in NOTES.items() if key != "caption"}
    with pytest.raises(ValueError, match="needs caption"):
        plots.save_table(pd.DataFrame({"a": [1]}), tmp_path / "none", "f", notes)
    assert not (tmp_path / "none").exists()


def test_what_is_not_there_is_named():
    pairs = [("rosmo", 0.1), ("rosmo", 1.0), ("mzu", 1.0), ("bc", 0.1)]
    final = pd.DataFrame(pairs, columns=["method", "fraction"])
    assert reports.not_there(final) == "Not run: mzu at 10%, bc at 100%."
    assert reports.not_there(final[final["method"] == "rosmo"]) == ""


def test_every_method_has_a_look_of_its_own():
    from unplugged import methods

    looks = [plots.look(name) for name in methods.METHODS]
    for cue in ("marker", "linestyle"):  # Never by colour alone.
        assert len({str(getattr(one, cue)) for one in looks}) == len(looks)
    paper = [plots.look(name).color for name in ("rosmo", "mzu", "crr", "cql", "bc")]
    assert len(set(paper)) == 5
    assert plots.look("something_new") == plots.look("something_new")
    assert plots.in_order(["zeta", "bc", "rosmo"]) == ["rosmo", "bc", "zeta"]
