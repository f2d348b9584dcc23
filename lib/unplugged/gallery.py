"""The gallery: every figure and table on one page, `python -m unplugged.gallery figures`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from unplugged import files

_HEAD = """# Gallery

Made by `python -m unplugged.gallery figures` from what the figure notebooks wrote; do not edit.
A figure of the smoke profile shows that the pipeline works; the cpu profile's are the
committed results; the paper profile has the papers' own settings.
"""


def page(root: Path) -> str:
    """The page in Markdown, for figures in `root`/<profile>/."""
    parts = [_HEAD]
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        entries = [(path, json.loads(path.read_text())) for path in folder.glob("*.json")]
        if not entries:
            continue
        parts.append("## Speed\n" if folder.name == "bench" else f"## Profile {folder.name}\n")
        for path, notes in sorted(entries, key=lambda e: (e[1].get("order", 99), e[0].name)):
            name = path.name.removesuffix(".json")
            parts.append(f"### {notes['title']}\n")
            if notes["kind"] == "figure":
                parts.append(f"![{notes['title']}]({folder.name}/{name}.png)\n")
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
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    files.write_whole(root / "README.md", page(root))
    print(f"wrote {root / 'README.md'}")


if __name__ == "__main__":
    main()
