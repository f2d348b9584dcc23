"""Checksums of results, so that a number edited by hand or a damaged file is noticed.

A folder of results has `SHA256SUMS`, a line a CSV or JSON, as `sha256sum` writes and checks it; the
runs of a profile have one as well. What gathers results, and what runs a job, keeps it up to date.
After a change that is meant to be,

    python -m reproduction.checksums results/published
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from unplugged.common import files

SUMS = "SHA256SUMS"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(folder: Path) -> dict[str, str]:
    """Digests by name of file; a line that is none counts as that of no file."""
    lines = (folder / SUMS).read_bytes().decode(errors="replace").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _write(folder: Path, sums: dict[str, str]) -> None:
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sums.items())]
    files.write_whole(folder / SUMS, "".join(lines))


def results(folder: Path) -> list[Path]:
    """The files in a folder that have checksums."""
    return sorted([*folder.glob("*.csv"), *folder.glob("*.json")])


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Several processes may gather results into one folder at a time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # A network's disk may know no locks.
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def accept(folder: str | os.PathLike[str]) -> int:
    """Takes what has checksums in a folder as right, as it is now; returns how many files."""
    with _held(folder := Path(folder)):
        listed = [folder / name for name in (_read(folder) if (folder / SUMS).exists() else ())]
        paths = {*results(folder), *(path for path in listed if path.is_file())}
        sums = {str(path.relative_to(folder)): _digest(path.read_bytes()) for path in paths}
        _write(folder, sums)
    return len(sums)


def write(path: str | os.PathLike[str], content: str) -> None:
    """Writes a file of results, its checksum first where the folder keeps them.

    Cut off between the two, it is there in an earlier version, if at all, and that is noticed.
    """
    path = Path(path)
    if (path.parent / SUMS).exists():
        with _held(path.parent):
            _write(path.parent, {**_read(path.parent), path.name: _digest(content.encode())})
    files.write_whole(path, content)


def note(runs: str | os.PathLike[str], paths: Iterable[str | os.PathLike[str]]) -> None:
    """Keeps checksums of CSVs and JSONs below a folder of runs."""
    paths = [Path(path) for path in paths if Path(path).suffix in (".csv", ".json")]
    with _held(runs := Path(runs)):
        new = {str(path.relative_to(runs)): _digest(path.read_bytes()) for path in paths}
        _write(runs, {**(_read(runs) if (runs / SUMS).exists() else {}), **new})


def forget(runs: str | os.PathLike[str], paths: Iterable[str | os.PathLike[str]]) -> None:
    """Lets go of checksums of files that are made anew."""
    gone = {os.path.relpath(path, runs) for path in paths}
    if (Path(runs) / SUMS).exists():
        with _held(runs := Path(runs)):
            sums = _read(runs)
            if gone & sums.keys():
                _write(runs, {name: of for name, of in sums.items() if name not in gone})


def wrong(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Those of the files that are not as their folder's checksums say.

    A file that is not there is not wrong, nor is one whose folder keeps no checksums.
    """
    found, known = [], {}
    for path in map(Path, paths):
        if path.exists() and (path.parent / SUMS).exists():
            if path.parent not in known:
                known[path.parent] = _read(path.parent)
            if known[path.parent].get(path.name) != _digest(path.read_bytes()):
                found.append(path)
    return found


def complaints(*folders: str | os.PathLike[str]) -> list[str]:
    """A line for each file of results that is wrong: its name, and what to do."""
    return [
        f"{path} is not as it was gathered: it has another checksum in {path.parent / SUMS}. "
        f"Restore it (git checkout {path}), or delete it, and it is gathered from its runs again; "
        f"if it is meant to be so: python -m reproduction.checksums {path.parent}"
        for path in wrong(path for folder in folders for path in results(Path(folder)))
    ]


def complaints_of_runs(runs: str | os.PathLike[str]) -> list[str]:
    """The same of the files that jobs wrote below a folder of runs."""
    runs = Path(runs)
    sums = _read(runs) if (runs / SUMS).exists() else {}
    there = {name: runs / name for name in sums if (runs / name).is_file()}
    return [
        f"{path} is not as its notebook wrote it: it has another checksum in {runs / SUMS}. Delete "
        "it, and it is made again, of a trained run from its checkpoints; if it is meant to be so: "
        f"python -m reproduction.checksums {runs}"
        for name, path in there.items()
        if _digest(path.read_bytes()) != sums[name]
    ]


def main() -> None:
    """Accepts the folders named on the command line."""
    for folder in sys.argv[1:]:
        print(f"{accept(folder)} checksums in {Path(folder) / SUMS}")


if __name__ == "__main__":
    main()
