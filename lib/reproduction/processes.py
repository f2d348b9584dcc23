"""The pipeline's processes: known by a mark in their environment, and ended all together.

Kernels have sessions of their own, so that no signal to a group reaches them. Whatever they are in
the midst of can be cut off: files appear only when whole, and runs go on from checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import psutil

MARK = "UNPLUGGED_PIPELINE"  # environment variable, "process id of pipeline.py:its clone"
JOB = "SLURM_JOB_ID"  # environment variable of what a cluster runs, which is the cluster's to end
_LOOK_EVERY = 0.5  # seconds


def mark(root: Path) -> str:
    """The mark of what this process starts in a clone."""
    return f"{os.getpid()}:{root.resolve()}"


def marked(root: Path, only: str | None = None) -> list[psutil.Process]:
    """Running processes that a pipeline in this clone has started, itself and its own not.

    Args:
      root: the clone.
      only: the mark of one pipeline; None: of any.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # Another user's, or gone by now.
            environment = process.environ()
            if environment.get(JOB) != os.environ.get(JOB):
                continue
            of = environment.get(MARK, "")
            ours = of == only if only else of.partition(":")[2] == str(root.resolve())
            if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end(root: Path, only: str | None = None, *, patience: float = 20.0) -> int:
    """Ends processes that `marked` finds, and what they start meanwhile; returns how many.

    Raises:
      TimeoutError: if one cannot be ended, such as one that waits for a disk.
    """
    ended: set[int] = set()
    begin = time.monotonic()
    while left := marked(root, only):
        # The oldest first: it starts the others.
        for process in sorted(left, key=lambda one: one.create_time()):
            with contextlib.suppress(psutil.Error):
                process.kill()
                ended.add(process.pid)
        if time.monotonic() - begin > patience:
            raise TimeoutError(f"process {left[0].pid} of an earlier pipeline cannot be ended")
        psutil.wait_procs(left, timeout=0.2)
    return len(ended)


def _gone(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def watch(root: Path) -> None:
    """Ends this process and all of its pipeline soon after pipeline.py is gone, however it ended.

    Does nothing in a process that no pipeline.py has started, nor in a job of a cluster: that may
    be on another machine than pipeline.py, and goes on without it.
    """
    if not (own := os.environ.get(MARK, "")) or JOB in os.environ:
        return

    def look() -> None:
        while not _gone(int(own.partition(":")[0])):
            time.sleep(_LOOK_EVERY)
        with contextlib.suppress(TimeoutError):
            end(root, own)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
