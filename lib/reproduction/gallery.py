"""The gallery: every figure and table on one page, `python -m reproduction.gallery figures`.

A profile whose figures are not committed has a page of its own: `... gallery figures/quick`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unplugged.common import files

_BENCH = "bench"  # the folder of figures on speed, which come last
UNCOMMITTED = ("quick", "smoke")  # Not on the common page, which is committed.

_HEAD = """# Gallery

Every figure and table beside what the papers state. `python -m reproduction.gallery` writes this
page from what the figure notebooks left; do not edit it.

The cpu profile holds the committed results. The paper profile has the papers' own settings. The
smoke profile only shows that the pipeline works.

*Paper* is what the paper states. *Ours* is what our runs say, mostly as verdicts on claims: R1 to
R17 are ROSMO's, M1 to M12 MuZero Unplugged's. A comparison is supported if the 95% interval of its
difference lies above 0, not supported if it lies below, and undecided otherwise. Intervals are over
training seeds.

A curve counts as flat at the end if its means over the last fifth of the evaluations and over the
fifth before differ by at most 5% of the range of all mean curves on that environment.
"""


def _source(notes: Mapping[str, Any], root: Path) -> str:
    """A line that names what a figure was drawn by, from what, and how to redraw it."""

    def link(path: str) -> str:
        return f"[`{Path(path).name}`]({Path(os.path.relpath(path, root)).as_posix()})"

    parts = []
    if "notebook" in notes:
        notebook = f"notebooks/{notes['notebook']}.ipynb"
        parts.append(f"notebook: {link(notebook)}")
    if notes.get("data"):
        parts.append(f"data: {', '.join(map(link, notes['data']))}")
    parts.append(f"redraw: `{notes['command']}`")
    line = "; ".join(parts)
    return f"{line[0].upper()}{line[1:]}.\n"


def _entry(path: Path, notes: Mapping[str, Any], root: Path) -> str:
    """A figure or table with what stands below it, in Markdown."""
    name = path.name.removesuffix(".json")
    parts = [f"### {notes['title']}\n"]
    if suffix := {"figure": "png", "video": "gif"}.get(notes["kind"]):
        image = path.with_name(f"{name}.{suffix}").relative_to(root)
        parts.append(f"![{notes['title']}]({image.as_posix()})\n")
    else:
        parts.append(path.with_name(f"{name}.md").read_text())
    parts.append(f"{notes['caption']}\n")
    parts.append(f"**Paper:** {notes['paper']}\n")
    if notes.get("verdict"):
        parts.append(f"**Ours:** {notes['verdict']}\n")
    parts.append(_source(notes, root))
    if notes.get("details"):
        summary = "<details><summary>Details</summary>"
        parts.append(f"{summary}\n\n{notes['details']}\n\n</details>\n")
    return "\n".join(parts)


def _link(title: str, earlier: list[str]) -> str:
    """A link to a heading by the name that GitHub gives it; titles may be `earlier` ones."""
    earlier.append(title)
    name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
    again = earlier.count(title) - 1
    return f"- [{title}](#{name}{f'-{again}' if again else ''})"


def page(root: Path, summaries: Mapping[str, str]) -> str:
    """The page in Markdown, for the figures in `root` and in `root`/<profile>/.

    Args:
      root: the folder of all figures, or of one profile's.
      summaries: what each method is, by name.
    """
    below = [path for path in root.iterdir() if path.is_dir() and path.name not in UNCOMMITTED]
    contents, sections, titles = ["## Contents\n"], list[str](), list[str]()
    for folder in (root, *sorted(below, key=lambda path: (path.name == _BENCH, path.name))):
        entries = [(path, json.loads(path.read_text())) for path in folder.glob("*.json")]
        if not entries:
            continue
        heading = "Speed" if folder.name == _BENCH else f"Profile {folder.name}"
        contents.append(_link(heading, titles))
        sections.append(f"## {heading}\n")
        for path, notes in sorted(entries, key=lambda e: (e[1].get("order", 99), e[0].name)):
            contents.append(f"  {_link(notes['title'], titles)}")
            sections.append(_entry(path, notes, root))
    methods = [f"- `{name}`: {summary}" for name, summary in summaries.items()]
    return "\n".join([_HEAD, *contents, "\n## Methods\n", *methods, "", *sections])


def main() -> None:
    """Writes README.md into the folder given."""
    from unplugged.learning import methods  # Imports jax.

    root = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    summaries = {name: method.summary for name, method in methods.METHODS.items()}
    files.write_whole(root / "README.md", page(root, summaries))
    print(f"wrote {root / 'README.md'}")


if __name__ == "__main__":
    main()
