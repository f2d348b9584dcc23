"""How far a profile's runs are, and when they will be done."""

from __future__ import annotations

import datetime
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

from reproduction.plan import Plan
from unplugged import runs
from unplugged.learning import methods


class Progress(NamedTuple):
    """How far an experiment is: runs and updates done and wanted, and core-hours to go."""

    experiment: str
    runs_done: int
    runs: int
    updates_done: int
    updates: int
    core_hours_left: float


def _work(spec: runs.AnySpec) -> float:
    """A guess of an update's cost, to scale a rate from one setting to another."""
    settings = spec.settings
    dynamics = settings.sizes()["dynamics"]
    layers = dynamics[-1:] + dynamics  # The state goes in, and comes out.
    size = sum(a * b for a, b in itertools.pairwise(layers)) * settings.batch_size
    if settings.network in ("conv", "resnet"):  # 3 x 3 taps at each of some pixels.
        size *= 9 * 25
    searches = methods.get(spec.method).bootstrap == "operator"
    return size * (settings.num_simulations + 2 if searches else 1)


def _like(spec: runs.AnySpec) -> list[Any]:
    """What a run's rate is looked up by, the most alike first."""
    overrides = json.dumps(spec.overrides, sort_keys=True)
    where = (type(spec).__name__, spec.benchmark)
    return [(*where, spec.method, overrides), (*where, spec.method), where, None]


def progress(wanted: Plan, folder: Path) -> list[Progress]:
    """How far the runs in `folder` (runs/<profile>) are, one record an experiment.

    What is left is estimated from the rates of runs with the same benchmark, method and
    overrides; else, scaled by a guess, of the same benchmark and method, of the same
    benchmark, or of all; nan before any rate is known.
    """
    notes: dict[tuple[str, str], float] = {}  # updates done
    known: dict[Any, list[tuple[float, float]]] = {}  # (seconds, updates times work) by key
    for (experiment, run), spec in wanted.specs.items():
        note = folder / experiment / run / "progress.json"
        try:
            found = {name: float(x) for name, x in json.loads(note.read_text()).items()}
            done, updates, seconds = (found[name] for name in ("done", "updates", "seconds"))
        except (FileNotFoundError, ValueError, TypeError, AttributeError, KeyError):
            continue  # Not begun, or damaged; it is written again as the run goes on.
        notes[experiment, run] = done
        if updates:
            for key in _like(spec):
                known.setdefault(key, []).append((seconds, updates * _work(spec)))
    rates = {key: sum(s for s, _ in of) / sum(w for _, w in of) for key, of in known.items()}
    records = []
    for experiment, names in wanted.runs.items():
        finished = done = total = 0
        seconds = 0.0
        for run in names:
            spec = wanted.specs[experiment, run]
            here = len(spec.seeds) * spec.updates
            at = min(here, int(notes.get((experiment, run), 0.0)))
            rate = next((rates[key] for key in _like(spec) if key in rates), float("nan"))
            finished, done, total = finished + (at == here), done + at, total + here
            if at < here:
                seconds += (here - at) * _work(spec) * rate
        records.append(Progress(experiment, finished, len(names), done, total, seconds / 3600))
    return records


def describe(records: list[Progress], cores: int) -> str:
    """One line: what is done, what is left, when it will be ready."""
    done, total = (sum(getattr(r, f) for r in records) for f in ("runs_done", "runs"))
    updates = sum(r.updates_done for r in records), sum(r.updates for r in records)
    hours = sum(r.core_hours_left for r in records) / cores
    text = f"{done} of {total} runs, {updates[0] / max(1, updates[1]):.0%} of the updates done"
    if done == total:
        return text
    if hours != hours:
        return f"{text}; no rate is known yet"
    ready = datetime.datetime.now() + datetime.timedelta(hours=hours)
    return f"{text}; about {hours:.1f} h left on {cores} cores, ready {ready:%a %H:%M}"


def table(records: list[Progress], cores: int) -> str:
    """A line an experiment and one for the whole."""
    width = max(len(r.experiment) for r in records)

    def left(hours: float) -> str:
        return "no rate is known yet" if hours != hours else f"{hours:6.1f} core-hours left"

    lines = [
        f"{r.experiment:{width}}  {r.runs_done:4d} of {r.runs:4d} runs  "
        f"{r.updates_done / max(1, r.updates):4.0%} of the updates  {left(r.core_hours_left)}"
        for r in records
    ]
    return "\n".join([*lines, describe(records, cores)])
