"""An accelerator of its own for each job: JAX takes most of a device's memory when it starts.

Products are in float32 there. By default GPUs round to TF32 and TPUs to bfloat16, which can change
the order of action values that lie close together.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from unplugged.common import files

VISIBLE = "CUDA_VISIBLE_DEVICES"
COUNT = "UNPLUGGED_DEVICES"  # as in unplugged.learning.parallel, which imports JAX
CUDA_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
TPU = "tpu"  # A process takes all chips of its host.
_GOOGLE = "0x1ae0"  # a TPU's vendor on the PCI bus
_PRECISION = {"JAX_DEFAULT_MATMUL_PRECISION": "float32"}


def of_listing(text: str, visible: str | None = None) -> list[str]:
    """UUIDs in what `nvidia-smi -L` prints; of a GPU that MIG divides, those of its parts.

    Args:
      text: a line a GPU, followed by a line for each of its parts.
      visible: CUDA_VISIBLE_DEVICES, places in the listing or beginnings of UUIDs; None for all.
        As in CUDA, what follows one that is not there does not count.
    """
    found: list[list[str]] = []
    for line in text.splitlines():
        if match := re.search(r"\(UUID: ([^)]+)\)", line):
            if line.startswith("GPU"):
                found.append([])
            found[-1].append(match[1])
    whole = [part for gpu in found for part in (gpu[1:] or gpu)]
    if visible is None:
        return whole
    chosen = []
    for name in filter(None, visible.split(",")):
        if name.strip().isdecimal():
            there = whole[int(name) : int(name) + 1]
        else:
            there = [uuid for uuid in whole if uuid.startswith(name.strip())]
        if not there:
            break
        chosen.append(there[0])
    return chosen


def here() -> list[str]:
    """Accelerators of this machine that JAX would use: UUIDs of GPUs, or `TPU`; none on a CPU."""
    if os.environ.get("JAX_PLATFORMS") == "cpu" or _given_none():
        return []
    if any(map(importlib.util.find_spec, CUDA_PLUGINS)):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            listing = subprocess.run(
                ["nvidia-smi", "-L"], check=True, capture_output=True, text=True, timeout=60
            )
            return of_listing(listing.stdout, os.environ.get(VISIBLE))
    if importlib.util.find_spec("libtpu"):
        vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
        if any(path.read_text().strip() == _GOOGLE for path in vendors):
            return [TPU]
    return []


def _given_none() -> bool:
    """Whether this is a job of SLURM without a GPU, which may still see those of others."""
    return "SLURM_JOB_ID" in os.environ and not os.environ.get(VISIBLE)


def leave() -> None:
    """Keeps JAX in this process, which only plans, on the CPU; what it starts is free to choose."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def wanted(devices: Sequence[str]) -> int:
    """How many of these devices a job is to have: UNPLUGGED_DEVICES, else one."""
    told = os.environ.get(COUNT, "")
    count = int(told) if told.isdecimal() else len(devices) if told == "all" else 1
    return max(1, min(count, len(devices)))


@contextlib.contextmanager
def own(folder: Path, devices: Sequence[str]) -> Iterator[dict[str, str]]:
    """Waits until enough devices are free and holds them; the system frees them with this process.

    Args:
      folder: where their locks are, the same for all jobs of a clone.
      devices: of the machine, from `here`.

    Yields:
      The environment by which a child sees these devices alone, and fails if it cannot use them;
      empty where there are none.
    """
    if not devices:
        yield {"JAX_PLATFORMS": "cpu"} if _given_none() else {}
        return
    with contextlib.ExitStack() as mine:
        taken: list[str] = []
        # One job at a time gathers its devices, or two could wait for each other.
        one = folder / f".devices-{socket.gethostname()}.lock"  # Nodes may share the folder.
        with files.lock(one, patience=float("inf"), busy="waits for a device"):
            while len(taken) < wanted(devices):
                for device in [x for x in devices if x not in taken]:
                    path = folder / f".device-{device.replace('/', '-')}.lock"
                    with contextlib.suppress(files.LockedError):
                        mine.enter_context(files.lock(path, patience=0.0, busy=device))
                        taken.append(device)
                        break
                else:
                    time.sleep(0.5)
        if taken == [TPU]:
            yield _PRECISION
        else:
            platforms = os.environ.get("JAX_PLATFORMS") or "cuda,cpu"
            visible = ",".join(sorted(taken, key=devices.index))
            yield {**_PRECISION, "JAX_PLATFORMS": platforms, VISIBLE: visible}
