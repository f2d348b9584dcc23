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
    found = (_of_cell(cell) for cell in code)
    return hashing.digest(*(x for x in found if x != hashing.of_code("")))


def _of_cell(code: str) -> str:
    """A hash of what a cell does; its magics count as the calls that IPython makes of them."""
    try:
        return hashing.of_code(code)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

    try:
        return hashing.of_code(TransformerManager().transform_cell(code))
    except SyntaxError:  # It will fail, by whatever it is.
        return code
