"""Committed results that are taken for runs, and those of other runs that go."""

import dataclasses
import json
from pathlib import Path

import pytest

from reproduction import adoption
from reproduction import plan as plans
from reproduction import progress as how_far
from test_plan import PROFILE
from unplugged import checkpoints, datasets, runs
from unplugged.runs import results as of_runs

PROGRAM = {"initialisation": "1", "training": "2", "evaluation": "3", "environment": "4"}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "programs", lambda spec: PROGRAM)
    monkeypatch.setattr(runs, "environment", lambda spec: {"environment": "4"})
    return adoption.Programs(tmp_path / "programs.json")


@pytest.fixture
def committed(tmp_path):
    """Results of experiment "one" as the pipeline commits them; (results folder, their lines)."""
    plan, lines, records = plans.plan(PROFILE), [], {}
    for (experiment, run), spec in plan.specs.items():
        if experiment != "one":
            continue
        noise = float(run.partition("noise")[2])
        for seed in spec.seeds:
            for update in (0, 50, 100):
                lines.append(f"{run},catch,{noise},{spec.method},{seed},{update}\n")
        records[run] = {"parameters": {**dataclasses.asdict(spec), "dataset": "elsewhere.npz"},
                        "settings": dataclasses.asdict(spec.settings),
                        "program": PROGRAM, "packages": runs.versions(spec),
                        "data_checksum": "the data's"}  # fmt: skip
    header = "run,environment,noise,method,seed,update\n"
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "one.csv").write_text(header + "".join(lines))
    (folder / "one.provenance.json").write_text(json.dumps(records))
    return folder, header, lines


def test_committed_results_are_taken_run_by_run(committed, programs, tmp_path):
    results, header, lines = committed
    runs = tmp_path / "runs"
    plan = plans.plan(PROFILE)
    begun = runs / "one" / "catch_mzu_noise0" / "checkpoints"
    begun.mkdir(parents=True)  # what is being trained here is left alone
    assert adoption.adopt(plan, results, runs, programs) == {"one": (3, {})}
    for run in plan.runs["one"]:
        of_run = [line for line in lines if line.startswith(f"{run},")]
        path = runs / "one" / run / "results.csv"
        if run == "catch_mzu_noise0":
            assert not path.exists()
            continue
        assert path.read_text() == header + "".join(of_run) and len(of_run) == 6
        assert path.stat().st_mtime <= (results / "one.csv").stat().st_mtime
        assert adoption.is_adopted(path.parent)
    assert how_far.progress(plan, runs)[0][1:3] == (3, 4)
    assert adoption.adopt(plan, results, runs, programs) == {"one": (0, {})}
    assert adoption.let_go(plan, runs, programs) == []


@pytest.mark.parametrize("anyway", ["0", "1"])
def test_a_run_on_other_data_than_a_committed_recording_is_not_taken_and_is_let_go(
    committed, dataset, programs, tmp_path, monkeypatch, anyway
):
    monkeypatch.setenv(checkpoints.ADOPT, anyway)
    monkeypatch.chdir(tmp_path)
    results, runs = committed[0], tmp_path / "runs"
    recording = tmp_path / "results" / "recordings" / "bsuite_catch_noise0.npz"
    recording.parent.mkdir()
    one = PROFILE["experiments"]["one"]
    grid = {"environment": ["catch"], "method": ["rosmo", "mzu"], "noise": [0.0]}
    shared = {"grid": grid, "common": {**one["common"], "recordings": True}}
    profile = {**PROFILE, "experiments": {"one": shared}}
    before = plans.plan(profile)
    assert adoption.adopt(before, results, runs, programs) == {"one": (2, {})}

    datasets.save(dataset, recording)
    note = results / "one.provenance.json"
    records = json.loads(note.read_text())
    records["catch_mzu_noise0"]["data_checksum"] = datasets.checksum(dataset)
    note.write_text(json.dumps(records))
    after = plans.plan(profile)
    assert adoption.let_go(after, runs, programs) == [
        "one/catch_rosmo_noise0",
        "one/catch_mzu_noise0",
    ]
    found = adoption.adopt(after, results, runs, programs)
    assert found == {"one": (1, {"catch_rosmo_noise0": ["data"]})}
    assert not (runs / "one" / "catch_rosmo_noise0" / "results.csv").exists()
    taken = json.loads((runs / "one" / "catch_mzu_noise0" / "provenance.json").read_text())
    assert taken["parameters"]["dataset"] == "results/recordings/bsuite_catch_noise0.npz"


@pytest.mark.parametrize("change", [{"updates": 200}, {"seeds": [5]}, {"td_steps": 2}])
def test_a_run_of_other_parameters_is_not_taken_and_is_let_go(
    committed, programs, tmp_path, change
):
    results, runs = committed[0], tmp_path / "runs"
    one = PROFILE["experiments"]["one"]
    other = {**one, "common": {**one["common"], **change}}
    changed = plans.plan({**PROFILE, "experiments": {"one": other}})
    assert adoption.adopt(changed, results, runs, programs) == {"one": (0, {})}
    plan = plans.plan(PROFILE)
    adoption.adopt(plan, results, runs, programs)
    assert len(adoption.let_go(changed, runs, programs)) == 4
    assert not [path for path in runs.rglob("*") if path.is_file()]


@pytest.mark.parametrize("change_first", [True, False])
def test_seeds_that_are_still_wanted_are_kept(committed, programs, tmp_path, change_first):
    results = committed[0]
    target = tmp_path / "runs" / "one" / "catch_rosmo_noise0"
    plan = plans.plan(PROFILE)
    one = PROFILE["experiments"]["one"]
    other = {**one, "common": {**one["common"], "seeds": [1, 2]}}
    changed = plans.plan({**PROFILE, "experiments": {"one": other}})
    if change_first:
        assert adoption.adopt(changed, results, tmp_path / "runs", programs) == {"one": (4, {})}
        assert adoption.let_go(changed, tmp_path / "runs", programs) == []
    else:
        adoption.adopt(plan, results, tmp_path / "runs", programs)
        assert len(adoption.let_go(changed, tmp_path / "runs", programs)) == 4
    assert adoption.lacks_checkpoints(target) and not adoption.is_adopted(target)
    assert [path.name for path in target.iterdir()] == [runs.ADOPTED]
    rows, record = of_runs.adopted(changed.specs["one", target.name], target, "the data's")
    assert [(row["seed"], row["update"]) for row in rows] == [(1, 0), (1, 50), (1, 100)]
    assert record["parameters"]["seeds"] == [0, 1]
    with pytest.warns(UserWarning, match="is of other data, and every seed is trained"):
        assert of_runs.adopted(changed.specs["one", target.name], target, "another") == ([], {})
    # Of other settings they are nothing.
    other = {**one, "common": {**other["common"], "td_steps": 2}}
    changed = plans.plan({**PROFILE, "experiments": {"one": other}})
    assert of_runs.adopted(changed.specs["one", target.name], target, "the data's") == ([], {})
    adoption.let_go(changed, tmp_path / "runs", programs)
    assert not list(target.iterdir())


def test_results_of_an_earlier_preset_are_not_taken(committed, programs, tmp_path, monkeypatch):
    results, runs = committed[0], tmp_path / "runs"
    plan = plans.plan(PROFILE)
    note = results / "one.provenance.json"
    records = json.loads(note.read_text())
    del records["catch_rosmo_noise0"]["settings"]["network"]  # not known then, so at its default
    records["catch_mzu_noise0"]["settings"]["td_steps"] += 1
    note.write_text(json.dumps(records))
    assert adoption.adopt(plan, results, runs, programs) == {"one": (3, {})}
    assert not (runs / "one" / "catch_mzu_noise0").exists()


@pytest.mark.parametrize("after", [1, 2, 3])
def test_letting_go_can_be_cut_off_anywhere(committed, programs, tmp_path, monkeypatch, after):
    results, runs = committed[0], tmp_path / "runs"
    plan = plans.plan(PROFILE)
    adoption.adopt(plan, results, runs, programs)
    one = PROFILE["experiments"]["one"]
    other = {**one, "common": {**one["common"], "updates": 200}}
    changed = plans.plan({**PROFILE, "experiments": {"one": other}})

    unlink, left = Path.unlink, iter(range(after))

    def cut(path, **options):
        unlink(path, **options)
        if next(left) + 1 == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", cut)
        with pytest.raises(KeyboardInterrupt):
            adoption.let_go(changed, runs, programs)
    assert len(adoption.let_go(changed, runs, programs)) == (4 if after == 1 else 3)
    assert not list(runs.rglob("results.csv")) and not list(runs.rglob("progress.json"))


def test_a_committed_table_with_missing_rows_is_refused(committed, programs, tmp_path):
    results, header, lines = committed
    (results / "one.csv").write_text(header + "".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"one\.csv has 5 rows of catch_mzu_noise0\.1"):
        adoption.adopt(plans.plan(PROFILE), results, tmp_path / "runs", programs)


def test_runs_of_other_programs_are_named_and_taken_only_if_asked(
    committed, programs, tmp_path, monkeypatch
):
    results = committed[0]
    note = results / "one.provenance.json"
    records = json.loads(note.read_text())
    records["catch_rosmo_noise0"]["program"] = {**PROGRAM, "training": "another"}
    del records["catch_mzu_noise0"]["program"]  # Nobody recorded it.
    records["catch_mzu_noise0.1"]["packages"]["bsuite"] = "0.1"
    note.write_text(json.dumps(records))
    plan = plans.plan(PROFILE)
    [(taken, other)] = adoption.adopt(plan, results, tmp_path / "runs", programs).values()
    assert taken == 1 and other == {
        "catch_rosmo_noise0": ["training"],
        "catch_mzu_noise0": ["initialisation", "training", "evaluation", "environment"],
        "catch_mzu_noise0.1": ["bsuite"],
    }
    monkeypatch.setenv(checkpoints.ADOPT, "1")
    assert adoption.adopt(plan, results, tmp_path / "runs", programs)["one"].taken == 3
    assert adoption.let_go(plan, tmp_path / "runs", programs) == []
    monkeypatch.delenv(checkpoints.ADOPT)
    assert len(adoption.let_go(plan, tmp_path / "runs", programs)) == 3


def test_a_trained_run_of_other_programs_is_made_again(programs, tmp_path, monkeypatch):
    plan = plans.plan(PROFILE)
    spec = plan.specs["one", "catch_rosmo_noise0"]
    folder = tmp_path / "runs" / "one" / "catch_rosmo_noise0"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "results.csv").write_text("rows")
    record = {"program": PROGRAM, "packages": runs.versions(spec), "source": "of another day"}
    (folder / "provenance.json").write_text(json.dumps(record))
    assert adoption.let_go(plan, tmp_path / "runs", programs) == []
    record["program"] = {**PROGRAM, "evaluation": "another"}
    (folder / "provenance.json").write_text(json.dumps(record))
    named = adoption.let_go(plan, tmp_path / "runs", programs, only_name=True)
    assert named == ["one/catch_rosmo_noise0"] and (folder / "results.csv").exists()
    assert adoption.let_go(plan, tmp_path / "runs", programs) == named
    assert not (folder / "results.csv").exists() and (folder / "checkpoints").exists()


def test_where_a_package_is_missing_nothing_is_taken_and_nothing_goes(
    committed, programs, tmp_path, monkeypatch
):
    plan, folder = plans.plan(PROFILE), tmp_path / "runs"

    def missing(spec):
        raise ModuleNotFoundError("pip install it", name="icu-sepsis")

    monkeypatch.setattr(runs, "environment", missing)
    taken, others = adoption.adopt(plan, committed[0], folder, programs)["one"]
    assert taken == 0 and set(map(tuple, others.values())) == {("icu-sepsis (not installed)",)}
    monkeypatch.undo()
    adoption.adopt(plan, committed[0], folder, programs)
    monkeypatch.setattr(runs, "environment", missing)
    assert adoption.let_go(plan, folder, programs) == []


def test_each_program_is_lowered_once(tmp_path, monkeypatch):
    lowered = []
    monkeypatch.setattr(runs, "programs", lambda spec: lowered.append(spec) or PROGRAM)
    plan = plans.plan(PROFILE)
    for code in ("same", "same", "other"):
        monkeypatch.setattr(runs, "source", lambda code=code: code)
        programs = adoption.Programs(tmp_path / "programs.json")
        for spec in plan.specs.values():
            assert programs.of(spec) == {**PROGRAM, **runs.environment(spec)}
    # Noise is the data's: two methods, and four settings.
    assert len(lowered) == 2 * 6


def test_an_environment_is_looked_at_though_the_library_is_the_same(programs, monkeypatch):
    spec = plans.plan(PROFILE).specs["one", "catch_rosmo_noise0"]
    record = {"program": PROGRAM, "versions": runs.versions(spec), "source": runs.source()}
    assert programs.other(record, spec) == []
    monkeypatch.setattr(runs, "environment", lambda spec: {"environment": "5"})
    assert programs.other(record, spec) == ["environment"]


def test_a_method_in_a_file_of_ones_own_in_a_profile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "from unplugged import methods\nown = methods.METHODS['rosmo']\n"
    (tmp_path / "planned_file.py").write_text(code)
    grid = {"environment": ["catch"], "method": ["rosmo", "planned_file:own"]}
    one = {**PROFILE["experiments"]["one"], "grid": grid}
    one["common"] = {**one["common"], "noise": 0.0}
    plan = plans.plan({**PROFILE, "experiments": {"one": one}})
    assert list(plan.runs["one"]) == ["catch_rosmo", "catch_planned_file-own"]
    ours, mine = plan.specs.values()
    assert mine.method == "planned_file:own" == plan.runs["one"]["catch_planned_file-own"]["method"]
    # The library is the same, and says nothing of what the file does.
    monkeypatch.setattr(runs, "environment", lambda spec: {})
    monkeypatch.setattr(runs, "versions", lambda spec: {})
    for then, now in ((PROGRAM, []), ({**PROGRAM, "training": "of another day"}, ["training"])):
        monkeypatch.setattr(runs, "programs", lambda spec: PROGRAM)
        programs = adoption.Programs(tmp_path / "programs.json")
        record = {"program": then, "versions": {}, "source": runs.source()}
        assert programs.other(record, mine) == now and programs.other(record, ours) == []
    assert not (tmp_path / "programs.json").exists()
    with pytest.raises(ValueError, match="planned_file has no 'owm': did you mean 'own'"):
        grid["method"] = ["planned_file:owm"]
        plans.plan({**PROFILE, "experiments": {"one": one}})
