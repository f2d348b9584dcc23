"""Environments and datasets of a reader's own, and the way that each error shows."""

import re
import sys
from pathlib import Path

import gymnasium
import jax
import minari
import numpy as np
import pytest
from gymnasium import spaces

from unplugged import datasets, environments, evaluation, minari_io, runs

DOCS = Path(__file__).parents[1] / "docs" / "extending.md"

OWN = """
import gymnasium
import numpy as np


class Own(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 9.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.full(1, action, np.float32), float(action), False, False, {}


gymnasium.register("{name}-v0", entry_point="{module}:Own", max_episode_steps={limit})
"""

pytestmark = pytest.mark.filterwarnings("ignore:.*is set to None", "ignore:env_spec is None")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder that modules are found in; Minari's store is in it."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(gymnasium.registry):
        if name.startswith(("Own", "Endless", "FlatLake")):
            del gymnasium.registry[name]


def write(folder, module, name, limit):
    text = OWN.replace("{module}", module).replace("{name}", name)
    (folder / f"{module}.py").write_text(text.replace("{limit}", str(limit)))


def record(name, dataset_id, episodes=3):
    """A Minari dataset of random episodes."""
    collector = minari.DataCollector(gymnasium.make(name))
    for seed in range(episodes):
        collector.reset(seed=seed)
        over = False
        while not over:
            *_, terminated, truncated, _ = collector.step(collector.action_space.sample())
            over = terminated or truncated
    collector.create_dataset(dataset_id)
    collector.close()


def run_on(path, environment):
    return runs.Spec(
        benchmark="gymnasium", environment=environment, dataset=str(path),
        overrides={"batch_size": 4},
    )  # fmt: skip


def test_minaris_dataset_of_an_environment_of_ones_own(folder):
    write(folder, "own_one", "Own1", 5)
    record("own_one:Own1-v0", "own/random-v0")
    del gymnasium.registry["Own1-v0"]  # As in another process, which did not import the module.
    path = folder / "own.npz"
    datasets.save(minari_io.from_minari("own/random-v0"), path)
    assert datasets.load(path).metadata["environment"] == "Own1-v0"
    message = r"unknown gymnasium environment 'Own1-v0': .* name that too: 'module:Own1-v0'"
    with pytest.raises(ValueError, match=message):
        run_on(path, "Own1-v0").build()
    del sys.modules["own_one"]
    for environment in ("own_one:Own1-v0", "Own1-v0"):
        learner, _, dataset = run_on(path, environment).build()
        assert learner.model.num_actions == 2 and dataset.num_episodes == 3
    named = minari_io.from_minari("own/random-v0", environment="own_one:Own1-v0")
    datasets.save(named, path)
    assert run_on(path, "own_one:Own1-v0").build()[2].metadata["environment"] == "own_one:Own1-v0"
    run_on(path, "Own1-v0").build()
    exported = minari_io.to_minari(named, "own/copy-v0")
    assert exported.env_spec.id == "Own1-v0"
    assert minari_io.from_minari("own/copy-v0").metadata == named.metadata


def test_two_names_of_one_environment():
    assert environments.same("Own-v0", "Own-v0") and environments.same("a:Own-v0", "a:Own-v0")
    assert environments.same("a:Own-v0", "Own-v0") and environments.same("Own-v0", "a.b:Own-v0")
    assert not environments.same("a:Own-v0", "b:Own-v0")
    assert not environments.same("a:Own-v0", "Own-v1")


def test_a_dataset_of_another_environment_or_of_none(folder):
    episode = {"observation": np.zeros([3, 4]), "action": [0, 0], "reward": [0, 0],
               "terminated": True}  # fmt: skip

    def refused(message, **facts):
        path = folder / "a.npz"
        datasets.save(datasets.from_episodes([episode], {"num_actions": 2, **facts}), path)
        with pytest.raises(datasets.DatasetError, match=message):
            run_on(path, "CartPole-v1").build()

    refused("recorded in 'Acrobot-v1', not in 'CartPole-v1'", environment="Acrobot-v1")
    refused("give its metadata 'environment', such as 'CartPole-v1'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "ModuleNotFoundError: No module named 'own_broken"),
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("from math import nothing", "ImportError: cannot import name 'nothing' from 'math'"),
        ("a = = 1", "SyntaxError: invalid syntax"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported_says_so(folder, text, message):
    module = f"own_broken_{abs(hash(text))}"
    if text is not None:
        (folder / f"{module}.py").write_text(text)
    name = f"{module}:Own-v0"
    with pytest.raises(ValueError, match=f"module '{module}' .* cannot be imported: {message}"):
        environments.make("gymnasium", name, seed=0)


def test_a_module_without_the_environment_and_one_that_fails(folder):
    write(folder, "own_two", "Own2", 5)
    with pytest.raises(ValueError, match=r"unknown .* 'own_two:Own3-v0': did you mean 'Own2-v0'"):
        environments.make("gymnasium", "own_two:Own3-v0", seed=0)
    gymnasium.register("OwnBroken-v0", entry_point="own_two:Nothing", max_episode_steps=5)
    with pytest.raises(ValueError, match=r"'OwnBroken-v0' cannot be made: .*Nothing"):
        environments.make("gymnasium", "OwnBroken-v0", seed=0)


def test_an_environment_without_a_time_limit_is_refused_before_it_is_played(folder):
    write(folder, "own_endless", "Endless", None)
    name = "own_endless:Endless-v0"
    message = r"'own_endless:Endless-v0': has no time limit, .*max_episode_steps=1000\)"
    with pytest.raises(ValueError, match=message):
        environments.make("gymnasium", name, seed=0)
    with pytest.raises(ValueError, match=message):
        run_on("none.npz", name).build()  # Before the dataset is looked for.
    gymnasium.register("OwnLimited-v0", entry_point="own_endless:Own", max_episode_steps=1000)
    assert environments.form(environments.make("gymnasium", "OwnLimited-v0", seed=0))[0] == (1,)


def test_observations_that_are_no_box_have_the_documented_way(folder):
    world = type("Words", (gymnasium.Env,), {
        "observation_space": spaces.Text(5), "action_space": spaces.Discrete(2)
    })  # fmt: skip
    gymnasium.register("OwnWords-v0", entry_point=world, max_episode_steps=3)
    advice = (
        r"got Text.*, or what .* wrapper that makes a Box of it \(docs/extending.md, Your own e"
    )
    with pytest.raises(ValueError, match=f"observations must be a Box, {advice}"):
        environments.make("gymnasium", "OwnWords-v0", seed=0)

    section = DOCS.read_text().partition("## Your own environment")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    (folder / "lake.py").write_text(block)
    record("lake:FlatLake-v0", "lake/flat-v0", episodes=20)
    dataset = minari_io.from_minari("lake/flat-v0")  # It is what its id brings back.
    assert dataset.metadata["environment"] == "FlatLake-v0"
    assert dataset.observation_shape == (16,)
    datasets.save(dataset, folder / "lake.npz")
    assert run_on(folder / "lake.npz", "lake:FlatLake-v0").build()[2].num_episodes == 20
    world = environments.make("gymnasium", "lake:FlatLake-v0", seed=0)
    assert world.reset().observation.tolist() == [1.0] + 15 * [0.0]


@pytest.mark.parametrize(
    ("name", "size"),
    [("FrozenLake-v1", 16), ("Taxi-v4", 500), ("Blackjack-v1", 45), ("CliffWalking-v1", 48)],
)
def test_other_observations_are_flattened_from_minari_to_evaluation(folder, name, size):
    if name == "CliffWalking-v1":  # Its random episodes are long.
        rng = np.random.default_rng(0)
        steps = np.eye(48)[rng.integers(48, size=6)]
        episode = {"observation": steps, "action": rng.integers(4, size=5),
                   "reward": -np.ones(5), "terminated": False}  # fmt: skip
        dataset = datasets.from_episodes([episode], {"environment": name, "num_actions": 4})
    else:
        record(name, "flat/one-v0", episodes=5)
        dataset = minari_io.from_minari("flat/one-v0")
    assert dataset.observation_shape == (size,)
    assert set(np.unique(dataset.observation)) == {0.0, 1.0}
    datasets.save(dataset, folder / "flat.npz")
    _, store, _ = run_on(folder / "flat.npz", name).build()
    world = environments.make("gymnasium", name, seed=0)
    assert world.reset().observation.shape == store.observation.shape[1:]
    world.close()


def test_flattening_many_is_gymnasiums_own_flattening():
    space = spaces.Dict(
        a=spaces.Tuple([spaces.Discrete(3, start=2), spaces.Box(-1.0, 1.0, (2, 2))]),
        b=spaces.MultiDiscrete([2, 4]), c=spaces.MultiBinary(3),
    )  # fmt: skip
    space.seed(0)
    some = [space.sample() for _ in range(6)]
    together = {
        "a": tuple(np.stack([one["a"][i] for one in some]) for i in range(2)),
        "b": np.stack([one["b"] for one in some]), "c": np.stack([one["c"] for one in some]),
    }  # fmt: skip
    wanted = np.stack([spaces.flatten(space, one) for one in some])
    np.testing.assert_allclose(environments.flattened(space, together), wanted, rtol=1e-6)
    assert environments.flat_shape(space) == wanted.shape[1:]
    assert environments.flat_shape(spaces.Sequence(spaces.Discrete(2))) is None


def test_a_long_evaluation_tells_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "_PATIENCE", -1.0)
    worlds = [environments.make("bsuite", "catch", seed=0)] * 2
    policy = lambda params, observation, key: np.zeros(2)  # noqa: E731
    evaluation.evaluate(policy, None, worlds[:1], jax.random.key(0))
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"evaluation: 1 of 1 episodes go on at step 1, after \d+ s", lines[0])
    assert len(lines) == 9  # A step each.
    monkeypatch.undo()
    evaluation.evaluate(policy, None, worlds[:1], jax.random.key(0))
    assert capsys.readouterr().out == ""


def test_an_environment_that_minari_cannot_write_down_is_exported_by_name(folder):
    world = type("World", (gymnasium.Env,), {
        "observation_space": spaces.Box(0.0, 1.0, (1,)), "action_space": spaces.Discrete(2)
    })  # fmt: skip
    gymnasium.register("OwnClass-v0", entry_point=world, max_episode_steps=3)
    episode = {"observation": np.zeros([2, 1]), "action": [0], "reward": [0], "terminated": True}
    metadata = {"benchmark": "gymnasium", "environment": "OwnClass-v0", "num_actions": 2}
    dataset = datasets.from_episodes([episode], metadata)
    assert minari_io.to_minari(dataset, "own/class-v0").env_spec is None
    assert minari_io.from_minari("own/class-v0").metadata == metadata
