"""Results of several runs in one file, for the pipeline's rules; no jax, so that they are quick.

python -m reproduction.gather rows TARGET PATH ...
python -m reproduction.gather records TARGET NAME=PATH ...
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from reproduction import checksums


def rows(paths: Sequence[str | os.PathLike[str]], target: str | os.PathLike[str]) -> None:
    """Writes tidy CSVs with the same columns one after the other.

    Raises:
      ValueError: if one has other columns than the first.
    """
    parts = [Path(path).read_text().splitlines(keepends=True) for path in paths]
    for path, part in zip(paths, parts):
        if part[0] != parts[0][0]:
            raise ValueError(
                f"{path} has other columns than {paths[0]}; delete the older one's folder, so that "
                "it is made again"
            )
    lines = [line for i, part in enumerate(parts) for line in part[i > 0 :]]
    checksums.write(target, "".join(lines))


def records(paths: Mapping[str, str | os.PathLike[str]], target: str | os.PathLike[str]) -> None:
    """Writes JSON records of several runs into one file, by name."""
    found = {name: json.loads(Path(path).read_text()) for name, path in paths.items()}
    checksums.write(target, json.dumps(found, indent=1, sort_keys=True))


def main(arguments: Sequence[str]) -> int:
    """What the command line says; returns an exit status."""
    what, target, *parts = arguments
    try:
        if what == "rows":
            rows(parts, target)
        else:
            records(dict(part.split("=", 1) for part in parts), target)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
