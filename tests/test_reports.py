"""What every claim and table goes through: rows read with their scores, and the tables of them."""

import numpy as np
import pandas as pd
import pytest

from unplugged import reports, tables


@pytest.fixture
def results(tmp_path):
    """Two runs on catch; the ends of its score are -1 and 3 without noise, other with noise."""
    (tmp_path / "dataset_statistics.csv").write_text(
        "environment,noise,random_return,online_return,mean_return\n"
        "catch,0.0,-1.0,3.0,2.0\ncatch,0.5,0.0,1.0,0.5\n"
    )
    (tmp_path / "bsuite_curves.csv").write_text(
        "benchmark,environment,noise,fraction,method,overrides,seed,update,mean_return\n"
        "bsuite,catch,0.0,1.0,rosmo,{},0,10,3.0\n"
        "bsuite,catch,0.0,1.0,rosmo,{},0,20,2.0\n"
        "bsuite,catch,0.0,1.0,rosmo,{},1,20,1.0\n"
        'bsuite,catch,0.5,1.0,mzu,"{""dynamics"": [8, 64, 8], ""search_depth"": 2}",0,20,0.0\n'
    )
    return tmp_path


def test_rows_are_read_with_their_score_and_settings(results):
    rows = reports.load(results, "bsuite_curves")
    assert rows["score"].tolist() == [1.0, 0.75, 0.5, 0.25]  # Noise-free ends for all.
    assert rows["hidden"].tolist() == [256, 256, 256, 64]
    assert rows["num_simulations"].tolist() == [4] * 4
    np.testing.assert_array_equal(rows["search_depth"], [np.nan] * 3 + [2.0])


def test_table_2_by_hand(results):
    rows = reports.load(results, "bsuite_curves")
    ours = pd.read_csv(results / "dataset_statistics.csv").query("noise == 0")
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
    without = tables.table2(reports.final(rows), ours, paper.drop("catch")).set_index("method")
    assert without.loc["random policy (paper)", "catch"] == ""  # An environment of one's own.


def test_table_1_is_by_noise(results):
    rows = reports.load(results, "bsuite_curves")
    ours = pd.read_csv(results / "dataset_statistics.csv")
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
