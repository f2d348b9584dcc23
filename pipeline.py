"""Runs the pipeline for one profile: one at a time in a clone, errors first, then Snakemake.

python pipeline.py --profile quick [--figures | --progress | --adopt] [-- Snakemake options]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from pathlib import Path

import yaml

from unplugged.common import checks, files

ROOT = Path(__file__).parent
TELL_EVERY = 300.0  # seconds between lines on how far the whole is


def how_far(profile: Path, cores: int, *, whole: bool) -> str:
    """How far a profile's runs are: a line, or a line an experiment as well."""
    from reproduction import plan, progress  # Imports jax, which takes a while.

    content = yaml.safe_load(profile.read_text())
    records = progress.progress(plan.plan(content), ROOT / "runs" / content["profile"])
    return progress.table(records, cores) if whole else progress.describe(records, cores)


def settle(profile: Path, *, adopt: bool, only_name: bool = False) -> str:
    """Lets go of adopted runs that the profile has changed; takes committed results if told to.

    Returns:
      What was done, a line each.
    """
    from reproduction import adoption, plan

    content = yaml.safe_load(profile.read_text())
    wanted, folder = plan.plan(content), ROOT / "runs" / content["profile"]
    programs = adoption.Programs(ROOT / "runs" / "programs.json")
    lines = [
        f"{run} is another run now"
        for run in adoption.let_go(wanted, folder, programs, only_name=only_name)
    ]
    if adopt:
        found = adoption.adopt(wanted, ROOT / "results" / content["profile"], folder, programs)
        for name, (taken, other) in found.items():
            lines.append(f"{name}: {taken} runs taken from committed results")
            lines += [
                f"  {run}: not as today's code would train it ({', '.join(parts)})"
                for run, parts in other.items()
            ]
        if not found:
            lines.append("there are no committed results of this profile")
        if any(other for _, other in found.values()):
            lines.append("UNPLUGGED_ADOPT=1 takes those as well")
    return "\n".join(lines)


def tell(profile: Path, cores: int, stop: threading.Event) -> None:
    """Prints how far the whole is, every few minutes."""
    while not stop.wait(TELL_EVERY):
        print(f"[progress] {how_far(profile, cores, whole=False)}", flush=True)


def what_next(profile: Path) -> str:
    """Where a profile's figures are, and what to try with them there."""
    name = yaml.safe_load(profile.read_text())["profile"]
    own = ROOT / "figures" / name / "README.md"
    page = own if own.exists() else ROOT / "figures" / "README.md"
    return "\n".join(
        [
            "",
            f"Figures and tables: {page.relative_to(ROOT)}, of the full study figures/README.md.",
            "What next:",
            "  make lab                      look into a trained model, write your own operator",
            "  README.md, your own data      train on episodes of your own",
            "  make reproduce PROFILE=cpu    the full study: about 37 hours on two cores",
        ]
    )


def main() -> int:
    """Returns Snakemake's exit status, or 2 if it could not begin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", help="a file in profiles/, or a path")
    parser.add_argument("--figures", action="store_true", help="draw committed results only")
    parser.add_argument("--progress", action="store_true", help="say how far the runs are")
    parser.add_argument(
        "--adopt", action="store_true", help="take committed results as runs that are done"
    )
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("rest", nargs="*", help="passed on to Snakemake")
    arguments = parser.parse_args()
    try:
        path = Path(arguments.profile)
        if path.suffix != ".yaml":
            known = [p.stem for p in (ROOT / "profiles").glob("*.yaml")]
            name = checks.one_of("profile", arguments.profile, known)
            path = ROOT / "profiles" / f"{name}.yaml"
        checks.within("cores", arguments.cores, 1, integer=True)
        if arguments.progress:
            print(how_far(path, arguments.cores, whole=True))
            return 0
        files.writable_folder(ROOT / "runs")
        dry = bool({"-n", "--dry-run", "--dryrun"} & set(arguments.rest))
        busy = "another pipeline is at work in this clone; wait for it, or use a clone of its own"
        # A pipeline that was killed a moment ago may take a little while to be gone.
        with files.lock(ROOT / "runs" / ".lock", patience=5.0, busy=busy) as handle:
            if not arguments.figures and (
                said := settle(path, adopt=arguments.adopt, only_name=dry)
            ):
                print(said, flush=True)
            if arguments.adopt:
                return 0
            command = [sys.executable, "-m", "snakemake", "--configfile", str(path.resolve())]
            if arguments.figures:
                command += ["--config", "draw_only=1", "--forceall"]
            command += ["--cores", str(arguments.cores)]
            environment = {
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            }
            # The child inherits the lock, so that it outlives this process if need be.
            stop = threading.Event()
            telling = threading.Thread(target=tell, args=(path, arguments.cores, stop), daemon=True)
            telling.start()
            try:
                code = subprocess.run(
                    command + arguments.rest, cwd=ROOT, env=environment, pass_fds=[handle]
                ).returncode
            finally:
                stop.set()
            if code == 0 and not (arguments.rest or arguments.figures):
                print(what_next(path))
            return code
    except (ValueError, OSError, files.LockedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
