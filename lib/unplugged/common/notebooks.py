"""Parameters of a notebook: papermill only warns of unknown ones, this raises."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unplugged.common import checks

_INJECTED = "# Parameters"  # How papermill begins the cell that it injects.

# What the types of a parameters cell stand for.
_TYPES: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "list": Sequence[Any],
    "dict": Mapping[str, Any],
}


def _declared(cells: Iterable[str]) -> dict[str, Any]:
    """Types by name of the parameters cell, the first with a typed assignment."""
    for cell in cells:
        try:
            statements = ast.parse(cell).body
        except SyntaxError:  # One with a magic.
            continue
        found = {}
        for one in statements:
            if isinstance(one, ast.AnnAssign) and one.value is not None:
                hint = _TYPES.get(ast.unparse(one.annotation), Any)
                optional = isinstance(one.value, ast.Constant) and one.value.value is None
                found[ast.unparse(one.target)] = hint | None if optional else hint
        if found:
            return found
    return {}


def parameters(namespace: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The notebook's parameters, with those that papermill injected checked by name and type.

    Relative paths mean the repository's root: a kernel that JupyterLab started in
    `notebooks/` moves one folder up.

    Args:
      namespace: `globals()` of the notebook, after its parameters cell.
      names: the parameters that the notebook has.

    Returns:
      Value by name.

    Raises:
      ValueError: if an injected parameter is none of `names`, naming the nearest, or one is not of
        the type that its cell says.
    """
    names = list(names)
    cells = namespace.get("In", ())
    for cell in cells:
        if cell.startswith(_INJECTED):
            for statement in ast.parse(cell).body:
                for target in getattr(statement, "targets", ()):
                    checks.one_of("parameter", target.id, names)
    for name, hint in _declared(cells).items():
        if name in names:
            checks.of_type(name, namespace[name], hint)
    here = Path.cwd()
    if here.name == "notebooks" and (here.parent / "Snakefile").exists():
        os.chdir(here.parent)
    return {name: namespace[name] for name in names}
