"""Jobs of the pipeline on a machine with accelerators: each has its own."""

import os
import subprocess
import sys
import threading

import pytest

from reproduction import devices

TWO = """GPU 0: NVIDIA H200 (UUID: GPU-aa11)
GPU 1: NVIDIA H200 (UUID: GPU-bb22)
"""
DIVIDED = """GPU 0: NVIDIA H200 (UUID: GPU-aa11)
  MIG 1g.18gb     Device  0: (UUID: MIG-c0)
  MIG 1g.18gb     Device  1: (UUID: MIG-c1)
GPU 1: NVIDIA H200 (UUID: GPU-bb22)
"""


@pytest.mark.parametrize(
    ("text", "visible", "found"),
    [
        (TWO, None, ["GPU-aa11", "GPU-bb22"]),
        (TWO, "1", ["GPU-bb22"]),
        (TWO, "1,0", ["GPU-bb22", "GPU-aa11"]),
        (TWO, "GPU-bb", ["GPU-bb22"]),
        (TWO, "0,7,1", ["GPU-aa11"]),
        (TWO, "-1", []),
        (TWO, "", []),
        (DIVIDED, None, ["MIG-c0", "MIG-c1", "GPU-bb22"]),
        (DIVIDED, "MIG-c1", ["MIG-c1"]),
        ("No devices were found\n", None, []),
    ],
)
def test_devices_are_those_that_cuda_would_see(text, visible, found):
    assert devices.of_listing(text, visible) == found


def test_gpus_count_only_where_jax_can_use_them(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{TWO}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("JAX_PLATFORMS", "SLURM_JOB_ID", devices.VISIBLE):
        monkeypatch.delenv(name, raising=False)
    plugins = set()
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name in plugins or None)
    assert devices.here() == []
    plugins.add("jax_cuda12_plugin")
    assert devices.here() == ["GPU-aa11", "GPU-bb22"]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert devices.here() == []
    monkeypatch.delenv("JAX_PLATFORMS")
    tool.unlink()
    assert devices.here() == []


def test_a_job_waits_until_a_device_is_free(tmp_path, monkeypatch):
    monkeypatch.delenv(devices.COUNT, raising=False)
    there = ["GPU-aa11", "GPU-bb22"]
    third = []

    def wait():
        with devices.own(tmp_path, there) as visible:
            third.append(visible[devices.VISIBLE])

    with devices.own(tmp_path, there) as first:
        with devices.own(tmp_path, there) as second:
            assert {first[devices.VISIBLE], second[devices.VISIBLE]} == set(there)
            waiting = threading.Thread(target=wait)
            waiting.start()
            waiting.join(0.3)
            assert third == []
        waiting.join(30)
        assert third == [second[devices.VISIBLE]]


@pytest.mark.parametrize(
    ("told", "seen"),
    [("2", "GPU-a,GPU-b"), ("all", "GPU-a,GPU-b,GPU-c"), ("9", "GPU-a,GPU-b,GPU-c")],
)
def test_a_run_over_several_devices_has_them_all(tmp_path, monkeypatch, told, seen):
    monkeypatch.setenv(devices.COUNT, told)
    monkeypatch.setenv("JAX_PLATFORMS", "")
    with devices.own(tmp_path, ["GPU-a", "GPU-b", "GPU-c"]) as visible:
        assert visible == {
            devices.VISIBLE: seen, "JAX_PLATFORMS": "cuda,cpu",
            "JAX_DEFAULT_MATMUL_PRECISION": "float32",
        }  # fmt: skip


def test_a_cpu_and_a_tpu_are_told_nothing(tmp_path):
    with devices.own(tmp_path, []) as nothing, devices.own(tmp_path, [devices.TPU]) as chips:
        assert nothing == {} and chips == {"JAX_DEFAULT_MATMUL_PRECISION": "float32"}
    assert len(list(tmp_path.iterdir())) == 2  # the device's lock, and that of those who wait


def test_a_job_of_slurm_without_a_gpu_takes_none(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    assert devices.here() == []
    with devices.own(tmp_path, []) as told:
        assert told == {"JAX_PLATFORMS": "cpu"}


def test_what_plans_leaves_devices_to_what_it_starts():
    code = (
        "import os, jax; from reproduction import devices; devices.leave(); "
        "print(jax.config.jax_platforms, os.environ.get('JAX_PLATFORMS'))"
    )
    environment = {name: x for name, x in os.environ.items() if name != "JAX_PLATFORMS"}
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    assert said.stdout.split() == ["cpu", "None"]
