"""What a pipeline started is found and ended, also what has a session of its own."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from reproduction import processes

SLEEPS = "import time; time.sleep(60)"
# As papermill does with a kernel.
STARTS = (
    "import subprocess, sys, time; "
    f"subprocess.Popen([sys.executable, '-c', {SLEEPS!r}], start_new_session=True); time.sleep(60)"
)


def start(root, code, of=None):
    mark = processes.mark(root) if of is None else f"{of}:{root.resolve()}"
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, processes.MARK: mark},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for(condition):
    deadline = time.time() + 30
    while not condition():
        assert time.time() < deadline
        time.sleep(0.02)


@pytest.fixture
def roots(tmp_path):
    """Two clones; nothing is left in them."""
    found = [tmp_path / "one", tmp_path / "other"]
    for root in found:
        root.mkdir()
    yield found
    for root in found:
        processes.end(root)


def test_all_that_was_started_in_a_clone_is_ended(roots):
    child, other = start(roots[0], STARTS), start(roots[1], SLEEPS)
    wait_for(lambda: len(processes.marked(roots[0])) == 2)
    assert processes.end(roots[0]) == 2
    assert processes.marked(roots[0]) == [] and not psutil.pid_exists(child.pid)
    assert [one.pid for one in processes.marked(roots[1])] == [other.pid]


def test_what_watches_ends_all_when_its_pipeline_is_gone(roots):
    pipeline = subprocess.Popen([sys.executable, "-c", SLEEPS])
    watches = (
        "import time; from pathlib import Path; from reproduction import processes; "
        f"processes.watch(Path({str(roots[0])!r})); time.sleep(60)"
    )
    watching, other = start(roots[0], watches, pipeline.pid), start(roots[0], STARTS, pipeline.pid)
    another = start(roots[0], SLEEPS, os.getpid())  # Of a pipeline that began since.
    wait_for(lambda: len(processes.marked(roots[0])) == 4)
    pipeline.kill()  # It is a zombie from now on, as if nobody waited for it.
    assert watching.wait(30) == 1 and other.wait(30) < 0
    wait_for(lambda: [one.pid for one in processes.marked(roots[0])] == [another.pid])
    pipeline.wait()


def test_nothing_is_watched_without_a_pipeline(monkeypatch, tmp_path):
    monkeypatch.delenv(processes.MARK, raising=False)
    before = psutil.Process().num_threads()
    processes.watch(tmp_path)
    assert psutil.Process().num_threads() == before
