"""A benchmark is a row: its environments record, train and evaluate by parameters alone."""

import dataclasses

import numpy as np
import pytest

from unplugged import datasets, environments, games, runs
from unplugged.model.actions import Discrete
from unplugged.runs import benchmarks, evaluation

pytestmark = pytest.mark.slow

SMALL = {
    "representation": [8, 8], "dynamics": [8, 8], "prediction": [8], "batch_size": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape", "num_actions", "length"),
    [
        ("discounting_chain_1", (1, 2), 5, 100),
        ("umbrella_length_10", (1, 3), 2, 10),
        ("memory_len_2", (1, 3), 2, 3),
    ],
)
def test_rows_of_bsuite_record_train_and_evaluate(tmp_path, name, shape, num_actions, length):
    bsuite = benchmarks.get("bsuite")
    assert bsuite.form(name) == (shape, Discrete(num_actions))
    dataset = bsuite.recorder.record(name, seed=0, noise=0.1, episodes=12)
    assert dataset.num_episodes == 12 and dataset.num_transitions == 12 * length
    returns = bsuite.recorder.returns(dataset)
    assert list(returns) == ["environment", "noise", "episode", "return"]
    path = tmp_path / f"{benchmarks.dataset_name('bsuite', name, 0.1)}.npz"
    assert path.stem == f"bsuite_{name}_noise0.1"
    datasets.save(dataset, path)
    spec = runs.Spec(
        dataset=str(path), environment=name, overrides=SMALL, updates=4, eval_every=2,
        eval_episodes=2,
    )  # fmt: skip
    frame = runs.train(spec, tmp_path / "run")
    assert frame["update"].tolist() == [0, 2, 4] and (frame["run"] == "run").all()
    assert np.isfinite(frame["mean_return"]).all()


def test_discounting_chain_has_the_same_rewards_each_time():
    worlds = [environments.make("bsuite", "discounting_chain_1", seed=seed) for seed in (0, 1)]
    returns = []
    for world in worlds:
        world.reset()
        returns.append([world.step(1).reward for _ in range(20)])
    assert returns[0] == returns[1] and sum(returns[0]) > 0


def test_a_new_row_is_all_that_a_benchmark_needs(tmp_path, monkeypatch):
    """A benchmark that nobody acts in: its evaluation says 7."""

    class Seven:
        def __call__(self, params, seed, update):
            return np.full(3, 7.0)

        def identity(self, params):
            return "seven"

    row = benchmarks.Benchmark(
        preset=benchmarks.get("bsuite").preset,
        check=lambda name: None,
        form=lambda name: ((2,), Discrete(2)),
        evaluator=lambda name, policy, episodes: Seven(),
    )
    monkeypatch.setitem(benchmarks.BENCHMARKS, "sevens", row)
    rng = np.random.default_rng(0)
    episode = {"observation": rng.normal(size=(6, 2)), "action": [0, 1] * 2 + [0],
               "reward": [1.0] * 5, "terminated": True}  # fmt: skip
    metadata = {"benchmark": "sevens", "environment": "clinic", "num_actions": 2}
    datasets.save(datasets.from_episodes([episode] * 3, metadata), tmp_path / "clinic.npz")
    spec = runs.Spec(
        dataset=str(tmp_path / "clinic.npz"), benchmark="sevens", environment="clinic",
        overrides=SMALL, updates=2, eval_every=1,
    )  # fmt: skip
    frame = runs.train(spec, tmp_path / "run")
    assert frame["mean_return"].tolist() == [7.0] * 3
    assert runs.programs(spec)["evaluation"] == "seven"
    with pytest.raises(ValueError, match="no agent records datasets of sevens, but of bsuite"):
        benchmarks.dataset_name("sevens", "clinic")


def test_a_recording_is_asked_for_in_its_own_terms():
    record = benchmarks.get("minatar").recorder.record
    with pytest.raises(ValueError, match="recorded by transitions: give transitions, and nothing"):
        record("breakout", seed=0, episodes=3, transitions=None)
    with pytest.raises(ValueError, match="breakout has no noise of its own"):
        record("breakout", seed=0, noise=0.5, transitions=3)
    assert benchmarks.dataset_name("minatar", "breakout") == "minatar_breakout"


def test_an_unknown_benchmark():
    with pytest.raises(ValueError, match="unknown benchmark 'minatr': did you mean 'minatar'"):
        runs.Spec(dataset="", benchmark="minatr", environment="breakout")


def test_every_row_is_whole():
    for name, row in benchmarks.BENCHMARKS.items():
        assert dataclasses.asdict(row.preset), name
        if row.evaluator is None:  # Nothing is acted in.
            assert row.form is None and row.game is None, name
            continue
        compiled = row.game is not None
        world = {
            "gymnasium": "CartPole-v1", "gymnasium_masked": "Taxi-v4",
            "minatar": "breakout", "control": "cartpole.swingup",
            "classic": "pendulum", "atari": "pong", "tabular": "drifting",
        }.get(name, "catch")  # fmt: skip
        row.check(world)
        kind = evaluation.Tabular if name == "tabular" else evaluation.LockStep
        assert isinstance(row.evaluator(world, None, 2), evaluation.Compiled if compiled else kind)
        bits = compiled and games.FAMILIES[name].of_bits
        assert row.packed == bits and bool(row.packages) != compiled
