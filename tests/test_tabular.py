"""Known decision processes: exact values, and tables recorded in them."""

import numpy as np
import pytest

from unplugged import datasets, runs, selection, tabular
from unplugged.recording import processes


def test_exact_values_are_what_episodes_earn():
    process = tabular.drifting()
    for policy in (process.behavior, process.uniform()):
        table = process.record(8_000, 1, policy)
        returns = table.groupby("episode")["reward"].sum()
        assert returns.mean() == pytest.approx(process.value(policy), abs=0.15)
        discounted = (0.9 ** table["step"] * table["reward"]).groupby(table["episode"]).sum()
        assert discounted.mean() == pytest.approx(process.value(policy, 0.9), abs=0.1)


def test_the_best_policy_is_allowed_and_no_other_is_better():
    process = tabular.drifting()
    best = process.optimal(0.95)
    assert (best[~process.allowed] == 0).all() and (best.sum(axis=1) == 1).all()
    value, rng = process.value(best, 0.95), np.random.default_rng(0)
    for _ in range(50):
        logits = np.where(process.allowed, rng.normal(size=best.shape), -np.inf)
        other = np.eye(best.shape[1])[logits.argmax(axis=1)]
        assert process.value(other, 0.95) <= value + 1e-9


def test_a_table_says_what_was_allowed_and_how_probable():
    process = tabular.drifting()
    table = process.record(200, 0)
    number = table["action"].str[1:].astype(int)
    assert process.allowed[table["state"], number].all()
    np.testing.assert_allclose(table["probability"], process.behavior[table["state"], number])
    assert table.groupby("episode")["ended"].sum().eq(1).all()
    assert table.equals(process.record(200, 0)) and not table.equals(process.record(200, 1))
    assert list(process.states()) == [name for name in table if name.startswith(("f", "may_"))]


@pytest.mark.skipif(not tabular.has_sepsis(), reason="icu-sepsis is not installed")
def test_icu_sepsis():
    process = tabular.sepsis()
    assert process.move.shape == (716, 25, 716) and process.features.shape == (716, 47)
    np.testing.assert_allclose(process.move.sum(axis=2), 1.0, rtol=1e-6)
    assert process.value(process.uniform()) == pytest.approx(0.78, abs=0.01)
    assert process.value(process.optimal()) == pytest.approx(0.88, abs=0.01)


def test_icu_sepsis_is_an_extra(monkeypatch):
    monkeypatch.setattr(tabular.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps icu-sepsis"):
        tabular.sepsis()


def test_a_recording_is_what_is_played():
    process = tabular.make("drifting")
    dataset = processes.record("drifting", seed=3, episodes=50)
    datasets.validate(dataset)
    rows = process.record(50, 3)
    assert dataset.num_episodes == 50 and dataset.num_transitions == len(rows)
    returns = rows.groupby("episode")["reward"].sum().to_numpy()
    np.testing.assert_allclose(dataset.episode_returns, returns, rtol=1e-6)
    decides = ~dataset.is_last
    np.testing.assert_allclose(dataset.probability[decides], rows["probability"], rtol=1e-6)
    np.testing.assert_allclose(dataset.observation[decides, 0], rows["f0"], rtol=1e-6)
    assert (dataset.discount[dataset.is_last] == 0).all()
    assert processes.random_returns("drifting", episodes=9, seed=0).shape == (9,)
    with pytest.raises(ValueError, match="unknown process 'driftin': did you mean 'drifting'"):
        tabular.make("driftin")


@pytest.mark.slow
def test_a_run_on_a_known_process(tmp_path):
    from test_logged import SMALL

    datasets.save(processes.record("drifting", seed=0, episodes=40), tmp_path / "drifting.npz")
    one = runs.Spec(
        dataset=str(tmp_path / "drifting.npz"), benchmark="tabular", environment="drifting",
        method="bc", overrides=SMALL, updates=2, eval_every=1, eval_episodes=200, holdout=0.25,
        keep_checkpoints=True,
    )  # fmt: skip
    frame = runs.train(one, tmp_path / "run")
    # Cloning starts with the policy that takes each allowed action as often.
    exact = tabular.make("drifting").value(tabular.make("drifting").uniform())
    assert frame["mean_return"].iloc[0] == pytest.approx(exact, abs=0.8)
    discounted = tabular.make("drifting").value(tabular.make("drifting").uniform(), 0.997**4)
    assert frame["exact_return"].iloc[0] == pytest.approx(discounted, rel=1e-5)
    assert frame["exact_uniform"].iloc[0] == discounted
    assert (frame["exact_data"] < frame["exact_best"]).all()
    assert set(runs.programs(one)) == {"initialisation", "training", "evaluation", "environment"}
    found = selection.report(one, tmp_path / "run", fqe_updates=4, resamples=20)
    assert set(found["probabilities"]) == {"recorded"} and len(found) == 2
    assert {"mean_return", "fraction", "holdout", "overrides", "dr_total"} <= set(found)
