"""Measures speed and memory, in one run: `python benchmarks/measure.py --out results/bench`.

Writes bench.csv, one row a number, and bench.json, what it ran on. Every measurement has
its own process; this one loads nothing heavy, so that the peak memory of the others is theirs.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import json
import os
import platform
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reproduction import checksums

HERE = Path(__file__).parent
COLUMNS = ("measure", "method", "setting", "value", "unit", "repeats", "note")
PACKAGES = ("unplugged", "jax", "jaxlib", "dm-haiku", "optax", "mctx", "numpy", "bsuite")
# One thread a process: none of XLA's pools, none of OpenMP's.
SINGLE = {
    "NPROC": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}
REQUIRED = {"rosmo": 6.0, "mzu": 5.0}  # fused over reference at BSuite's sizes, two cores
PIXELS = "breakout"  # every method at its size, one core
REQUIRED_PIXELS = 2.0


class MeasurementError(RuntimeError):
    """A measurement's process failed."""


class Worker:
    """A process that takes one measurement on given cores."""

    def __init__(self, name: str, arguments: dict[str, Any], cores: list[int], *, single: bool):
        keep = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
        environment = {key: os.environ[key] for key in keep if key in os.environ}
        environment |= {"JAX_PLATFORMS": "cpu"} | (SINGLE if single else {})
        self.name = f"{name} {json.dumps(arguments)}"
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(HERE / "worker.py"),
                ",".join(map(str, cores)),
                name,
                json.dumps(arguments),
            ],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def write(self, line: str) -> None:
        """Sends a line."""
        try:
            print(line, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self.fail()

    def read(self) -> dict[str, Any] | None:
        """The next answer; None when the process has ended well."""
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        if self._process.wait() != 0:
            self.fail()
        return None

    def fail(self) -> None:
        """Raises MeasurementError with the end of the process's error output."""
        self._process.wait()
        self._errors.seek(0)
        last = "\n".join(self._errors.read().strip().splitlines()[-12:])
        raise MeasurementError(f"{self.name}: exit {self._process.returncode}\n{last}")


class Report:
    """Rows so far; each is printed, and written to the CSV, as it comes."""

    def __init__(self, path: Path):
        self._begin = time.monotonic()
        self._lock = threading.Lock()
        self._file = path.open("w", newline="")
        self._writer = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
        self._writer.writeheader()

    def add(self, row: dict[str, Any]) -> None:
        """Takes a row in."""
        label = " ".join(x for x in (row["measure"], row["method"], row["setting"]) if x)
        value = f"{row['value']:>10.4g} {row['unit']}"
        with self._lock:
            self._writer.writerow(row | {"value": f"{row['value']:.6g}"})
            self._file.flush()
            print(f"{time.monotonic() - self._begin:5.0f} s  {label:<68}{value}", flush=True)

    def close(self) -> None:
        """Ends the file."""
        self._file.close()


def single(report: Report, core: int, name: str, arguments: dict[str, Any]) -> None:
    """Takes one measurement on one core."""
    with Worker(name, arguments, [core], single=True) as worker:
        while (row := worker.read()) is not None:
            report.add(row)


def ratio(
    report: Report, cores: list[int], *, method: str, data: str, pairs: int, seconds: float
) -> None:
    """Reference on all of the cores, then a fused learner on each; in turn, several times."""
    arguments = {"method": method, "data": data}
    sides = {
        "reference": [Worker("serve", {"side": "reference", **arguments}, cores, single=False)],
        "fused": [
            Worker("serve", {"side": "fused", **arguments}, [core], single=True) for core in cores
        ],
    }
    workers = [worker for side in sides.values() for worker in side]

    def add(measure: str, statistic: str, value: float, unit: str, repeats: int, note: str) -> None:
        setting = f"data={data}, {statistic}"
        row = (measure, method, setting, value, unit, repeats, note)
        report.add(dict(zip(COLUMNS, row)))

    try:
        for worker in workers:
            worker.read()
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(pairs):
            for side, members in sides.items():
                begin = time.monotonic() + 0.1
                for worker in members:
                    worker.write(f"{begin} {seconds}")
                rates[side].append(sum(worker.read()["rate"] for worker in members))
    finally:
        for worker in workers:
            worker.__exit__()
    ratios = [fused / ref for fused, ref in zip(rates["fused"], rates["reference"])]
    for i, pair in enumerate(zip(rates["reference"], rates["fused"], ratios), start=1):
        for side, rate in zip(sides, pair):
            add(f"{side} loop", f"pair={i}", rate, "updates/s", 1, f"cores: {len(cores)}")
        add("fused / reference", f"pair={i}", pair[2], "ratio", 1, "")
    required = REQUIRED_PIXELS if data == PIXELS else REQUIRED[method]
    note = f"required: {required:g}"
    for name, fn in (("median", statistics.median), ("min", min), ("max", max)):
        add("fused / reference", f"statistic={name}", fn(ratios), "ratio", pairs, note)


def method_names() -> list[str]:
    """Methods that learn discrete actions from windows; asked of a process, as that needs jax."""
    code = (
        "from unplugged.learning.methods import METHODS as table; print(*[name for name, one in "
        "table.items() if one.spaces != 'continuous' and not one.imagines])"
    )
    return subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()


def single_jobs(quick: bool) -> list[tuple[str, dict[str, Any]]]:
    """Name and arguments of every measurement on one core."""
    jobs: list[tuple[str, dict[str, Any]]] = []

    def add(name: str, **arguments: Any) -> None:
        jobs.append((name, arguments))

    names = ["cartpole"] if quick else ["cartpole", "catch"]
    checked = ["rosmo"] if quick else list(REQUIRED)
    seconds = 0.1 if quick else 0.4
    for data in [*names, PIXELS]:
        add("share", data=data, seconds=0.2 if quick else 1.0, repeats=3 if quick else 8)
    for method in checked:
        add(
            "split", method=method, data="catch", network="mlp", trained=10 if quick else 500,
            length=50 if quick else 300, repeats=3,
        )  # fmt: skip
        for network in ["conv"] if quick else ["conv", "conv_mlp"]:
            add(
                "split", method=method, data=PIXELS, network=network, trained=5 if quick else 300,
                length=5 if quick else 20, repeats=3,
            )  # fmt: skip
    add(
        "networks", methods=["bc"] if quick else ["bc", "crr", "cql", "rosmo", "mzu"], data=PIXELS,
        trained=5 if quick else 300, length=5 if quick else 10, repeats=2 if quick else 8,
    )  # fmt: skip
    add(
        "split", method="mzu", data="walker", network="mlp", trained=1 if quick else 100, length=1,
        repeats=1 if quick else 3,
    )  # fmt: skip
    add(
        "continuous", methods=["mzu", "rosmo_sampled"] if quick else
        ["mzu", "reanalyse", "rosmo_sampled", "bc"],
        data="walker", length=1, repeats=1 if quick else 5,
    )  # fmt: skip
    simulations = [1] if quick else [1, 2, 4, 8, 16, 32, 64]
    batches = [32, 64] if quick else [32, 64, 128, 256, 512, 1024]
    common = {"data": "catch", "seconds": seconds}
    add("growth", method="mzu", field="num_simulations", values=simulations, **common)
    for method in checked:
        add("growth", method=method, field="batch_size", values=batches, **common)
    # rosmo does not search; its row is what the others are compared with.
    for method in ["rosmo", "mzu"]:
        few = [4] if method == "rosmo" else [1, 2] if quick else [1, 2, 4, 8, 20, 50]
        pixels = {"data": PIXELS, "seconds": seconds}
        add("growth", method=method, field="num_simulations", values=few, **pixels)
    add("seeds", method="rosmo", values=[2] if quick else [1, 2, 4, 8], **common)
    for data in [*names, PIXELS]:
        add("sampling", data=data, seconds=seconds)
    add(
        "feeding", steps=20_000 if quick else 1_000_000, batch=512, seconds=0.2 if quick else 2.0,
    )  # fmt: skip
    for channels, batch in [([16], 2)] if quick else [([64] * 6, 8), ([16], 32)]:
        add("images", channels=channels, batch=batch, repeats=1 if quick else 5)
    add(
        "table", rows=5_000 if quick else 1_000_000, columns=30, asked=1_000 if quick else 100_000,
    )  # fmt: skip
    for data in names:
        add("evaluation", data=data, episodes=20, seconds=seconds)
    for episodes in [32] if quick else [32, 256]:
        add("evaluation", data=PIXELS, episodes=episodes, seconds=seconds)
    online = {"game": PIXELS, "fraction": 0.9, "seconds": 2 * seconds, "split": False}
    usual = {"simulations": 8, "round_updates": 10}
    if not quick:
        for simulations in (2, 4, 8, 20):
            add("online", **online | usual | {"simulations": simulations})
        for round_updates in (1, 2, 5, 20):
            add("online", **online | usual | {"round_updates": round_updates})
    for fraction in [0.9] if quick else [0.0, 0.5, 0.9, 0.985]:
        add("online", **online | usual | {"fraction": fraction, "split": True})
    for method in checked if quick else method_names():
        add("costs", method=method, data="cartpole")
    return jobs


def run_all(report: Report, cores: list[int], quick: bool, only: list[str]) -> list[str]:
    """Takes every measurement, or those on one core of these names; returns what failed."""
    failures: list[str] = []

    def attempt(job: Callable[..., None], *arguments: Any, **keywords: Any) -> None:
        try:
            job(report, *arguments, **keywords)
        except MeasurementError as error:
            print(f"failed: {error}", file=sys.stderr, flush=True)
            failures.append(str(error).splitlines()[0])

    if only:
        for name, arguments in single_jobs(quick):
            if name in only:
                attempt(single, cores[0], name, arguments)
        return failures
    methods = ["rosmo"] if quick else list(REQUIRED)
    attempt(single, cores[0], "check", {"methods": methods})
    if failures:
        return failures
    timing = {"pairs": 2, "seconds": 0.5} if quick else {"pairs": 5, "seconds": 1.5}
    for data in ["cartpole"] if quick else ["cartpole", "catch"]:
        for method in methods:
            attempt(ratio, cores, method=method, data=data, **timing)
    timing = {"pairs": 2, "seconds": 0.5} if quick else {"pairs": 3, "seconds": 3.0}
    for method in methods if quick else method_names():
        attempt(ratio, cores[:1], method=method, data=PIXELS, **timing)
    free: queue.Queue[int] = queue.Queue()
    for core in cores if quick else cores[:1]:
        free.put(core)

    def one(job: tuple[str, dict[str, Any]]) -> None:
        core = free.get()
        try:
            attempt(single, core, *job)
        finally:
            free.put(core)

    # One at a time, or, where the numbers do not matter, one on each core.
    with ThreadPoolExecutor(free.qsize()) as pool:
        list(pool.map(one, single_jobs(quick)))
    return failures


def machine(quick: bool) -> dict[str, Any]:
    """What the numbers were taken on."""
    cpu = platform.processor() or "unknown"
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        cpu = models[0].split(":", 1)[1].strip() if models else cpu
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "load before": os.getloadavg()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "quick": quick,
    }


def renewed(whole: Path, part: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Puts the rows that were not taken again before the new ones; returns bench.json's content.

    Args:
      whole: bench.csv, beside its bench.json.
      part: the new rows; rows of the same measure, method and setting replace the old ones.
      about: the new rows' part of bench.json, which goes to the list `again` of the old one.
    """
    with part.open(newline="") as file:
        new = list(csv.DictReader(file))
    with whole.open(newline="") as file:
        old = list(csv.DictReader(file))
    taken = {tuple(row[x] for x in COLUMNS[:3]) for row in new}
    kept = [row for row in old if tuple(row[x] for x in COLUMNS[:3]) not in taken]
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + new)
    before = json.loads(whole.with_suffix(".json").read_text())
    return before | {"again": [*before.get("again", []), about]}


def main() -> int:
    """Runs all measurements; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="some minutes, to see that it works")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="output folder")
    known = sorted({name for name, _ in single_jobs(quick=False)})
    parser.add_argument(
        "--only", nargs="+", choices=known, default=[], metavar="NAME",
        help="take these measurements again and keep the other rows: " + ", ".join(known),
    )  # fmt: skip
    options = parser.parse_args()
    whole, part = options.out / "bench.csv", options.out / "bench.csv.part"
    if options.only and (options.quick or not whole.exists()):
        parser.error(f"--only renews rows of {whole}: run without it, and without --quick, first")
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("this system cannot pin a process to a core; run the benchmark on Linux")
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        sys.exit("the benchmark compares loops on two cores, and this process may use only one")
    options.out.mkdir(parents=True, exist_ok=True)
    about = machine(options.quick)
    if about["load before"] > 0.5:
        print(f"note: the machine is busy (load {about['load before']:.1f}); ratios will suffer")
    begin = time.monotonic()
    report = Report(part)
    failures = run_all(report, cores, options.quick, options.only)
    report.close()
    seconds = round(time.monotonic() - begin)
    about |= {"seconds": seconds, "failures": failures}
    if options.only:
        about = renewed(whole, part, about | {"only": options.only})
    os.replace(part, whole)
    (options.out / "bench.json").write_text(json.dumps(about, indent=2) + "\n")
    checksums.accept(options.out)
    print(f"{whole}: {seconds} s, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
