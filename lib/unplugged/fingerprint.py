"""A fingerprint of the code that a run depends on, so that a change reruns what it touches.

Comments, docstrings and layout do not count; nor does code that the run cannot reach: a
method, environment or network added beside the others leaves their fingerprints alone.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from unplugged import own_code

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
    other packages, the name and what they hold.

    Args:
      functions: part that a function plays -> the function.
      roots: as for `of_library`.
      rest: whatever else the fingerprint is of.

    Raises:
      ValueError: if a value that a function refers to cannot be told from another.
    """
    found = own_code.Described(defines)
    texts = [f"{part}\n{found.text(function)}\n" for part, function in functions.items()]
    digest = hashlib.sha256("".join([rest, *texts]).encode()).hexdigest()[:16]
    return f"{of_library([*roots, *found.roots])}-{digest}"


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
