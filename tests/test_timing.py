import numpy as np
import pytest

from unplugged import datasets, environments, runs, timing, windows

pytestmark = pytest.mark.slow

SMALL = {"representation": [8, 8], "dynamics": [8, 8], "prediction": [8], "batch_size": 4}


def test_rates_by_hand():
    now, calls = [0.0], []

    def step():
        calls.append(now[0])
        now[0] += 0.5
        return 5

    # One call is not timed; then two of half a second make a repeat of 10 units in 1 s.
    assert timing.rates(step, seconds=1.0, repeats=2, clock=lambda: now[0]) == [10.0, 10.0]
    assert len(calls) == 5
    # A repeat has at least one call.
    assert timing.rates(step, seconds=0.0, repeats=1, clock=lambda: now[0]) == [10.0]


def test_runs_are_timed_in_turn(tmp_path, monkeypatch):
    shape, actions = environments.form(environments.make("bsuite", "catch", seed=0))
    episode = {
        "observation": np.zeros((10, *shape), np.float32),
        "action": np.zeros(9, int),
        "reward": np.zeros(9, np.float32),
        "terminated": True,
    }
    metadata = {
        "benchmark": "bsuite", "environment": "catch", "num_actions": actions.num_actions,
        "noise": 0.0,
    }  # fmt: skip
    path = tmp_path / "catch.npz"
    datasets.save(datasets.from_episodes([episode] * 3, metadata), path)
    specs = [
        runs.Spec(dataset=str(path), method=method, overrides=SMALL) for method in ("rosmo", "bc")
    ]
    placed = []
    monkeypatch.setattr(timing, "on_device", lambda x: placed.append(x) or windows.store(x))
    rows = timing.measure(specs, updates=3, seconds=0.0, repeats=2, after=2)
    assert len(placed) == 1  # The dataset is on the device once.
    assert rows["method"].tolist() == ["rosmo", "bc"] * 2
    assert rows["repeat"].tolist() == [0, 0, 1, 1] and (rows["seconds"] > 0).all()
    assert (rows["after"] == 2).all()

    # What is timed is training, of as many updates as asked for.
    learner, data, _ = specs[0].build()
    trained, _ = learner.run(learner.init(0), data, 3)
    assert timing.stepper(specs[0], 3)() == 3 == int(trained.updates)
    with pytest.raises(ValueError, match="repeats"):
        timing.measure(specs, repeats=0)
