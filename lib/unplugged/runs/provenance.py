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


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two descriptions of versions and device: "jax 0.10.2, was 0.10.1"."""
    names = ("python", "device", "platform")
    pairs = [(name, before.get(name), after[name]) for name in names]
    packages = before.get("packages", {})
    pairs += [(name, packages.get(name), of) for name, of in after["packages"].items()]
    return [f"{name} {now}, was {then}" for name, then, now in pairs if now != then]


def add_start(path: Path, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Notes that a process begins to train; says what changed since the one before.

    Args:
      path: the JSON file with all starts of a run.
      entry: what is said of this one, beside the code, versions and device.

    Returns:
      All starts, this one last; `changed` says what is another version or device than before.
    """
    starts = read_starts(path)
    start = {**entry, **describe()}
    if starts and (changed := changes(starts[-1], start)):
        start["changed"] = changed
        print(f"this run was begun with others: {'; '.join(changed)}", flush=True)
    starts.append(start)
    files.write_whole(path, json.dumps(starts, indent=1, sort_keys=True))
    return starts


def read_starts(path: Path) -> list[dict[str, Any]]:
    """All starts of a run that were noted; damaged, the file is set aside and named."""
    if not path.exists():
        return []
    try:
        return list(json.loads(path.read_text()))
    except ValueError:
        aside = path.with_name(f"damaged-{path.name}")
        print(f"{path} is damaged, and what it told of earlier starts is lost: it is now {aside}")
        path.rename(aside)
        return []


def write(path: str | os.PathLike[str], parameters: Mapping[str, Any], **more: Any) -> None:
    """Writes a record of what was done just now, by which code and where.

    Args:
      path: the JSON file.
      parameters: of a notebook.
      more: further entries.
    """
    record = {"parameters": dict(parameters), **more, "end": now(), **describe()}
    files.write_whole(path, json.dumps(record, indent=1, sort_keys=True))
