"""Planning with a learned model, online and offline: MuZero Unplugged, ROSMO and baselines.

One way through: dataset -> windows -> learner -> parameters -> evaluation -> results row. The
sub-packages, each of which imports only those before it: common, model, envs, planning, data,
recording, learning, runs, online. A module goes by its own name too, wherever it lies:
`from unplugged import losses`.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any

__version__ = "0.2.0"

_PLACES = {
    "common": ("checks", "files", "hashing", "memory", "notebooks"),
    "model": ("networks", "transforms", "world"),
    "envs": ("atari", "control", "environments", "games", "tabular"),
    "planning": ("acting", "improvement"),
    "data": (
        "bits",
        "coding",
        "datasets",
        "dqn_replay",
        "frame_stores",
        "frames",
        "importers",
        "logs",
        "minari_io",
        "npz",
        "rlu_atari",
        "rlu_control",
        "tfrecord",
        "windows",
    ),
    "recording": ("atari_dqn", "collect", "d4pg", "dqn"),
    "learning": (
        "contracts",
        "feeding",
        "imagination",
        "learner",
        "losses",
        "methods",
        "objectives",
        "parallel",
        "settings",
        "world_learner",
        "world_model",
        "world_settings",
    ),
    "runs": (
        "checkpoints",
        "decisions",
        "dreams",
        "evaluation",
        "heldout",
        "ope",
        "provenance",
        "selection",
        "timing",
        "worlds",
    ),
    "online": ("online_learner", "replay"),
}
_MODULES = {name: f"{__name__}.{place}.{name}" for place, of in _PLACES.items() for name in of}

# What was here before 0.2.0 and is part of the study now.
_STUDY = (
    "claims", "claims_muzero", "claims_rosmo", "comparisons", "gallery", "measures",
    "plots", "reports", "speed", "statistics", "tables",
)  # fmt: skip
_MODULES |= {name: f"reproduction.{name}" for name in _STUDY}


def __getattr__(name: str) -> Any:
    """A sub-package, or a module of one by its own name."""
    if name in (*_PLACES, "explore", "policy", "videos"):
        return importlib.import_module(f"{__name__}.{name}")
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _ByItsOwnName(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `unplugged.losses` at `unplugged.learning.losses`: the same module, not a copy."""

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != __name__ or name not in _MODULES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = importlib.import_module(_MODULES[spec.name.rpartition(".")[2]])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing: it is loaded; the import system has only put another spec in."""
        spec = module.__spec__
        if spec is not None and spec.loader is self:
            module.__spec__ = spec.loader_state


sys.meta_path.append(_ByItsOwnName())
