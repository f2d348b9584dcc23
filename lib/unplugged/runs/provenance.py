"""Where a result comes from: code, versions, device, parameters, times."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from unplugged.common import files

_PACKAGES = (
    "unplugged", "jax", "jaxlib", "dm-haiku", "optax", "mctx", "rlax", "numpy", "bsuite",
    "gymnasium",
)  # fmt: skip


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def git_revision() -> str | None:
    """The commit checked out, with "+" if library or notebooks differ; None outside git."""
    root = Path(__file__).parents[3]
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "lib", "notebooks"], capture_output=True, text=True
        )
    except OSError:
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def describe() -> dict[str, Any]:
    """Code revision, package versions and device."""
    device = jax.devices()[0]
    return {
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "platform": platform.system() + " " + platform.machine(),
        "device": f"{device.platform}: {device.device_kind}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def write(path: str | os.PathLike[str], parameters: Mapping[str, Any], **more: Any) -> None:
    """Writes a record of what was done just now, by which code and where.

    Args:
      path: the JSON file.
      parameters: of a notebook.
      more: further entries.
    """
    record = {"parameters": dict(parameters), **more, "end": now(), **describe()}
    files.write_whole(path, json.dumps(record, indent=1, sort_keys=True))
