"""Who a run is: the programs that it runs, its data's checksum, and the versions beneath them.

A program is known by its lowered text (StableHLO), in which names do not count: code that
changes no program changes no run. An environment in Python is known by its source.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_DIGITS = 16  # hexadecimal, of every hash here
_PACKAGE = "unplugged"


def digest(*texts: str) -> str:
    """A hash of texts, 16 hexadecimal digits."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:_DIGITS]


def canonical(text: str) -> str:
    """A lowered program without names: of results none, and symbols numbered as they appear."""
    numbers: dict[str, int] = {}
    text = re.sub(r'jax\.result_info = "[^"]*"', "", text)
    symbol = r'@(?:"[^"]*"|[\w.$-]+)'
    return re.sub(symbol, lambda x: f"@{numbers.setdefault(x[0], len(numbers))}", text)


def of_program(function: Any, *arguments: Any) -> str:
    """A hash of a function as lowered for a CPU, whatever device there is.

    Args:
      function: what `jax.jit` returned.
      arguments: its arguments; of arrays shape and type count (`jax.ShapeDtypeStruct`), unless
        they are static.
    """
    import jax

    with jax.default_matmul_precision(None):  # What a device is told is no part of a program.
        lowered = function.trace(*arguments).lower(lowering_platforms=("cpu",))
    return digest(canonical(lowered.as_text()))


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The tree without what changes nothing; comments and layout are gone already."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
                node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]  # it has one
    return tree


def dump(node: Any) -> str:
    """A syntax tree as text, without empty fields: the same in every version of Python."""
    if isinstance(node, ast.AST):
        fields = [(name, x) for name, x in ast.iter_fields(node) if x is not None and x != []]
        return f"{type(node).__name__}({', '.join(f'{name}={dump(x)}' for name, x in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(dump, node))}]"
    return repr(node)


def of_code(code: str) -> str:
    """A hash of what Python code does: comments, docstrings and layout do not count."""
    return digest(dump(without_docstrings(ast.parse(textwrap.dedent(code)))))


def of_environment(environment: Any) -> str:
    """A hash of the source of an environment's classes and of its plain attributes.

    Those of all that it wraps count too. Attributes are its numbers and texts, such as a length or
    a time limit; they must not depend on more than how it was made.
    """
    found, waiting = [], [environment]
    while waiting:
        world = waiting.pop()
        for kind in type(world).__mro__:
            if kind.__module__.partition(".")[0] not in ("builtins", "abc", "typing", "dm_env"):
                found.append(of_code(_source(kind)))
        plain = (bool, int, float, str)
        held = {name: x for name, x in vars(world).items() if type(x) in plain}
        found.append(repr(sorted(held.items())))
        inner = [getattr(world, name, None) for name in ("_environment", "env")]
        waiting += [x for x in inner if x is not None]
    return digest(*found)


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # Typed at a prompt, or compiled: its name is all there is.
        return repr(kind.__qualname__)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of the compiler and of packages that a run's numbers depend on beside it."""
    return {name: importlib.metadata.version(name) for name in ("jaxlib", *packages)}


# --- The library's source, cheap to look at -----------------------------------------------------


@functools.cache
def _path(module: str) -> Path | None:
    """The file of a module of the library; None if that is no module."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _file(module: str) -> Path:
    """The file of a module of the library; raises KeyError if that is no module."""
    path = _path(module)
    if path is None:
        raise KeyError(f"there is no module {module!r}")
    return path


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """The library's modules that one imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(_file(module).read_text())):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module.partition(".")[0] == _PACKAGE:
            names = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
            found |= {name for name in names if _path(name)}
    return frozenset(found)


@functools.cache
def _code(module: str) -> str:
    """A hash of a module's code; of its imports the names count, not where they lie."""
    tree = without_docstrings(ast.parse(_file(module).read_text()))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            node.module = None
    return digest(dump(tree))


def of_modules(modules: Sequence[str], *, alone: bool = False) -> str:
    """A hash of the code of modules, and of all modules of the library that they import.

    Args:
      modules: their full names.
      alone: whether what they import does not count.

    Raises:
      KeyError: if there is no such module.
    """
    for module in modules:
        _file(module)
    seen, waiting = set(), list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += [] if alone else _imports(module)
    return digest(*sorted(map(_code, seen)))
