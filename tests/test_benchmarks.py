"""The benchmark's measurements, on the smallest method, for no time at all."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import measure
import worker
import workload

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "arguments", "units"),
    [
        ("growth", {"method": "bc", "field": "batch_size", "values": [8], "seconds": 0.0},
         {"updates/s", "windows/s"}),
        ("sampling", {"seconds": 0.0}, {"windows/s"}),
        ("costs", {"method": "bc"}, {"s", "MiB"}),
        ("split", {"method": "rosmo", "network": "mlp", "trained": 2, "length": 2, "repeats": 1},
         {"us/update"}),
    ],
)  # fmt: skip
def test_a_measurement_prints_rows(name, arguments, units, capsys):
    worker.MEASUREMENTS[name](data="catch", **arguments)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["unit"] for row in rows} == units
    assert all(row["value"] > 0 for row in rows)


def test_the_search_over_candidates_is_split_into_parts(capsys, monkeypatch):
    form = workload.FORMS["walker"]
    small = {"representation": (8, 16), "dynamics": (8, 16), "prediction": (8,), "batch_size": 4,
             "num_candidates": 3, "num_simulations": 2}  # fmt: skip
    small = dataclasses.replace(form, episodes=2, settings=form.settings.override(small))
    monkeypatch.setitem(workload.FORMS, "walker", small)
    worker.split("mzu", data="walker", network="mlp", trained=1, length=1, repeats=1)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    parts = {row["setting"].partition("part=")[2] for row in rows}
    assert {"search", "model within search", "candidates within search", "whole"} <= parts


def test_measurements_are_taken_again_beside_the_others(tmp_path):
    whole, part = tmp_path / "bench.csv", tmp_path / "bench.csv.part"
    header = "measure,method,setting,value,unit,repeats,note\n"
    whole.write_text(header + 'growth,bc,"a=1, b=2",1,x,1,\ngrowth,mzu,a=1,2,x,1,"p, q"\n')
    part.write_text(header + 'growth,bc,"a=1, b=2",7,x,1,\nsplit,bc,,8,x,1,\n')
    whole.with_suffix(".json").write_text('{"seconds": 5}')
    assert measure.renewed(whole, part, {"seconds": 1}) == {"seconds": 5, "again": [{"seconds": 1}]}
    assert part.read_text() == header + (
        'growth,mzu,a=1,2,x,1,"p, q"\ngrowth,bc,"a=1, b=2",7,x,1,\nsplit,bc,,8,x,1,\n'
    )


def test_windows_are_fed_from_a_file_that_is_gone_afterwards(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    worker.feeding(steps=2_000, batch=4, seconds=0.0)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 4 and {row["measure"] for row in rows} == {"windows fed"}
    assert all(row["value"] > 0 for row in rows) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "arguments", "measure"),
    [
        ("images", {"channels": [4], "batch": 1, "repeats": 1}, "image"),
        ("table", {"rows": 3_000, "columns": 3, "asked": 50}, "table"),
    ],
)
def test_images_and_tables_are_timed(name, arguments, measure, capsys):
    worker.MEASUREMENTS[name](**arguments)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["measure"] for row in rows} == {measure} and len(rows) > 1
    assert all(row["value"] > 0 for row in rows)


def test_methods_that_can_be_measured_are_named():
    found = measure.method_names()
    assert {"mzu", "rosmo", "iqn", "bc"} <= set(found)
    assert not {"d4pg", "brac", "morel", "world_model"} & set(found)
