"""Parameters of a notebook: papermill only warns of unknown ones, this raises."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unplugged.common import checks

_INJECTED = "# Parameters"  # How papermill begins the cell that it injects.


def parameters(namespace: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The notebook's parameters, with those that papermill injected checked by name.

    Relative paths mean the repository's root: a kernel that JupyterLab started in
    `notebooks/` moves one folder up.

    Args:
      namespace: `globals()` of the notebook, after its parameters cell.
      names: the parameters that the notebook has.

    Returns:
      Value by name.

    Raises:
      ValueError: if an injected parameter is none of `names`, naming the nearest.
    """
    names = list(names)
    for cell in namespace.get("In", ()):
        if cell.startswith(_INJECTED):
            for statement in ast.parse(cell).body:
                for target in getattr(statement, "targets", ()):
                    checks.one_of("parameter", target.id, names)
    here = Path.cwd()
    if here.name == "notebooks" and (here.parent / "Snakefile").exists():
        os.chdir(here.parent)
    return {name: namespace[name] for name in names}
