"""What a run's folder has of results: the rows that stay, and where they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from unplugged.common import files
from unplugged.learning.settings import Settings
from unplugged.runs import checkpoints, identity, provenance
from unplugged.runs.spec import AnySpec

CHECKPOINTS = "checkpoints"  # within a run's folder
STARTS = "starts.json"  # within that one
ADOPTED = "adopted.json"  # the same: results of some seeds that were trained elsewhere


def known(spec: AnySpec) -> dict[str, Any]:
    """Defaults of what an identity holds."""
    defaults = checkpoints.defaults
    return {**defaults(type(spec)), "settings": defaults(type(spec.settings))}


def differs_in_seeds_only(record: Mapping[str, Any], spec: AnySpec) -> bool:
    """Whether a record of provenance is of this run, maybe of other seeds.

    What was not known yet is at its default; where the dataset lies and how seeds were put
    together changes no number.
    """
    wanted = json.loads(json.dumps(dataclasses.asdict(spec)))
    found = {**checkpoints.defaults(type(spec)), **record["parameters"]}
    ignored = ("dataset", "world", "vmap_seeds", "seeds")
    settings = {**checkpoints.defaults(Settings), **record["settings"]}
    same = json.dumps(settings, sort_keys=True) == json.dumps(
        dataclasses.asdict(spec.settings), sort_keys=True
    )
    return same and all(
        found.get(name) == value for name, value in wanted.items() if name not in ignored
    )


def _read(text: str) -> pd.DataFrame:
    """Rows of a CSV that are written again as the same text."""
    return pd.read_csv(io.StringIO(text), float_precision="round_trip")


class There(NamedTuple):
    """Results that a folder has already.

    Attributes:
      rows: of this very run, of other seeds or later updates than are wanted now.
      record: their provenance; empty if there are none of this run.
      checksum: of results.csv as it is.
    """

    rows: list[dict[str, Any]]
    record: dict[str, Any]
    checksum: str | None


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def there(spec: AnySpec, folder: Path, who: Mapping[str, Any]) -> There:
    """Results in a folder that this call would lose; those of another run are set aside.

    Raises:
      ValueError: if rows would be kept of a file that is not what was written.
    """
    table, note = folder / "results.csv", folder / "provenance.json"
    if not table.exists():
        return There([], {}, None)
    text = table.read_text(errors="replace")
    try:
        record = json.loads(note.read_text())
        found = {
            **record["parameters"],
            "settings": record["settings"],
            "data": record["data_checksum"],
            "program": record.get("program", {}),
            "versions": record.get("versions", record.get("packages", {})),  # Before 0.2.0.
        }
        why = checkpoints.others(found, who, known(spec))
    except (ValueError, KeyError, TypeError):
        why = ["provenance.json is damaged"]
    except FileNotFoundError:
        why = ["provenance.json is missing"]
    if why:
        number = next(
            n for n in itertools.count(1) if not (folder / f"results.old-{n}.csv").exists()
        )
        aside = folder / f"results.old-{number}.csv"
        print(f"the results in {folder} are of another run ({'; '.join(why)}): now {aside}")
        table.rename(aside)
        if note.exists():
            note.rename(folder / f"provenance.old-{number}.json")
        return There([], {}, None)
    as_written = _checksum(text) in record.get("results", [_checksum(text)])
    try:
        rows = _read(text)
        kept = rows[~rows["seed"].isin(spec.seeds) | (rows["update"] > spec.updates)]
    except (ValueError, KeyError):
        as_written, kept = False, pd.DataFrame({"seed": [None]})
    if len(kept) and not as_written:
        raise ValueError(
            f"{table} is not what was written there (its checksum is another), and rows of other "
            "seeds or more updates would be kept from it; move it away, and they are left out"
        )
    return There(kept.to_dict("records"), record, _checksum(text))


def adopted(
    spec: AnySpec, folder: Path, data: str | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of wanted seeds that were trained elsewhere, and their record of provenance.

    Nothing of both if they are of other parameters or of data with another checksum.
    """
    path = folder / ADOPTED
    if not path.exists():
        return [], {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged; delete it, and every seed is trained") from error
    if not differs_in_seeds_only(content["record"], spec):
        return [], {}
    if content["record"]["data_checksum"] != data:
        warnings.warn(f"{path} is of other data, and every seed is trained", stacklevel=2)
        return [], {}
    rows = _read(content["results"])
    rows = rows[rows["seed"].isin(spec.seeds)]
    return rows.to_dict("records"), content["record"] if len(rows) else {}


def write(
    spec: AnySpec,
    folder: Path,
    who: Mapping[str, Any],
    frame: pd.DataFrame,
    there: There,
    **more: Any,
) -> None:
    """Writes results.csv, and before it where its rows come from."""
    text = frame.to_csv(index=False)
    starts, today = provenance.read_starts(folder / CHECKPOINTS / STARTS), provenance.describe()
    trained_by = starts[-1] if starts else there.record  # Nothing may be left to train.
    record = {
        "parameters": {**dataclasses.asdict(spec), **_reached(spec, frame)},
        "settings": dataclasses.asdict(spec.settings),
        "data_checksum": who["data"],
        "program": who["program"],
        "source": identity.source(),
        "versions": who["versions"],
        "end": provenance.now(),
        **{name: trained_by.get(name, x) for name, x in today.items()},
        "starts": starts,
        # Cut off before the file itself is written, it is still the one before.
        "results": [x for x in (_checksum(text), there.checksum) if x],
        **more,
    }
    files.write_whole(folder / "provenance.json", json.dumps(record, indent=1, sort_keys=True))
    files.write_whole(folder / "results.csv", text)


def _reached(spec: AnySpec, frame: pd.DataFrame) -> dict[str, Any]:
    """Seeds and updates of all rows, those that were there before among them."""
    last = frame.groupby("seed")["update"].max()
    seeds = [*spec.seeds, *sorted(set(last.index.tolist()) - set(spec.seeds))]
    return {"seeds": seeds, "updates": max(spec.updates, int(last.max()))}
