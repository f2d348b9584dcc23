"""Which results still hold: those of runs that are others by now go, committed ones are taken."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from tqdm import tqdm

from reproduction import checksums
from reproduction.plan import Plan
from reproduction.profiles import RECORDINGS
from unplugged import runs
from unplugged.common import files, hashing
from unplugged.data import datasets
from unplugged.learning import methods
from unplugged.runs import checkpoints

DATA = "data"  # among what is other of a run
_ADOPTED = ("provenance.json", "progress.json", "results.csv")  # the results come last


def is_adopted(folder: Path) -> bool:
    """Whether a run's results were taken from committed ones: they have no checkpoints beside."""
    return (folder / "results.csv").exists() and not (folder / "checkpoints").exists()


def _record(path: Path) -> dict[str, Any]:
    """What a file of provenance says; a damaged one is named."""
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"{path} is {'missing' if isinstance(error, FileNotFoundError) else 'damaged'}; delete "
            "results.csv beside it, and both are made again"
        ) from error


def lacks_checkpoints(folder: Path) -> bool:
    """Whether the results of a run, or of some of its seeds, were taken from committed ones."""
    return is_adopted(folder) or (folder / runs.ADOPTED).exists()


def _set_aside(target: Path, record: Mapping[str, Any], results: str) -> None:
    """Keeps rows of some of a run's seeds for `runs.train`, which adds them to those it trains."""
    content = {"record": record, "results": results}
    files.write_whole(target / runs.ADOPTED, json.dumps(content))


def _seeds_of(record: Mapping[str, Any], spec: runs.AnySpec) -> set[int]:
    """The seeds wanted that a record of provenance is of; none if it is of another run."""
    if not runs.differs_in_seeds_only(record, spec):
        return set()
    return set(record["parameters"]["seeds"]).intersection(spec.seeds)


_LABELS = (
    "dataset", "data_seed", "fraction", "holdout", "keep_checkpoints", "seeds", "updates",
    "eval_every", "vmap_seeds",
)  # fmt: skip


class Programs:
    """Programs of runs as today's code has them, each lowered once, which takes seconds.

    Args:
      cache: file that remembers them for as long as the code is the same.
    """

    def __init__(self, cache: Path):
        self._cache = cache
        self._own: dict[str, dict[str, str]] = {}
        self._code = runs.source()
        saved = json.loads(cache.read_text()) if cache.exists() else {}
        self._known = saved["programs"] if saved.get("code") == self._code else {}
        self._data: dict[tuple[Any, ...], str] = {}

    def of(self, spec: runs.AnySpec) -> dict[str, str]:
        """Hashes by name, see `runs.programs`."""
        fields = {k: v for k, v in dataclasses.asdict(spec).items() if k not in _LABELS}
        parts = [fields, dataclasses.asdict(spec.settings), spec.described_data(None)]
        key = hashing.digest(type(spec).__name__, json.dumps(parts))
        if methods.is_own(spec.method):  # The library's code says nothing of it.
            if key not in self._own:
                self._own[key] = runs.programs(spec)
            return self._own[key]
        if key not in self._known:
            self._known[key] = runs.programs(spec)
            content = {"code": self._code, "programs": self._known}
            files.write_whole(self._cache, json.dumps(content))
        # An environment in Python may have changed and the library not.
        return {**self._known[key], **runs.environment(spec)}

    def data_of(self, spec: runs.AnySpec) -> str | None:
        """The checksum of what a run learns from, if that is of a committed recording alone."""
        alone = isinstance(spec, runs.Spec) and not getattr(spec, "world", None)
        if not alone or Path(spec.dataset).parent.name != RECORDINGS:
            return None
        key = spec.dataset, spec.fraction, spec.data_seed, spec.holdout
        if key not in self._data:
            part, _ = runs.divide(spec, datasets.load(spec.dataset))
            self._data[key] = datasets.checksum(part)
        return self._data[key]

    def other(self, record: Mapping[str, Any], spec: runs.AnySpec) -> list[str]:
        """What is not today's of what a run was: its programs by name, versions, and `DATA`.

        Raises:
          ModuleNotFoundError: if its environment needs a package that is not installed.
        """
        packages = record.get("versions", record.get("packages", {}))
        found = [n for n, of in runs.versions(spec).items() if packages.get(n) != of]
        found += [DATA] if self.data_of(spec) not in (None, record.get("data_checksum")) else []
        then = record.get("program", {})
        same = record.get("source") == self._code and not methods.is_own(spec.method)
        wanted = runs.environment(spec) if same else self.of(spec)
        return found + [name for name, of in wanted.items() if then.get(name) != of]


def _refused(other: Sequence[str]) -> bool:
    """Whether a run of other programs, versions or data is none of today's profile.

    The environment may say that programs and versions do not matter.
    """
    return bool(other) and (DATA in other or os.environ.get(checkpoints.ADOPT) != "1")


def let_go(wanted: Plan, folder: Path, programs: Programs, *, only_name: bool = False) -> list[str]:
    """Deletes results of runs that are others by now, so that they are made again; returns them.

    A trained run is another if its programs or versions are; its checkpoints are left to
    `runs.train`. An adopted one is also if its parameters are; if nothing but the seeds changed,
    those of seeds that are still wanted are kept.

    Args:
      wanted: the profile's plan.
      folder: runs/<profile>.
      programs: what those of today are.
      only_name: whether nothing is deleted.
    """
    found = []
    for (experiment, run), spec in tqdm(
        wanted.specs.items(), desc="programs", unit="run", disable=None, delay=5.0, leave=False
    ):
        target = folder / experiment / run

        def is_other(record: Mapping[str, Any], spec: runs.AnySpec = spec) -> bool:
            try:
                return _refused(programs.other(record, spec))
            except ModuleNotFoundError:  # Nobody can say: it stays.
                return False

        def of(record: Mapping[str, Any], spec: runs.AnySpec = spec) -> set[int]:
            return set() if is_other(record) else _seeds_of(record, spec)

        part = target / runs.ADOPTED
        if not only_name and part.exists() and not of(json.loads(part.read_text())["record"]):
            part.unlink()
        if not (target / "results.csv").exists():
            continue
        record = _record(target / "provenance.json")
        if is_adopted(target):
            seeds = of(record)
            if seeds and seeds == set(record["parameters"]["seeds"]) == set(spec.seeds):
                continue
            if seeds and not only_name:
                _set_aside(target, record, (target / "results.csv").read_text())
        elif not is_other(record):
            continue
        found.append(f"{experiment}/{run}")
        if only_name:
            continue
        # Cut off, it is still adopted, or what stays says nothing of it.
        for name in ("progress.json", "results.csv", "provenance.json"):
            (target / name).unlink(missing_ok=True)
    return found


class Adopted(NamedTuple):
    """What became of an experiment's committed runs.

    Attributes:
      taken: how many were taken.
      other: run -> which of its programs and versions are not today's.
    """

    taken: int
    other: dict[str, list[str]]


def adopt(
    wanted: Plan,
    results: Path,
    folder: Path,
    programs: Programs,
) -> dict[str, Adopted]:
    """Takes committed results for runs that are not there, as if they had been trained here.

    Then only what is new in a profile is trained, of a run with other seeds those that are new. A
    run of other programs than today's, or of a package that is not installed, is not taken, unless
    the environment says so (`checkpoints.ADOPT`). An adopted run has its rows and provenance, but
    no checkpoints: what plays or scores those needs the run trained, and asked for more updates it
    is trained from the beginning (`let_go`). If today it would learn from a committed recording, it
    is taken only if it did. That a profile records its own data otherwise than before is noticed
    only where seeds are added.

    Args:
      wanted: the profile's plan.
      results: results/<profile>, with <experiment>.csv and <experiment>.provenance.json.
      folder: runs/<profile>.
      programs: what those of today are.

    Raises:
      ValueError: if a committed CSV does not hold the rows that its provenance tells of.
    """
    found: dict[str, Adopted] = {}
    for experiment, names in wanted.runs.items():
        table, note = results / f"{experiment}.csv", results / f"{experiment}.provenance.json"
        if not (table.exists() and note.exists()):
            continue
        records = json.loads(note.read_text())
        header, *lines = table.read_text().splitlines(keepends=True)
        cells = pd.read_csv(table, keep_default_na=False)
        taken, others = 0, {}
        for run in tqdm(names, desc=experiment, unit="run", disable=None, delay=5.0, leave=False):
            spec, target = wanted.specs[experiment, run], folder / experiment / run
            record = records.get(run)
            begun = lacks_checkpoints(target) or (target / "checkpoints").exists()
            seeds = _seeds_of(record, spec) if record and not begun else set()
            if not seeds:
                continue
            try:
                other = programs.other(record, spec)
            except ModuleNotFoundError as error:
                other = [f"{error.name} (not installed)"]
            if other:
                others[run] = other
                if _refused(other):
                    continue
            else:
                record = {**record, "source": runs.source()}
            if programs.data_of(spec):  # Where it was trained, that may have lain elsewhere.
                found_in = {**record["parameters"], "dataset": spec.dataset}
                record = {**record, "parameters": found_in}
            where = (cells["run"] == run) & cells["seed"].isin(seeds)
            expected = len(seeds) * (spec.updates // spec.eval_every + 1)
            if where.sum() != expected:
                raise ValueError(
                    f"{table} has {where.sum()} rows of {run}, its provenance tells of {expected}"
                )
            rows = "".join(line for line, chosen in zip(lines, where) if chosen)
            taken += 1
            if not seeds == set(record["parameters"]["seeds"]) == set(spec.seeds):
                _set_aside(target, record, header + rows)
                continue
            done = len(spec.seeds) * spec.updates
            progress = {"done": done, "total": done, "updates": 0, "seconds": 0.0}
            parts = (
                json.dumps(record, indent=1, sort_keys=True), json.dumps(progress), header + rows
            )  # fmt: skip
            checksums.forget(folder, [target / name for name in _ADOPTED])
            for name, content in zip(_ADOPTED, parts):
                files.write_whole(target / name, content)
                # No newer than what they were taken from, or that would be made again.
                os.utime(target / name, (table.stat().st_mtime,) * 2)
        found[experiment] = Adopted(taken, others)
    return found
