"""Each notebook through papermill, in a size that a test can afford."""

import ast
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import papermill
import pytest

from test_rlu_atari import shards, write
from unplugged import frames, notebooks, online, runs, worlds

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SMALL = {
    "representation": [8, 8], "dynamics": [8, 8], "prediction": [8], "batch_size": 8,
}  # fmt: skip


def execute(name, here, out=None, **parameters):
    """Runs a notebook in a folder; captions and profiles are found from the repository's root."""
    papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb",
        (out or here) / f"{name}.out.ipynb",
        parameters={k: str(v) if isinstance(v, Path) else v for k, v in parameters.items()},
        kernel_name="python3",
        language="python",
        progress_bar=False,
        execution_timeout=300,  # A cell that hangs fails instead.
        cwd=str(here),
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collect")
    execute("10_collect", folder, benchmark="bsuite", environment="catch", noise=0.1, episodes=30,
            random_episodes=5, seed=3, folder=folder)  # fmt: skip
    return folder


def test_collect_writes_dataset_and_statistics(recorded):
    from unplugged import datasets

    dataset = datasets.load(recorded / "bsuite_catch_noise0.1.npz")
    row = pd.read_csv(recorded / "bsuite_catch_noise0.1.statistics.csv").iloc[0]
    assert dataset.num_episodes == 30 == row["episodes"]
    assert dataset.num_transitions == 30 * 9 == row["transitions"]
    assert row["mean_return"] == pytest.approx(dataset.episode_returns.mean())
    assert row["checksum"] == datasets.checksum(dataset)
    assert dataset.metadata["noise"] == 0.1 and dataset.metadata["seed"] == 3
    returns = pd.read_csv(recorded / "bsuite_catch_noise0.1.returns.csv")
    assert set(returns["return"]) <= {-1.0, 1.0} and len(returns) == 30
    assert not list(recorded.glob("*.partial*"))


def test_collecting_again_gives_the_same_file(recorded, tmp_path):
    execute("10_collect", tmp_path, benchmark="bsuite", environment="catch", noise=0.1, episodes=30,
            random_episodes=5, seed=3, folder=tmp_path)  # fmt: skip
    name = "bsuite_catch_noise0.1.npz"
    assert (tmp_path / name).read_bytes() == (recorded / name).read_bytes()


def test_a_dqn_on_atari_is_recorded(tmp_path):
    pytest.importorskip("ale_py")
    tiny = {"environments": 2, "checkpoint": 40, "channels": [2, 2, 2], "hidden": 4,
            "learn_after": 20, "batch_size": 2}  # fmt: skip
    execute("12_collect_atari", tmp_path, game="breakout", transitions=80, agent=tiny,
            random_episodes=1, folder=tmp_path)  # fmt: skip
    row = pd.read_csv(tmp_path / "atari_breakout_dqn0.statistics.csv").iloc[0]
    recording = frames.load(tmp_path / "atari_breakout_dqn0")
    assert row["episodes"] == recording.num_episodes == 4
    assert recording.metadata["settings"]["channels"] == [2, 2, 2]


def test_a_recording_of_atari_is_imported(tmp_path):
    pytest.importorskip("ale_py")
    write(tmp_path / "data", shards(episodes=4))
    options = dict(files_in=tmp_path / "data", game="pong", share=0.5, folder=tmp_path)
    execute("13_import_atari", tmp_path, random_episodes=1, **options)
    row = pd.read_csv(tmp_path / "atari_pong_run1.statistics.csv").iloc[0]
    assert row["episodes"] == 4 and row["environment"] == "pong"
    assert row["checksum"] == frames.load(tmp_path / "atari_pong_run1").checksum
    assert len(pd.read_csv(tmp_path / "atari_pong_run1.returns.csv")) == 4


OWN = """
from unplugged import improvement, methods
own = methods.Method(summary="mine", operator=improvement.one_step, selector="policy")
"""


def test_a_method_in_a_file_is_trained_evaluated_and_watched(recorded, tmp_path):
    (tmp_path / "own_file.py").write_text(OWN)
    run = dict(dataset=recorded / "bsuite_catch_noise0.1.npz", benchmark="bsuite",
               environment="catch", method="own_file:own", overrides=SMALL, seeds=[4], updates=10,
               eval_every=5, eval_episodes=2, folder=tmp_path / "run")  # fmt: skip
    execute("20_train", tmp_path, **run)
    execute("23_evaluate", tmp_path, **run, selectors=["greedy"], episodes=2)
    chosen = pd.read_csv(tmp_path / "run" / "selectors.csv")
    assert chosen["selector"].tolist() == ["greedy"] and chosen["method"][0] == "own_file:own"
    rows = pd.read_csv(tmp_path / "run" / "results.csv")
    assert rows["update"].tolist() == [0, 5, 10] and set(rows["seed"]) == {4}
    assert set(rows["noise"]) == {0.1} and json.loads(rows["overrides"][0]) == SMALL
    execute("29_watch", tmp_path, run=tmp_path / "run", seed=4, folder=tmp_path / "watch")
    assert (tmp_path / "watch" / "episode.gif").stat().st_size
    assert abs(pd.read_csv(tmp_path / "watch" / "episode.csv")["reward"].sum()) == 1.0
    execute("03_explore_recording", tmp_path, run=tmp_path / "run", seed=4, num_simulations=2)


def test_an_unknown_parameter_stops_the_notebook(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="did you mean 'method'"):
        execute("20_train", tmp_path, method_="x")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_notebook_checks_all_of_its_parameters(path, monkeypatch):
    """Its cells up to `notebooks.parameters`, with names in place of all that they import."""
    cells = json.loads(path.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    [given] = ["".join(x["source"]) for x in cells if "parameters" in x["metadata"].get("tags", [])]
    own = [line.partition(":")[0] for line in given.splitlines()]
    call = next(x for x in code if "notebooks.parameters(" in x)
    tree = ast.parse(re.sub(r"^%.*$", "", call, flags=re.M))
    [names] = [
        node.args[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "notebooks.parameters"
    ]
    scope = {"runs": runs, "online": online, "worlds": worlds}
    assert set(eval(ast.unparse(names), scope)) == set(own)


def test_parameters_checks_what_papermill_injected_and_nothing_else():
    namespace = {"updates": 3, "mine": 1, "In": ["", "updates: int = 2  # default", "mine = 1"]}
    assert notebooks.parameters(namespace, ["updates"]) == {"updates": 3}
    namespace["In"].append("# Parameters\nupdates = 3\nupdate = 1\n")
    with pytest.raises(ValueError, match="unknown parameter 'update': did you mean 'updates'"):
        notebooks.parameters(namespace, ["updates"])


def test_a_kernel_started_among_the_notebooks_moves_to_the_root(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    notebooks.parameters({}, [])
    assert Path.cwd() == tmp_path / "notebooks"
    (tmp_path / "Snakefile").touch()
    notebooks.parameters({}, [])
    assert Path.cwd() == tmp_path


def test_select_scores_checkpoints(recorded, tmp_path):
    run = dict(dataset=recorded / "bsuite_catch_noise0.1.npz", method="bc", overrides=SMALL,
               seeds=[4], updates=10, eval_every=5, eval_episodes=2, holdout=0.2,
               keep_checkpoints=True, folder=tmp_path / "run")  # fmt: skip
    execute("20_train", tmp_path, **run)
    execute("22_select", tmp_path, **run, fqe_updates=5)
    rows = pd.read_csv(tmp_path / "run" / "selection.csv")
    assert rows["update"].tolist() == [5, 10] and rows["holdout_loss"].notna().all()


def test_a_table_goes_all_the_way_to_decisions(tmp_path):
    pytest.importorskip("flatbuffers")
    execute("02_your_data", tmp_path, process="drifting", episodes=60, methods=["bc", "rosmo"],
            updates=4, fqe_updates=4, overrides=SMALL, folder=tmp_path / "own")  # fmt: skip
    run = dict(dataset=tmp_path / "own" / "table.npz", environment="drifting", method="rosmo",
               overrides=SMALL, updates=4, eval_every=2, holdout=0.2,
               folder=tmp_path / "own" / "rosmo")  # fmt: skip
    execute("28_estimate", tmp_path, **run, fqe_updates=4, refits=2, resamples=20)
    rows = pd.read_csv(tmp_path / "own" / "rosmo" / "estimates.csv")
    assert rows["update"].tolist() == [4] and rows["fqe_low"].notna().all()
    execute("20_train", tmp_path, benchmark="logged", **run)  # It is done, and is drawn.
    cells = json.loads((tmp_path / "20_train.out.ipynb").read_text())["cells"]
    assert sum("image/png" in x.get("data", {}) for c in cells for x in c.get("outputs", [])) == 1


def test_explore_runs_from_data_to_comparison(tmp_path):
    execute("00_explore", tmp_path, updates=4, eval_every=2, eval_episodes=2, episodes=15,
            num_simulations=3, compare_seeds=1, folder=tmp_path / "explore")  # fmt: skip
    cells = json.loads((tmp_path / "00_explore.out.ipynb").read_text())["cells"]
    pictures = sum(
        "image/png" in output.get("data", {})
        for cell in cells
        for output in cell.get("outputs", [])
    )
    assert pictures == 3  # the learning curve, one state, the comparison


def longer_runs(results):
    """A profile's results whose longer runs are cloning, ROSMO on a game and a loss of Table 2."""
    root = NOTEBOOKS.parent
    results.mkdir(parents=True)
    (results.parent / "published").symlink_to(root / "results" / "published")
    for name in ("claims.csv", "claims_own.csv"):
        shutil.copy(root / "results" / name, results.parent)
    committed = root / "results" / "cpu"
    shutil.copy(committed / "minatar_statistics.csv", results)
    rows = pd.read_csv(committed / "minatar_curves.csv").query("update in (0, 5000, 10000)")
    rows = rows.query("method == 'bc' or (method == 'rosmo' and environment == 'asterix')")
    rows.assign(greedy_return=rows["mean_return"] + 1).to_csv(
        results / "pixels_curves.csv", index=False
    )
    shutil.copy(
        committed / "minatar_curves.provenance.json", results / "pixels_curves.provenance.json"
    )
    for name, method in (("fractions", "bc"), ("selectors", "supervised_q")):
        rows = pd.read_csv(committed / f"minatar_{name}.csv")
        rows = rows[rows["method"] == method]
        rows.to_csv(results / f"pixels_{name}.csv", index=False)
        shutil.copy(
            committed / f"minatar_{name}.provenance.json",
            results / f"pixels_{name}.provenance.json",
        )


def test_figures_of_atari_say_how_ours_differ(tmp_path):
    results, figures = tmp_path / "results" / "atari-cpu", tmp_path / "figures"
    results.mkdir(parents=True)
    committed = NOTEBOOKS.parent / "results" / "cpu" / "minatar_resnet.csv"
    row = pd.read_csv(committed).iloc[0].to_dict() | {
        "benchmark": "atari", "environment": "pong", "method": "bc", "overrides": "{}",
        "episodes": 4,
    }  # fmt: skip
    rows = [
        {**row, "run": "pong_bc", "seed": seed, "update": update, "mean_return": seed + update - 21}
        for seed in (0, 1)
        for update in (0, 10, 20)
    ]
    pd.DataFrame(rows).to_csv(results / "atari_curves.csv", index=False)
    record = json.loads(committed.with_suffix(".provenance.json").read_text())[row["run"]]
    record["parameters"]["dataset"] = "runs/atari-cpu/datasets/atari_pong_dqn0"
    record["settings"] |= {"network": "resnet", "representation": [16], "batch_size": 32}
    (results / "atari_curves.provenance.json").write_text(json.dumps({"pong_bc": record}))
    execute("70_atari_curves", NOTEBOOKS.parent, tmp_path, results=results, figures=figures)
    for name in ("curves", "table8.table", "overall.table"):
        caption = json.loads((figures / f"atari_{name}.json").read_text())["caption"]
        assert "2 seeds" in caption and len(re.split(r"(?<=[.!?]) ", caption)) <= 5
        assert "Ours: recordings made here, resnet of 1 x 16 channels, batches of 32, " in caption
        assert len(caption) <= 520 - len(" of 500,000 transitions"), caption
    table = pd.read_csv(figures / "atari_table8.table.csv").set_index("game")
    assert table.loc["pong", "bc"].startswith("-0.50 ±")


def test_figures_of_longer_runs_say_what_is_still_to_come(tmp_path):
    results, figures = tmp_path / "results" / "cpu", tmp_path / "figures"
    longer_runs(results)
    for name in ("41_minatar_curves", "45_minatar_low_data"):
        execute(name, NOTEBOOKS.parent, tmp_path, results=results, study="pixels", figures=figures)
    overall = pd.read_csv(figures / "pixels_overall.table.csv")
    assert overall["method"].tolist() == ["bc"] and overall["games"].tolist() == [5]
    returns = pd.read_csv(figures / "pixels_returns.table.csv", keep_default_na=False)
    assert list(returns)[-2:] == ["rosmo", "bc"]
    assert returns.set_index("game").loc["breakout", "rosmo"] == "n/a"
    for name in ("curves", "games", "improvement", "returns.table", "overall.table"):
        caption = json.loads((figures / f"pixels_{name}.json").read_text())["caption"]
        assert "Still to come: " in caption and "rosmo on breakout, freeway, seaquest" in caption
    details = json.loads((figures / "pixels_overall.table.json").read_text())["details"]
    assert "The last rows" not in details and "Still to come: " in details  # None is drawn.
    returns = json.loads((figures / "pixels_returns.table.json").read_text())
    assert "bc alone is there" in returns["verdict"] and "sample" in returns["details"]
    low = json.loads((figures / "pixels_low_data.json").read_text())["caption"]
    assert "rosmo on breakout, space_invaders" in low  # Of all the data, on these games.
