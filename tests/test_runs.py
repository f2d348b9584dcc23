import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from unplugged import (
    acting,
    checkpoints,
    datasets,
    environments,
    evaluation,
    improvement,
    learner,
    losses,
    methods,
    networks,
    provenance,
    runs,
    settings,
    transforms,
)
from unplugged.runs import benchmarks, identity, training

pytestmark = pytest.mark.slow

SMALL = {
    "representation": [8, 8], "dynamics": [8, 8], "prediction": [8], "batch_size": 8,
}  # fmt: skip
WITHOUT_TIME = ["benchmark", "environment", "noise", "fraction", "method", "selector",
                "overrides", "seed", "update", "loss", "mean_return", "episodes"]  # fmt: skip


@pytest.fixture(scope="module")
def catch(tmp_path_factory):
    """Forty random episodes of catch, as a file."""
    world = environments.make("bsuite", "catch", seed=0)
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(40):
        step = world.reset()
        episode = {"observation": [step.observation], "action": [], "reward": []}
        while not step.last():
            action = int(rng.integers(3))
            step = world.step(action)
            episode["action"].append(action)
            episode["reward"].append(step.reward)
            episode["observation"].append(step.observation)
        episodes.append({**episode, "terminated": True})
    path = tmp_path_factory.mktemp("data") / "catch.npz"
    metadata = {"benchmark": "bsuite", "environment": "catch", "num_actions": 3, "noise": 0.0}
    datasets.save(datasets.from_episodes(episodes, metadata), path)
    return str(path)


def spec(catch, **changes):
    common = dict(
        dataset=catch, overrides=SMALL, seeds=[0, 1], updates=40, eval_every=20, eval_episodes=3
    )
    return runs.Spec(**{**common, **changes})


def with_preset(preset):
    return dataclasses.replace(benchmarks.get("bsuite"), preset=preset)


def rows_without_time(folder):
    return pd.read_csv(folder / "results.csv")[WITHOUT_TIME].to_csv()


def test_same_seed_same_rows(catch, tmp_path):
    for name in ("a", "b"):
        frame = runs.train(spec(catch, greedy=True, diagnose=True), tmp_path / name)
    assert rows_without_time(tmp_path / "a") == rows_without_time(tmp_path / "b")
    assert frame[["seed", "update"]].to_numpy().tolist() == [
        [0, 0], [0, 20], [0, 40], [1, 0], [1, 20], [1, 40],
    ]  # fmt: skip
    assert (frame["method"] == "rosmo").all() and (frame["selector"] == "improved").all()
    assert frame[["mean_return", "greedy_return"]].stack().between(-1, 1).all()
    assert np.allclose(frame.loc[frame["update"] == 0, "policy_entropy"], np.log(3), rtol=1e-5)
    assert frame["target_commonest"].between(1 / 3, 1).all()
    assert frame["loss"].isna().tolist() == [True, False, False] * 2
    record = json.loads((tmp_path / "a" / "provenance.json").read_text())
    assert record["packages"]["jax"] and record["parameters"]["updates"] == 40
    assert record["settings"]["dynamics"] == [8, 8]


def test_what_has_no_target_has_an_empty_diagnosis(catch):
    """So that all runs of an experiment have the same columns."""
    found = spec(catch, method="bc", diagnose=True).columns(None, None, None)
    assert found == dict.fromkeys(learner.Diagnosis._fields)
    assert spec(catch, method="bc").columns(None, None, None) == {}


def test_more_updates_continue_to_the_same_bits(catch, tmp_path):
    runs.train(spec(catch, updates=20), tmp_path / "cut")
    runs.train(spec(catch), tmp_path / "cut")
    runs.train(spec(catch), tmp_path / "whole")
    assert rows_without_time(tmp_path / "cut") == rows_without_time(tmp_path / "whole")
    assert not list((tmp_path / "cut").glob("checkpoints.old*"))


@pytest.mark.parametrize("vmap_seeds", [False, True])
def test_a_finished_run_is_not_trained_again(catch, tmp_path, monkeypatch, vmap_seeds):
    one = spec(catch, vmap_seeds=vmap_seeds)
    before = runs.train(one, tmp_path)
    monkeypatch.setattr(training._Trainer, "compiled", None)  # Any update would fail now.
    pd.testing.assert_frame_equal(runs.train(one, tmp_path), before)
    # A new seed trains only itself.
    monkeypatch.undo()
    one = dataclasses.replace(one, seeds=[0, 1, 2])
    more = runs.train(one, tmp_path)
    pd.testing.assert_frame_equal(more[more["seed"] < 2].reset_index(drop=True), before)
    assert (more["seed"] == 2).sum() == 3
    saved = [seed for seed, _, _ in runs.saved_states(one, tmp_path, *one.build()[::2])]
    assert sorted(saved) == [0, 1, 2]  # The last checkpoint of each, once.


def test_seeds_trained_elsewhere_are_added(catch, tmp_path, monkeypatch):
    runs.train(spec(catch, seeds=[0, 1]), tmp_path / "there")
    whole = runs.train(spec(catch, seeds=[0, 2]), tmp_path / "whole")
    record = json.loads((tmp_path / "there" / "provenance.json").read_text())
    results = (tmp_path / "there" / "results.csv").read_text()
    for name in ("here", "nothing"):
        (tmp_path / name).mkdir()
        content = json.dumps({"record": record, "results": results})
        (tmp_path / name / runs.ADOPTED).write_text(content)
    runs.train(spec(catch, seeds=[0, 2]), tmp_path / "here")
    assert rows_without_time(tmp_path / "here") == rows_without_time(tmp_path / "whole")
    assert [p.name for p in (tmp_path / "here" / "checkpoints").glob("seed*")] == ["seed_2"]
    note = json.loads((tmp_path / "here" / "provenance.json").read_text())
    assert note["parameters"]["seeds"] == [0, 2] and note["adopted"] == record
    # Where no seed is new, nothing is trained.
    monkeypatch.setattr(training._Trainer, "compiled", None)
    alone = runs.train(spec(catch, seeds=[0]), tmp_path / "nothing")
    columns = [name for name in WITHOUT_TIME if name != "loss"]
    pd.testing.assert_frame_equal(alone[columns], whole[:3][columns])
    progress = json.loads((tmp_path / "nothing" / "progress.json").read_text())
    assert progress["done"] == progress["total"] == 40


def test_seeds_vmapped_write_the_same_form(catch, tmp_path):
    frame = runs.train(spec(catch, vmap_seeds=True), tmp_path / "vmap")
    alone = runs.train(spec(catch, vmap_seeds=False), tmp_path / "loop")
    pd.testing.assert_frame_equal(frame[["seed", "update"]], alone[["seed", "update"]])
    np.testing.assert_allclose(frame["loss"], alone["loss"], rtol=1e-4)


def test_other_parameters_set_old_checkpoints_aside(catch, tmp_path, capsys):
    runs.train(spec(catch, updates=20, seeds=[0]), tmp_path)
    runs.train(spec(catch, updates=20, seeds=[0], method="bc"), tmp_path)
    assert (tmp_path / "checkpoints.old-1" / "seed_0").is_dir()
    assert "of another run (method: 'bc', was 'rosmo'; program: training" in capsys.readouterr().out


def test_checkpoints_of_other_programs_are_kept_only_if_asked(catch, tmp_path, monkeypatch):
    one = spec(catch, updates=20, seeds=[0])
    for name in ("aside", "adopted"):
        before = runs.train(one, tmp_path / name)
    program = runs.programs(one)
    monkeypatch.setattr(identity, "programs", lambda spec: {**program, "training": "changed"})
    monkeypatch.setenv(checkpoints.ADOPT, "1")
    again = runs.train(one, tmp_path / "adopted")
    pd.testing.assert_frame_equal(again[list(before)], before)  # Times and all: none was trained.
    record = json.loads((tmp_path / "adopted" / "provenance.json").read_text())
    assert record["program"]["training"] == "changed"
    assert record["earlier"] == [{"program": program, "versions": runs.versions(one)}]
    runs.train(one, tmp_path / "adopted")
    assert not (tmp_path / "adopted" / "checkpoints.old-1").exists()
    # Other parameters are never adopted, nor is another program without being asked.
    runs.train(spec(catch, updates=20, seeds=[0], method="bc"), tmp_path / "adopted")
    assert (tmp_path / "adopted" / "checkpoints.old-1").exists()
    monkeypatch.delenv(checkpoints.ADOPT)
    runs.train(one, tmp_path / "aside")
    assert (tmp_path / "aside" / "checkpoints.old-1").exists()


def test_what_a_folder_has_stays(catch, tmp_path, monkeypatch, capsys):
    def there():
        rows = pd.read_csv(tmp_path / "results.csv")
        record = json.loads((tmp_path / "provenance.json").read_text())["parameters"]
        return rows.groupby("seed")["update"].max().to_dict(), record["seeds"], record["updates"]

    first = runs.train(spec(catch, seeds=[0]), tmp_path)
    both = runs.train(spec(catch, seeds=[1], updates=20), tmp_path)
    pd.testing.assert_frame_equal(both[both["seed"] == 0], first)
    assert there() == ({0: 40, 1: 20}, [1, 0], 40)
    text = (tmp_path / "results.csv").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(training._Trainer, "compiled", None)  # Any update would fail now.
        runs.train(spec(catch, seeds=[0], updates=20), tmp_path)  # Fewer updates, fewer seeds.
    assert (tmp_path / "results.csv").read_text() == text
    # A file that was changed is not carried on.
    (tmp_path / "results.csv").write_text(text.replace("catch,0.0", "catch,0.1", 1))
    with pytest.raises(ValueError, match=r"results.csv is not what was written.*move it away"):
        runs.train(spec(catch, seeds=[1], updates=20), tmp_path)
    (tmp_path / "results.csv").rename(tmp_path / "away.csv")
    runs.train(spec(catch, seeds=[1], updates=20), tmp_path)
    assert there() == ({1: 20}, [1], 20)
    capsys.readouterr()
    runs.train(spec(catch, seeds=[1], updates=20, method="bc"), tmp_path)
    said = capsys.readouterr().out
    for what in ("results", "checkpoints"):
        assert re.search(rf"the {what} in .* are of another run \(method: 'bc', was 'rosmo'", said)
    assert set(pd.read_csv(tmp_path / "results.old-1.csv")["method"]) == {"rosmo"}
    assert (tmp_path / "provenance.old-1.json").exists()


def test_a_seed_is_taken_from_its_group(catch, tmp_path, monkeypatch):
    both = runs.train(spec(catch, seeds=[2, 3], updates=20, vmap_seeds=True), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(training._Trainer, "compiled", None)  # Any update would fail now.
        again = runs.train(spec(catch, seeds=[2], updates=20, vmap_seeds=True), tmp_path)
    pd.testing.assert_frame_equal(again, both)
    more = runs.train(spec(catch, seeds=[2]), tmp_path)
    assert more[more["seed"] == 2]["update"].tolist() == [0, 20, 40]
    pd.testing.assert_frame_equal(more[more["update"] <= 20].reset_index(drop=True), both)


def test_a_damaged_checkpoint_is_not_trained_from(catch, tmp_path, monkeypatch, capsys):
    one = spec(catch, seeds=[0])
    whole = runs.train(one, tmp_path)
    group = tmp_path / "checkpoints" / "seed_0"
    largest = max((x for x in (group / "40").rglob("*") if x.is_file()), key=os.path.getsize)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    for read in (runs.restore, lambda spec, folder, seed: runs.by_selectors(spec, folder)):
        with pytest.raises(checkpoints.DamagedError, match=r"seed_0/40 is damaged .*; delete that"):
            read(one, tmp_path, 0)
    before = provenance.describe()
    now = {**before, "packages": {**before["packages"], "optax": "9"}}
    monkeypatch.setattr(provenance, "describe", lambda: now)
    again = runs.train(one, tmp_path)
    said = capsys.readouterr().out
    assert "40 is damaged" in said and "going on from update 20" in said
    assert again[WITHOUT_TIME].equals(whole[WITHOUT_TIME])
    record = json.loads((tmp_path / "provenance.json").read_text())
    optax = before["packages"]["optax"]
    assert f"this run was begun with others: optax 9, was {optax}" in said
    assert [start["updates_done"] for start in record["starts"]] == [0, 20]
    assert record["starts"][1]["changed"] == [f"optax 9, was {optax}"]
    assert record["starts"][0]["packages"]["optax"] == optax and record["packages"]["optax"] == "9"
    monkeypatch.undo()
    runs.train(one, tmp_path)  # Nothing is left to train: no start, and not by today's packages.
    same = json.loads((tmp_path / "provenance.json").read_text())
    assert same["starts"] == record["starts"] and same["packages"]["optax"] == "9"


def test_what_changes_no_program_keeps_checkpoints(catch, tmp_path, monkeypatch):
    one = spec(catch, updates=20, seeds=[0])
    before = runs.train(one, tmp_path)
    unused = dataclasses.replace(settings.BSUITE, conservative_weight=3.0)  # CQL's
    monkeypatch.setitem(benchmarks.BENCHMARKS, "bsuite", with_preset(unused))
    assert (
        runs.restore(one, tmp_path, 0)[1].updates == 20
    )  # Before the note knows of it, and after.
    pd.testing.assert_frame_equal(runs.train(one, tmp_path), before)
    assert [p.name for p in tmp_path.glob("checkpoints*")] == ["checkpoints"]
    note = json.loads((tmp_path / "checkpoints" / "identity.json").read_text())
    assert note["settings"]["conservative_weight"] == 3.0
    assert runs.restore(one, tmp_path, 0)[1].updates == 20


KILLED = """
import sys
from unplugged import runs
runs.train(runs.Spec(dataset=sys.argv[1], overrides=eval(sys.argv[3]), seeds=[0, 1],
                     updates=400, eval_every=20, eval_episodes=3), sys.argv[2])
"""


def test_kill_at_any_moment_then_the_same_command_goes_on(catch, tmp_path):
    """SIGKILL in the midst of training; the resumed rows equal uninterrupted ones."""
    command = [sys.executable, "-c", KILLED, catch, str(tmp_path / "killed"), str(SMALL)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.time() + 120
    checkpoint = tmp_path / "killed" / "checkpoints" / "seed_0"
    while time.time() < deadline and process.poll() is None:
        if checkpoint.is_dir() and any(p.name.isdigit() for p in checkpoint.iterdir()):
            break
        time.sleep(0.02)
    assert process.poll() is None, "it should still have been training"
    time.sleep(0.15)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "results.csv").exists()
    long = spec(catch, updates=400)
    runs.train(long, tmp_path / "killed")
    runs.train(long, tmp_path / "whole")
    assert rows_without_time(tmp_path / "killed") == rows_without_time(tmp_path / "whole")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"environment": "cacth"}, "did you mean 'catch'"),
        ({"benchmark": "bsiute"}, "did you mean 'bsuite'"),
        ({"method": "rosmoo"}, "did you mean 'rosmo'"),
        ({"selector": "serach"}, "did you mean 'search'"),
        ({"overrides": {"batchsize": 4}}, "did you mean 'batch_size'"),
        ({"overrides": {"learning_rate": 0.0}}, "learning_rate must lie in"),
        ({"overrides": {"td_steps": 0}}, "td_steps must lie in"),
        ({"overrides": {"discount": 1.5}}, "discount must lie in"),
        ({"overrides": {"decay_staircase": "no"}}, "decay_staircase must be true or false"),
        ({"fraction": 0.0}, "fraction must lie in"),
        ({"fraction": 1.1}, "fraction must lie in"),
        ({"updates": -20}, "updates must lie in"),
        ({"updates": 2.5}, "updates must be an integer"),
        ({"updates": 30}, "multiple of eval_every"),
        ({"seeds": []}, "seeds must be distinct"),
        ({"seeds": [1, 1]}, "seeds must be distinct"),
        ({"seeds": [-1]}, r"seeds\[0\] must lie in"),
    ],
)
def test_wrong_parameters_are_named_at_once(catch, change, message):
    with pytest.raises(ValueError, match=message):
        spec(catch, **change)


def test_a_batch_larger_than_the_windows(catch, tmp_path):
    few = spec(catch, fraction=0.01, overrides={**SMALL, "batch_size": 128})
    with pytest.raises(ValueError, match="batch_size 128 is larger than the 9 windows"):
        runs.train(few, tmp_path)


def test_a_dataset_of_another_environment(catch, tmp_path):
    with pytest.raises(datasets.DatasetError, match="recorded in 'catch', not in 'cartpole'"):
        runs.train(spec(catch, environment="cartpole"), tmp_path)


def test_a_folder_that_cannot_be_written(catch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PermissionError, match="cannot write to the folder"):
        runs.train(spec(catch), tmp_path / "file")


def test_an_infinite_loss_stops_the_run_and_keeps_what_is_good(catch, tmp_path, monkeypatch):
    good = runs.train(spec(catch, seeds=[0]), tmp_path / "good")
    original = training.check_losses

    def poisoned(losses, first_update):
        if first_update == 20:
            losses = {**losses, "loss": np.asarray(losses["loss"]).copy()}
            losses["loss"][7] = np.nan
        original(losses, first_update)

    monkeypatch.setattr(training, "check_losses", poisoned)
    with pytest.raises(learner.NonFiniteLossError, match="update 28: the loss is not finite"):
        runs.train(spec(catch, seeds=[0]), tmp_path / "bad")
    kept = pd.read_csv(tmp_path / "bad" / "results.partial.csv")
    assert kept["update"].tolist() == [0, 20]
    assert not (tmp_path / "bad" / "results.csv").exists()
    monkeypatch.undo()
    again = runs.train(spec(catch, seeds=[0]), tmp_path / "bad")
    pd.testing.assert_frame_equal(again[WITHOUT_TIME], good[WITHOUT_TIME])


def test_a_loss_that_explodes_stops_the_run(catch, tmp_path):
    wild = {**SMALL, "learning_rate": 1e30, "warmup_updates": 1, "max_grad_norm": 1e30}
    with pytest.raises(learner.NonFiniteLossError, match=r"update \d+: the loss is not finite"):
        runs.train(spec(catch, overrides=wild), tmp_path)
    assert pd.read_csv(tmp_path / "results.partial.csv")["update"].tolist() == [0]


def test_parameters_that_are_not_finite_stop_the_run(catch, tmp_path, monkeypatch):
    """The loss is taken before the step, so that it says nothing of the last one."""
    update = learner.Learner.update

    def poisoned(self, state, windows, key):
        state, loss = update(self, state, windows, key)
        broken = jax.tree.map(lambda x: x + jnp.where(state.updates == 40, jnp.nan, 0.0), state[0])
        return state._replace(params=broken), loss

    monkeypatch.setattr(learner.Learner, "update", poisoned)
    with pytest.raises(learner.NonFiniteLossError, match=r"update 40: parameters are not finite"):
        runs.train(spec(catch, seeds=[0]), tmp_path)
    assert pd.read_csv(tmp_path / "results.partial.csv")["update"].tolist() == [0, 20]
    monkeypatch.undo()
    state = runs.restore(spec(catch, seeds=[0]), tmp_path, 0)[1]
    assert state.updates == 20


def test_returns_beyond_the_bins_are_named(catch, tmp_path):
    dataset = datasets.load(catch)
    larger = dataclasses.replace(dataset, reward=60 * dataset.reward)
    support = transforms.Support(20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs.check_range(larger, support, settings.BSUITE)
    # A row of two episodes' rewards is no longer one return.
    long = datasets.from_episodes(
        [{"observation": np.zeros([4, 1]), "action": [0, 0, 0], "reward": [60, 60, 0],
          "terminated": True}] * 2,
        {"num_actions": 1, "environment": "mine"},
    )  # fmt: skip
    with pytest.warns(UserWarning, match=r"of mine reach 119\.3, and 20 bins represent at most 10"):
        runs.check_range(long, support, settings.BSUITE)


def a_users_operator(model, params, root, key, settings):
    """Greedy in the one-step action values."""
    improved = improvement.one_step(model, params, root, key, settings)
    best = jax.nn.one_hot(improved.action_values.argmax(-1), model.num_actions)
    return improved._replace(policy=best)


def test_a_method_of_ones_own_runs_like_ours(catch, tmp_path, monkeypatch):
    mine = methods.Method(
        summary="greedy one-step target",
        operator=a_users_operator,
        regularizer=losses.dynamics_advantage,
        selector="policy",
    )
    monkeypatch.setitem(methods.METHODS, "mine", mine)
    frame = runs.train(spec(catch, method="mine"), tmp_path)
    assert (frame["method"] == "mine").all() and len(frame) == 6


def test_a_method_in_a_file_runs_by_its_name(catch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [x for x in sys.path if x])
    code = "import jax\nfrom unplugged import improvement\ndef own(*given):\n    root = given[2]\n"
    code += "    q = 0 * root.prior_logits\n    return improvement.Improvement({}, root.value, q)\n"
    (tmp_path / "good_file.py").write_text(code.format("jax.nn.softmax(root.prior_logits)"))
    (tmp_path / "logits_file.py").write_text(code.format("root.prior_logits"))
    one = spec(catch, seeds=[0], updates=20, method="good_file:own")
    frame = runs.train(one, tmp_path / "run")
    assert set(frame["method"]) == {"good_file:own"} and set(frame["selector"]) == {"policy"}
    found = runs.by_selectors(one, tmp_path / "run", episodes=2)
    assert set(found["method"]) == {"good_file:own"}
    with pytest.raises(ValueError, match="operator own: its policy is no distribution"):
        runs.train(dataclasses.replace(one, method="logits_file:own"), tmp_path / "bad")
    assert not (tmp_path / "bad" / "checkpoints").exists()


def a_users_selector(model, params, observation, key, settings):
    """Greedy in the policy, by another name."""
    return acting.greedy(model, params, observation, key, settings)


def a_users_network(**sizes):
    return networks.mlp(**sizes)


def test_a_selector_and_a_network_of_ones_own_run_like_ours(catch, tmp_path, monkeypatch):
    monkeypatch.setitem(acting.SELECTORS, "mine", a_users_selector)
    monkeypatch.setitem(networks.NETWORKS, "own", a_users_network)
    one = spec(catch, seeds=[0], selector="mine", overrides={**SMALL, "network": "own"})
    frame = runs.train(one, tmp_path / "own")
    ours = runs.train(spec(catch, seeds=[0], selector="greedy"), tmp_path / "ours")
    assert frame["mean_return"].tolist() == ours["mean_return"].tolist()


def test_an_endless_episode_is_an_error():
    worlds = [environments.make("bsuite", "cartpole", seed=0)]
    with pytest.raises(RuntimeError, match="1 of 1 episodes go on after 3 steps"):
        evaluation.evaluate(
            lambda params, observation, key: np.zeros(1), None, worlds, jax.random.key(0), 3
        )


def test_check_losses_names_the_first_bad_update():
    losses = {"loss": np.array([[1.0, 2.0, np.inf], [1.0, np.nan, 1.0]])}
    with pytest.raises(learner.NonFiniteLossError, match="update 102"):
        runs.check_losses(losses, 100)
    runs.check_losses({"loss": np.ones(3)}, 0)


@pytest.mark.parametrize("name", ["catch", "cartpole", "mountain_car"])
def test_lock_step_evaluation_equals_episodes_one_by_one(name):
    """A fixed open-loop policy: batched returns equal those of each environment alone."""
    actions = np.random.default_rng(0).integers(0, 3, 2_000)
    time_step = {"t": 0}

    def policy(params, observation, key):
        action = actions[time_step["t"]]
        time_step["t"] += 1
        return np.full(len(observation), action)

    def worlds():
        return [environments.make("bsuite", name, seed=seed) for seed in range(4)]

    together = evaluation.evaluate(policy, None, worlds(), jax.random.key(0))
    for world, expected in zip(worlds(), together):
        step, total, t = world.reset(), 0.0, 0
        while not step.last():
            step = world.step(int(actions[t]))
            total += step.reward
            t += 1
        assert total == expected


def test_settings_override_keeps_the_rest():
    changed = settings.BSUITE.override({"num_simulations": 16, "dynamics": [32, 64, 32]})
    assert changed.dynamics == (32, 64, 32)
    assert dataclasses.replace(changed, num_simulations=4, dynamics=(32, 256, 32)) == (
        settings.BSUITE
    )


@pytest.mark.parametrize("vmap_seeds", [False, True])
def test_restore_gives_the_parameters_that_were_evaluated(catch, tmp_path, vmap_seeds):
    one = spec(catch, vmap_seeds=vmap_seeds)
    frame = runs.train(one, tmp_path)
    learned, state = runs.restore(one, tmp_path, 1)
    worlds = [
        environments.make(
            "bsuite", "catch",
            seed=int(np.random.SeedSequence([1, 40, i]).generate_state(1)[0]),
        )
        for i in range(3)
    ]  # fmt: skip
    policy = evaluation.make_policy(learned.model, "improved", learned.settings)
    key = jax.random.fold_in(jax.random.key(1), 40)
    returns = evaluation.evaluate(policy, state.params, worlds, key)
    last = frame[(frame["seed"] == 1) & (frame["update"] == 40)]
    assert returns.mean() == last["mean_return"].item()
    with pytest.raises(FileNotFoundError, match="no checkpoint of seed 7"):
        runs.restore(one, tmp_path, 7)
    for change in ({"method": "onestep"}, {"holdout": 0.2}, {"data_seed": 1}):
        with pytest.raises(ValueError, match=rf"of another run \({next(iter(change))}"):
            runs.restore(dataclasses.replace(one, **change), tmp_path, 1)


def test_checkpoints_of_another_preset_are_set_aside_and_refused(catch, tmp_path, monkeypatch):
    one = spec(catch, updates=20, seeds=[0])
    runs.train(one, tmp_path)
    changed = dataclasses.replace(settings.BSUITE, discount=0.9)
    with monkeypatch.context() as patch:
        patch.setitem(benchmarks.BENCHMARKS, "bsuite", with_preset(changed))
        with pytest.raises(ValueError, match=r"of another run \(settings: discount 0\.9, was 0"):
            runs.restore(one, tmp_path, 0)
        patch.setenv(checkpoints.ADOPT, "1")  # For other code alone.
        runs.train(one, tmp_path)
    assert (tmp_path / "checkpoints.old-1").exists()


def test_a_seed_that_went_on_alone_is_the_one_restored(catch, tmp_path):
    runs.train(spec(catch, updates=20, vmap_seeds=True), tmp_path)
    alone = spec(catch, seeds=[0], updates=40)
    frame = runs.train(alone, tmp_path)
    _, state = runs.restore(alone, tmp_path, 0)
    assert state.updates == frame["update"].max() == 40
    both = dict.fromkeys([0, 1])
    for seed, update, _ in runs.saved_states(spec(catch), tmp_path, *spec(catch).build()[::2]):
        both[seed] = update
    assert both == {0: 20, 1: 20}  # Asked for both, the group that holds both.


def test_a_seed_of_two_groups_is_the_one_that_went_on(catch, tmp_path):
    for seeds in ([1, 2], [0, 1]):
        runs.train(spec(catch, seeds=seeds, updates=20, vmap_seeds=True), tmp_path)
    every = spec(catch, seeds=[0, 1, 2], updates=40, vmap_seeds=True)
    runs.train(every, tmp_path)
    found = runs.saved_states(every, tmp_path, *every.build()[::2])
    assert {seed: update for seed, update, _ in found} == {0: 40, 1: 40, 2: 40}


def test_one_checkpoint_acts_in_several_ways(catch, tmp_path):
    trained = spec(catch, updates=20, greedy=True)
    rows = runs.train(trained, tmp_path)
    found = runs.by_selectors(trained, tmp_path, episodes=4)
    assert found["greedy_return"].isna().all()  # None acts as the run did.
    assert found[["selector", "seed"]].to_numpy().tolist() == [
        [selector, seed] for selector in ("policy", "greedy", "value", "search") for seed in (0, 1)
    ]
    assert (found["episodes"] == 4).all() and (found["update"] == 20).all()
    assert set(found["loss"]) == set(rows.query("update == 20")["loss"])
    same = runs.by_selectors(trained, tmp_path, selectors=["improved"], episodes=3)
    last = rows[rows["update"] == 20]  # The run's own evaluation, episode by episode.
    assert same["greedy_return"].tolist() == last["greedy_return"].tolist()
    assert same["mean_return"].tolist() == last["mean_return"].tolist()


def test_acting_in_several_ways_is_refused_where_it_makes_no_sense(catch, tmp_path):
    trained = spec(catch, updates=20)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of seeds \[0, 1\] at 20"):
        runs.by_selectors(trained, tmp_path)
    with pytest.raises(ValueError, match="unknown selector 'serch': did you mean 'search'"):
        runs.by_selectors(trained, tmp_path, selectors=["serch"])
    with pytest.raises(ValueError, match="unknown selector of rosmo 'critic'"):
        runs.by_selectors(trained, tmp_path, selectors=["critic"])
    with pytest.raises(ValueError, match=r"unknown selector of bc 'search'.*Valid: greedy, policy"):
        spec(catch, method="bc", selector="search")


def test_a_network_is_chosen_by_its_name(catch, monkeypatch):
    with pytest.raises(ValueError, match="unknown network 'mpl': did you mean 'mlp'"):
        spec(catch, overrides={**SMALL, "network": "mpl"})
    monkeypatch.setitem(networks.NETWORKS, "mine", networks.mlp)
    learner = spec(catch, overrides={**SMALL, "network": "mine"}).build()[0]
    assert learner.model.num_actions == 3


@pytest.mark.parametrize(
    "method", [name for name, of in methods.METHODS.items() if not of.imagines]
)
def test_every_method_acts_by_what_it_learns(catch, method):
    assert spec(catch, method=method, selector=methods.METHODS[method].selector)


def test_cql_has_no_policy_to_act_by(catch):
    assert spec(catch, method="cql").ways_to_act() == ["critic"]
    assert spec(catch, method="iqn").ways_to_act() == ["implicit"]
    of_bcq = ["policy", "greedy", "critic", "constrained"]
    assert spec(catch, method="bcq").ways_to_act() == of_bcq
    assert not {"implicit", "constrained"} & set(spec(catch, method="rosmo").ways_to_act())
    with pytest.raises(ValueError, match=r"unknown selector of cql 'policy'.*Valid: critic"):
        spec(catch, method="cql", selector="policy")
