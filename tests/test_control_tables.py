import pandas as pd

from reproduction import comparisons, control_tables

PAPER3 = pd.DataFrame(
    {"task": ["cartpole.swingup", "walker.walk", "humanoid.run"], "action_dims": [1, 6, 21],
     "episodes": [40, 200, 3000], "MuZero_BC": [100.0, 300.0, 5.0], "D4PG": [1.0, 2.0, 3.0],
     "BRAC": [1.0, 2.0, 3.0], "RABM": [1.0, 2.0, 3.0], "MZU": [200.0, 400.0, 6.0]}
)  # fmt: skip
PAPER4 = PAPER3.assign(CRR=[7.0, 9.0, 11.0])


def rows(task, method, returns):
    """Two seeds, the second one higher by 2, at updates 0, 1, ..."""
    return pd.DataFrame(
        [
            {"environment": task, "method": method, "seed": seed, "update": update,
             "mean_return": value + 2 * seed, "injection": 0.25, "num_candidates": 8.0,
             "num_simulations": 8, "policy_head": "normal"}
            for seed in (0, 1) for update, value in enumerate(returns)
        ]
    )  # fmt: skip


def study():
    return pd.concat(
        [rows("walker.walk", "mzu", [0, 9, 5]), rows("cartpole.swingup", "mzu", [0, 1, 3]),
         rows("walker.walk", "bc", [0, 4, 2])]
    )  # fmt: skip


def test_table_3_has_the_papers_numbers_beside_ours():
    data = pd.Series({"cartpole.swingup": 432.13})
    table = control_tables.table3(study(), PAPER3, data).set_index("task")
    assert table["mean of the data"].tolist() == ["432.1", "", ""]
    assert list(table.index) == ["cartpole.swingup", "walker.walk", "mean"]
    assert table["mzu"].tolist() == ["4.00 ± 1.41", "6.00 ± 1.41", "5.00 ± 1.41"]
    assert table["mzu (paper)"].tolist() == ["200.0", "400.0", "300.0"]
    assert table["bc"].tolist() == ["", "3.00 ± 1.41", ""]  # No mean of some tasks only.
    assert table["episodes"].tolist() == ["40", "200", ""]
    said = control_tables.not_there(study(), PAPER3)
    assert said.startswith("Not run: humanoid.run. ") and "bc lacks cartpole.swingup." in said
    assert "d4pg lacks cartpole.swingup, walker.walk." in said and "mzu lacks" not in said


def test_table_4_takes_each_runs_best_evaluation():
    table = control_tables.table4(study(), PAPER4).set_index("task")
    assert table["mzu"].tolist() == ["4.00 ± 1.41", "10.00 ± 1.41", "7.00 ± 1.41"]
    assert "crr (paper)" not in table  # Beside what there is of ours.


def test_a_checkpoint_is_chosen_by_the_other_seeds():
    runs = rows("walker.walk", "mzu", [3, 1, 2])  # Seed 0, and seed 1 is made another.
    runs.loc[runs["seed"] == 1, "mean_return"] = [4, 9, 5]
    runs = pd.concat([runs, runs[runs["seed"] == 0].assign(seed=2, mean_return=[7, 0, 6])])
    chosen = comparisons.chosen_by_others(runs).set_index("seed")
    # Means of the others: seed 0 has 5.5, 4.5, 5.5; seed 1 has 5, 0.5, 4; seed 2 has 3.5, 5, 3.5.
    assert chosen["mean_return"].to_dict() == {0: 3.0, 1: 4.0, 2: 0.0}
    table = control_tables.table4(runs, PAPER4).set_index("task")
    assert table["mzu"].iloc[0] == "6.33 ± 3.06"
    assert table["mzu, by other seeds"].iloc[0] == "2.33 ± 2.08"


def test_a_task_without_searching_runs_has_no_number_of_theirs():
    runs = pd.concat(
        [rows("cartpole.swingup", "bc", [1, 2]), rows("walker.walk", "bc", [1, 2]),
         rows("walker.walk", "mzu", [0, 9])]
    )  # fmt: skip
    table = control_tables.table4(runs, PAPER4).set_index("task")
    assert table["mzu, by other seeds"].to_dict() == {
        "cartpole.swingup": "", "walker.walk": "10.00 ± 1.41", "mean": ""
    }  # fmt: skip


def test_ablations_are_named_by_what_differs():
    frames = [study().query("method == 'mzu'")]
    frames.append(rows("walker.walk", "mzu", [0, 1, 1]).assign(injection=0.0))
    frames.append(rows("walker.walk", "mzu", [0, 2, 2]).assign(num_simulations=16))
    frames.append(rows("walker.walk", "mzu", [0, 7, 7]).assign(policy_head="factored"))
    together = pd.concat(frames)
    kinds = control_tables.changes(together)
    assert list(kinds) == ["preset", "injection 0", "16 simulations", "factored policy"]
    table = control_tables.ablations(together, kinds).set_index("task")
    assert table.loc["walker.walk"].tolist() == [
        "6.00 ± 1.41", "2.00 ± 1.41", "3.00 ± 1.41", "8.00 ± 1.41"
    ]  # fmt: skip
    assert table.loc["cartpole.swingup"].tolist() == ["4.00 ± 1.41", "", "", ""]
