"""A notebook, known by what its code does."""

from __future__ import annotations

import json
import os
from pathlib import Path

from unplugged.common import hashing


def of_notebook(path: str | os.PathLike[str]) -> str:
    """A hash of what a notebook's code cells do.

    Outputs, text, metadata, comments, layout and empty cells do not count.
    """
    cells = json.loads(Path(path).read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    found = []
    for cell in code:
        try:
            found.append(hashing.of_code(cell))
        except SyntaxError:  # A magic, which Python does not know.
            found.append(cell)
    return hashing.digest(*(x for x in found if x != hashing.of_code("")))
