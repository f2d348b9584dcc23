"""A job of the pipeline: a notebook, run headless, and the checksums of what it wrote.

python -m reproduction.job NOTEBOOK EXECUTED LOG PARAMETERS RUNS OUTPUT ...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from reproduction import checksums, devices, processes


def as_yaml(parameters: str) -> str:
    """JSON as YAML with the same values: to YAML the number 1e-05 is a text, 1.0e-05 is none."""
    return yaml.safe_dump(json.loads(parameters), default_flow_style=True, width=10**6)


def run(
    notebook: str, executed: str, log: str, parameters: str, runs: str, outputs: Sequence[str]
) -> int:
    """Runs a notebook by papermill; what it writes beside its outputs is gone with it.

    On a machine with accelerators it waits for one that is free.

    Args:
      notebook: its path.
      executed: where its executed copy goes.
      log: where what it prints goes.
      parameters: JSON.
      runs: the profile's folder of runs. Checksums are kept of the outputs in it.
      outputs: what the notebook makes.

    Returns:
      papermill's exit status.
    """
    checksums.forget(runs, outputs)  # Cut off from here on, they are nobody's.
    with (
        devices.own(Path(runs).parent, devices.here()) as visible,
        tempfile.TemporaryDirectory() as own,
        open(log, "w") as said,
    ):
        places = dict.fromkeys(("TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"), own)
        code = subprocess.run(
            [sys.executable, "-m", "reproduction.papermill", notebook, executed, "-k", "python3",
             "-l", "python", "--no-progress-bar", "-y", as_yaml(parameters)],
            stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **places, **visible},
        ).returncode  # fmt: skip
    if code == 0:
        checksums.note(runs, [path for path in outputs if Path(path).is_relative_to(runs)])
    return code


if __name__ == "__main__":
    processes.watch(Path.cwd())
    *first, runs = sys.argv[1:6]
    sys.exit(run(*first, runs, sys.argv[6:]))
