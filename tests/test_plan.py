import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from reproduction import adoption
from reproduction import plan as plans
from reproduction import progress as how_far
from unplugged import checkpoints, datasets, runs
from unplugged.runs import results as of_runs

PROFILE = {
    "profile": "toy",
    "datasets": [{"environment": "catch", "noise": [0.0, 0.1], "episodes": 5}],
    "collection": {"seed": 0, "random_episodes": 5},
    "experiments": {
        "one": {
            "grid": {"environment": ["catch"], "method": ["rosmo", "mzu"], "noise": [0.0, 0.1]},
            "common": {"seeds": [0, 1], "updates": 100, "eval_every": 50},
        },
        "two": {
            "grid": [
                {"num_simulations": [2], "search_depth": [None]},
                {"num_simulations": [2, 8], "search_depth": [1]},
                {"dynamics": [[8, 16, 32]]},
            ],
            "common": {"environment": "catch", "noise": 0.0, "method": "mzu", "seeds": [0],
                       "updates": 100, "eval_every": 50, "overrides": {"td_steps": 2}},
        },
    },
}  # fmt: skip


def test_grids_expand_to_named_runs():
    plan = plans.plan(PROFILE)
    assert list(plan.collections) == ["bsuite_catch_noise0", "bsuite_catch_noise0.1"]
    assert list(plan.runs["one"]) == [
        "catch_rosmo_noise0", "catch_rosmo_noise0.1", "catch_mzu_noise0", "catch_mzu_noise0.1",
    ]  # fmt: skip
    assert list(plan.runs["two"]) == [
        "num_simulations2_search_depth-none", "num_simulations2_search_depth1",
        "num_simulations8_search_depth1", "dynamics-8x16x32",
    ]  # fmt: skip
    noisy = plan.specs["one", "catch_mzu_noise0.1"]
    assert noisy.dataset == "runs/toy/datasets/bsuite_catch_noise0.1.npz" and noisy.method == "mzu"
    deep = plan.specs["two", "num_simulations8_search_depth1"]
    assert deep.overrides == {"td_steps": 2, "num_simulations": 8, "search_depth": 1}
    assert plan.specs["two", "dynamics-8x16x32"].settings.dynamics == (8, 16, 32)


def test_a_dataset_of_ones_own_may_lie_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for given, path in (("~/mine.npz", "/home/me/mine.npz"), ("runs/mine.npz", "runs/mine.npz")):
        common = {"benchmark": "gymnasium", "environment": "CartPole-v1", "dataset": given}
        experiment = {"grid": {"method": ["bc"]}, "common": common}
        plan = plans.plan({**PROFILE, "experiments": {"own": experiment}})
        assert plan.specs["own", "bc"].dataset == path


COMMITTED = {
    **PROFILE,
    "datasets": [
        {"benchmark": "minatar", "environment": ["asterix", "seaquest"], "transitions": 9}
    ],
    "experiments": {
        "own": {
            "grid": {"environment": ["asterix", "seaquest"], "method": ["bc"]},
            "common": {"benchmark": "minatar", "recordings": True},
        }
    },
}


def test_a_committed_recording_is_learned_from_instead_of_one_that_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "recordings").mkdir(parents=True)
    (tmp_path / "results" / "recordings" / "minatar_asterix.npz").touch()
    plan = plans.plan(COMMITTED)
    assert {spec.environment: spec.dataset for spec in plan.specs.values()} == {
        "asterix": "results/recordings/minatar_asterix.npz",
        "seaquest": "runs/toy/datasets/minatar_seaquest.npz",
    }
    wrong = yaml.safe_load(yaml.safe_dump(COMMITTED))
    wrong["experiments"]["own"]["common"]["recordings"] = "mine"
    with pytest.raises(plans.profiles.ProfileError, match="recordings must be true or false"):
        plans.plan(wrong)


def test_more_updates_are_the_same_run():
    one = {**PROFILE["experiments"]["one"], "grid": {"environment": ["catch"], "updates": [100]}}
    more = {**one, "grid": {"environment": ["catch"], "updates": [200]}}
    for experiment, updates in ((one, 100), (more, 200)):
        experiment["common"] = {**experiment["common"], "noise": 0.0}
        plan = plans.plan({**PROFILE, "experiments": {"one": experiment}})
        assert list(plan.runs["one"]) == ["catch"]
        assert plan.specs["one", "catch"].updates == updates


@pytest.mark.parametrize(
    "grid, message",
    [
        ({"method": ["mzuu"]}, "did you mean 'mzu'"),
        ({"num_simulation": [2]}, "did you mean 'num_simulations'"),
        ({"noise": [0.7]}, "bsuite_catch_noise0.7 is needed but not collected"),
        ({"search_depth": [0]}, "search_depth must lie in"),
        ([{"td_steps": [1]}, {"td_steps": [1]}], "names the run td_steps1 twice"),
    ],
)
def test_a_wrong_grid_is_refused(grid, message):
    two = {**PROFILE["experiments"]["two"], "grid": grid}
    with pytest.raises(ValueError, match=message):
        plans.plan({**PROFILE, "experiments": {"two": two}})


ONLINE = {
    "kind": "online",
    "grid": {"sources": [{"recent": 1.0}, {"recent": 0.5, "demonstrations": 0.5},
                         {"recent": 1.0, "demonstrations": 0.0}]},
    "common": {"benchmark": "minatar", "environment": "breakout", "method": "mzu",
               "reanalyse_fraction": 0.5, "num_simulations": 2},
}  # fmt: skip


def test_online_experiments_train_in_a_notebook_of_their_own():
    games = [{"benchmark": "minatar", "environment": ["breakout"], "transitions": 1000}]
    plan = plans.plan({**PROFILE, "datasets": games, "experiments": {"three": ONLINE}})
    assert plan.notebooks == {"three": "21_train_online"}
    assert plan.collections["minatar_breakout"].benchmark == "minatar"
    alone, mixed, none = (plan.specs["three", run] for run in plan.runs["three"])
    assert list(plan.runs["three"]) == [
        "sources-recent1",
        "sources-recent0.5-demonstrations0.5",
        "sources-recent1-demonstrations0",
    ]
    assert mixed.dataset == "runs/toy/datasets/minatar_breakout.npz"
    assert alone.dataset == none.dataset == "" and none.sources == {"recent": 1.0}
    assert mixed.sources == {"recent": 0.5, "demonstrations": 0.5}
    assert alone.settings.num_simulations == 2


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kind": "onlin"}, "unknown kind of experiment 'onlin': did you mean 'online'"),
        ({"kind": "offline"}, "unknown run parameter 'reanalyse_fraction'"),
        ({"grid": {"reanalyse_fraction": [1.5]}}, "reanalyse_fraction must lie in"),
        ({"grid": {"sources": ["best"]}}, "sources must be a mapping of names to numbers"),
        ({"grid": {"sources": [{"dataset": 1.0}]}}, "minatar_breakout is needed but not collec"),
    ],
)
def test_a_wrong_online_experiment_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        plans.plan({**PROFILE, "experiments": {"three": {**ONLINE, **changes}}})


def test_a_network_of_one_layer_has_a_rate(tmp_path):
    content = {
        "grid": {"environment": ["catch"]},
        "common": {"dynamics": [16], "noise": 0.0, "updates": 100, "eval_every": 50},
    }
    plan = plans.plan({**PROFILE, "experiments": {"one": content}})
    (tmp_path / "one" / "catch").mkdir(parents=True)
    record = {"done": 50, "total": 100, "updates": 50, "seconds": 10.0}
    (tmp_path / "one" / "catch" / "progress.json").write_text(json.dumps(record))
    assert how_far.progress(plan, tmp_path)[0].core_hours_left * 3600 == pytest.approx(10.0)


def test_progress_and_what_is_left(tmp_path):
    plan = plans.plan(PROFILE)

    def note(run, done, updates, seconds):
        folder = tmp_path / "one" / run
        folder.mkdir(parents=True)
        record = {"done": done, "total": 200, "updates": updates, "seconds": seconds}
        (folder / "progress.json").write_text(json.dumps(record))

    records = how_far.progress(plan, tmp_path)
    assert "no rate is known yet" in how_far.describe(records, 2)
    note("catch_rosmo_noise0", 200, 200, 100.0)  # 0.5 s an update
    note("catch_mzu_noise0", 50, 50, 100.0)  # 2 s an update
    one, two = how_far.progress(plan, tmp_path)
    assert (one.runs_done, one.runs, one.updates_done, one.updates) == (1, 4, 250, 800)
    assert one.core_hours_left * 3600 == pytest.approx(200 * 0.5 + 150 * 2 + 200 * 2)
    # mzu with other settings: 2 + N model evaluations, and the dynamics' size, against 6.
    size = (32 * 8 + 8 * 16 + 16 * 32) / (32 * 32 + 32 * 256 * 2)
    expected = 100 * 2.0 * (4 / 6 + 4 / 6 + 10 / 6 + size)
    assert two.core_hours_left * 3600 == pytest.approx(expected)
    text = how_far.describe([one, two], 2)
    assert text.startswith("1 of 8 runs, 21% of the updates done; about 0.2 h left on 2 cores")
    assert how_far.table([one, two], 2).splitlines()[1].startswith("two     0 of    4 runs")
    done = [one._replace(runs_done=4), two._replace(runs_done=4)]
    assert how_far.describe(done, 2) == "8 of 8 runs, 21% of the updates done"


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


def test_the_profile_with_sepsis_needs_no_package(monkeypatch):
    monkeypatch.setattr("unplugged.envs.tabular.sepsis", None)
    _, plan = plans.read(Path(__file__).parents[1] / "profiles" / "cpu.yaml")
    assert len(plan.runs["sepsis_curves"]) == 5 and "tabular_sepsis" in plan.collections


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
