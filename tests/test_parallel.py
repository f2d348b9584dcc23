"""Several devices and several hosts do what one device does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import pytest

from test_frames import made, source
from unplugged import datasets, frames, parallel
from unplugged.runs import training
from unplugged.settings import Settings

SCRIPT = Path(__file__).parent / "on_devices.py"


def begin(name, devices=1, environment=(), **arguments):
    """A process with that many devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    keep = {
        k: x for k, x in os.environ.items() if not k.startswith(("JAX_", "SLURM_", "UNPLUGGED"))
    }
    return subprocess.Popen(
        [sys.executable, SCRIPT, name, json.dumps(arguments)],
        env={**keep, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **dict(environment)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(*processes):
    """What they print; all have ended."""
    found = []
    try:
        for process in processes:
            out, error = process.communicate(timeout=300)
            assert process.returncode == 0, error[-3000:]
            found.append(out)
    finally:
        for process in processes:
            process.kill()
    return found


@pytest.fixture
def saved(tmp_path):
    """Made-up episodes of catch."""
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observation": rng.random([length + 1, 10, 5], np.float32),
            "action": rng.integers(3, size=length),
            "reward": rng.normal(size=length),
            "terminated": length % 2 == 0,
        }
        for length in range(3, 9)
    ]
    path = tmp_path / "catch.npz"
    metadata = {"environment": "catch", "num_actions": 3}
    datasets.save(datasets.from_episodes(episodes, metadata), path)
    return str(path)


@pytest.mark.slow
def test_updates_on_two_and_four_devices_are_those_of_one(saved):
    end(begin("updates", 4, dataset=saved))


@pytest.mark.slow
def test_each_device_is_fed_its_share(tmp_path):
    frames.convert(source(made()), tmp_path / "pong")
    end(begin("fed", 4, recording=str(tmp_path / "pong")))


@pytest.mark.slow
def test_two_hosts_train_one_run_that_goes_on_with_one_device(saved, tmp_path):
    common = {"dataset": saved}
    alone = begin("train", folder=str(tmp_path / "alone"), updates=4, **common)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hosts = [
        begin(
            "train", 1,
            {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2",
             "JAX_PROCESS_ID": str(number)},
            folder=str(tmp_path / ("run", "nowhere")[number]), updates=2, **common,
        )
        for number in range(2)
    ]  # fmt: skip
    for said in end(*hosts):
        assert json.loads(said.splitlines()[-1])["updates"] == [0, 2]
    assert not (tmp_path / "nowhere").exists()
    end(begin("train", folder=str(tmp_path / "run"), updates=4, **common), alone)
    one, several = (pd.read_csv(tmp_path / name / "results.csv") for name in ("alone", "run"))
    assert several["update"].tolist() == [0, 2, 4]
    np.testing.assert_allclose(several["loss"], one["loss"], rtol=1e-4)
    starts = json.loads((tmp_path / "run" / "provenance.json").read_text())["starts"]
    assert [start["updates_done"] for start in starts] == [0, 2]
    assert not list(tmp_path.glob("run/checkpoints.old*"))


def test_devices_that_cannot_be_had_are_named(monkeypatch):
    assert parallel.mesh(7) is None and parallel.mesh(7, "all") is None
    with pytest.raises(ValueError, match=r"2 devices are wanted, and there are 1 \(cpu\)"):
        parallel.mesh(8, 2)
    monkeypatch.setenv(parallel.DEVICES, "many")
    with pytest.raises(ValueError, match="must be a number or \"all\", got 'many'"):
        parallel.mesh(8)
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices() * 4)
    monkeypatch.setenv(parallel.DEVICES, "4")
    message = r"batch_size 6 cannot be divided among 4 devices: ask for 3, or set batch_size to 4"
    with pytest.raises(ValueError, match=message):
        parallel.mesh(6)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ValueError, match="set JAX_NUM_PROCESSES and JAX_PROCESS_ID as well"):
        parallel.connect()


@pytest.mark.parametrize(
    ("tasks", "gpus", "local"),
    [
        ("1(x2)", "4", [0, 1, 2, 3]),
        ("1", "8", list(range(8))),
        ("4(x2)", "4", None),
        ("1(x2)", "", None),
    ],
)
def test_a_task_that_is_alone_on_its_node_has_all_gpus_of_it(monkeypatch, tasks, gpus, local):
    told = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: told.update(given))
    for name, value in (
        ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_STEP_TASKS_PER_NODE", tasks),
        ("SLURM_GPUS_ON_NODE", gpus),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    parallel.connect()
    assert told == {"local_device_ids": local}


def test_what_cannot_be_divided_trains_on_one_device_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv(parallel.DEVICES, "4")
    online = SimpleNamespace(imagines=False, method="mzu", settings=Settings())
    learner = object()  # not the offline one
    assert training._divided(online, learner, None) is learner
    with pytest.raises(ValueError, match="4 devices are wanted"):
        training._divided(online, learner, 4)
