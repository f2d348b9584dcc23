"""Captions of figures and tables: text files beside the notebooks, numbers filled in from data.

`notebooks/captions/<notebook>.yaml` has an entry for each figure (by its file's name) and each
table (`<name>.table`): `title`, `order` in the gallery, `data` (the CSVs that it is drawn from),
`caption`, `paper`, and where needed `details`, `verdict` and `command`. `{name}` in a text is a
placeholder for a number or a list that the notebook takes from its data; a blank line begins a
paragraph. `{study}` in the name of a CSV is the first word of its experiments' names, where one
notebook draws two studies.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from numbers import Number
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from reproduction import checksums
from reproduction.profiles import RECORDINGS
from unplugged.common import checks

FOLDER = Path("notebooks", "captions")  # Below the repository's root, where notebooks run.
REQUIRED = ("title", "order", "data", "caption", "paper")
TEXTS = ("title", "caption", "details", "paper", "verdict", "command")


def placeholders(text: str) -> set[str]:
    """Names of the placeholders in a text.

    Raises:
      ValueError: if one is not a plain name in braces.
    """
    found = set()
    for _, name, form, conversion in Formatter().parse(text):
        if name is None:
            continue
        if not name.isidentifier() or form or conversion:
            raise ValueError(f"a placeholder is a name in braces, not {{{name}}} with a format")
        found.add(name)
    return found


def paragraphs(text: str) -> str:
    """A text with single spaces and a blank line between its lines, but for those of a list."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    apart = "\n\n".join(lines)
    return re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", apart)


def fill(entry: Mapping[str, Any], facts: Mapping[str, Any], where: str) -> dict[str, Any]:
    """An entry with its texts' placeholders filled in.

    Args:
      entry: as `load` gives it.
      facts: what stands for each placeholder, by name: a text or a number.
      where: names the entry in errors.

    Returns:
      The entry with the same keys.

    Raises:
      ValueError: if a placeholder has no fact, a fact no placeholder, or a fact is neither a text
        nor a number.
    """
    texts = {key: entry[key] for key in TEXTS if key in entry}
    wanted = set().union(*(placeholders(text) for text in texts.values()))
    if missing := sorted(wanted - facts.keys()):
        raise ValueError(f"{where}: nothing is given for {', '.join(f'{{{x}}}' for x in missing)}")
    if unused := sorted(facts.keys() - wanted):
        raise ValueError(f"{where}: no text has {', '.join(f'{{{x}}}' for x in unused)}")
    for name, fact in facts.items():
        if not isinstance(fact, (str, Number)):
            kind = type(fact).__name__
            raise ValueError(f"{where}: {{{name}}} has to be a text or a number, not a {kind}")
    filled = {key: paragraphs(text.format_map(facts)) for key, text in texts.items()}
    return {**entry, **filled}


def load(notebook: str, folder: str | os.PathLike[str] = FOLDER) -> dict[str, dict[str, Any]]:
    """The entries of a notebook's caption file, by figure, placeholders not filled in.

    Args:
      notebook: its file name without suffix.
      folder: of the caption files.

    Raises:
      FileNotFoundError: if the notebook has no caption file.
      ValueError: if an entry lacks a key or has one that is not known, naming the nearest.
    """
    path = Path(folder, f"{notebook}.yaml")
    if not path.exists():
        here = Path.cwd()
        raise FileNotFoundError(f"there is no {path} in {here}; run in the repository's root")
    entries = yaml.safe_load(path.read_text())
    for figure, entry in entries.items():
        if missing := [key for key in REQUIRED if key not in entry]:
            raise ValueError(f"{path}, {figure}: there is no {', '.join(missing)}")
        for key in entry:
            checks.one_of(f"key of {path}, {figure}:", key, (*REQUIRED, *TEXTS))
    return entries


def read(
    notebook: str,
    figure: str,
    results: str | os.PathLike[str],
    /,
    study: str = "minatar",
    **facts: Any,
) -> dict[str, Any]:
    """What stands beside a figure: its entry, filled in, and where it comes from.

    Args:
      notebook: file name of the notebook that draws it, without suffix.
      figure: file name of the figure without suffix, or of a table with `.table`.
      results: the folder of CSVs that it is drawn from.
      study: whose runs: "minatar", or "pixels" for the longer ones, whose figure stands after it.
      facts: what stands for each placeholder, by name.

    Returns:
      The notes that `plots.save_figure` wants: the entry's texts, `order`, `notebook`, `data`
      (paths of the CSVs that are there) and `command`. The caption warns of a CSV, or of the
      provenance beside it, that is not as its checksum says.

    Raises:
      ValueError: if there is no such figure, naming the nearest; if a placeholder has no fact, or
        a fact no placeholder.
    """
    entries = load(notebook)
    checks.one_of(f"figure of {notebook}:", figure, list(entries))
    notes = fill(entries[figure], facts, f"caption of {figure} in {notebook}")
    if study == "pixels":
        notes |= {"title": f"{notes['title']}, longer runs", "order": notes["order"] + 0.5}
    results = Path(results)
    # Some experiments are drawn where a profile has them.
    names = [name.format(study=study) for name in notes["data"]]
    if study == "pixels":  # Some of its games have a recording of their own.
        names += [f"../{RECORDINGS}/{name}" for name in names if name.endswith("_statistics.csv")]
    paths = (os.path.normpath(results / name) for name in names)
    notes["data"] = [Path(path).as_posix() for path in paths if os.path.exists(path)]
    read = [*notes["data"], *(path.replace(".csv", ".provenance.json") for path in notes["data"])]
    if "verdict" in notes or "claims.csv" in entries[figure]["data"]:  # They rest on any of them.
        stated = [results.parent / name for name in ("claims.csv", "claims_own.csv")]
        read += [*stated, *checksums.results(results)]
    if edited := checksums.wrong(read):
        names = ", ".join(sorted({path.name for path in edited}))
        notes["caption"] += f" **Warning: not as gathered from the runs: {names}.**"
    return {"command": f"make figures PROFILE={results.name}", **notes, "notebook": notebook}
