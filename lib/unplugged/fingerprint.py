"""A fingerprint of the code that a run depends on, so that a change reruns what it touches.

Comments, docstrings and layout do not count; nor does code that the run cannot reach: a
method, environment or network added beside the others leaves their fingerprints alone.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import inspect
import json
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

_PACKAGE = Path(__file__).parent


class _Definition(NamedTuple):
    """A module-level definition: its code, and the definitions "module.name" it refers to."""

    code: str
    refers: set[str]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
                node.body = body[1:] or [ast.Pass()]
    return tree


def _imports(tree: ast.Module) -> dict[str, str]:
    """Local name to what it stands for in the library: "module" or "module.name"."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(_PACKAGE.name):
            inside = node.module.removeprefix(_PACKAGE.name).lstrip(".")
            for alias in node.names:
                full = f"{inside}.{alias.name}" if inside else alias.name
                found[alias.asname or alias.name] = full
    return found


def _references(node: ast.AST, module: str, imports: dict[str, str]) -> set[str]:
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found.add(imports.get(part.id, f"{module}.{part.id}"))
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            if part.value.id in imports:
                found.add(f"{imports[part.value.id]}.{part.attr}")
    return found


def _is_table(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Dict) and all(
        isinstance(key, ast.Constant) and isinstance(key.value, str) for key in node.keys
    )


@functools.cache
def _definitions() -> dict[str, list[_Definition]]:
    """Every module-level definition of the library, by "module.name".

    An entry of a table (a dict with string keys) is a definition of its own, by its key; the
    table's name alone leads to none of its entries.
    """
    found: dict[str, list[_Definition]] = {}
    for path in sorted(_PACKAGE.glob("*.py")):
        module, tree = path.stem, _without_docstrings(ast.parse(path.read_text()))
        imports = _imports(tree)

        def add(name: str, node: ast.AST, module: str = module, imports: dict = imports) -> None:
            definition = _Definition(ast.dump(node), _references(node, module, imports))
            found.setdefault(f"{module}.{name}", []).append(definition)

        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                add(node.name, node)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                if _is_table(node.value):
                    for key, value in zip(node.value.keys, node.value.values):
                        add(key.value, value)
                    continue
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name) and node.value is not None:
                        add(target.id, node.value)
        for node in tree.body:
            if isinstance(node, ast.Expr):  # f.defvjp(g) is part of both f and g.
                names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
                for name in sorted(names):
                    if f"{module}.{name}" in found:
                        add(name, node)
    return found


def defines(name: str) -> bool:
    """Whether the library defines "module.name"."""
    return name in _definitions()


def of_functions(functions: Mapping[str, Callable], roots: Iterable[str], rest: str) -> str:
    """Fingerprint of functions by their part, some of them not the library's, as a notebook's.

    Of the library's own, all that they lead to counts, as of `roots`; of one's own, their
    source, defaults and what they hold or refer to, one's own functions and values in turn; of
    other packages, the name.

    Args:
      functions: part that a function plays -> the function.
      roots: as for `of_library`.
      rest: whatever else the fingerprint is of.

    Raises:
      ValueError: if a function's source is not to be had, or a value that it refers to cannot
        be told from another.
    """
    found = _Described()
    texts = [f"{part}\n{found.value(function)}\n" for part, function in functions.items()]
    digest = hashlib.sha256("".join([rest, *texts]).encode()).hexdigest()[:16]
    return f"{of_library([*roots, *found.roots])}-{digest}"


class _Described:
    """Values that are not the library's as text, the same in every process.

    Attributes:
      roots: definitions of the library that they refer to.
    """

    def __init__(self) -> None:
        self.roots: list[str] = []
        self._begun: dict[int, Any] = {}  # They are held, or an id could come again.

    def value(self, value: Any) -> str:
        """A value and all that it holds or refers to; what was begun already, by its type."""
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            return repr(value)
        if isinstance(value, (np.generic, np.ndarray, jax.Array)):
            if isinstance(value, jax.Array) and jax.dtypes.issubdtype(
                value.dtype, jax.dtypes.prng_key
            ):
                value = jax.random.key_data(value)
            array = np.asarray(value)
            digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
            return f"{array.dtype} {array.shape} {digest}"
        if id(value) in self._begun:
            return type(value).__name__
        self._begun[id(value)] = value
        if isinstance(value, types.ModuleType):
            return value.__name__
        if isinstance(value, Mapping):
            return repr([(self.value(k), self.value(x)) for k, x in value.items()])
        if isinstance(value, (set, frozenset)):
            return repr(sorted(map(self.value, value)))
        if isinstance(value, (list, tuple)):
            return repr([type(value).__name__, *map(self.value, value)])
        if isinstance(value, functools.partial):
            return repr([self.value(x) for x in (value.func, value.args, value.keywords)])
        if isinstance(value, types.MethodType):
            return repr([self.value(x) for x in (value.__func__, value.__self__)])
        value = inspect.unwrap(value)  # What jit and its like made of a function.
        if isinstance(value, type) or inspect.isroutine(value):
            return self._definition(value)
        of_package = type(value).__module__.startswith(f"{_PACKAGE.name}.")
        if hasattr(value, "__dict__") and (of_package or _is_ones_own(type(value))):
            return repr([self.value(type(value)), self.value(vars(value))])
        text = repr(value)
        if " at 0x" in text:
            raise ValueError(f"{text} has no value to know it by, so a run of it is not resumable")
        return text

    def _definition(self, value: Any) -> str:
        """A function or class: the library's as a root, one's own by source, others by name."""
        name = f"{value.__module__}.{value.__qualname__}"
        package, _, module = (value.__module__ or "").rpartition(".")
        if package == _PACKAGE.name and defines(f"{module}.{value.__qualname__}"):
            self.roots.append(f"{module}.{value.__qualname__}")
            return name
        cells = _held(value)
        if not _is_ones_own(value):
            return repr([name, self.value(cells)])
        try:
            parts = [name, inspect.getsource(value), self.value(cells)]
        except (OSError, TypeError) as error:
            raise ValueError(f"no source of {value!r}, so a run of it is not resumable") from error
        functions = vars(value).values() if isinstance(value, type) else [value]
        for function in filter(inspect.isfunction, functions):
            parts += [self.value(x) for x in (function.__defaults__, function.__kwdefaults__)]
            parts += [f"{n} {self.value(x)}" for n, x in self._globals(function)]
        return repr(parts)

    def _globals(self, function: types.FunctionType) -> list[tuple[str, Any]]:
        """The global values that a function refers to, itself and in what is defined within."""
        codes, names = [function.__code__], set()
        for code in codes:
            names.update(code.co_names)
            codes += [x for x in code.co_consts if isinstance(x, types.CodeType)]
        found = [(n, function.__globals__[n]) for n in sorted(names) if n in function.__globals__]
        for _, value in found:
            package, _, module = getattr(value, "__name__", "").rpartition(".")
            if isinstance(value, types.ModuleType) and package == _PACKAGE.name:
                self.roots += filter(defines, (f"{module}.{n}" for n in sorted(names)))
        return found


def _held(function: Any) -> list[Any]:
    """What a function's closure holds; nothing of what is not filled yet."""
    found = []
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):
            found.append(cell.cell_contents)
    return found


def _is_ones_own(definition: Any) -> bool:
    """Whether a function or class is neither the library's nor an installed package's."""
    name = getattr(definition, "__module__", None) or "builtins"
    file = getattr(sys.modules.get(name), "__file__", None)
    if name == "__main__" or file is None:
        return name == "__main__"
    installed = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    path = Path(file).resolve()
    return not any(path.is_relative_to(Path(x).resolve()) for x in (*installed, _PACKAGE))


def of_library(roots: Iterable[str]) -> str:
    """Fingerprint of all definitions of the library that `roots` lead to.

    Args:
      roots: functions and table entries, such as "runs.train" and "methods.rosmo".

    Returns:
      16 hexadecimal digits.

    Raises:
      KeyError: if a root is not defined in the library.
    """
    definitions = _definitions()
    waiting = list(roots)
    for root in waiting:
        if root not in definitions:
            raise KeyError(f"the library defines no {root!r}")
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in seen and name in definitions:
            seen.add(name)
            for definition in definitions[name]:
                waiting.extend(definition.refers)
    digest = hashlib.sha256()
    for name in sorted(seen):
        for definition in definitions[name]:
            digest.update(f"{name}\n{definition.code}\n".encode())
    return digest.hexdigest()[:16]


def of_notebook(path: str | os.PathLike[str]) -> str:
    """Fingerprint of a notebook's code cells; outputs, text and metadata do not count."""
    cells = json.loads(Path(path).read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]
