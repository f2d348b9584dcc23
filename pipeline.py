"""Runs the pipeline for one profile: one at a time in a clone, errors first, then Snakemake.

python pipeline.py --profile quick [--figures | --progress | --adopt] [-- Snakemake options]

However it is stopped, the same command goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unplugged.common import checks, files

if TYPE_CHECKING:
    from reproduction.plan import Plan

ROOT = Path(os.path.relpath(Path(__file__).parent))  # so that what is printed is short
TELL_EVERY = 300.0  # seconds between lines on how far the whole is
DRAW_ONLY = "draw_only=1"  # for Snakemake
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """Somebody stops the pipeline.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def listen() -> None:
    """Makes signals raise `Stopped`, but those that are ignored, as by nohup."""

    def stop(number: int, frame: Any) -> None:
        for one in SIGNALS:  # Once is enough; what follows takes seconds.
            signal.signal(one, signal.SIG_IGN)
        raise Stopped(number)

    for one in SIGNALS:
        if signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, stop)


def how_far(name: str, wanted: Plan, cores: int, *, whole: bool) -> str:
    """How far a profile's runs are: a line, or a line an experiment as well."""
    from reproduction import devices, progress

    cores = min(cores, len(devices.here()) or cores)  # Each has one run at a time.
    records = progress.progress(wanted, ROOT / "runs" / name)
    return progress.table(records, cores) if whole else progress.describe(records, cores)


def settle(name: str, wanted: Plan, *, adopt: bool, only_name: bool = False) -> str:
    """Lets go of adopted runs that the profile has changed; takes committed results if told to.

    Returns:
      What was done, a line each.
    """
    from reproduction import adoption

    folder = ROOT / "runs" / name
    programs = adoption.Programs(ROOT / "runs" / "programs.json")
    lines = [
        f"{run} is another run now"
        for run in adoption.let_go(wanted, folder, programs, only_name=only_name)
    ]
    if adopt:
        found = adoption.adopt(wanted, ROOT / "results" / name, folder, programs)
        for experiment, (taken, other) in found.items():
            lines.append(f"{experiment}: {taken} runs taken from committed results")
            lines += [
                f"  {run}: not as today's code would train it ({', '.join(parts)})"
                for run, parts in other.items()
            ]
        if not found:
            lines.append("there are no committed results of this profile")
        if any(other for _, other in found.values()):
            lines.append("UNPLUGGED_ADOPT=1 takes those as well")
    return "\n".join(lines)


def tell(name: str, wanted: Plan, cores: int, stop: threading.Event) -> None:
    """Prints how far the whole is, every few minutes."""
    while not stop.wait(TELL_EVERY):
        print(f"[progress] {how_far(name, wanted, cores, whole=False)}", flush=True)


def what_next(name: str) -> str:
    """Where a profile's figures are, and what to try with them there."""
    own = ROOT / "figures" / name / "README.md"
    page = own if own.exists() else ROOT / "figures" / "README.md"
    return "\n".join(
        [
            "",
            f"Figures and tables: {page.relative_to(ROOT)}, of the full study figures/README.md.",
            "What next:",
            "  make lab                      look into a trained model, write your own operator",
            "  README.md, your own data      train on episodes of your own",
            "  make reproduce PROFILE=cpu    the full study: about 85 hours on two cores",
        ]
    )


def make_folders(name: str) -> None:
    """Makes the folders that are written to; keeps checksums of results from now on.

    Raises:
      PermissionError: with a line for each folder that cannot be written.
    """
    from reproduction import checksums

    wrong = []
    for folder in (f"runs/{name}", f"results/{name}", "figures", f"figures/{name}", ".snakemake"):
        try:
            files.writable_folder(ROOT / folder)
        except OSError as error:
            wrong.append(str(error))
    if wrong:
        raise PermissionError("\n".join(wrong))
    if not (ROOT / "results" / name / checksums.SUMS).exists():
        checksums.accept(ROOT / "results" / name)


def check_results(name: str, *, draw_only: bool) -> None:
    """Raises ValueError if results are not as they were gathered; only warns if `draw_only`."""
    from reproduction import checksums, profiles

    folder = ROOT / "results" / name
    beside = [folder.parent / other for other in ("published", profiles.RECORDINGS)]
    lines = checksums.complaints(folder, folder.parent, *beside)
    lines += [] if draw_only else checksums.complaints_of_runs(ROOT / "runs" / name)
    if lines and not draw_only:
        raise ValueError("\n".join(lines))
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)


def check_sources(name: str, wanted: Plan, *, dry: bool) -> None:
    """Raises FileNotFoundError if folders to import from are not there; only warns if `dry`.

    What is imported already, and what finished runs learned from, is not asked for.
    """
    runs = ROOT / "runs" / name
    missing: dict[str, set[str]] = {}
    for (experiment, run), spec in wanted.specs.items():
        collection = wanted.collections.get(Path(getattr(spec, "dataset", None) or "").name)
        folder = collection.parameters.get("files_in") if collection else None
        if not collection or not folder or (ROOT / files.expanded(folder)).is_dir():
            continue
        made = (f"{experiment}/{run}/results.csv", f"datasets/{collection.file}.returns.csv")
        if not any((runs / path).exists() for path in made):
            missing.setdefault(folder, set()).add(collection.environment)
    lines = [
        f"there is no folder {folder} (files_in), and {len(games)} games, such as {min(games)}, "
        "are to be imported from it"
        for folder, games in missing.items()
    ]
    if lines and not dry:
        raise FileNotFoundError("\n".join(lines))
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)


def tidy(name: str) -> None:
    """Removes what a pipeline that was killed has left: temporary files and folders."""
    shutil.rmtree(ROOT / "runs" / ".tmp", ignore_errors=True)
    unfinished = list((ROOT / "runs").glob("*.tmp"))
    for folder in (f"runs/{name}", f"results/{name}", "figures"):
        unfinished += (ROOT / folder).rglob("*.tmp")
    for left in unfinished:
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Holds the clone: no other pipeline is at work in it, and nothing of an earlier one is left.

    No child has the lock, so that it is free as soon as this process is gone. What that process has
    started ends by itself (`processes.watch`), or here.
    """
    from reproduction import processes

    files.writable_folder(ROOT / "runs")
    busy = "another pipeline is at work in this clone; wait for it, or use a clone of its own"
    with files.lock(ROOT / "runs" / ".lock", patience=5.0, busy=busy):
        if count := processes.end(ROOT):
            print(f"ended {count} processes that an earlier pipeline had left", flush=True)
        tidy(name)
        yield


def snakemake(name: str, wanted: Plan, cores: int, options: list[str]) -> int:
    """Runs Snakemake to its end, and ends all that it started; returns its exit status."""
    from reproduction import processes

    scratch = files.writable_folder(ROOT / "runs" / ".tmp")
    environment = {
        **os.environ,
        processes.MARK: processes.mark(ROOT),
        "TMPDIR": str(scratch.resolve()),  # Whatever jobs leave there, `tidy` finds.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    stop = threading.Event()
    if DRAW_ONLY not in options:
        arguments = (name, wanted, cores, stop)
        threading.Thread(target=tell, args=arguments, daemon=True).start()
    try:
        # In a session of its own, so that Ctrl-C comes here alone.
        with subprocess.Popen(
            [sys.executable, "-m", "snakemake", *options],
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        ) as child:
            try:
                return child.wait()
            finally:
                child.kill()  # Before its jobs, or it would take them for failed and say so.
    finally:
        stop.set()
        processes.end(ROOT)
        tidy(name)


def work(arguments: argparse.Namespace) -> int:
    """What the command line asks for; returns an exit status."""
    path = Path(arguments.profile)
    if path.suffix != ".yaml":
        known = [p.stem for p in (ROOT / "profiles").glob("*.yaml")]
        name = checks.one_of("profile", arguments.profile, known)
        path = ROOT / "profiles" / f"{name}.yaml"
    checks.within("cores", arguments.cores, 1, integer=True)

    from reproduction import devices, plan  # Imports jax, which takes a while.

    devices.leave()
    content, wanted = plan.read(path)
    name = content["profile"]
    if arguments.progress:
        print(how_far(name, wanted, arguments.cores, whole=True))
        return 0
    dry = bool({"-n", "--dry-run", "--dryrun"} & set(arguments.rest))
    with alone(name):
        if not (arguments.figures or arguments.adopt):
            check_sources(name, wanted, dry=dry)
        if not dry:
            make_folders(name)
        check_results(name, draw_only=arguments.figures)
        if not arguments.figures and (
            said := settle(name, wanted, adopt=arguments.adopt, only_name=dry)
        ):
            print(said, flush=True)
        if arguments.adopt:
            return 0
        options = ["--configfile", str(path.resolve())]
        if arguments.figures:
            options += ["--config", DRAW_ONLY, "--forceall"]
        options += ["--cores", str(arguments.cores), *arguments.rest]
        code = snakemake(name, wanted, arguments.cores, options)
    if code == 0 and not (arguments.rest or arguments.figures):
        print(what_next(name))
    return code


def main() -> int:
    """Returns Snakemake's exit status, 2 if it could not begin, or 128 and more if stopped."""
    listen()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", help="a file in profiles/, or a path")
    parser.add_argument("--figures", action="store_true", help="draw committed results only")
    parser.add_argument("--progress", action="store_true", help="say how far the runs are")
    parser.add_argument(
        "--adopt", action="store_true", help="take committed results as runs that are done"
    )
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("rest", nargs="*", help="passed on to Snakemake")
    try:
        return work(parser.parse_args())
    except (ValueError, OSError, files.LockedError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print("\nstopped; the same command goes on where this was cut off", file=sys.stderr)
        sys.stdout.flush()
        os._exit(128 + stopped.number)  # What was imported takes long to leave in order.


if __name__ == "__main__":
    sys.exit(main())
