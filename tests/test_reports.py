"""Rows read with their scores, and the tables of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reproduction import comparisons, reports, tables


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


def test_a_score_is_of_the_recording_that_a_run_learned_from(tmp_path):
    results, beside = tmp_path / "mine", tmp_path / "recordings"
    for folder in (results, beside):
        folder.mkdir()
    head = "environment,noise,random_return,online_return,mean_return\n"
    own = "asterix,0.0,0.0,2.0,1.0\nbreakout,0.0,0.0,2.0,1.0\nfreeway,0.0,0.0,9.0,1.0\n"
    (results / "minatar_statistics.csv").write_text(head + own)
    (beside / "minatar_statistics.csv").write_text(head + own.replace("2.0", "4.0"))
    (results / "pixels_curves.csv").write_text(
        "run,benchmark,environment,method,seed,update,mean_return\n"
        "one,minatar,asterix,bc,0,20,1.0\ntwo,minatar,breakout,bc,0,20,1.0\n"
    )

    def learned_from(**folders):
        settings = {"dynamics": [8], "num_simulations": 4, "search_depth": None, "unroll_steps": 5,
                    "target_interval": 50}  # fmt: skip
        records = {
            run: {
                "settings": settings,
                "parameters": {"dataset": f"{folder}/game.npz"},
                "device": "cpu: cpu",
            }
            for run, folder in folders.items()
        }
        (results / "pixels_curves.provenance.json").write_text(json.dumps(records))

    learned_from(one="results/recordings", two="runs/mine/datasets")
    rows = reports.load(results, "pixels_curves")
    assert rows["score"].tolist() == [0.25, 0.5]
    assert rows["recording"].tolist() == ["recordings", ""]
    assert reports.devices(results, "pixels_curves") == "CPU"
    assert reports.parameter(results, "pixels_curves", "dataset").count("game.npz") == 2
    ends = reports.recordings(results, rows)["online_return"]
    assert ends.to_dict() == {"asterix": 4.0, "breakout": 2.0, "freeway": 9.0}
    # Runs on another recording of the same game are not put beside, and not compared.
    others = rows.assign(method="cql", recording="")
    assert comparisons.beside(rows, others, "environment")["run"].tolist() == ["one", "two", "two"]
    with pytest.raises(comparisons.NotRun, match="learned from different recordings"):
        comparisons.compare("bc - cql", rows, others)
    for kind in ("csv", "provenance.json"):
        shutil.copy(results / f"pixels_curves.{kind}", results / f"pixels_baselines.{kind}")
    learned_from(one="runs/mine/datasets", two="runs/mine/datasets")
    _, whole = reports.load_all(results, "pixels", "curves", "baselines")
    assert whole["run"].tolist() == ["one", "two", "two"]

    learned_from(one="results/recordings", two="runs/mine/datasets")
    # A recording that was committed later is the one that runs learned from, if its bytes are.
    for folder, sums in ((results, "abc"), (beside, "xbz")):
        path = folder / "minatar_statistics.csv"
        pd.read_csv(path).assign(checksum=list(sums)).to_csv(path, index=False)
    kept = reports.load(results, "pixels_curves")
    assert kept["recording"].tolist() == ["recordings", "recordings"]
    assert kept["score"].tolist() == [0.25, 0.25]  # Of the statistics beside it.
    learned_from(one="runs/mine/datasets", two="runs/mine/datasets")
    kept = reports.load(results, "pixels_curves")
    assert kept["recording"].tolist() == ["", "recordings"]

    learned_from(one="results/recordings", two="runs/mine/datasets")
    both = (results / "pixels_curves.csv").read_text().replace("breakout", "asterix")
    (results / "pixels_curves.csv").write_text(both)
    with pytest.raises(ValueError, match="in asterix learned from two recordings"):
        reports.load(results, "pixels_curves")


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
    assert of(methods=["rosmo"], games=["asterix"]) == (
        "Still to come: rosmo on asterix; rosmo with fraction 0.01, with fraction 0.1 on asterix."
    )
    grid = reports.wanted("results/mine", fractions)
    assert set(zip(grid["method"], grid["game"])) == {("rosmo", "asterix")}
    assert reports.wanted("results/another", fractions)["game"].empty
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


def test_a_claim_whose_runs_are_still_to_come_is_not_decided_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    profile = PROFILE.replace("pixels_fractions", "minatar_imagined").replace("[rosmo]", "[morel]")
    (tmp_path / "profiles" / "mine.yaml").write_text(profile)
    (tmp_path / "results" / "mine").mkdir(parents=True)
    root = Path(__file__).parents[1] / "results"
    for name in ("claims.csv", "claims_own.csv"):
        shutil.copy(root / name, tmp_path / "results")
    told = reports.verdicts("results/mine", "R17", "R3", study="minatar")["verdict"]
    assert told == (
        "R17 is not decided yet: its rule needs runs that are still to come. "
        "R3: not run in this profile."
    )


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


def test_labels_sort_as_their_numbers():
    texts = reports.labels(pd.Series([0.1, np.nan, 0.03, 1.0]), "{:.0%}", missing="none")
    assert texts.tolist() == ["10%", "none", "3%", "100%"]
    assert texts.sort_values().tolist() == ["3%", "10%", "100%", "none"]
