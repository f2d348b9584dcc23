"""The storm's own parts; `make storm` is no test of the suite."""

import collections
import json
import random
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import storm
from reproduction import plan
from unplugged import datasets


def test_stops_are_spread_over_stages_and_follow_the_seed():
    kills, terms = (storm.plan_stops(0, test, False) for test in ("kill", "term"))
    stages = collections.Counter(event.what for event in kills)
    assert stages == {"collect": 12, "train": 12, "evaluate": 8, "draw": 8}
    assert len(terms) == 10 and {event.what for event in terms} == set(storm.STAGES)
    assert {event.how for event in kills} == {"all", "pipeline", "largest"}
    assert kills == storm.plan_stops(0, "kill", False) != storm.plan_stops(1, "kill", False)


def test_the_profile_has_what_is_stopped():
    wanted = plan.plan(yaml.safe_load(storm.PROFILE.read_text()))
    assert {spec.environment for spec in wanted.specs.values()} == {
        "catch", "breakout", "deep_sea_4",
    }  # fmt: skip
    assert ("quick_catch", "catch_rosmo") in wanted.specs and len(wanted.collections) == 2


def test_a_flip_is_one_bit_and_keeps_the_time(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(1_000))
    before = path.stat().st_mtime_ns
    storm.flip(path, random.Random(0))
    assert sum(byte.bit_count() for byte in path.read_bytes()) == 1
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("use", "outcome"),
    [
        (lambda path: path.read_bytes().hex(), "FAILED: silent, and other numbers came out"),
        (lambda path: "the same", "unused"),
        (lambda path: print(f"{path} is damaged, not used") or "the same", "named"),
        (lambda path: int("x"), "FAILED: a raw error"),
        (lambda path: {}["key"], "FAILED: a raw error"),
    ],
)
def test_what_becomes_of_a_change(use, outcome, tmp_path):
    path = tmp_path / "numbers"
    path.write_text("1, 2, 3")
    calls = iter(["the same"])  # of what nobody changed

    def use_changed(copy):
        return next(calls, None) or use(copy)

    (event,) = storm.change("numbers", path, 1, random.Random(0), tmp_path, use_changed)
    assert event.outcome.startswith(outcome) and event.failed == outcome.startswith("FAILED")


def test_a_changed_dataset_is_refused(dataset, tmp_path):
    datasets.save(dataset, tmp_path / "toy.npz")
    found = storm.change(
        "dataset", tmp_path / "toy.npz", 30, random.Random(0), tmp_path,
        lambda path: datasets.checksum(datasets.load(path)),
    )  # fmt: skip
    assert {event.outcome for event in found} <= {"refused", "unused"}


def test_times_do_not_count(tmp_path):
    for name, seconds in (("a", 1.5), ("b", 2.5)):
        (tmp_path / name).write_text(f"seed,seconds,mean_return\n0,{seconds},0.10\n")
    assert storm.without_times(tmp_path / "a") == storm.without_times(tmp_path / "b")
    assert "0.10" in storm.without_times(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"seed,seconds\n0,1,2,3\n\xff")  # no table any more
    assert storm.without_times(tmp_path / "a").endswith("\xff")


def test_the_table_counts_what_failed():
    good = storm.Event("kill", "train", "all", lost=1.25, outcome="ok")
    bad = storm.Event("kill", "train", "all", lost=0.5)
    bad.fail("it went back")
    byte = storm.Event("byte", "dataset", "x.npz", outcome="refused")
    _, kills, bytes_ = storm.table([good, bad, byte]).splitlines()
    assert kills.split() == ["kill", "train", "2", "1", "1.2", "s"]
    assert bytes_.split() == ["byte", "dataset", "1", "0", "1", "refused"]


def test_kinds_that_were_not_run_again_stay(tmp_path):
    kill, byte = (
        storm.Event("kill", "train", "all", outcome="ok"),
        storm.Event("byte", "dataset", "catch.npz", outcome="refused"),
    )
    storm.write(tmp_path, [kill, byte], {"seed": 0})
    storm.write(tmp_path, [byte, byte], {"seed": 1})
    table = pd.read_csv(tmp_path / "storm.csv")
    assert table["test"].tolist() == ["kill", "byte", "byte"]
    facts = json.loads((tmp_path / "storm.json").read_text())
    assert (facts["kill"]["seed"], facts["byte"]["seed"]) == (0, 1)
    assert facts["byte"]["failures"] == []
