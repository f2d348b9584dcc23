"""ROSMO's Table 8: ours beside the paper's, and what is not run."""

import json

import pandas as pd

from reproduction import atari_tables

PAPER = pd.DataFrame(
    {"game": ["MsPacman", "Pong"] * 2, "method": ["BC"] * 2 + ["ROSMO"] * 2,
     "iqm_return": [2733.3, 15.0, 5019.8, 20.5], "std": [1.0] * 4}
)  # fmt: skip
HEADLINE = pd.DataFrame({"method": ["ROSMO"], "final_iqm_normalised": [1.94]})
ROWS = pd.DataFrame(
    {"environment": ["pong"] * 4, "method": ["bc"] * 4, "seed": [0, 1] * 2,
     "update": [0, 0, 10, 10], "mean_return": [-21.0, -21.0, 1.0, 3.0],
     "score": [0.0, 0.0, 0.5, 0.7], "human_score": [0.0, 0.0, 0.4, 0.6]}
)  # fmt: skip


def test_games_and_methods_are_the_papers():
    paper = atari_tables.published(pd.read_csv("results/published/rosmo_table8_atari.csv"))
    assert not paper.isna().any().any() and paper["environment"].nunique() == 12


def test_what_is_not_run_is_said():
    paper = atari_tables.published(PAPER)
    table = atari_tables.table8(ROWS, paper).set_index("game")
    assert list(table.index) == ["ms_pacman", "pong"]
    assert table.loc["pong", "bc"] == "2.00 ± 1.41" and table.loc["pong", "bc (paper)"] == "15.0"
    assert table.loc["pong", "rosmo"] == table.loc["ms_pacman", "bc"] == "not run"
    assert (
        table.loc["ms_pacman", "rosmo (paper)"] == "5,019.8"
        and not table.loc["pong", "mzu (paper)"]
    )
    said = atari_tables.not_there(ROWS, paper)
    assert said.startswith("Not run: ms_pacman. rosmo lacks pong.") and "bc lacks" not in said


def test_scores_over_games():
    table = atari_tables.overall(ROWS, HEADLINE).set_index("method")
    assert table.loc["bc", "IQM score"].startswith("0.60 [") and table.loc["bc", "games"] == 1
    assert table.loc["bc", "IQM human score"].startswith("0.50 [")
    assert list(table.loc["rosmo"]) == [0, "not run", "1.94", "not run"]
    unknown = ROWS.assign(environment="pooyan", human_score=float("nan"))
    both = atari_tables.overall(pd.concat([ROWS, unknown]), HEADLINE).set_index("method")
    assert both.loc["bc", "games"] == 2 and both.loc["bc", "IQM human score"].startswith("0.50 [")
    alone = atari_tables.overall(unknown, HEADLINE).set_index("method")
    assert alone.loc["bc", "IQM human score"] == ""


def test_how_much_smaller_ours_is_is_said(tmp_path):
    small = {"network": "resnet", "representation": [16], "batch_size": 32, "num_simulations": 8}
    runs = {
        "pong_bc": {"parameters": {"dataset": "x/atari_pong_dqn0"}, "settings": small},
        "pong_mzu": {
            "parameters": {"dataset": "x/atari_pong_run1"},
            "settings": {**small, "representation": [16, 32]},
        },
    }
    (tmp_path / "atari_curves.provenance.json").write_text(json.dumps(runs))
    theirs = "RL Unplugged's data, resnet of 6 x 64 channels, batches of 512, 20 simulations."
    assert atari_tables.setting(tmp_path, "atari_curves") == (
        "Ours: imported recordings and recordings made here, resnet of 1 x 16 channels, batches of "
        "32, 8 simulations or resnet of 16-32 channels, batches of 32, 8 simulations; the paper's: "
        f"{theirs}"
    )
    (tmp_path / "atari_statistics.csv").write_text("transitions\n500000\n500000\n")
    assert "made here of 500,000 transitions, resnet" in atari_tables.setting(
        tmp_path, "atari_curves"
    )
