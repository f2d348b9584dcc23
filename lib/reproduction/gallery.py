"""The gallery: every figure and table on one page, `python -m reproduction.gallery figures`.

A profile whose figures are not committed has a page of its own: `... gallery figures/smoke`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from unplugged.common import files

UNCOMMITTED = ("smoke",)  # Not on the common page, which is committed.

_HEAD = """# Gallery

Made by `python -m reproduction.gallery` from what the figure notebooks wrote; do not edit.
A figure of the smoke profile shows that the pipeline works; the cpu profile's are the
committed results; the paper profile has the papers' own settings.

A curve is called flat at the end if the means of the last fifth of its evaluations and of the fifth
before differ by at most 5% of the range of all mean curves on that environment.
"""


def page(root: Path, summaries: Mapping[str, str]) -> str:
    """The page in Markdown, for the figures in `root` and in `root`/<profile>/.

    Args:
      root: the folder of all figures, or of one profile's.
      summaries: what each method is, by name.
    """
    parts = [_HEAD, "## Methods\n"]
    parts.append("".join(f"- `{name}`: {summary}\n" for name, summary in summaries.items()))
    below = (path for path in root.iterdir() if path.is_dir() and path.name not in UNCOMMITTED)
    for folder in (root, *sorted(below)):
        entries = [(path, json.loads(path.read_text())) for path in folder.glob("*.json")]
        if not entries:
            continue
        parts.append("## Speed\n" if folder.name == "bench" else f"## Profile {folder.name}\n")
        for path, notes in sorted(entries, key=lambda e: (e[1].get("order", 99), e[0].name)):
            name = path.name.removesuffix(".json")
            parts.append(f"### {notes['title']}\n")
            if notes["kind"] == "figure":
                image = (folder / f"{name}.png").relative_to(root)
                parts.append(f"![{notes['title']}]({image.as_posix()})\n")
            else:
                parts.append((folder / f"{name}.md").read_text())
            parts.append(f"{notes['caption']}\n")
            parts.append(f"**Paper:** {notes['paper']}\n")
            if "verdict" in notes:
                parts.append(f"**Ours:** {notes['verdict']}\n")
            parts.append(f"Redraw: `{notes['command']}`\n")
    return "\n".join(parts)


def main() -> None:
    """Writes README.md into the folder given."""
    from unplugged.learning import methods  # Imports jax.

    root = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    summaries = {name: method.summary for name, method in methods.METHODS.items()}
    files.write_whole(root / "README.md", page(root, summaries))
    print(f"wrote {root / 'README.md'}")


if __name__ == "__main__":
    main()
