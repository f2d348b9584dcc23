"""The pipeline on a SLURM of one node, a job of it requeued in the midst of training.

It starts the daemons itself, as root, where Debian's slurm-wlm and munge are installed and
nothing is configured yet: in a container of its own. Elsewhere it is skipped.
"""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
CONFIGURATION = Path("/etc/slurm/slurm.conf")  # jobs look nowhere else
PROFILE = """
profile: tiny
datasets: [{environment: catch, noise: [0.0], episodes: 40}]
collection: {seed: 0, random_episodes: 10}
experiments:
  quick_catch:
    grid: {environment: [catch], method: [bc]}
    common: {benchmark: bsuite, noise: 0.0, seeds: [0], updates: 60000, eval_every: 2000,
             eval_episodes: 3, overrides: {batch_size: 32}}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("slurmctld") is None or os.geteuid() != 0 or CONFIGURATION.exists(),
        reason="no SLURM to be set up by root",
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_executor_plugin_slurm") is None,
        reason="needs snakemake-executor-plugin-slurm, which is an extra",
    ),
]


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def wait_for(what, seconds=600):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(1.0)
    return found


@pytest.fixture
def cluster(tmp_path):
    """SLURM's daemons, and munge, on this machine."""
    key = Path("/etc/munge/munge.key")
    if not key.exists():
        key.write_bytes(os.urandom(1024))
        run("chown", "munge:munge", key)
        key.chmod(0o400)
    Path("/run/munge").mkdir(exist_ok=True)
    run("chown", "munge:munge", "/run/munge")
    subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "munged"], check=False)
    host, state = socket.gethostname().partition(".")[0], tmp_path / "slurm"
    (state / "controller").mkdir(parents=True)
    CONFIGURATION.parent.mkdir(exist_ok=True)
    CONFIGURATION.write_text(
        f"""ClusterName=one
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/node
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} CPUs={os.cpu_count()} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
    )
    try:
        run("slurmctld")
        run("slurmd")
        wait_for(lambda: "idle" in run("sinfo", "-h", "-o", "%t"), 60)
        yield
    finally:
        subprocess.run(["scancel", "--user", "root"], check=False)
        for name in ("slurmd", "slurmctld"):
            subprocess.run(["pkill", "-x", name], check=False)
        CONFIGURATION.unlink()


def test_a_requeued_job_goes_on_from_its_checkpoint(cluster, tmp_path):
    clone = tmp_path / "clone"
    for name in ("lib", "notebooks", "profiles", "results"):
        shutil.copytree(ROOT / name, clone / name)
    for name in ("Snakefile", "pipeline.py"):
        shutil.copy(ROOT / name, clone)
    (clone / "profiles" / "tiny.yaml").write_text(PROFILE)
    environment = {**os.environ, "PYTHONPATH": str(clone / "lib")}
    with (tmp_path / "log").open("w") as log:
        pipeline = subprocess.Popen(
            [sys.executable, "pipeline.py", "--profile", "tiny", "--cores", "2", "--",
             "--profile", "profiles/slurm", "--set-resources", "train:gpu=0", "train:mem_mb=2000",
             "train:cpus_per_task=1", "collect:mem_mb=2000",
             "--default-resources", "mem_mb=2000"],
            cwd=clone, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    folder = clone / "runs" / "tiny" / "quick_catch" / "catch_bc"
    wait_for(lambda: list(folder.glob("checkpoints/seed_0/*")) or pipeline.poll() is not None)
    assert pipeline.poll() is None, (tmp_path / "log").read_text()[-3000:]
    (job,) = run("squeue", "-h", "-t", "running", "-o", "%A").split()
    run("scontrol", "requeue", job)
    run("scontrol", "update", f"JobId={job}", "StartTime=now")
    assert pipeline.wait(900) == 0, (tmp_path / "log").read_text()[-3000:]
    rows = pd.read_csv(folder / "results.csv")
    assert rows["update"].tolist() == list(range(0, 60_001, 2_000))
    record = json.loads((folder / "provenance.json").read_text())
    assert len(record["starts"]) == 2
