"""Results that are not as they were gathered are noticed, and what to do about it works."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import yaml

from reproduction import captions, checksums, gather

ROOT = Path(__file__).parents[1]
COMMITTED = [path.parent for path in sorted((ROOT / "results").rglob(checksums.SUMS))]


@pytest.fixture
def results(tmp_path):
    """A profile's results, gathered from two runs."""
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    checksums.accept(folder)
    for run in ("a", "b"):
        (tmp_path / f"{run}.csv").write_text(f"run,mean_return\n{run},0.5\n")
        (tmp_path / f"{run}.json").write_text(json.dumps({"seed": run}))
    gather_again(tmp_path, folder)
    return folder


def gather_again(runs, folder):
    assert gather.main(["rows", str(folder / "one.csv"), *(f"{runs}/{x}.csv" for x in "ab")]) == 0
    parts = [f"{x}={runs}/{x}.json" for x in "ab"]
    assert gather.main(["records", str(folder / "one.provenance.json"), *parts]) == 0


def test_gathered_results_are_right_and_have_the_form_of_sha256sum(results):
    content = (results / "one.csv").read_bytes()
    lines = (results / checksums.SUMS).read_text().splitlines()
    assert lines[0] == f"{hashlib.sha256(content).hexdigest()}  one.csv" and len(lines) == 2
    assert checksums.complaints(results) == []


@pytest.mark.parametrize("name", ["one.csv", "one.provenance.json", checksums.SUMS])
def test_any_changed_byte_is_noticed(results, name):
    content = (results / name).read_bytes()
    for at in range(0, len(content), 7):
        changed = bytearray(content)
        changed[at] ^= 1
        (results / name).write_bytes(changed)
        assert checksums.complaints(results), (name, at)
    (results / name).write_bytes(content)
    assert checksums.complaints(results) == []


def test_each_advice_works(results, tmp_path):
    def edit():
        (results / "one.csv").write_text("run,mean_return\na,99\nb,0.5\n")
        [line] = checksums.complaints(results)
        assert line.startswith(f"{results / 'one.csv'} is not as it was gathered")

    edit()
    (results / "one.csv").unlink()
    assert checksums.complaints(results) == []
    gather_again(tmp_path, results)
    assert checksums.complaints(results) == []
    edit()
    assert checksums.accept(results) == 2
    assert checksums.complaints(results) == []


def test_what_jobs_wrote_is_looked_at_until_it_is_made_again(tmp_path):
    runs = tmp_path / "runs" / "mine"
    table = runs / "one" / "catch" / "results.csv"
    table.parent.mkdir(parents=True)
    table.write_text("a\n1\n")
    (runs / "data.npz").write_bytes(b"0")  # It has a checksum of its own.
    checksums.note(runs, [table, runs / "data.npz"])
    assert (runs / checksums.SUMS).read_text().endswith("  one/catch/results.csv\n")
    table.write_text("a\n2\n")
    [line] = checksums.complaints_of_runs(runs)
    assert line.startswith(f"{table} is not as its notebook wrote it")
    # What it says to do works: to delete it, or to take it as it is.
    assert checksums.accept(runs) == 1 and checksums.complaints_of_runs(runs) == []
    table.write_text("a\n3\n")
    table.unlink()
    assert checksums.complaints_of_runs(runs) == []
    # From when a job begins until it is done, it is nobody's.
    checksums.forget(runs, [table, tmp_path / "figures" / "x.png"])
    table.write_text("a\n4\n")
    assert checksums.complaints_of_runs(runs) == []
    checksums.note(runs, [table])
    assert checksums.complaints_of_runs(runs) == []


def test_a_folder_without_checksums_has_nothing_wrong(tmp_path):
    checksums.write(tmp_path / "x.csv", "a\n1\n")
    assert (tmp_path / "x.csv").read_text() == "a\n1\n"
    assert checksums.complaints(tmp_path) == [] and not (tmp_path / checksums.SUMS).exists()


def test_a_caption_warns_of_results_that_were_edited(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / captions.FOLDER).mkdir(parents=True)
    entry = {"title": "t", "order": 1, "caption": "Five seeds.", "paper": "p"}
    entries = {"drawn": {**entry, "data": ["one.csv"]}, "other": {**entry, "data": ["two.csv"]},
               "decided": {**entry, "data": ["two.csv"], "verdict": "v"}}  # fmt: skip
    (tmp_path / captions.FOLDER / "30_x.yaml").write_text(yaml.safe_dump(entries))
    read = {name: captions.read("30_x", name, "results/mine")["caption"] for name in entries}
    assert set(read.values()) == {"Five seeds."}
    with (results / "one.provenance.json").open("a") as file:
        file.write(" ")
    read = {name: captions.read("30_x", name, "results/mine")["caption"] for name in entries}
    warning = " **Warning: not as gathered from the runs: one.provenance.json.**"
    assert read == {
        "drawn": f"Five seeds.{warning}",
        "other": "Five seeds.",
        "decided": f"Five seeds.{warning}",  # A verdict may rest on any result.
    }


def test_committed_results_are_as_they_were_gathered():
    assert {path.name for path in COMMITTED} >= {"cpu", "bench", "pilot", "published", "results"}
    assert checksums.complaints(*COMMITTED) == []
    committed = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    for name in committed:
        if name.endswith((".csv", ".json")):
            assert (ROOT / name).parent in COMMITTED, name
