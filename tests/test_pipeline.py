"""The pipeline end to end, in a copy of the repository: killed, resumed, redrawn, locked."""

import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from reproduction import checksums, plan, processes
from unplugged import files

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TINY = {
    "profile": "tiny",
    "datasets": [
        {"environment": "catch", "noise": [0.0], "episodes": 60},
        {"benchmark": "minatar", "environment": ["breakout"], "transitions": 1_000},
    ],
    "collection": {"seed": 0, "random_episodes": 10},
    "selection": {"experiment": "bsuite_holdout", "fqe_updates": 5},
    "evaluation": {"experiments": ["minatar_curves"], "methods": ["reanalyse"],
                   "environments": ["breakout"], "episodes": 2},
    "timing": {"experiment": "minatar_curves", "updates": 1, "seconds": 0.0, "repeats": 2},
    "videos": {"experiments": ["minatar_curves"], "methods": ["rosmo"],
               "environments": ["breakout"], "steps": 5},
    "experiments": {
        "bsuite_curves": {
            "grid": {"environment": ["catch"], "noise": [0.0], "method": ["bc", "rosmo"]},
            "common": {"benchmark": "bsuite", "seeds": [0, 1], "updates": 200, "eval_every": 20,
                       "eval_episodes": 3},
        },
        "bsuite_table2": {
            "together": True,
            "grid": {"environment": ["catch"], "method": ["bc"]},
            "common": {"noise": 0.0, "seeds": [0, 1], "updates": 20, "eval_every": 20,
                       "eval_episodes": 3, "overrides": {"decay_staircase": True}},
        },
        "bsuite_holdout": {
            "together": True,
            "grid": {"environment": ["catch"], "method": ["rosmo"]},
            "common": {"noise": 0.0, "seeds": [0, 1], "updates": 40, "eval_every": 20,
                       "eval_episodes": 3, "holdout": 0.2, "keep_checkpoints": True},
        },
        "minatar_curves": {
            "together": True,
            "grid": {"environment": ["breakout"], "method": ["rosmo", "mzu", "reanalyse"]},
            "common": {"benchmark": "minatar", "seeds": [0], "updates": 2, "eval_every": 1,
                       "eval_episodes": 2, "batch_size": 4, "num_simulations": 2},
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone")
    for name in ("Snakefile", "pipeline.py"):
        shutil.copy(ROOT / name, folder)
    for name in ("notebooks", "profiles", "results/published"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("claims.csv", "claims_own.csv"):
        shutil.copy(ROOT / "results" / name, folder / "results")
    (folder / "figures").mkdir()
    (folder / "profiles" / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return folder


def start(clone, *options, profile="tiny"):
    return subprocess.Popen(
        [sys.executable, "pipeline.py", "--profile", profile, "--cores", "2", *options],
        cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
        env={**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},  # As without tests.
    )  # fmt: skip


def finish(clone, *options, profile="tiny"):
    process = start(clone, *options, profile=profile)
    output, _ = process.communicate()
    return process.returncode, output


def stamps(folder):
    return {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def stop(clone, number):
    """Stops the pipeline by a signal in the midst of training; returns status and output."""
    kept = f"{clone}/runs/tiny/bsuite_curves/*rosmo*/checkpoints/seed_0/[0-9]*"
    before = set(glob.glob(kept))
    process = start(clone, "--", "runs/tiny/bsuite_curves/catch_rosmo_noise0/results.csv")
    try:
        deadline = time.time() + 600
        while not set(glob.glob(kept)) - before:
            assert process.poll() is None, process.stdout.read()
            assert time.time() < deadline
            time.sleep(0.05)
        assert len(processes.marked(clone)) >= 3  # Snakemake, papermill, a kernel.
    finally:
        process.send_signal(number)
        output, _ = process.communicate()
    return process.returncode, output


def test_end_to_end_over_a_kill(clone):
    # Stopped in the midst of training, nothing is left of it, not even a file ...
    code, output = stop(clone, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, output
    assert output.endswith("\nstopped; the same command goes on where this was cut off\n")
    assert processes.marked(clone) == [] and not (clone / "runs" / ".tmp").exists()

    # ... and killed, it soon ends, though nobody could tell it to.
    stop(clone, signal.SIGKILL)
    deadline = time.time() + 20
    while processes.marked(clone):
        assert time.time() < deadline
        time.sleep(0.1)
    assert not (clone / "figures" / "README.md").exists()
    checkpoints = clone / "runs" / "tiny" / "bsuite_curves"

    # ... the same command goes on to the end.
    code, output = finish(clone)
    assert code == 0, output
    rows = pd.read_csv(clone / "results" / "tiny" / "bsuite_curves.csv")
    assert len(rows) == 2 * 2 * 11 and set(rows["method"]) == {"bc", "rosmo"}
    gallery = (clone / "figures" / "README.md").read_text()
    drawn = ("bsuite_curves", "bsuite_returns", "bsuite_iqm", "bsuite_datasets", "bsuite_selection",
             "minatar_datasets", "minatar_curves", "minatar_selectors")  # fmt: skip
    for name in drawn:
        assert f"tiny/{name}.png" in gallery
        assert (clone / "figures" / "tiny" / f"{name}.pdf").stat().st_size > 1_000
    assert "tiny/minatar_agents.gif" in gallery and "2 updates: rosmo from left" in gallery
    assert "2 seeds, 200 updates, 3 episodes" in gallery and "- `rosmo`: ROSMO" in gallery
    assert "| staircase " in gallery and "Staircase decay, 20 updates: R8" in gallery
    scores = pd.read_csv(clone / "results" / "tiny" / "bsuite_selection.csv")
    assert len(scores) == 2 * 2 and scores["fqe_return"].notna().all()
    decided = pd.read_csv(clone / "results" / "tiny" / "claims.csv")
    run = decided[decided["claim_verdict"] != "not run"]
    assert {"M5"} <= set(run["id"]) <= {"M5", "R11"}  # No other is about these methods alone.
    acted = pd.read_csv(clone / "results" / "tiny" / "minatar_selectors.csv")
    assert list(acted["selector"]) == ["policy", "greedy", "value", "search"]
    assert set(acted["update"]) == {2}
    times = pd.read_csv(clone / "results" / "tiny" / "minatar_times.csv")
    assert list(times["method"]) == ["rosmo", "mzu", "reanalyse"] * 2
    assert (times["seconds"] > 0).all()
    assert not list(checkpoints.glob("*/checkpoints.old*"))
    assert not (clone / "runs" / ".tmp").exists()
    assert checksums.complaints(clone / "results" / "tiny") == []

    # Once more: nothing is done again, also where a notebook was saved in JupyterLab.
    before = stamps(clone / "runs" / "tiny")
    os.utime(clone / "notebooks" / "20_train.ipynb")
    code, output = finish(clone)
    assert code == 0 and "Nothing to be done" in output
    assert stamps(clone / "runs" / "tiny") == before

    # A changed caption redraws its notebook's figures, and nothing else.
    caption = clone / "notebooks" / "captions" / "31_bsuite_datasets.yaml"
    text = caption.read_text()
    caption.write_text(text.replace("bsuite's default DQN", "the default DQN"))
    code, output = finish(clone, "--", "-n")
    assert code == 0 and set(re.findall(r"^(\w+) +1$", output, re.M)) == {
        "all", "draw_31_bsuite_datasets", "gallery",
    }, output  # fmt: skip
    caption.write_text(text)

    # An edited number is no result: refused, named, and gathered again if it is deleted.
    table = clone / "results" / "tiny" / "bsuite_curves.csv"
    gathered = table.read_text()
    table.write_text(gathered.replace(",0.", ",1."))
    acted = clone / "runs" / "tiny" / "minatar_curves" / "breakout_reanalyse" / "selectors.csv"
    played = acted.read_text()
    acted.write_text(played.replace(",0.", ",1.") + "\n")
    code, output = finish(clone)
    assert code == 2 and "error: results/tiny/bsuite_curves.csv is not as it was gathered" in output
    assert f"error: {acted.relative_to(clone)} is not as its notebook wr" in output
    table.unlink()
    acted.write_text(played)
    code, output = finish(clone, "--", "results/tiny/bsuite_curves.csv")
    assert code == 0 and table.read_text() == gathered, output

    # From committed results alone, figures are redrawn to the same bytes, nothing is trained.
    drawn = {
        p.name: p.read_bytes()
        for p in (clone / "figures" / "tiny").iterdir()
        if p.stem != "minatar_agents"  # It needs checkpoints.
    }
    for folder in ("runs", ".snakemake", "figures"):
        shutil.rmtree(clone / folder)
    (clone / "figures").mkdir()
    code, output = finish(clone, "--", "-n")
    assert code == 0 and re.search(r"^train +2$", output, re.M), output
    assert re.search(r"^train_minatar_curves +1$", output, re.M), output
    code, output = finish(clone, "--figures")
    assert code == 0, output
    assert "32_bsuite_fractions is not drawn: no bsuite_fractions in profile tiny" in output
    (clone / "results" / "tiny" / "bsuite_selection.csv").unlink()
    code, output = finish(clone, "--figures", "--", "-n")
    missing = "37_bsuite_selection is not drawn: no results/tiny/bsuite_selection.csv"
    assert code == 0 and missing in output
    code, output = finish(clone, "--progress")
    assert code == 0 and "0 of 7 runs" in output
    assert {p.name: p.read_bytes() for p in (clone / "figures" / "tiny").iterdir()} == drawn
    assert not (clone / "runs" / "tiny" / "bsuite_curves").exists()
    assert not (clone / "runs" / "tiny" / "datasets").exists()

    # Committed results can be taken for runs that are done: only what is new is trained.
    code, output = finish(clone, "--adopt")
    assert code == 0 and "bsuite_curves: 2 runs taken" in output, output
    more = yaml.safe_load(yaml.safe_dump(TINY))
    more["experiments"]["bsuite_curves"]["grid"]["method"].append("onestep")
    pixels = more["experiments"]["minatar_curves"]
    pixels["grid"] = [
        {**pixels["grid"], "method": ["rosmo", "reanalyse"]},
        {**pixels["grid"], "method": ["mzu"], "updates": [3]},
    ]
    (clone / "profiles" / "tiny.yaml").write_text(yaml.safe_dump(more))
    code, output = finish(clone, "--", "-n")
    assert code == 0 and "minatar_curves/breakout_mzu is another run now" in output
    made = re.findall(r"^(train\w*|evaluate|select) +(\d+)$", output, re.M)
    assert set(made) == {("train", "1")}, output
    assert "bsuite_selection is not made: 1 of its runs" in output
    assert "37_bsuite_selection is not drawn: no bsuite_selection" in output
    mzu = clone / "runs" / "tiny" / "minatar_curves" / "breakout_mzu" / "results.csv"
    assert mzu.exists()  # Nothing goes where nothing is run.


def test_two_pipelines_in_one_clone(clone):
    (clone / "runs").mkdir(exist_ok=True)
    with files.lock(clone / "runs" / ".lock", patience=0.0, busy=""):
        code, output = finish(clone)
    assert code == 2 and "another pipeline is at work in this clone" in output


def test_an_unknown_profile(clone):
    code, output = finish(clone, profile="smok")
    assert code == 2 and "unknown profile 'smok': did you mean 'smoke'" in output


def test_a_wrong_profile_is_refused_before_any_work(clone):
    wrong = yaml.safe_load(yaml.safe_dump({**TINY, "profile": "z;touch PWNED;true "}))
    wrong["experiments"]["bsuite_curves"]["grid"].update(
        {"method": ["rosmoo"], "environment": ["cacth"], "fraction": [2.0], "colour": ["red"]}
    )
    path = clone / "profiles" / "wrong.yaml"
    path.write_text(yaml.safe_dump(wrong))
    before = stamps(clone)
    code, output = finish(clone, profile="wrong")
    assert code == 2 and "Traceback" not in output
    for message in ("touch PWNED", "did you mean 'rosmo'", "cacth", "fraction must lie", "colour"):
        assert re.search(f"^error: profiles/wrong.yaml: .*{message}", output, re.M), output
    assert "must be a multiple" not in output  # What is left out leaves nothing else wrong.
    assert stamps(clone) == before

    # Snakemake by itself refuses it as well.
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--configfile", path, "--cores", "1"],
        cwd=clone, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "is no name for profiles" in done.stderr
    assert not list(clone.rglob("*PWNED*")) and not (clone / "runs" / "wrong").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_profile_plans(path):
    wanted = plan.plan(yaml.safe_load(path.read_text()))
    assert wanted.specs and wanted.collections


def test_snakemake_plans_a_profile_from_nothing(clone):
    code, output = finish(clone, "--", "-n", profile="quick")
    assert code == 0 and "draw_01_first_figure" in output, output


def test_on_a_cluster_what_trains_or_acts_has_a_gpu(clone):
    given = yaml.safe_load((clone / "profiles/slurm/config.yaml").read_text())["set-resources"]
    options = [f"{rule}:{name}={x}" for rule, of in given.items() for name, x in of.items()]
    new = {**TINY, "profile": "cluster"}  # Nothing of it is done yet.
    (clone / "profiles" / "cluster.yaml").write_text(yaml.safe_dump(new))
    code, output = finish(clone, "--", "-n", "--set-resources", *options, profile="cluster")
    assert code == 0, output
    jobs = re.findall(r"^rule (\w+):\n(?: .*\n)*? +resources: (.*)$", output, re.M)
    alike = {"train", "train_minatar_curves", "watch_minatar_agents", "select", "evaluate", "time"}
    assert alike <= {rule for rule, resources in jobs if "gpu=1" in resources}, jobs
    drawn = [resources for rule, resources in jobs if rule.startswith("draw_")]
    assert drawn and not any("gpu" in resources for resources in drawn)


@pytest.mark.parametrize("profile, collected, trained", [("atari", 12, 60), ("atari-cpu", 2, 10)])
def test_snakemake_plans_atari_whole(clone, profile, collected, trained):
    wanted, name = ["-n", "--quiet", "rules"], profile
    if profile == "atari-cpu":  # Timing needs recordings, too.
        timed = yaml.safe_load((clone / "profiles" / "atari-cpu.yaml").read_text())
        timed["timing"] = {**TINY["timing"], "experiment": "atari_curves"}
        (clone / "profiles" / "timed.yaml").write_text(yaml.safe_dump(timed))
        wanted, name = ["all", "results/atari-cpu/atari_times.csv", *wanted], "timed"
    code, output = finish(clone, "--", *wanted, profile=name)
    assert code == 0, output
    found = dict(re.findall(r"^(\w+) +(\d+)$", output, re.M))
    assert found.get("time") == ("2" if profile == "atari-cpu" else None)
    assert found["collect_frames"] == str(collected) and found["train"] == str(trained)
    assert found["draw_70_atari_curves"] == "1"
    missing = "there is no folder data/atari_episodes_ordered (files_in), and 12 games, such as"
    assert (f"warning: {missing} amidar" in output) == (profile == "atari")
    if profile == "atari":
        code, output = finish(clone, profile=profile)
        assert code == 2 and output.startswith(f"error: {missing}")


def test_a_runs_folder_that_cannot_be_written(clone):
    shutil.rmtree(clone / "runs", ignore_errors=True)
    (clone / "runs").write_text("in the way")
    try:
        code, output = finish(clone)
        assert code == 2 and "cannot write to the folder" in output
    finally:
        (clone / "runs").unlink()


def test_each_folder_that_cannot_be_written_is_named(clone):
    in_the_way = [clone / name for name in ("results/new", "figures/new", ".snakemake")]
    (clone / "profiles" / "new.yaml").write_text(yaml.safe_dump({**TINY, "profile": "new"}))
    shutil.rmtree(in_the_way[-1], ignore_errors=True)
    for path in in_the_way:
        path.write_text("in the way")
    try:
        code, output = finish(clone, profile="new")
    finally:
        for path in in_the_way:
            path.unlink()
    assert code == 2
    for path in in_the_way:
        assert f"error: cannot write to the folder {path.relative_to(clone)}" in output
