"""Kills the pipeline and changes bytes of what it keeps: `python benchmarks/storm.py`.

A copy of the repository runs benchmarks/storm.yaml: recordings of catch and breakout, training on
both, an online run, an evaluation and figures. It is stopped at random moments of each stage and
started again until it is whole; then it must have what the same pipeline has that nobody stopped.
Random bytes of checkpoints, datasets, results and provenance are changed; each change must be
refused, named, or without any effect.

Writes storm.csv, a row an event, and storm.json, what each kind of event ran on, as soon as the
kind is over; other kinds' rows stay (`--only`). Exits with 1 if an event failed.
A failed event names its round, `--seed S --round R` repeats it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import fcntl
import hashlib
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml
from tqdm import tqdm

from measure import machine
from reproduction import checksums
from unplugged.common import files

ROOT = Path(__file__).resolve().parents[1]
PROFILE = ROOT / "benchmarks" / "storm.yaml"
STAGES = {  # notebooks of a stage, by how their numbers begin
    "collect": r"10_",
    "train": r"2[01]_",
    "evaluate": r"23_",
    "draw": r"(01|3\d|4\d|5\d)_",
}
MADE = {  # by the stage; so it is seen that one is over
    "collect": "runs/storm/datasets/*.npz",
    "train": "runs/storm/*/*/results.csv",
    "evaluate": "runs/storm/*/*/selectors.csv",
    "draw": "figures/storm/*.json",
}
KILLS = ("collect",) * 3 + ("train",) * 3 + ("evaluate",) * 2 + ("draw",) * 2  # four times
TERMS = ("collect", "train", "train", "evaluate", "draw")  # twice
TIMES = ("seconds",)  # columns that are another in every run
LONGEST = 15.0  # seconds from when a stage is seen to when it is stopped; it is started often
CHANCES = 4  # of an event to come before its stage is over
PATIENCE = 15.0  # seconds in which a pipeline that is asked to stop must be gone
MARK = "UNPLUGGED_STORM"  # environment variable that every process of a copy has


# --- A copy of the repository, and its pipeline --------------------------------------------------


def started(folder: Path) -> list[psutil.Process]:
    """All that pipelines in a folder, or in folders within it, have started and that still runs."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get(MARK, "")
            if Path(mark).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_all(folder: Path) -> None:
    """Ends all of them at once, as when the machine stops."""
    while left := started(folder):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)


class Copy:
    """A copy of the repository, without runs and results, in which the pipeline can be run."""

    def __init__(self, folder: Path, shared: Path):
        """Args: `folder`, where it goes; `shared`, where all copies have compiled programs."""
        self.folder, self._shared = folder, shared
        folder.mkdir(parents=True)
        for name in ("Snakefile", "pipeline.py", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        for name in ("lib", "notebooks", "profiles", "results/published"):
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        for path in (ROOT / "results").iterdir():
            if path.is_file():
                shutil.copy(path, folder / "results")
        (folder / "figures").mkdir()
        self.log, self.temporary = folder / "storm.log", folder / "tmp"
        self.temporary.mkdir()

    def start(self, *options: str) -> subprocess.Popen:
        """Starts the pipeline, whose output goes to the log."""
        own = {
            MARK: str(self.folder),
            "PYTHONPATH": str(self.folder / "lib"),
            "HOME": str(self._shared),
            "TMPDIR": str(self.temporary),
            "JUPYTER_RUNTIME_DIR": str(self.temporary / "jupyter"),
            "JAX_COMPILATION_CACHE_DIR": str(self._shared / "compiled"),
        }
        command = [sys.executable, "pipeline.py", "--profile", str(PROFILE)]
        self.log.unlink(missing_ok=True)  # What a start before has left may still write to it.
        with self.log.open("w") as log:
            return subprocess.Popen(
                [*command, *options],
                cwd=self.folder, env={**os.environ, **own}, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        """What the pipeline that was started last has said."""
        return self.log.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """All that the pipelines in this copy have started and that is not gone yet."""
        return started(self.folder)

    def stages(self) -> set[str]:
        """The stages of which a notebook is run."""
        lines = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                lines.append(" ".join(process.cmdline()))
        return {
            stage
            for stage, numbers in STAGES.items()
            if any(re.search(rf"papermill notebooks/{numbers}", one) for one in lines)
        }

    def made(self, stage: str) -> int:
        """How many files of a stage there are."""
        return len(list(self.folder.glob(MADE[stage])))

    def finish(self, *options: str) -> int:
        """Runs the pipeline to its end; returns its exit status."""
        return self.start(*options).wait()

    def saved(self) -> dict[Path, tuple[float, float]]:
        """How much each recording and each run has saved, and when that was."""
        found = {}
        runs = self.folder / "runs" / "storm"
        for index in runs.glob("datasets/*.partial/index.json"):
            with contextlib.suppress(OSError, ValueError):
                parts = len(json.loads(index.read_text())["parts"])
                found[index.parent] = parts, index.stat().st_mtime
        for group in runs.glob("*/*/checkpoints/seed_*"):
            with contextlib.suppress(OSError):
                there = [path for path in group.iterdir() if path.name.isdecimal()]
                if there:
                    last = max(there, key=lambda path: int(path.name))
                    found[group] = int(last.name), last.stat().st_mtime
        return found

    def products(self) -> dict[str, str]:
        """Hashes of final datasets and of CSVs without their columns of times, by path."""
        found = {}
        for path in sorted(self.folder.glob("runs/storm/datasets/*.npz")):
            found[str(path.relative_to(self.folder))] = _hash(path.read_bytes())
        for pattern in ("results/storm", "runs/storm", "figures/storm"):
            for path in sorted((self.folder / pattern).rglob("*.csv")):
                found[str(path.relative_to(self.folder))] = _hash(without_times(path).encode())
        return found

    def litter(self) -> list[str]:
        """What should not be there when nothing runs: processes, locks, temporary files."""
        found = [f"process {process.pid}, {process.name()}" for process in self.processes()]
        inside = [
            path
            for pattern in ("*.tmp*", "*.partial", "*.old-*", "damaged-*", ".tmp/*")
            for path in (self.folder / "runs").rglob(pattern)
        ]
        inside += [*self.temporary.rglob("*"), *self._shared.rglob("kernel-*.json")]
        inside += self.folder.glob(".snakemake/incomplete/*")
        inside += self.folder.glob(".snakemake/locks/*")
        found += [os.path.relpath(path, self.folder) for path in inside if not path.is_dir()]
        for path in (self.folder / "runs").rglob(".lock"):
            with path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    found.append(f"{path.relative_to(self.folder)} is held")
        return found


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def without_times(path: Path) -> str:
    """A CSV as it is, but for columns of times."""
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError:  # A changed byte may leave no table.
        return path.read_bytes().decode("latin-1")
    return rows.drop(columns=list(TIMES), errors="ignore").to_csv(index=False)


def differing(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """The paths that are in one and not in the other, or are others there."""
    return sorted(path for path in {*found, *wanted} if found.get(path) != wanted.get(path))


# --- Kills ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Event:
    """Something that happens to a pipeline.

    Attributes:
      test: "kill", "term" or "byte".
      what: the stage, or the kind of file.
      how: which processes, or which file.
      share: of `LONGEST`, when it happens after the stage was seen.
      round: in which copy, from 0.
      moment: when it happened, in seconds since the stage was seen.
      lost: seconds of work since the last that was saved.
      ended: seconds until nothing ran any more.
      outcome: "ok", or what went wrong; of a byte what became of it.
    """

    test: str
    what: str
    how: str
    share: float = 0.0
    round: int = 0
    moment: float | None = None
    lost: float | None = None
    ended: float | None = None
    outcome: str = ""

    @property
    def failed(self) -> bool:
        """Whether it was not as it has to be."""
        return self.outcome.startswith("FAILED")

    def fail(self, why: str) -> None:
        """Notes what went wrong, the first time."""
        if not self.failed:
            self.outcome = f"FAILED: {why}"


def plan_stops(seed: int, test: str, quick: bool) -> list[Event]:
    """What is stopped when: as many events of each stage as there have to be, from the seed."""
    rng = random.Random(f"{seed} {test}")
    events = []
    if test == "kill":
        for number in range(1 if quick else 4):
            for stage in KILLS[::3] if quick else KILLS:
                # Everything as with the machine; the pipeline alone; the largest, as for memory.
                how = rng.choices(("all", "pipeline", "largest"), (3, 1, 1))[0]
                events.append(Event(test, stage, how, rng.random(), number))
    else:
        for number in range(1 if quick else 4):
            stages = TERMS[:1] + TERMS[-1:] if quick else (TERMS * 2)[number::4]
            events += [Event(test, of, "pipeline", rng.random(), number) for of in stages]
    return events


def stop(copy: Copy, process: subprocess.Popen, event: Event) -> None:
    """Ends what an event ends, and notes what a pipeline that is asked to stop does wrong."""
    begin = time.monotonic()
    if event.test == "term":
        process.send_signal(signal.SIGTERM)
        while copy.processes() and time.monotonic() < begin + PATIENCE:
            time.sleep(0.1)
            process.poll()
        if left := copy.processes():
            names = collections.Counter(one.name() for one in left)
            event.fail(f"after {PATIENCE:.0f} s there still run {dict(names)}")
        elif process.wait() == 0:
            event.fail("stopped, and the exit status is 0")
        elif "goes on" not in copy.said()[-500:]:
            event.fail("it does not say how to go on")
        elif "Traceback" in copy.said():
            event.fail("it ends with a traceback")
        elif left := [path for path in copy.litter() if "tmp" in path]:
            event.fail(f"left {len(left)} temporary files, such as {left[0]}")
        event.ended = time.monotonic() - begin
        kill_all(copy.folder)
    elif event.how == "all":
        kill_all(copy.folder)
    elif event.how == "pipeline":
        process.kill()
        time.sleep(3.0)  # The next start has to deal with what is left.
    else:
        with contextlib.suppress(psutil.Error, ValueError):
            max(copy.processes(), key=lambda one: one.memory_info().rss).kill()
        time.sleep(3.0)
        kill_all(copy.folder)
    process.wait()


class Storm:
    """A pipeline in a copy that events befall, one after the other."""

    def __init__(self, copy: Copy, reference: Copy):
        self.copy, self._reference = copy, reference
        self._process: subprocess.Popen | None = None
        self._saved: dict[Path, tuple[float, float]] = {}

    def _look(self, event: Event) -> None:
        """Notes if a recording or a run has begun again, or went back to what it was earlier."""
        now = self.copy.saved()
        for path, (amount, _) in self._saved.items():
            whole = path.suffix == ".partial" and path.with_suffix(".npz").exists()
            if not whole and now.get(path, (-1.0, 0.0))[0] < amount:
                there = now[path][0] if path in now else "nothing"
                event.fail(f"{path.relative_to(self.copy.folder)} had {amount}, now {there}")
        self._saved = now

    def _over(self, stage: str) -> bool:
        """Whether the pipeline is at work, and that stage has been."""
        now = self.copy.stages()
        whole = self.copy.made(stage) == self._reference.made(stage)
        return bool(now) and stage not in now and whole

    def befall(self, event: Event) -> bool:
        """Starts the pipeline if none runs, and stops it at the event's moment.

        Returns:
          Whether it came to that: False if the stage was over before.
        """
        process = self._process = self._process or self.copy.start("--cores", "1")
        begin = None  # of the stage
        while process.poll() is None:
            self._look(event)
            if begin is None and event.what in self.copy.stages():
                begin, clock = time.monotonic(), time.time()
            if begin and time.monotonic() > begin + event.share * LONGEST:
                break
            if self._over(event.what):
                return event.failed
            time.sleep(0.1)
        else:
            self._process = None
            if process.returncode != 0:
                event.fail(f"started again, it ends by itself: {tail(self.copy.said())}")
                kill_all(self.copy.folder)
            return event.failed
        event.moment = time.monotonic() - begin
        if event.what in ("collect", "train"):
            event.lost = time.time() - max([clock, *(at for _, at in self.copy.saved().values())])
        stop(self.copy, process, event)
        self._process = None
        self._look(event)
        event.outcome = event.outcome or "ok"
        return True

    def finish(self) -> int:
        """Lets the pipeline come to its end; returns its exit status."""
        if self._process is not None and self._process.wait() == 0:
            return 0
        return self.copy.finish("--cores", "1")


def tail(text: str) -> str:
    """The end of an output on one line."""
    return " / ".join(line.strip() for line in text.splitlines()[-6:] if line.strip())[-400:]


def stages_of(copy: Copy) -> dict[str, float]:
    """Runs the pipeline to its end; returns how many seconds each stage takes."""
    process, seen = copy.start("--cores", "2"), collections.defaultdict(list)
    while process.poll() is None:
        for stage in copy.stages():
            seen[stage].append(time.monotonic())
        time.sleep(0.1)
    if process.returncode or set(seen) != set(STAGES):
        sys.exit(f"the pipeline does not run through ({', '.join(seen)} did): see {copy.log}")
    return {stage: times[-1] - times[0] for stage, times in seen.items()}


def run_round(
    number: int, events: Sequence[Event], work: Path, shared: Path, reference: Copy
) -> list[Event]:
    """Lets events befall the pipeline of a copy, and compares what it makes in the end.

    Returns:
      The events, the last one the end; without those whose stage was over when they came.
    """
    copy = Copy(work / f"round_{number}", shared)
    storm, done = Storm(copy, reference), []
    for event in sorted(events, key=lambda event: list(STAGES).index(event.what)):
        if storm.befall(event):
            done.append(event)
            print(line(event), flush=True)
    end, begin = Event("end", "whole", "", round=number), time.monotonic()
    code = storm.finish()
    end.ended = time.monotonic() - begin
    if code:
        end.fail(f"the last start ends with {code}: {tail(copy.said())}")
    elif others := differing(copy.products(), reference.products()):
        end.fail(f"{len(others)} others than uninterrupted, such as {', '.join(others[:3])}")
    elif left := copy.litter():
        end.fail(f"left {len(left)}, such as {', '.join(left[:3])}")
    end.outcome = end.outcome or "ok"
    print(line(end), flush=True)
    if not end.failed and not any(event.failed for event in done):
        shutil.rmtree(copy.folder)
    return [*done, end]


def run_stops(
    events: Sequence[Event], work: Path, shared: Path, reference: Copy, cores: int
) -> list[Event]:
    """Lets events befall pipelines, a round on each core at a time.

    One that comes when its stage is over has other chances in rounds after, each time sooner.
    """
    done: list[Event] = []
    waiting = list(events)
    for _ in range(CHANCES):
        numbers = sorted({event.round for event in waiting})
        groups = [[event for event in waiting if event.round == number] for number in numbers]
        with ThreadPoolExecutor(cores) as pool:
            for found in pool.map(
                lambda number, group: run_round(number, group, work, shared, reference),
                numbers, groups,
            ):  # fmt: skip
                done += found
        waiting = [event for event in waiting if event not in done]
        if not waiting:
            break
        # Spread as they were, over as many rounds as need be.
        for event in waiting:
            event.round, event.share = event.round + numbers[-1] + 1, event.share / 2
    for event in waiting:
        event.fail("its stage was over each time")
    return done + waiting


# --- Bytes ---------------------------------------------------------------------------------------


def flip(path: Path, rng: random.Random) -> None:
    """Changes one bit of a file, and keeps its time, as a disk would."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def one_of(folder: Path, rng: random.Random) -> Path:
    """A file in a folder: every second time the largest, otherwise any that is not empty."""
    there = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    if rng.random() < 0.5:
        return max(there, key=lambda path: path.stat().st_size)
    return rng.choice(there)


def watched(work: Callable[[], str], folder: Path) -> tuple[str | None, str]:
    """Does something with changed files in a folder.

    Returns:
      What came out, None if it was refused, and how to call that: "refused" by an error of one
      line, "named" if it said something of the folder, "unused" if it did not.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            result = work()
    except (ValueError, OSError, RuntimeError) as error:
        text = str(error)
        if folder.name in text and len(text.splitlines()) == 1:
            return None, "refused"
        name = f"{type(error).__name__} {text.splitlines()[0] if text else ''}"
        return None, f"FAILED: a raw error, {name[:200]}"
    except Exception:
        return None, f"FAILED: a raw error, {tail(traceback.format_exc())[-200:]}"
    return result, "named" if folder.name in said.getvalue() else "unused"


def change(
    kind: str, kept: Path, count: int, rng: random.Random, work: Path, use: Callable[[Path], str]
) -> Iterator[Event]:
    """Changes a bit in copies of a file or folder, and looks at what its use comes to.

    Args:
      kind: of file, for the events.
      kept: the file or folder as it should be.
      count: how many changes.
      rng: draws them.
      work: where the copies go.
      use: from a path to what comes out, as text.
    """

    def copied() -> Path:
        path = work / f"changed_{kept.name}"
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        shutil.copytree(kept, path) if kept.is_dir() else shutil.copy2(kept, path)
        return path

    path = copied()
    wanted, outcome = watched(lambda: use(path), path)
    if outcome != "unused":
        raise RuntimeError(f"{kept} cannot be used as it is: {outcome}")
    for _ in range(count):
        path = copied()
        within = path / "checkpoints" if (path / "checkpoints").exists() else path
        changed = one_of(within, rng) if path.is_dir() else path
        flip(changed, rng)
        name = kept.name if path == changed else f"{kept.name}/{changed.relative_to(path)}"
        result, outcome = watched(lambda path=path: use(path), path)
        if result is not None and result != wanted:
            silent = "silent" if outcome == "unused" else outcome
            outcome = f"FAILED: {silent}, and other numbers came out"
        yield Event("byte", kind, name, outcome=outcome)


def change_kept(reference: Copy, work: Path, total: int, rng: random.Random) -> Iterator[Event]:
    """Changes in checkpoints, half-made recordings and datasets, used in this process."""
    import jax

    from reproduction import plan
    from unplugged import collect, datasets, runs

    jax.config.update("jax_compilation_cache_dir", str(work / "shared" / "compiled"))
    specs = plan.plan(yaml.safe_load(PROFILE.read_text())).specs
    trained = reference.folder / "runs" / "storm"

    def go_on(spec: runs.Spec) -> Callable[[Path], str]:
        more = dataclasses.replace(spec, seeds=(0,), updates=spec.updates + spec.eval_every)

        def use(folder: Path) -> str:
            rows = runs.train(more, folder)
            return rows.drop(columns=[*TIMES, "run"]).to_csv(index=False)

        return use

    def record(folder: Path | None) -> str:
        recorded = collect.train_dqn("catch", episodes=300, noise=0.0, seed=0, partial=folder)
        return datasets.checksum(recorded)

    def load(path: Path) -> str:
        return datasets.checksum(datasets.load(path))

    with contextlib.chdir(reference.folder):
        for (experiment, run), spec in specs.items():
            if (experiment, run) == ("quick_catch", "catch_rosmo"):
                yield from change(
                    "checkpoint", trained / experiment / run, total // 10, rng, work, go_on(spec)
                )
            elif experiment == "online_exploitation":
                yield from change(
                    "checkpoint", trained / experiment / run, total // 10, rng, work, go_on(spec)
                )
        with contextlib.redirect_stdout(io.StringIO()):
            record(work / "bsuite_catch.partial")
        kept = work / "bsuite_catch.partial"
        yield from change("recording", kept, total // 16, rng, work, record)
        for path in sorted(trained.glob("datasets/*.npz")):
            yield from change("dataset", path, 3 * total // 8, rng, work, load)


GROUPS = {  # of files that the pipeline reads: which, and with which options it is run
    "results": ("results/storm/*", ()),
    "results, drawn": ("results/storm/*", ("--figures",)),
    "runs": ("runs/storm/*/*/*.csv", ()),
    "runs, edited": ("runs/storm/*/*/*.csv", ()),  # The same, and the files' times are now.
    "provenance": ("runs/storm/*/*/*.json", ()),
}


def change_results(reference: Copy, total: int, rng: random.Random) -> Iterator[Event]:
    """Changes in results, CSVs and provenance, several files at a time, through the pipeline."""
    kept, folder = reference.folder.with_name("kept"), reference.folder
    wanted = reference.products()
    shutil.copytree(folder, kept, symlinks=True)

    def run(kind: str, names: Sequence[str]) -> Iterator[Event]:
        options = GROUPS[kind][1]
        for name in names:
            flip(folder / name, rng)
            if "edited" in kind:
                os.utime(folder / name)
        code = reference.finish(*options)
        said, unnamed = reference.said(), []
        if options:
            said += "".join(page.read_text() for page in folder.glob("figures/**/README.md"))
        same = not differing(reference.products(), wanted)
        for name in names:
            if name in said or (options and Path(name).name in said):
                outcome = "refused" if code else "named"
            elif code and len(names) > 1:
                unnamed.append(name)
                continue
            else:
                outcome = "unused" if same else "FAILED: silent, and other results came out"
            yield Event("byte", f"{kind} {Path(name).suffix}".rstrip(), name, outcome=outcome)
        kill_all(folder)
        shutil.rmtree(folder)
        shutil.copytree(kept, folder, symlinks=True)
        for name in unnamed:  # What it would come to without the others, by which it was refused.
            yield from run(kind, [name])

    done = 0
    for kind in itertools.cycle(GROUPS):
        if done >= total:
            break
        paths = [path for path in folder.glob(GROUPS[kind][0]) if path.is_file()]
        names = sorted(str(path.relative_to(folder)) for path in paths if path.stat().st_size)
        yield from run(kind, names)
        done += len(names)
    shutil.rmtree(kept)


# --- Report --------------------------------------------------------------------------------------


def line(event: Event) -> str:
    """An event as a line."""
    when = "" if event.moment is None else f" + {event.moment:.1f} s"
    return (
        f"{event.test} of round {event.round}, {event.what}{when} {event.how}: {event.outcome}"
        if event.test != "byte"
        else f"byte of {event.what}, {event.how}: {event.outcome}"
    )


def table(events: Sequence[Event]) -> str:
    """Events by what they befell: how many, how many failed, the worst of times, what became."""
    lines = [f"{'':28}{'events':>7}{'failed':>7}{'lost at most':>14}{'ended within':>14}"]
    groups: dict[str, list[Event]] = {}
    for event in events:
        groups.setdefault(f"{event.test} {event.what}", []).append(event)
    for name, of in groups.items():
        lost = max((event.lost for event in of if event.lost is not None), default=None)
        ended = max((event.ended for event in of if event.ended is not None), default=None)
        shown = [f"{x:.1f} s" if x is not None else "" for x in (lost, ended)]
        outcomes = collections.Counter(
            event.outcome for event in of if event.test == "byte" and not event.failed
        )
        became = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        failed = sum(event.failed for event in of)
        row = f"{name:28}{len(of):7}{failed:7}{shown[0]:>14}{shown[1]:>14}  {became}"
        lines.append(row.rstrip())
    return "\n".join(lines)


def write(out: Path, events: Sequence[Event], about: dict[str, Any]) -> None:
    """Writes events and what they ran on, in place of those of the same kinds that are there."""
    out.mkdir(parents=True, exist_ok=True)
    table, facts = out / "storm.csv", out / "storm.json"
    frame = pd.DataFrame([dataclasses.asdict(event) for event in events]).round(2)
    kinds = set(frame["test"])
    if table.exists():
        before = pd.read_csv(table)
        frame = pd.concat([before[~before["test"].isin(kinds)], frame])
    known = json.loads(facts.read_text()) if facts.exists() else {}
    known |= {
        kind: about
        | {"failures": [line(event) for event in events if event.failed and event.test == kind]}
        for kind in sorted(kinds)
    }
    files.write_whole(table, frame.to_csv(index=False).encode())
    files.write_whole(facts, (json.dumps(known, indent=2) + "\n").encode())
    checksums.accept(out)


def main() -> int:
    """Runs the storm; returns 1 if an event failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of moments, victims and bytes")
    parser.add_argument("--only", choices=("kills", "terms", "bytes"), help="one part of it")
    parser.add_argument("--round", type=int, help="one round of kills and terms, to repeat it")
    parser.add_argument("--quick", action="store_true", help="a few events of each")
    parser.add_argument("--out", type=Path, help="where storm.csv goes; by default nowhere")
    parser.add_argument("--work", type=Path, help="a new folder to work in, which is then kept")
    options = parser.parse_args()
    for name, value in (("NPROC", "1"), ("OMP_NUM_THREADS", "1"), ("JAX_PLATFORMS", "cpu")):
        os.environ.setdefault(name, value)  # So that numbers are the same.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    about, begin = machine(options.quick), time.monotonic()
    work = (options.work or Path(tempfile.mkdtemp(prefix="storm-"))).resolve()
    shared = work / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    events: list[Event] = []
    reference = Copy(work / "uninterrupted", shared)
    try:
        spans = stages_of(reference)
        seconds = ", ".join(f"{stage} {span:.0f} s" for stage, span in spans.items())
        print(f"uninterrupted: {time.monotonic() - begin:.0f} s, of that {seconds}", flush=True)
        if left := reference.litter():
            print(f"note: uninterrupted, it left {len(left)}, such as {left[0]}", flush=True)
        stops = [
            event
            for test in ("kill", "term")
            if options.only in (None, f"{test}s")
            for event in plan_stops(options.seed, test, options.quick)
            if options.round in (None, event.round)
        ]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        events += run_stops(stops, work, shared, reference, cores)

        def report(some: Sequence[Event]) -> None:
            seconds = round(time.monotonic() - begin)
            if options.out and some:
                facts = {"seed": options.seed, "seconds": seconds, "stages": spans}
                write(options.out, some, about | facts)

        report(events)
        if options.only in (None, "bytes") and options.round is None:
            total, rng = 20 if options.quick else 100, random.Random(f"{options.seed} bytes")
            changed = itertools.chain(
                change_kept(reference, work, total, rng), change_results(reference, total, rng)
            )
            for event in tqdm(changed, total=2 * total, unit="byte"):
                events.append(event)
                if event.failed:
                    tqdm.write(line(event))
            report([event for event in events if event.test == "byte"])
    finally:
        kill_all(work)
    failed = [event for event in events if event.failed]
    print(f"\n{table(events)}\n")
    for event in failed:
        print(f"{line(event)}   [--seed {options.seed} --round {event.round}]")
    if failed or options.work:
        print(f"what was left is in {work}")
    else:
        shutil.rmtree(work)
    print(f"{time.monotonic() - begin:.0f} s, {len(events)} events, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
