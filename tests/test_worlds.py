"""Runs in a world model: what they accept, that they go on to the bit, and acting with a memory."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from conftest import random_params
from reproduction import dream_plots, plan
from unplugged import checkpoints, datasets, dreams, games, runs, windows, worlds
from unplugged.learning import world_model

SMALL = {"batch_size": 4, "unroll_steps": 3, "hidden": 6, "recurrent": 5, "channels": [2],
         "members": 2, "warmup_updates": 2}  # fmt: skip
INSIDE = {**SMALL, "rollouts": 4, "rollout_steps": 5, "round_updates": 4, "epochs": 2,
          "representation": [6], "dynamics": [6], "prediction": [4]}  # fmt: skip


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Ten episodes of random bits that pass for breakout's."""
    rng, parts = np.random.default_rng(0), []
    for length in range(4, 14):
        parts.append(
            {
                "observation": rng.integers(0, 2, (length + 1, 50)),
                "action": rng.integers(0, 3, length),
                "reward": rng.integers(0, 2, length),
                "terminated": length % 2 == 0,
            }
        )
    metadata = {"benchmark": "minatar", "environment": "breakout", "num_actions": 3}
    plain = datasets.from_episodes(parts, metadata)
    packed = datasets.Dataset(
        **{x: getattr(plain, x) for x in ("action", "reward", "discount", "is_first", "is_last")},
        observation=rng.integers(0, 256, (plain.num_steps, 50)).astype(np.uint8),
        metadata={**metadata, "packed_shape": [10, 10, 4]},
    )
    path = tmp_path_factory.mktemp("worlds") / "breakout.npz"
    datasets.save(packed, path)
    return path


def spec(recording, **changes):
    inside = changes.get("method", "world_model") != "world_model"
    values = {
        "dataset": str(recording), "benchmark": "minatar", "environment": "breakout",
        "method": "world_model", "overrides": INSIDE if inside else SMALL, "updates": 8,
        "eval_every": 4, "eval_episodes": 2,
    }  # fmt: skip
    return worlds.WorldSpec(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "rosmo"}, "runs of rosmo are of another kind"),
        ({"method": "morel"}, "give world, the folder of its run"),
        ({"world": "runs/x"}, "leave world out"),
        ({"benchmark": "bsuite", "environment": "catch"}, "Valid: gymnax, minatar"),
        ({"method": "combo", "world": "x", "eval_every": 2}, "multiple of round_updates"),
        ({"overrides": {"recurent": 3}}, "did you mean 'recurrent'"),
        ({"selector": "policy"}, "selector of world_model 'policy'"),
    ],
)
def test_what_a_run_in_a_world_model_takes(recording, changes, said):
    with pytest.raises(ValueError, match=said):
        spec(recording, **changes)


def test_other_runs_say_where_these_methods_are(recording):
    with pytest.raises(ValueError, match="runs of morel are of the kind world"):
        runs.Spec(dataset=str(recording), benchmark="minatar", environment="breakout",
                  method="morel")  # fmt: skip


PROFILE = """
profile: some
collection: {seed: 0, random_episodes: 1}
datasets: [{benchmark: minatar, environment: [breakout, asterix], transitions: 100}]
experiments:
  inside:
    kind: world
    grid: {environment: [breakout], method: [morel, combo], halt_multiple: [0.5]}
    common: &common {benchmark: minatar, world: models, updates: 20, eval_every: 20}
  models:
    kind: world
    grid: {environment: [breakout, asterix], method: [world_model]}
    common: {benchmark: minatar, updates: 20, eval_every: 20}
"""


def test_a_profile_names_the_experiment_of_the_world_models():
    content = yaml.safe_load(PROFILE)
    found = plan.plan(content)
    assert found.notebooks["inside"] == "26_train_world"
    parameters = found.runs["inside"]["breakout_morel_halt_multiple0.5"]
    folder = "runs/some/models/breakout_world_model"
    assert parameters["world"] == folder and parameters["overrides"] == {"halt_multiple": 0.5}
    data = "runs/some/datasets/minatar_breakout.npz"
    assert plan.needs(parameters) == [data, f"{folder}/results.csv"]
    assert plan.needs(found.runs["models"]["asterix_world_model"])[1:] == []
    content["experiments"]["inside"]["common"]["world"] = "modls"
    with pytest.raises(ValueError, match="did you mean 'models'"):
        plan.plan(content)
    content["experiments"]["inside"]["common"].update(world="models", fraction=0.1)
    with pytest.raises(ValueError, match="has 0 world models of breakout for morel; name one by"):
        plan.plan(content)
    content["experiments"]["inside"]["common"]["world"] = folder
    assert plan.plan(content).runs["inside"]["breakout_combo_halt_multiple0.5"]["world"] == folder


def test_a_remembered_game_shows_the_states_that_following_gives(recording):
    """With a posterior that leaves no chance, acting and learning see the same states."""
    chosen = spec(recording)
    game = games.make("minatar", "breakout")
    network = chosen.network(game.observation_shape, game.actions)
    params = random_params(network, 0)
    params["posterior"] = jax.tree.map(lambda x: 1e4 * x, params["posterior"])
    seen = worlds.remembered(game, network, params)
    (state, first), actions = jax.jit(seen.reset)(jax.random.key(1)), [0, 2, 2, 1]
    features, step = [first], jax.jit(seen.step)
    observations = [jax.jit(game.reset)(jax.random.split(jax.random.key(1))[0])[1]]
    inner = state[0]
    for time, action in enumerate(actions):
        key = jax.random.fold_in(jax.random.key(2), time)
        inner, plain = game.step(inner, jnp.asarray(action), jax.random.split(key)[0])
        state, happened = step(state, jnp.asarray(action), key)
        features.append(happened.observation)
        observations.append(plain.observation)
    wanted, _ = world_model.follow(
        network, params, jnp.stack(observations)[:, None],
        jnp.array([*actions, 0])[:, None], jax.random.key(3),
    )  # fmt: skip
    assert seen.observation_shape == (network.num_features,)
    np.testing.assert_allclose(jnp.stack(features), wanted.features[:, 0], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def trained(recording, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    rows = runs.train(spec(recording), folder)
    assert rows["selector"].unique() == ["uniform"] and rows["loss"].notna().sum() == 2
    return folder


def params_of(chosen, folder):
    return jax.tree.map(np.asarray, runs.restore(chosen, folder, 0)[1].params)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["morel", "combo"])
def test_runs_inside_go_on_to_the_bit_and_leave_the_world_as_it_is(
    recording, trained, tmp_path, method
):
    whole = spec(recording, method=method, world=str(trained), greedy=True)
    rows = runs.train(whole, tmp_path / "whole")
    half = spec(recording, method=method, world=str(trained), greedy=True, updates=4)
    runs.train(half, tmp_path / "parts")
    again = runs.train(whole, tmp_path / "parts")
    names = ["update", "loss", "mean_return", "greedy_return"]
    assert rows["greedy_return"].notna().all()
    found = rows[["largest_disagreement", "halted"]]
    if method == "morel":
        assert found["largest_disagreement"].nunique() == 1 and found["halted"].between(0, 1).all()
    else:
        assert found.isna().all(axis=None)
    assert rows[names].equals(again[names])
    learned, other = (params_of(whole, tmp_path / name) for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, learned, other)
    world = params_of(spec(recording), trained)
    jax.tree.map(np.testing.assert_array_equal, learned["world"], world)
    ways = runs.by_selectors(whole, tmp_path / "whole", episodes=2)
    assert ways["selector"].tolist() == (["policy", "greedy"] if method == "morel" else ["critic"])


@pytest.mark.slow
def test_another_world_model_is_other_data_and_its_form_is_checked(recording, trained, tmp_path):
    chosen = spec(recording, method="morel", world=str(trained))
    learner, data, dataset = chosen.build()
    assert 0.0 < data.largest <= 2.0 * 8**0.5
    other = spec(recording, updates=12)
    runs.train(other, tmp_path / "other")
    elsewhere = spec(recording, method="morel", world=str(tmp_path / "other")).build()[2]
    assert datasets.checksum(elsewhere) != datasets.checksum(dataset)
    wrong = spec(recording, method="morel", world=str(trained),
                 overrides={**INSIDE, "recurrent": 6})  # fmt: skip
    with pytest.raises(ValueError, match="has recurrent 5, this run 6"):
        wrong.build()
    with pytest.raises(FileNotFoundError, match="holds no finished run of a world model"):
        spec(recording, method="morel", world=str(tmp_path / "none")).build()
    with pytest.raises(FileNotFoundError, match=r"give a world_seed of \[0\]"):
        spec(recording, method="morel", world=str(trained), world_seed=1).build()
    assert json.loads(checkpoints.note(trained / "checkpoints").read_text())["method"]
    # The largest is over all windows, one after another.
    store = windows.store(datasets.load(recording))
    found = [
        world_model.recorded_disagreement(
            learner.world, params_of(other, tmp_path / "other"),
            windows.at(store, jnp.array([start]), 4), jax.random.key(0),
        ).max()
        for start in (0, 3)
    ]  # fmt: skip
    assert worlds.largest_disagreement(
        learner.world, params_of(other, tmp_path / "other"), store, chosen.settings
    ) >= 0.5 * max(found)


def test_each_recorded_step_is_looked_at_once(recording):
    store = windows.store(datasets.load(recording))
    starts, end = worlds.in_turn(store, 4), np.asarray(store.end)
    looked_at = [i for start in starts for i in range(start, min(start + 3, end[start]))]
    assert looked_at == store.start.tolist()


@pytest.mark.slow
def test_a_dream_is_drawn_from_its_frames(recording, trained):
    frames, errors = dreams.of_run(
        worlds.of_folder(trained), trained, seed=0, context=2, ahead=3, number=20
    )
    assert errors["ahead"].tolist() == [1, 2, 3] and (errors["windows"] > 0).all()
    assert errors[["imagined", "repeated"]].stack().between(0, 1).all()
    assert set(frames["kind"]) == set(dream_plots.KINDS)
    assert frames.query("kind == 'imagined'")["step"].min() == 0
    assert frames.query("kind == 'recorded'")["step"].agg(["min", "max"]).tolist() == [-2, 2]
    figure = dream_plots.draw(frames, errors, [-1, 0, 2])
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == 8  # Three of each kind, but nothing is imagined before step 0.
    dream_plots.plt.close(figure)
    picture = dream_plots.image(frames.query("kind == 'recorded' and step == 0"), 4)
    assert picture.shape == (10, 10, 3) and 0.0 <= picture.min() < picture.max() == 1.0
