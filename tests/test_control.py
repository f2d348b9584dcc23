"""The tasks of the DM Control suite, and what those without it are told."""

import importlib

import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs

from unplugged import control, datasets, environments, runs
from unplugged.model.actions import Normal
from unplugged.runs import benchmarks, evaluation

SMALL = {
    "representation": [8, 8], "dynamics": [8, 8], "prediction": [8], "batch_size": 8,
    "num_candidates": 3, "num_simulations": 2, "standardize": True,
}  # fmt: skip


def test_it_says_which_extra_is_missing(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"needs dm_control .*: pip install -e '.\[control\]'"):
        environments.make("control", "cartpole.swingup", seed=0)
    with pytest.raises(
        ValueError, match=r"unknown control task 'fish_swim': did you mean 'fish.sw"
    ):
        benchmarks.get("control").check("fish_swim")


def test_a_way_to_draw_that_fails_is_named(monkeypatch):
    def fails(name):
        raise AttributeError("'NoneType' object has no attribute 'glGetError'")

    monkeypatch.setattr(importlib, "import_module", fails)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(ValueError, match=r"with MUJOCO_GL=osmesa \(AttributeErr.*leave it unset"):
        control.suite()


# Sizes of observations as RL Unplugged's files have them, with `touch` for finger.turn_hard.
@pytest.mark.parametrize(
    ("name", "size", "dims"),
    [("cartpole.swingup", 5, 1), ("finger.turn_hard", 12, 2), ("manipulator.insert_peg", 44, 5)],
)
def test_a_task(suite, name, size, dims):
    world = environments.make("control", name, seed=1)
    assert environments.form(world) == ((size,), Normal(dims))
    step = world.reset()
    assert (step.observation.shape, step.observation.dtype) == ((size,), np.float32)
    again = environments.make("control", name, seed=1)
    np.testing.assert_array_equal(again.reset().observation, step.observation)
    other = environments.make("control", name, seed=2).reset().observation
    assert (other != step.observation).any()
    inner = world._environment
    assert (inner.action_spec().minimum == -1.0).all() and (inner.action_spec().maximum == 1).all()
    assert inner._n_sub_steps == round(inner.control_timestep() / inner.physics.timestep())


def test_observations_are_raveled_by_sorted_names():
    parts = {"b": np.array(2.0), "a": np.array([[3.0, 4.0], [5.0, 6.0]]), "c": [7.0]}
    np.testing.assert_array_equal(control.flat(parts), [3, 4, 5, 6, 2, 7])


def test_an_episode_ends_as_a_truncation_after_1000_steps(suite):
    world = environments.make("control", "cartpole.swingup", seed=0)
    step, number = world.reset(), 0
    while not step.last():
        step = world.step(np.ones(1, np.float32))
        number += 1
    assert (number, step.discount) == (control.LENGTH, 1.0)
    assert 0.0 <= step.reward <= 1.0


def random_episodes(benchmark, name, number):
    world = environments.make(benchmark, name, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(number):
        step = world.reset()
        episode = {"observation": [step.observation], "action": [], "reward": []}
        while not step.last():
            episode["action"].append(environments.uniform(world.action_spec(), rng))
            step = world.step(episode["action"][-1])
            episode["observation"].append(step.observation)
            episode["reward"].append(step.reward)
        yield {**episode, "terminated": step.discount == 0.0}


class Taken(dm_env.Environment):
    """One step long; keeps the action that reaches it."""

    def reset(self):
        return dm_env.restart(np.zeros(1))

    def step(self, action):
        self.action = action
        return dm_env.truncation(1.0, np.zeros(1))

    def observation_spec(self):
        return specs.Array((1,), np.float32)

    def action_spec(self):
        return specs.BoundedArray((2,), np.float32, -1.0, 1.0)


def test_evaluation_clips_what_a_policy_draws():
    worlds = [Taken(), Taken()]
    drawn = np.array([[0.5, 7.0], [-1.5, 0.0]], np.float32)
    returns = evaluation.evaluate(lambda *_: drawn, None, worlds, jax.random.key(0))
    assert returns.tolist() == [1.0, 1.0]
    assert [world.action.tolist() for world in worlds] == [[0.5, 1.0], [-1.0, 0.0]]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bc", "mzu"])
def test_pendulum_from_random_episodes_to_returns(tmp_path, method):
    metadata = {"benchmark": "gymnasium", "environment": "Pendulum-v1", "action_dims": 1,
                "action_low": [-2.0], "action_high": [2.0]}  # fmt: skip
    dataset = datasets.from_episodes(random_episodes("gymnasium", "Pendulum-v1", 3), metadata)
    assert dataset.num_transitions == 600 and (dataset.discount == 1.0).all()
    datasets.save(dataset, tmp_path / "pendulum.npz")
    spec = runs.Spec(
        dataset=str(tmp_path / "pendulum.npz"), benchmark="gymnasium", environment="Pendulum-v1",
        method=method, overrides=SMALL, updates=2, eval_every=2, eval_episodes=2,
    )  # fmt: skip
    frame = runs.train(spec, tmp_path / "run")
    assert frame["update"].tolist() == [0, 2]
    assert (frame["mean_return"] < 0).all() and np.isfinite(frame["mean_return"]).all()
