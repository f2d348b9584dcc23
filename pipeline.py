"""Runs the pipeline for one profile: one at a time in a clone, errors first, then Snakemake.

python pipeline.py --profile smoke [--figures] [--cores 2] [-- any Snakemake option]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from unplugged import checks, files

ROOT = Path(__file__).parent


def main() -> int:
    """Returns Snakemake's exit status, or 2 if it could not begin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="smoke", help="a file in profiles/, or a path")
    parser.add_argument("--figures", action="store_true", help="draw committed results only")
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
        files.writable_folder(ROOT / "runs")
        busy = "another pipeline is at work in this clone; wait for it, or use a clone of its own"
        # A pipeline that was killed a moment ago may take a little while to be gone.
        with files.lock(ROOT / "runs" / ".lock", patience=5.0, busy=busy) as handle:
            command = [sys.executable, "-m", "snakemake", "--configfile", str(path.resolve())]
            if arguments.figures:
                command += ["--config", "draw_only=1", "--forceall"]
            command += ["--cores", str(arguments.cores)]
            environment = {
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            }
            # The child inherits the lock, so that it outlives this process if need be.
            return subprocess.run(
                command + arguments.rest, cwd=ROOT, env=environment, pass_fds=[handle]
            ).returncode
    except (ValueError, OSError, files.LockedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
