"""Runs on a table of one's own, without any environment."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest

from unplugged import datasets, logs, policy, runs, selection
from unplugged.runs import decisions, heldout

SMALL = {
    "representation": [8, 8], "dynamics": [8, 8], "prediction": [8], "batch_size": 8,
}  # fmt: skip


def table(stays=40, seed=0, **more):
    """Stays of 3 to 6 decisions; the drug helps where the pulse is high."""
    rng = np.random.default_rng(seed)
    rows = []
    for stay in range(stays):
        hours = int(rng.integers(3, 7))
        for hour in range(hours):
            pulse, drug = rng.normal(100, 20), rng.integers(2)
            rows.append({
                "stay": stay, "hour": hour, "pulse": pulse, "ward": "ab"[stay % 2],
                "drug": ["none", "high"][drug], "gain": float(drug == (pulse > 100)),
                "over": hour == hours - 1, "p": 0.5,
            })  # fmt: skip
    return pd.DataFrame(rows).assign(**more)


ROLES = {
    "episode": "stay", "step": "hour", "observation": ["pulse", "ward"], "action": "drug",
    "reward": "gain", "ended": "over", "name": "clinic",
}  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("data") / "clinic.npz"
    datasets.save(logs.from_table(table(), **ROLES, probability="p"), found)
    return str(found)


def spec(path, **more):
    common = {"benchmark": "logged", "environment": "clinic", "overrides": SMALL, "updates": 4,
              "eval_every": 2, "holdout": 0.25}  # fmt: skip
    return runs.Spec(**{"dataset": path, **common, **more})


def test_what_a_run_without_an_environment_is_asked_for(path):
    with pytest.raises(ValueError, match=r"evaluated on episodes that they hold out: give holdout"):
        spec(path, holdout=0.0)
    with pytest.raises(ValueError, match="no environment to play in: leave out greedy"):
        spec(path, greedy=True)
    with pytest.raises(datasets.DatasetError, match="recorded in 'clinic', not in 'ward'"):
        runs.build(spec(path, environment="ward"))
    with pytest.raises(ValueError, match=r"play in; see selection\.report"):
        spec(path).evaluator(None)
    assert spec(path).form() == datasets.form(path) and spec(path).form()[0] == (3,)
    with pytest.raises(FileNotFoundError, match=r"did you mean 'clinic\.npz'"):
        spec(path.replace("clinic", "clinc")).form()


@pytest.mark.slow
def test_a_run_reports_held_out_estimates_and_goes_on(path, tmp_path):
    whole = runs.train(spec(path, seeds=[0, 1]), tmp_path / "whole")
    assert whole["update"].tolist() == [0, 2, 4] * 2 and whole["mean_return"].isna().all()
    assert (whole["episodes"] == 10).all() and (whole["environment"] == "clinic").all()
    numbers = whole[["holdout_loss", "data_return", "value_return", "differs", "wis_return"]]
    assert np.isfinite(numbers).all().all()
    assert whole["data_return"].nunique() == 1 and (whole["effective"] <= 10).all()
    begun = spec(path, updates=2, seeds=[0])
    runs.train(begun, tmp_path / "parts")
    parts = runs.train(spec(path, seeds=[0, 1]), tmp_path / "parts")
    same = [name for name in whole if name not in ("seconds", "run")]
    pd.testing.assert_frame_equal(parts[same], whole[same])
    record = json.loads((tmp_path / "parts" / "provenance.json").read_text())
    assert record["program"] == runs.programs(spec(path)) and len(record["program"]) == 3


@pytest.mark.slow
def test_methods_without_values_leave_columns_empty(path, tmp_path):
    plain = tmp_path / "plain.npz"
    dataset = logs.from_table(table(), **ROLES)
    datasets.save(dataset, plain)
    frame = runs.train(spec(str(plain), method="bc"), tmp_path / "bc")
    assert frame[["value_return", "wis_return", "effective"]].isna().all().all()
    assert frame["differs"].iloc[0] == pytest.approx(0.5)


DOSES = {**ROLES, "observation": ["pulse"], "action": ["drug", "fluid"], "reward": "gain"}


def doses(stays=20, seed=0):
    """As `table`, with amounts of two things, drawn evenly; their density is the same each time."""
    rows = table(stays, seed)
    rng = np.random.default_rng(seed)
    drug, fluid = rng.uniform(0, 10, len(rows)), rng.uniform(-1, 3, len(rows))
    return rows.assign(drug=drug, fluid=fluid, gain=1 - abs(drug - 5) / 5, p=1 / 40)


BOUNDS = {"drug": (0, 10), "fluid": (-1, 3)}


@pytest.mark.slow
def test_amounts_are_learned_judged_and_decided(tmp_path):
    dataset = logs.from_table(doses(), **DOSES, bounds=BOUNDS, probability="p")
    datasets.save(dataset, tmp_path / "doses.npz")
    one = spec(str(tmp_path / "doses.npz"), method="crr", updates=2)
    frame = runs.train(one, tmp_path / "run")
    assert np.isfinite(frame[["wis_return", "effective", "holdout_loss"]]).all().all()
    found = selection.report(one, tmp_path / "run", fqe_updates=4, refits=2, resamples=20)
    assert found["probabilities"].tolist() == ["recorded"] and (found["effective"] <= 5).all()
    for name in ("data", "wis", "dr", "fqe"):
        assert np.isfinite(found[f"{name}_return"]).all(), name
    agent = policy.load(policy.save(tmp_path / "run", tmp_path / "agent"))
    amounts = agent.act(doses(3, seed=9)).frame()
    assert list(amounts) == ["drug", "fluid"] == list(agent.actions)
    assert amounts["drug"].between(0, 10).all() and amounts["fluid"].between(-1, 3).all()
    alone = agent.act({"pulse": 100.0})
    assert alone.action.shape == (2,) and len(alone.frame()) == 1


def test_weights_of_densities_by_hand(tmp_path):
    """The policy begins as a normal one, whose density is known; the log's was even."""
    dataset = logs.from_table(doses(), **DOSES, bounds=BOUNDS, probability="p")
    learner = spec("x", method="bc").learner((1,), dataset.actions)
    density = decisions.density(learner)(
        learner.init(0).params, dataset.observation, dataset.action
    )
    scale = np.log(2.0) + 0.05
    wanted = np.prod(np.exp(-0.5 * (dataset.action / scale) ** 2) / scale / np.sqrt(2 * np.pi), 1)
    np.testing.assert_allclose(density, wanted, rtol=1e-4)
    # 1 / 40 in units of both columns, which are 10 and 4 wide, where the space is 2 and 2.
    np.testing.assert_allclose(dataset.probability[~dataset.is_last], 0.25)
    assert not decisions.no_density(learner, "policy", True)
    assert "selector search has no density" in decisions.no_density(learner, "search", True)


@pytest.mark.slow
def test_continuous_actions_have_losses_alone(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [
        {"observation": rng.normal(size=(9, 3)), "action": rng.uniform(-1, 1, (8, 2)),
         "reward": np.ones(8), "terminated": True} for _ in range(4)
    ]  # fmt: skip
    metadata = {"environment": "doses", "action_dims": 2}
    datasets.save(datasets.from_episodes(episodes, metadata), tmp_path / "doses.npz")
    one = spec(str(tmp_path / "doses.npz"), environment="doses", method="bc")
    frame = runs.train(one, tmp_path / "run")
    assert np.isfinite(frame[["holdout_loss", "data_return"]]).all().all()
    assert frame[["differs", "value_return"]].isna().all().all()
    with pytest.warns(UserWarning, match="no doubly robust estimates: the log has no densities"):
        found = selection.report(one, tmp_path / "run", fqe_updates=2, resamples=5)
    assert np.isfinite(found["fqe_return"]).all() and found["dr_return"].isna().all()


@pytest.mark.slow
@pytest.mark.parametrize("recorded", [True, False])
def test_a_report_on_the_checkpoints(path, tmp_path, recorded):
    if not recorded:
        path = str(tmp_path / "plain.npz")
        datasets.save(logs.from_table(table(), **ROLES), path)
    one = spec(path, method="crr", keep_checkpoints=True)
    runs.train(one, tmp_path / "run")
    options = {"fqe_updates": 20, "clone_updates": 20, "refits": 2, "resamples": 20}
    found = selection.report(one, tmp_path / "run", **options)
    assert found["update"].tolist() == [2, 4]
    assert set(found["probabilities"]) == {"recorded" if recorded else "cloned"}
    for name in ("data", "wis", "dr", "fqe"):
        assert (found[f"{name}_low"] <= found[f"{name}_return"] + 1e-9).all(), name
        assert (found[f"{name}_return"] <= found[f"{name}_high"] + 1e-9).all(), name
    assert found["differs"].between(0, 1).all() and (found["outside"] == 0).all()
    pd.testing.assert_frame_equal(found, selection.report(one, tmp_path / "run", **options))
    with pytest.raises(ValueError, match="refits must be 0 or at least 2"):
        selection.report(one, tmp_path / "run", refits=1)
    for changes, where, message in [
        ({}, "rum", "rum: it has no results.csv"),
        ({"seeds": [0, 1]}, "run", "seed 1 is not in it; train it on"),
        ({"updates": 6}, "run", "seed 0 is at 4 of 6 updates; train it on"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            selection.report(dataclasses.replace(one, **changes), tmp_path / where, **options)
    with pytest.raises(ValueError, match="need held-out episodes"):
        selection.report(spec(path, benchmark="bsuite", environment="catch", holdout=0.0), tmp_path)


def test_held_out_episodes_of_a_large_table_are_thinned_out(path, monkeypatch):
    dataset = datasets.load(path)
    assert heldout.some_episodes(dataset, 10_000) is dataset
    few = heldout.some_episodes(dataset, 60)
    monkeypatch.setattr(heldout, "MOST_STEPS", 20)
    one = spec(path, method="bc")
    _, held = runs.divide(one, dataset)
    learner = one.learner(*one.form(), None)
    row = heldout.Evaluation(one, learner, held)(learner.init(0), 0, 0)
    of = heldout.some_episodes(held, 20)
    assert row["episodes"] == of.num_episodes < held.num_episodes  # So are all the estimates.
    ends = np.append(0, np.flatnonzero(of.is_last) + 1)
    returns = [
        (of.reward[a:b] * one.settings.discount ** np.arange(b - a)).sum()
        for a, b in itertools.pairwise(ends)
    ]
    assert row["data_return"] == pytest.approx(np.mean(returns))
    assert 5 <= few.num_episodes < 20 and few.num_steps < 90
    assert few.probability is not None
    assert dataclasses.is_dataclass(few)
