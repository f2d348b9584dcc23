"""Observations of any scale: standardised, or warned about."""

import dataclasses
import sys
import warnings

import gymnasium
import jax
import numpy as np
import pytest

from unplugged import datasets, learner, methods, networks, runs, selection, settings, windows
from unplugged.runs import spec as specs

# CartPole with a fifth element that never changes.
MODULE = """
import gymnasium
import numpy as np


class Fifth(gymnasium.ObservationWrapper):
    def __init__(self, environment, value):
        super().__init__(environment)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float32)
        self.value = value

    def observation(self, observation):
        return np.append(observation, self.value).astype(np.float32)


def make(value):
    return Fifth(gymnasium.make("CartPole-v1"), value)


for value in (0, 1000):
    gymnasium.register(
        f"Fifth{value}-v0", entry_point="fifth:make", kwargs={"value": value}, max_episode_steps=30
    )
"""
SMALL = {
    "representation": [8, 8], "dynamics": [8, 8], "prediction": [8], "batch_size": 8,
    "unroll_steps": 2, "td_steps": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """The same random episodes with a fifth element of 0 and of 1000: their files by that."""
    folder = tmp_path_factory.mktemp("fifth")
    (folder / "fifth.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    found = {}
    for value in (0, 1000):
        world = gymnasium.make(f"fifth:Fifth{value}-v0")
        episodes = []
        rng = np.random.default_rng(0)
        for seed in range(8):
            seen, action, reward = [world.reset(seed=seed)[0]], [], []
            terminated = truncated = False
            while not (terminated or truncated):
                action.append(rng.integers(2))
                after, given, terminated, truncated, _ = world.step(action[-1])
                seen.append(after)
                reward.append(given)
            episodes.append(
                {"observation": seen, "action": action, "reward": reward, "terminated": terminated}
            )
        found[value] = str(folder / f"{value}.npz")
        metadata = {"environment": f"Fifth{value}-v0", "num_actions": world.action_space.n}
        datasets.save(datasets.from_episodes(episodes, metadata), found[value])
    yield found
    sys.path.remove(str(folder))


def spec(recordings, value, **changes):
    parameters = {
        "benchmark": "gymnasium", "environment": f"fifth:Fifth{value}-v0",
        "dataset": recordings[value], "updates": 20, "eval_every": 10, "eval_episodes": 2,
        "holdout": 0.2, "keep_checkpoints": True, "overrides": SMALL,
    }  # fmt: skip
    return runs.Spec(**{**parameters, **changes})


@pytest.mark.slow
def test_a_large_constant_changes_nothing(recordings, tmp_path):
    results, scores, states = {}, {}, {}
    for value in (0, 1000):
        one, folder = spec(recordings, value), tmp_path / str(value)
        results[value] = runs.train(one, folder)
        states[value] = runs.restore(one, folder, 0)[1]
        scores[value] = selection.score(one, folder, fqe_updates=2)
    for column in ("loss", "mean_return"):
        np.testing.assert_array_equal(results[0][column], results[1000][column])
    for column in ("holdout_loss", "fqe_return"):
        np.testing.assert_array_equal(scores[0][column], scores[1000][column])
    networks_ = [
        jax.tree.leaves({k: v for k, v in state.params.items() if k != "observation"})
        for state in states.values()
    ]
    for one, other in zip(*networks_, strict=True):
        np.testing.assert_array_equal(one, other)
    # The statistics are those of what was trained on, and went through 20 updates unchanged.
    train, _ = specs.divide(spec(recordings, 1000), datasets.load(recordings[1000]))
    steps = train.observation.astype(np.float64)
    for params in (states[1000].params, states[1000].target_params):
        kept = params["observation"]
        np.testing.assert_array_equal(kept["mean"], np.float32(steps.mean(axis=0)))
        np.testing.assert_allclose(kept["scale"][:4], steps.std(axis=0)[:4], rtol=1e-6)
        assert (kept["mean"][4], kept["scale"][4]) == (1000.0, 1.0)


def test_a_model_sees_standardised_observations(model):
    mean, scale = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [4.0, 8.0]])
    ours = networks.standardized(model, mean, scale)
    params, plain = (one.init(jax.random.key(0)) for one in (ours, model))
    seen = np.random.default_rng(0).normal(size=(3, 2, 2)).astype(np.float32)
    state = model.represent(plain, seen)
    np.testing.assert_allclose(ours.represent(params, seen * scale + mean), state, rtol=1e-5)
    for name in ("dynamics", "predict"):
        more = (np.array([0, 1, 2]),) if name == "dynamics" else ()
        for one, other in zip(
            getattr(ours, name)(params, state, *more), getattr(model, name)(plain, state, *more)
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_statistics_have_no_gradient_and_no_decay(model, small, dataset):
    ours = networks.standardized(model, np.full([2, 2], 0.5), np.full([2, 2], 2.0))
    strong = dataclasses.replace(small, weight_decay=0.5, learning_rate=0.1)
    learn = learner.Learner(ours, methods.get("bc"), strong)
    state, _ = learn.run(learn.init(0), windows.store(dataset), 4)
    for params in (state.params, state.target_params):
        assert (params["observation"]["mean"] == 0.5).all()
        assert (params["observation"]["scale"] == 2.0).all()


def with_columns(*columns):
    """A dataset of one episode with these columns."""
    seen = np.stack([np.broadcast_to(np.asarray(x, float), [40]) for x in columns], axis=1)
    episode = {"observation": seen, "action": [0] * 39, "reward": [0] * 39, "terminated": True}
    return datasets.from_episodes([episode], {"num_actions": 1, "environment": "mine"})


def test_moments():
    wave = np.arange(40) % 2
    mean, deviation = datasets.moments(with_columns(wave, 1000.1, 0.0, 1e6 + 0.01 * wave))
    np.testing.assert_allclose(mean, [0.5, np.float32(1000.1), 0.0, 1e6])
    np.testing.assert_array_equal(deviation, [0.5, 0.0, 0.0, 0.0])  # The last is rounding.
    offset = datasets.moments(with_columns(1000 + 0.1 * wave))[1]
    np.testing.assert_allclose(offset, [0.05], rtol=1e-3)
    packed = dataclasses.replace(
        with_columns(wave), observation=np.zeros([40, 1], np.uint8),
        metadata={"num_actions": 1, "packed_shape": [1]},
    )  # fmt: skip
    with pytest.raises(datasets.DatasetError, match="packed to bits are not standardised"):
        datasets.moments(packed)


def test_columns_far_from_unit_scale_are_named():
    wave = np.arange(40) % 2
    rare = np.arange(40) == 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine = with_columns(wave, rare, 0.0, 1e-6, 5 * wave)
        specs.check_scale(fine, *datasets.moments(fine))
    far = with_columns(wave, 1000, 1e-4 * wave, 30 * wave)
    message = r"of mine are far .* in column 1 \(1e\+03 ± 0\), 2 \(5e-05 ± 5e-05\), 3 \(15 ± 15\): "
    with pytest.warns(UserWarning, match=message + r'.*set overrides \{"standardize": true\}'):
        specs.check_scale(far, *datasets.moments(far))
    image = dataclasses.replace(fine, observation=np.full([40, 2, 3], 255, np.float32))
    with pytest.warns(UserWarning, match=r"column \[0, 0\] \(255 ± 0\), .* and 1 more: "):
        specs.check_scale(image, *datasets.moments(image))


def test_the_warnings_advice_works(recordings):
    off = spec(recordings, 1000, overrides={**SMALL, "standardize": False})
    with pytest.warns(UserWarning, match=r"Fifth1000-v0 are far from unit scale in column 4 \("):
        _, _, dataset = off.build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn, _, _ = dataclasses.replace(off, overrides={**SMALL, "standardize": True}).build()
    state = learn.model.represent(learn.init(0).params, dataset.observation)
    assert np.abs(state).max() < 50  # Of inputs of unit scale; else they are some hundreds.


def test_other_advice_of_building_a_run_works(recordings):
    largest = dataclasses.replace(spec(recordings, 0), overrides={**SMALL, "batch_size": 10_000})
    with pytest.raises(ValueError, match=r"batch_size 10000 is larger than the \d+ ") as error:
        largest.build()
    windows_ = int(str(error.value).partition("than the ")[2].split()[0])
    dataclasses.replace(largest, overrides={**SMALL, "batch_size": windows_}).build()

    few = dataclasses.replace(largest, overrides={**SMALL, "num_bins": 5})
    with pytest.warns(UserWarning, match=r"5 bins represent at most 7\.952: .*; raise num_bins"):
        few.build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataclasses.replace(few, overrides={**SMALL, "num_bins": 20}).build()


def test_which_presets_standardise():
    assert not settings.BSUITE.standardize and not settings.MINATAR.standardize
    assert runs.Spec(dataset="", benchmark="gymnasium").settings == settings.GYMNASIUM
    assert settings.GYMNASIUM == dataclasses.replace(settings.BSUITE, standardize=True)
    with pytest.raises(ValueError, match="standardize must be true or false, got 'yes'"):
        settings.BSUITE.override({"standardize": "yes"})


def test_bits_are_never_standardised(recordings, tmp_path):
    bits = {"benchmark": "minatar", "environment": "breakout", "dataset": ""}
    with pytest.raises(ValueError, match=r"of minatar are bits, .*; leave it at false"):
        runs.Spec(**bits, overrides={"standardize": True})
    assert not runs.Spec(**bits, overrides={"standardize": False}).settings.standardize
    plain = datasets.load(recordings[0])
    packed = dataclasses.replace(
        plain,
        observation=np.zeros([plain.num_steps, 1], np.uint8),
        metadata={**plain.metadata, "packed_shape": [5]},
    )
    datasets.save(packed, tmp_path / "bits.npz")
    one = spec({0: str(tmp_path / "bits.npz")}, 0)
    with pytest.raises(datasets.DatasetError, match=r'set overrides \{"standardize": false\}'):
        one.build()
    dataclasses.replace(one, overrides={**SMALL, "standardize": False}).build()
