"""A policy is saved, loaded without the code that trained, and acts as it did."""

import dataclasses
import itertools
import json
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pandas as pd
import pytest
import yaml

from test_logged import ROLES, SMALL, path, spec, table  # noqa: F401
from unplugged import coding, datasets, evaluation, policy, runs
from unplugged.common import safetensors
from unplugged.runs import decisions

pytest.importorskip("flatbuffers")


def test_arrays_by_name_in_a_file(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "a/w": rng.normal(size=(3, 2)).astype(np.float32), "b": np.array(7),
        "c": np.array([True, False]), "none": np.zeros((0, 4), np.uint8),
    }  # fmt: skip
    file = tmp_path / "some.safetensors"
    file.write_bytes(safetensors.to_bytes(arrays))
    again = safetensors.load(file)
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)
    content = file.read_bytes()
    for wrong in (content[:-1], content[:20], b"", content + b"x"):
        file.write_bytes(wrong)
        with pytest.raises(safetensors.SafetensorsError):
            safetensors.load(file)


def test_what_cannot_be_loaded_or_saved(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no policy in .*: it has no policy\.json"):
        policy.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no finished run"):
        policy.save(tmp_path, tmp_path / "new")
    with pytest.raises(FileExistsError, match="delete it, or name another"):
        policy.save(tmp_path, tmp_path)
    (tmp_path / "provenance.json").write_text(json.dumps({"parameters": {"round_updates": 1}}))
    with pytest.raises(ValueError, match="no offline run"):
        policy.save(tmp_path, tmp_path / "new")


@pytest.fixture(scope="module")
def saved(path, tmp_path_factory):  # noqa: F811
    """A run of ROSMO on the table, and its policy in a folder."""
    root = tmp_path_factory.mktemp("policy")
    one = spec(path, updates=40, eval_every=40, overrides={**SMALL, "warmup_updates": 2})
    runs.train(one, root / "run")
    policy.save(root / "run", root / "clinic")
    return one, root


@pytest.mark.slow
def test_it_acts_as_the_run_did_to_the_last_bit(saved):
    one, root = saved
    agent = policy.load(root / "clinic")
    learner, state = runs.restore(one, root / "run", 0)
    rows = table(5, seed=9)
    observation = agent.book.encode(rows)
    key = jax.random.key(3)
    decided = agent.act(rows, key=key)
    play = evaluation.make_policy(learner.model, one.acts_by, one.settings)
    names = np.array(["high", "none"])
    np.testing.assert_array_equal(decided.action, names[play(state.params, observation, key)])
    of_run = jax.jit(decisions.probabilities(learner, one.acts_by))
    select_key, _ = jax.random.split(key)
    expected = of_run(state.params, observation, select_key)
    np.testing.assert_array_equal(decided.probabilities, expected)
    value, q = jax.jit(decisions.expected(learner))(state.params, observation)
    np.testing.assert_array_equal(decided.value, value)
    np.testing.assert_array_equal(decided.action_values, q)


@pytest.mark.slow
def test_rows_tables_and_arrays(saved, monkeypatch):
    _, root = saved
    agent = policy.load(str(root / "clinic"))
    rows = table(5, seed=9)
    whole = agent.act(rows)
    frame = whole.frame()
    assert list(frame) == ["action", "value", "p(high)", "p(none)", "q(high)", "q(none)"]
    assert len(frame) == len(rows)
    one = agent.act(dict(rows.iloc[0]))
    assert one.action in ("high", "none") and one.probabilities.shape == (2,)
    assert list(one.frame()["action"]) == [one.action]
    np.testing.assert_allclose(one.probabilities, whole.probabilities[0], rtol=1e-5)
    with pytest.warns(UserWarning, match="coded and standardised already"):
        coded = agent.act(agent.book.encode(rows)[0]).probabilities
    np.testing.assert_array_equal(agent.act(rows.iloc[0]).probabilities, coded)
    listed = agent.act([dict(row) for _, row in rows.iterrows()])
    np.testing.assert_array_equal(listed.probabilities, whole.probabilities)
    many = pd.concat([rows] * (10_000 // len(rows) + 1))
    found = agent.act(many).probabilities
    np.testing.assert_allclose(
        found, np.tile(whole.probabilities, (len(many) // len(rows), 1)), rtol=1e-5
    )
    for wrong, error in [
        (np.zeros((2, 7)), r"must have shape \[3\] or \[B, 3\] or rows of the table, got \[2, 7\]"),
        ("x", "observations must be numbers"),
        (np.zeros((0, 3)), "no rows to decide for"),
        ([[0.0, 1.0, 0.0], [0.0, np.nan, 1.0]], r"observation 1 is nan at \[1\]; give finite"),
        ([np.inf, 1.0, 0.0], r"observation 0 is inf at \[0\]"),
        (rows.assign(ward="c"), "column 'ward' is 'c' in row 0"),
        (rows.drop(columns="pulse"), "no column 'pulse'"),
    ]:
        with (
            warnings.catch_warnings(),
            pytest.raises((policy.PolicyError, coding.TableError), match=error),
        ):
            warnings.simplefilter("ignore")  # Of arrays.
            agent.act(wrong)
    large = pd.concat([many] * 10)  # Above 100,000 rows.
    begin = time.process_time()
    assert len(agent.act(large).action) == len(large) > 100_000
    assert time.process_time() - begin < 5.0
    keys = itertools.count()
    monkeypatch.setattr(policy.secrets, "randbits", lambda bits: next(keys))
    drawn = [agent.act(dict(rows.iloc[i % 5])).action for i in range(100)]
    share = drawn.count("high") / 100  # Row by row as well, actions come as often as they should.
    assert abs(share - whole.probabilities[:, 0].mean()) < 0.2
    assert agent.act(many, key=1).action.tolist() == agent.act(many, key=1).action.tolist()
    with pytest.raises(ValueError, match="key must be an integer"):
        agent.act(rows, key=0.5)


@pytest.mark.slow
def test_it_loads_without_the_code_that_trained(saved):
    _, root = saved
    code = f"""
import sys
from unplugged import policy
decided = policy.load({str(root / "clinic")!r}).act({{"pulse": 130.0, "ward": "a"}})
assert decided.action in ("high", "none")
wrong = [x for x in sys.modules if x.startswith(("unplugged.learning", "unplugged.runs", "unplugged"
         ".planning", "unplugged.model", "haiku", "mctx", "optax", "rlax"))]
assert not wrong, wrong
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_damaged_folder_is_named(saved, tmp_path):
    _, root = saved
    copy = tmp_path / "clinic"
    copy.mkdir()
    for file in (root / "clinic").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert sorted(x.name for x in copy.iterdir()) == [
        "act.jax", "expect.jax", "policy.json", "weights.safetensors",
    ]  # fmt: skip
    about = json.loads((copy / "policy.json").read_text())
    assert about["actions"] == ["high", "none"] and about["update"] == 40
    (copy / "policy.json").write_text(json.dumps({**about, "version": 9}))
    with pytest.raises(policy.PolicyError, match="version 9, this code reads 2; save"):
        policy.load(copy)
    (copy / "policy.json").write_text("{")
    with pytest.raises(policy.PolicyError, match=r"policy\.json is damaged"):
        policy.load(copy)
    (copy / "policy.json").write_text(json.dumps(about))
    (copy / "act.jax").write_bytes(b"")
    with pytest.raises(policy.PolicyError, match=r"act\.jax is not what was saved"):
        policy.load(copy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "selectors"),
    [
        ("mzu_q", ["policy", "greedy", "value", "improved", "search", "search_q", "gumbel"]),
        ("crr", ["critic"]), ("iqn", ["implicit"]), ("bcq", ["constrained"]),
    ],
)  # fmt: skip
def test_every_selector(path, tmp_path, method, selectors):  # noqa: F811
    one = spec(path, method=method, updates=2, overrides={**SMALL, "num_simulations": 2})
    runs.train(one, tmp_path / "run")
    learner, state = runs.restore(one, tmp_path / "run", 0)
    rows, key = table(3, seed=5), jax.random.key(1)
    for selector in selectors:
        agent = policy.load(policy.save(tmp_path / "run", tmp_path / selector, selector=selector))
        play = evaluation.make_policy(learner.model, selector, one.settings)
        chosen = play(state.params, agent.book.encode(rows), key)
        decided = agent.act(rows, key=key)
        assert (decided.action == np.array(["high", "none"])[chosen]).all(), selector
        np.testing.assert_allclose(decided.probabilities.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.slow
def test_it_plays_gymnasium(tmp_path):
    environment = gymnasium.make("CartPole-v1")
    rng = np.random.default_rng(0)
    episodes = [
        {"observation": rng.normal(size=(6, 4)), "action": rng.integers(2, size=5),
         "reward": np.ones(5), "terminated": True} for _ in range(4)
    ]  # fmt: skip
    metadata = {"environment": "CartPole-v1", "num_actions": 2}
    datasets.save(datasets.from_episodes(episodes, metadata), tmp_path / "cartpole.npz")
    one = runs.Spec(
        dataset=str(tmp_path / "cartpole.npz"), benchmark="gymnasium", environment="CartPole-v1",
        method="bc", overrides=SMALL, updates=1, eval_every=1, eval_episodes=1,
    )  # fmt: skip
    runs.train(one, tmp_path / "run")
    agent = policy.load(policy.save(tmp_path / "run", tmp_path / "agent", greedy=True))
    observation, _ = environment.reset(seed=0)
    steps, over = 0, False
    while not over:
        action = agent.act(observation).action
        observation, _, terminated, truncated, _ = environment.step(action)
        steps, over = steps + 1, terminated or truncated
    assert steps > 3 and agent.act(observation).value is None
    with pytest.raises(policy.PolicyError, match=r"takes observations \[4\], no rows of a table"):
        agent.act({"pulse": 1.0})


@pytest.mark.slow
def test_continuous_actions_are_numbers(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [
        {"observation": rng.normal(size=(9, 3)), "action": rng.uniform(-1, 1, (8, 1)),
         "reward": np.ones(8), "terminated": False} for _ in range(3)
    ]  # fmt: skip
    metadata = {"environment": "Pendulum-v1", "action_dims": 1}
    datasets.save(datasets.from_episodes(episodes, metadata), tmp_path / "pendulum.npz")
    one = runs.Spec(
        dataset=str(tmp_path / "pendulum.npz"), benchmark="gymnasium", environment="Pendulum-v1",
        method="bc", overrides=SMALL, updates=1, eval_every=1, eval_episodes=1,
    )  # fmt: skip
    runs.train(one, tmp_path / "run")
    agent = policy.load(policy.save(tmp_path / "run", tmp_path / "agent"))
    learner, state = runs.restore(one, tmp_path / "run", 0)
    play = evaluation.make_policy(learner.model, one.acts_by, one.settings)
    states, key = rng.normal(size=(4, 3)).astype(np.float32), jax.random.key(2)
    decided = agent.act(states, key=key)
    np.testing.assert_array_equal(decided.action, play(state.params, states, key))
    assert decided.probabilities is None and decided.frame().shape == (4, 1)
    assert agent.act(states[0]).action.shape == (1,)
    # Where the dataset says what the bounds were, amounts are the environment's own.
    bounded = datasets.from_episodes(
        episodes, {**metadata, "action_low": [-2.0], "action_high": [4.0]}
    )
    datasets.save(bounded, tmp_path / "bounded.npz")
    runs.train(dataclasses.replace(one, dataset=str(tmp_path / "bounded.npz")), tmp_path / "other")
    agent = policy.load(policy.save(tmp_path / "other", tmp_path / "bounded"))
    np.testing.assert_allclose(agent.act(states, key=key).action, 1.0 + 3.0 * decided.action, 1e-5)


README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_readmes_way_from_a_table_to_a_decision(tmp_path, monkeypatch):
    """Its Python as it stands; its two commands by their parameters, with fewer updates."""
    monkeypatch.chdir(tmp_path)
    section = README.read_text().partition("## Your own data")[2].partition("\n## ")[0]
    make, use = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    commands = re.findall(r"notebooks/(\w+)\.ipynb .* -y '(.*)'$", section, re.M)
    assert [name for name, _ in commands] == ["20_train", "28_estimate"]
    rows = table().assign(age=50, ward="north")
    rows.to_csv("clinic.csv", index=False)
    exec(make, {})
    given = [yaml.safe_load(text) for _, text in commands]
    assert given[0] == given[1]
    folder = given[0].pop("folder")
    runs.train(runs.Spec(**given[0], updates=2, eval_every=2, overrides=SMALL), folder)
    scope = {}
    exec(use, scope)
    assert scope["agent"].actions == ("high", "none")
