"""Parameters of a notebook: papermill only warns of unknown ones, this raises."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any

from unplugged import checks

_SHELL = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def parameters(namespace: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The notebook's parameters, read from its globals right after the parameters cell.

    Args:
      namespace: `globals()` of the notebook, in which nothing else was assigned yet.
      names: the parameters that the notebook has.

    Returns:
      Value by name.

    Raises:
      ValueError: if an injected parameter is none of `names`, naming the nearest.
    """
    names = list(names)
    for name, value in namespace.items():
        imported = isinstance(value, (types.ModuleType, types.FunctionType, type))
        if name.startswith("_") or name in _SHELL or imported:
            continue
        checks.one_of("parameter", name, names)
    return {name: namespace[name] for name in names}
