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
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).parent


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
                node.body = body[1:] or [ast.Pass()]
    return tree


def _names(node: ast.AST) -> set[str]:
    """Identifiers that a piece of code mentions."""
    names = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            names.add(part.id)
        elif isinstance(part, ast.Attribute):
            names.add(part.attr)
        elif isinstance(part, ast.ImportFrom):
            names.update(alias.name for alias in part.names)
    return names


@functools.cache
def _definitions() -> dict[str, list[tuple[str, set[str]]]]:
    """Every module-level definition of the library by name: its code and what it mentions.

    An entry of a table (a dict with string keys) is a definition of its own, by its key.
    """
    found: dict[str, list[tuple[str, set[str]]]] = {}

    def add(name: str, node: ast.AST) -> None:
        found.setdefault(name, []).append((ast.dump(node), _names(node)))

    for path in sorted(_PACKAGE.glob("*.py")):
        for node in _without_docstrings(ast.parse(path.read_text())).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                add(node.name, node)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                table = node.value
                if isinstance(table, ast.Dict) and all(
                    isinstance(key, ast.Constant) and isinstance(key.value, str)
                    for key in table.keys
                ):
                    for key, value in zip(table.keys, table.values):
                        add(key.value, value)
                else:
                    for target in targets:
                        if isinstance(target, ast.Name):
                            add(target.id, table)
    return found


def of_library(roots: Iterable[str]) -> str:
    """Fingerprint of all definitions that can be reached by name from `roots`.

    Args:
      roots: names of functions and of table entries, such as "train" and "rosmo".

    Returns:
      16 hexadecimal digits.

    Raises:
      KeyError: if a root is not defined in the library.
    """
    definitions = _definitions()
    roots = list(roots)
    for root in roots:
        if root not in definitions:
            raise KeyError(f"nothing in the library is called {root!r}")
    seen: set[str] = set()
    waiting = roots
    while waiting:
        name = waiting.pop()
        if name in seen or name not in definitions:
            continue
        seen.add(name)
        for _, mentioned in definitions[name]:
            waiting.extend(mentioned)
    digest = hashlib.sha256()
    for name in sorted(seen):
        for code, _ in definitions[name]:
            digest.update(f"{name}\n{code}\n".encode())
    return digest.hexdigest()[:16]


def of_notebook(path: str | os.PathLike[str]) -> str:
    """Fingerprint of a notebook's code cells; outputs, text and metadata do not count."""
    cells = json.loads(Path(path).read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]
