"""Profiles that become named runs, and how far those are."""

import json
from pathlib import Path

import pytest
import yaml

from reproduction import plan as plans
from reproduction import progress as how_far

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
    assert [line.count("no rate") for line in how_far.table(records, 2).splitlines()] == [1, 1, 1]
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


def test_the_profile_with_sepsis_needs_no_package(monkeypatch):
    monkeypatch.setattr("unplugged.envs.tabular.sepsis", None)
    _, plan = plans.read(Path(__file__).parents[1] / "profiles" / "cpu.yaml")
    assert len(plan.runs["sepsis_curves"]) == 5 and "tabular_sepsis" in plan.collections
