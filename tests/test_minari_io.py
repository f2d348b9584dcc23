"""Minari in and out: against what Minari itself holds, and back to what we had."""

import dataclasses
import json
import os
import warnings

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from unplugged import datasets, minari_io, runs

ARRAYS = ("observation", "action", "reward", "discount", "is_first", "is_last")
LIMIT = 25  # Steps; random CartPole episodes last 10 to 60, so both endings occur.

# What Minari says of metadata that the datasets made here leave out.
pytestmark = pytest.mark.filterwarnings("ignore:.*is set to None", "ignore:env_spec is None")


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """Minari's local store, empty; Minari reads the variable at each call."""
    folder = tmp_path / "minari"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return folder


def collect_cartpole(dataset_id="cartpole/random-v0", episodes=30, **options):
    world = gymnasium.make("CartPole-v1", max_episode_steps=LIMIT)
    collector = minari.DataCollector(world)
    rng = np.random.default_rng(0)
    for episode in range(episodes):
        collector.reset(seed=episode)
        over = False
        while not over:
            *_, terminated, truncated, _ = collector.step(int(rng.integers(2)))
            over = terminated or truncated
    dataset = collector.create_dataset(dataset_id, **options)
    collector.close()
    return dataset


def minari_dataset(
    episodes, *, observation_space=None, action_space=None, dataset_id="test/small-v0", **options
):
    """A Minari dataset of (observations, actions, rewards, terminations, truncations)."""
    names = ("observations", "actions", "rewards", "terminations", "truncations")
    return minari.create_dataset_from_buffers(
        dataset_id,
        [EpisodeBuffer(**dict(zip(names, episode))) for episode in episodes],
        observation_space=observation_space or spaces.Box(-9.0, 9.0, (2,), np.float64),
        action_space=action_space or spaces.Discrete(3),
        **options,
    )


def episode(length=3, *, observations=None, actions=None, terminations=None, truncations=None):
    flags = [False] * length
    return (
        np.arange(2.0 * length + 2).reshape(-1, 2) / 10 if observations is None else observations,
        np.arange(length) % 3 if actions is None else actions,
        np.arange(length) + 0.5,
        flags if terminations is None else terminations,
        flags if truncations is None else truncations,
    )


def ours(shape=(10, 5), benchmark="bsuite", environment="catch", **more):
    rng = np.random.default_rng(1)
    episodes = [
        {
            "observation": rng.normal(size=(length + 1, *shape)),
            "action": rng.integers(3, size=length),
            "reward": rng.normal(size=length),
            "terminated": terminated,
        }
        for length, terminated in ((9, True), (4, False), (1, True), (1, False), (6, True))
    ]
    metadata = {
        "benchmark": benchmark,
        "environment": environment,
        "num_actions": 3,
        "noise": 0.1,
        "episodes": 5,
        "seed": 7,
        "collected_by": "a test",
        "code_version": "0.0.1",
        **more,
    }
    return datasets.from_episodes(episodes, metadata)


def assert_same_arrays(one, other):
    for name in ARRAYS:
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype, name
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_reads_every_episode_as_minari_holds_it():
    source = collect_cartpole(author="Somebody", algorithm_name="uniform policy")
    dataset = minari_io.from_minari(source)
    firsts, lasts = np.flatnonzero(dataset.is_first), np.flatnonzero(dataset.is_last)
    assert len(firsts) == len(lasts) == source.total_episodes == 30
    assert dataset.num_transitions == source.total_steps
    endings = set()
    for expected, first, last in zip(source.iterate_episodes(), firsts, lasts):
        assert expected.observations.shape == (last - first + 1, 4)
        steps, transitions = slice(first, last + 1), slice(first, last)
        np.testing.assert_array_equal(dataset.observation[steps], expected.observations)
        np.testing.assert_array_equal(dataset.action[transitions], expected.actions)
        np.testing.assert_array_equal(dataset.reward[transitions], expected.rewards)
        assert dataset.action[last] == dataset.reward[last] == 0
        ended = bool(expected.terminations[-1])
        endings.add(ended)
        assert ended or expected.truncations[-1]
        discount = np.ones(last - first + 1)
        discount[-2:] = 0.0 if ended else 1.0
        np.testing.assert_array_equal(dataset.discount[steps], discount)
    assert endings == {True, False}
    assert dataset.observation.dtype == dataset.reward.dtype == np.float32
    facts = dict(dataset.metadata)
    assert facts.pop("code_version") and facts.pop("minari_version")
    assert facts == {
        "benchmark": "gymnasium",
        "environment": "CartPole-v1",
        "num_actions": 2,
        "noise": 0.0,
        "episodes": 30,
        "max_episode_steps": LIMIT,
        "collected_by": "Minari dataset cartpole/random-v0, by Somebody, with uniform policy",
    }


def test_an_id_loads_the_local_dataset():
    source = collect_cartpole(episodes=3)
    by_id = minari_io.from_minari("cartpole/random-v0")
    assert datasets.checksum(by_id) == datasets.checksum(minari_io.from_minari(source))


def test_a_minari_dataset_trains_and_evaluates(tmp_path):
    path = tmp_path / "cartpole.npz"
    datasets.save(minari_io.from_minari(collect_cartpole()), path)
    spec = runs.Spec(
        benchmark="gymnasium",
        environment="CartPole-v1",
        dataset=str(path),
        method="rosmo",
        overrides={
            "representation": [8, 8],
            "dynamics": [8, 8],
            "prediction": [8],
            "batch_size": 8,
        },
        updates=20,
        eval_every=10,
        eval_episodes=2,
    )
    rows = runs.train(spec, tmp_path / "run")
    assert rows["update"].tolist() == [0, 10, 20]
    assert set(rows["benchmark"]) == {"gymnasium"}
    assert set(rows["environment"]) == {"CartPole-v1"}
    assert set(rows["noise"]) == {0.0}
    assert rows["mean_return"].between(8, 500).all()  # CartPole never ends before step 8.
    assert np.isfinite(rows["loss"][1:]).all()
    assert (tmp_path / "run" / "results.csv").is_file()


@pytest.mark.parametrize("shape", [(10, 5), (4,), (), (2, 3, 4)])
def test_round_trip_of_a_bsuite_dataset(shape):
    dataset = ours(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # None about what we leave out knowingly.
        exported = minari_io.to_minari(dataset, "catch/dqn-v0")
    assert exported.env_spec is None
    assert exported.total_steps == dataset.num_transitions == 21
    assert exported.observation_space == spaces.Box(-np.inf, np.inf, shape, np.float32)
    assert exported.action_space == spaces.Discrete(3)
    again = minari_io.from_minari("catch/dqn-v0")
    assert_same_arrays(again, dataset)
    assert again.metadata == dataset.metadata
    assert datasets.checksum(again) == datasets.checksum(dataset)


def test_round_trip_of_a_gymnasium_dataset_keeps_the_environment():
    collect_cartpole(episodes=6)
    dataset = minari_io.from_minari("cartpole/random-v0")
    minari_io.to_minari(dataset, "cartpole/copy-v0")
    exported = minari.load_dataset("cartpole/copy-v0")
    assert exported.env_spec.id == "CartPole-v1"
    assert exported.env_spec.max_episode_steps == LIMIT
    assert exported.recover_environment().observation_space.shape == (4,)
    again = minari_io.from_minari(exported)
    assert_same_arrays(again, dataset)
    assert again.metadata == dataset.metadata


def test_an_environment_that_gymnasium_cannot_make_is_exported_by_name():
    dataset = ours(benchmark="gymnasium", environment="NoSuchThing-v0")
    exported = minari_io.to_minari(dataset, "nosuchthing/x-v0")
    assert exported.env_spec is None
    assert minari_io.from_minari(exported).metadata["environment"] == "NoSuchThing-v0"


def test_an_export_reads_as_minari_would_have_recorded_it():
    exported = minari_io.to_minari(ours((2,)), "catch/dqn-v0", author="Somebody")
    ends = [(e.terminations.tolist(), e.truncations.tolist()) for e in exported.iterate_episodes()]
    assert ends[1] == ([False] * 4, [False, False, False, True])
    assert ends[2] == ([True], [False])
    facts = exported.storage.metadata
    assert facts["author"] == {"Somebody"}
    assert facts["algorithm_name"] == "a test"
    assert facts["description"] == (
        "5 episodes of bsuite catch, action noise 0.1, collected by a test"
    )
    assert facts["unplugged"]["metadata"]["noise"] == 0.1
    assert facts["unplugged"]["checksum"] == datasets.checksum(ours((2,)))


def test_a_description_of_ones_own():
    exported = minari_io.to_minari(ours(), "catch/dqn-v0", description="Mine.")
    assert exported.storage.metadata["description"] == "Mine."


def test_a_selection_of_episodes():
    dataset = ours((2,))
    exported = minari_io.to_minari(dataset, "catch/dqn-v0")
    some = minari_io.from_minari(exported.filter_episodes(lambda e: len(e) in (9, 6)))
    assert_same_arrays(some, dataset.episodes([0, 4]))
    assert some.metadata == {**dataset.metadata, "episodes": 2}


def test_an_altered_export_is_refused():
    exported = minari_io.to_minari(ours((2,)), "catch/dqn-v0")
    minari_io.from_minari(exported)
    with h5py.File(exported.storage.data_path / "main_data.hdf5", "a") as file:
        file["episode_1"]["rewards"][2] += 1.0
    with pytest.raises(datasets.DatasetError, match=r"catch/dqn-v0: altered since it was exp"):
        minari_io.from_minari("catch/dqn-v0")


def test_naming_another_environment():
    source = minari_dataset([episode(terminations=[False, False, True])])
    with pytest.raises(ValueError, match=r"test/small-v0 does not say in which environment"):
        minari_io.from_minari(source)
    dataset = minari_io.from_minari(source, environment="Acrobot-v1")
    assert dataset.metadata["environment"] == "Acrobot-v1"
    assert dataset.metadata["max_episode_steps"] is None
    exported = minari_io.to_minari(ours(), "catch/dqn-v0")
    dataset = minari_io.from_minari(exported, environment="Catch-v0")
    assert (dataset.metadata["benchmark"], dataset.metadata["environment"]) == (
        "gymnasium",
        "Catch-v0",
    )
    assert minari_io.from_minari(exported, environment="catch").metadata["benchmark"] == "bsuite"


@pytest.mark.parametrize(
    ("terminations", "truncations", "discounts"),
    [
        ([0, 0, 1], [0, 0, 0], [1, 1, 0, 0]),
        ([0, 0, 0], [0, 0, 1], [1, 1, 1, 1]),
        ([0, 0, 1], [0, 0, 1], [1, 1, 0, 0]),
        ([0, 0, 0], [0, 0, 0], [1, 1, 1, 1]),  # Neither: taken as truncated.
    ],
)
def test_endings(terminations, truncations, discounts):
    flags = {"terminations": np.bool_(terminations), "truncations": np.bool_(truncations)}
    dataset = minari_io.from_minari(minari_dataset([episode(**flags)]), environment="E-v0")
    assert dataset.discount.tolist() == discounts


def test_observations_of_other_types_are_cast():
    images = np.arange(4 * 2 * 3 * 1, dtype=np.uint8).reshape(4, 2, 3, 1)
    source = minari_dataset(
        [episode(observations=images)], observation_space=spaces.Box(0, 255, (2, 3, 1), np.uint8)
    )
    dataset = minari_io.from_minari(source, environment="E-v0")
    assert dataset.observation.dtype == np.float32
    np.testing.assert_array_equal(dataset.observation, images)


@pytest.mark.parametrize(
    ("action_space", "actions"),
    [
        (spaces.Box(-1.0, np.inf, (1,), np.float32), np.zeros((3, 1), np.float32)),
        (spaces.Discrete(3, start=1), np.array([1, 2, 3])),
        (spaces.MultiDiscrete([2, 2]), np.zeros((3, 2), int)),
    ],
)
def test_actions_other_than_discrete_from_zero_or_a_bounded_box_are_refused(action_space, actions):
    source = minari_dataset([episode(actions=actions)], action_space=action_space)
    with pytest.raises(
        datasets.DatasetError, match=r"small-v0: actions (must be Disc|of a Box must)"
    ):
        minari_io.from_minari(source, environment="E-v0")


def test_observations_other_than_a_box_are_flattened():
    box = spaces.Box(-9.0, 9.0, (2,), np.float64)
    values = np.arange(8.0).reshape(4, 2)
    kinds = {
        "dict": (spaces.Dict({"a": box}), {"a": values}, values),
        "tuple": (spaces.Tuple([box]), (values,), values),
        "discrete": (spaces.Discrete(5), np.arange(4), np.eye(5)[:4]),
    }
    for name, (space, observations, wanted) in kinds.items():
        source = minari_dataset(
            [episode(observations=observations)],
            observation_space=space,
            dataset_id=f"test/{name}-v0",
        )
        found = minari_io.from_minari(source, environment="CartPole-v1")
        np.testing.assert_array_equal(found.observation, wanted)


def test_bad_episodes_are_refused():
    good = episode(terminations=[False, False, True])
    short = (good[0], good[1], good[2], [False], good[4])
    bad = {
        "early": (episode(truncations=[False, True, False]), r"1 goes on past the end .* step 1"),
        "shape": (episode(observations=np.zeros((4, 3))), r"1 has observations \(3,\), .* \(2,\)"),
        "short": (short, r"1: 3 actions, 1 terminations and 3 truncations"),
        "rows": (episode(observations=np.zeros((3, 2))), r"1: 3 observations, 3 actions"),
        "nan": (episode(observations=np.full((4, 2), np.nan)), r"not finite .* at step 4"),
        "action": (episode(actions=np.array([0, 1, 3])), r"action 3 at step 6 is outside 0\.\.2"),
    }
    for name, (wrong, message) in bad.items():
        source = minari_dataset([good, wrong], dataset_id=f"test/{name}-v0")
        with pytest.raises(datasets.DatasetError, match=f"test/{name}-v0: .*{message}"):
            minari_io.from_minari(source, environment="E-v0")


def test_an_empty_dataset_is_refused():
    source = collect_cartpole(episodes=2)
    none = source.filter_episodes(lambda e: False)
    with pytest.raises(datasets.DatasetError, match="cartpole/random-v0: holds no episodes"):
        minari_io.from_minari(none)


def test_a_damaged_dataset_is_refused():
    folder = collect_cartpole(episodes=4).storage.data_path
    data = folder / "main_data.hdf5"
    os.truncate(data, data.stat().st_size // 2)
    with pytest.raises(datasets.DatasetError, match="cartpole/random-v0: cut short or damaged"):
        minari_io.from_minari("cartpole/random-v0")
    (folder / "metadata.json").write_text(json.dumps({"data_format": "hdf5"}))
    with pytest.raises(datasets.DatasetError, match="cartpole/random-v0: Minari cannot open it"):
        minari_io.from_minari("cartpole/random-v0")


def test_what_is_damaged_in_an_export_is_said():
    exported = minari_io.to_minari(ours((2,)), "catch/dqn-v0")
    exported.storage.update_metadata({"unplugged": {"metadata": {}}})
    with pytest.raises(datasets.DatasetError, match="its metadata under 'unplugged' are damaged"):
        minari_io.from_minari("catch/dqn-v0")


def test_a_missing_dataset_is_named_with_the_nearest(store):
    with pytest.raises(FileNotFoundError, match=f"in {store}: there are none"):
        minari_io.from_minari("cartpole/random-v0")
    collect_cartpole(episodes=1)
    (store / "no-version" / "data").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"did you mean 'cartpole/random-v0'\?"):
        minari_io.from_minari("cartpole/rnadom-v0")


def test_an_environment_that_its_id_does_not_bring_back_must_be_named():
    def collect(dataset_id, world):
        collector = minari.DataCollector(world)
        collector.reset(seed=0)
        collector.step(0)
        return collector.create_dataset(dataset_id)

    plain = gymnasium.make("Acrobot-v1", render_mode="rgb_array")
    assert minari_io.from_minari(collect("acrobot/plain-v0", plain)).num_episodes == 1
    sutton = gymnasium.make("CartPole-v1", sutton_barto_reward=True)
    source = collect("cartpole/sutton-v0", sutton)
    with pytest.raises(ValueError, match="recorded in CartPole-v1 with sutton_barto_reward=true,"):
        minari_io.from_minari(source)
    wrapped = gymnasium.wrappers.FlattenObservation(gymnasium.make("CartPole-v1"))
    source = collect("cartpole/wrapped-v0", wrapped)
    with pytest.raises(ValueError, match="CartPole-v1 with wrapper FlattenObservation,"):
        minari_io.from_minari(source)
    dataset = minari_io.from_minari(source, environment="CartPole-v1")
    assert dataset.metadata["environment"] == "CartPole-v1"


def test_an_existing_dataset_is_not_overwritten(store):
    minari_io.to_minari(ours(), "catch/dqn-v0")
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"'catch/dqn-v0' already, and it is not overwritten"):
        minari_io.to_minari(ours((2,)), "catch/dqn-v0")
    after = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    assert before == after
    minari_io.to_minari(ours((2,)), "catch/dqn-v1")
    minari.delete_dataset("catch/dqn-v0")
    minari_io.to_minari(ours((2,)), "catch/dqn-v0")


@pytest.mark.parametrize("dataset_id", ["catch", "catch/dqn", "a b-v0", "../catch-v0", ""])
def test_a_malformed_id_is_refused_before_anything_is_written(dataset_id, store):
    with pytest.raises(ValueError, match=r"is no Minari dataset id: .* 'catch/dqn-v0'"):
        minari_io.to_minari(ours(), dataset_id)
    assert not store.exists() or not any(store.iterdir())


def test_an_export_that_fails_leaves_nothing_behind(monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("minari.dataset._storages.hdf5_storage.HDF5Storage.update_episodes", fail)
        with pytest.raises(OSError, match="no space left"):
            minari_io.to_minari(ours(), "catch/dqn-v0")
    minari_io.to_minari(ours(), "catch/dqn-v0")


def test_what_would_not_come_back_unchanged_is_not_exported(store):
    def changed(**arrays):
        dataset = ours()
        whole = {name: getattr(dataset, name).copy() for name in ARRAYS}
        for name, change in arrays.items():
            whole[name] = change(whole[name])
        return datasets.Dataset(**whole, metadata=dataset.metadata)

    def mark_last(reward):
        reward[-1] = 1.0
        return reward

    some = ours()
    packed = dataclasses.replace(
        some,
        observation=np.zeros([some.num_steps, 1], np.uint8),
        metadata={**some.metadata, "packed_shape": [2, 2]},
    )
    wrong = [
        (changed(observation=lambda x: x.astype(np.float64)), "observation must be float32"),
        (packed, r"observations packed to bits, \(2, 2\) as in MinAtar's"),
        (changed(reward=mark_last), "must be 0 at the last step"),
        (changed(discount=np.ones_like, is_last=np.zeros_like), "episodes are not whole"),
    ]
    for dataset, message in wrong:
        with pytest.raises(datasets.DatasetError, match=message):
            minari_io.to_minari(dataset, "catch/dqn-v0")
    assert not (store / "catch").exists()


def collect_pendulum():
    world = gymnasium.make("Pendulum-v1", max_episode_steps=LIMIT)
    collector = minari.DataCollector(world)
    rng = np.random.default_rng(0)
    for number in range(3):
        collector.reset(seed=number)
        for _ in range(LIMIT):
            collector.step(rng.uniform(-2.0, 2.0, 1).astype(np.float32))
    dataset = collector.create_dataset("pendulum/random-v0")
    collector.close()
    return dataset


def test_box_actions_come_in_and_go_out_by_their_bounds():
    source = collect_pendulum()
    dataset = minari_io.from_minari(source)
    assert dataset.metadata["action_dims"] == 1 and "num_actions" not in dataset.metadata
    assert (dataset.metadata["action_low"], dataset.metadata["action_high"]) == ([-2.0], [2.0])
    own = np.concatenate([episode.actions for episode in source.iterate_episodes()])
    np.testing.assert_array_equal(dataset.action[~dataset.is_last], own / 2.0)
    assert (dataset.discount == 1.0).all()  # Cut off, all of them.
    exported = minari_io.to_minari(dataset, "pendulum/again-v0")
    assert exported.action_space == spaces.Box(-2.0, 2.0, (1,), np.float32)
    assert exported.env_spec.id == "Pendulum-v1"
    again = np.concatenate([episode.actions for episode in exported.iterate_episodes()])
    np.testing.assert_array_equal(again, own)
    back = minari_io.from_minari("pendulum/again-v0")
    assert datasets.checksum(back) == datasets.checksum(dataset)


def test_box_actions_of_uneven_bounds_come_back_up_to_rounding():
    low, high = np.array([[0.1, -3.0]]), np.array([[0.7, 5.0]])
    rng = np.random.default_rng(0)
    actions = rng.uniform(low, high, size=(3, 1, 2))
    box = spaces.Box(low, high, dtype=np.float64)
    source = minari_dataset([episode(actions=actions)], action_space=box)
    dataset = minari_io.from_minari(source, environment="Own-v0")
    expected = 2.0 * (actions - low) / (high - low) - 1.0
    np.testing.assert_allclose(dataset.action[:3], expected[:, 0], atol=1e-6)
    exported = minari_io.to_minari(dataset, "own/uneven-v0")
    (found,) = exported.iterate_episodes()
    np.testing.assert_allclose(found.actions, actions[:, 0], atol=1e-6)
    back = minari_io.from_minari("own/uneven-v0")  # Its checksum is that of what comes back.
    np.testing.assert_allclose(back.action, dataset.action, atol=1e-6)
    assert back.metadata == dataset.metadata


def taxi(allowed_only=True):
    world = minari.DataCollector(gymnasium.make("Taxi-v4", max_episode_steps=9), record_infos=True)
    rng, masks = np.random.default_rng(0), []
    for seed in range(3):
        _, info = world.reset(seed=seed)
        masks.append(info["action_mask"])
        for _ in range(9):
            mask = info["action_mask"] if allowed_only else 1 - info["action_mask"]
            _, _, _, _, info = world.step(int(rng.choice(6, p=mask / mask.sum())))
            masks.append(info["action_mask"])
    dataset = world.create_dataset("taxi/random-v0")
    world.close()
    return dataset, np.array(masks)


def test_masks_come_in_and_go_out():
    kept, masks = taxi()
    dataset = minari_io.from_minari(kept)
    np.testing.assert_array_equal(dataset.allowed, masks != 0)
    assert dataset.metadata["benchmark"] == "gymnasium_masked" and dataset.actions.masked
    assert dataset.probability is None
    plain = minari_io.from_minari(kept, masks=False)
    assert plain.allowed is None and plain.metadata["benchmark"] == "gymnasium"
    chances = np.where(dataset.is_last, 1.0, 0.25).astype(np.float32)
    dataset = dataclasses.replace(dataset, probability=chances)
    again = minari_io.from_minari(minari_io.to_minari(dataset, "taxi/again-v0"))
    assert datasets.checksum(again) == datasets.checksum(dataset)
    np.testing.assert_array_equal(again.probability, chances)
    assert minari_io.from_minari("taxi/again-v0", masks=False).allowed is None


def test_masks_that_nobody_kept_to_are_left_out_knowingly():
    kept, _ = taxi(allowed_only=False)
    with pytest.raises(
        datasets.DatasetError, match="was taken there; masks=False leaves masks out"
    ):
        minari_io.from_minari(kept)
    assert minari_io.from_minari(kept, masks=False).num_episodes == 3


def test_actions_outside_their_box_are_named():
    box = spaces.Box(-2.0, 2.0, (1,), np.float64)
    source = minari_dataset(
        [episode(actions=np.array([[0.0], [high], [0.0]])) for high in (2.0, 2.5)], action_space=box
    )
    with pytest.raises(
        datasets.DatasetError, match=r"small-v0: episode 1: action is 1.25 at step 1"
    ):
        minari_io.from_minari(source, environment="Pendulum-v1")
