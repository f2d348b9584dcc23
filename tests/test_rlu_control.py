"""RL Unplugged's episodes of the DM Control suite, from files that are written here."""

import numpy as np
import pytest

import tfrecord_writer as writer
from unplugged import datasets, rlu_control
from unplugged.datasets import DatasetError
from unplugged.model.actions import Normal


def features(length=4, seed=0, **changes):
    """An episode of `length` transitions of cartpole.swingup, as the files hold it."""
    rng = np.random.default_rng(seed)
    steps = length + 1
    return {
        "observation/velocity": rng.normal(size=[steps, 2]),
        "observation/position": rng.normal(size=[steps, 3]),
        "action": rng.uniform(-1.0, 1.0, size=[steps, 1]),
        "reward": np.arange(steps) + 0.5,  # The first one is nothing's.
        "discount": np.ones(steps),
        "step_type": np.array([0.0, *[1.0] * (length - 1), 2.0]),
        "episode_id": np.array([seed]),
        "timestamp": np.array([100 - seed]),
        **changes,
    }


def tfds(episode):
    """The same, as TFDS writes it: rewards and discounts moved."""
    names = ("reward", "discount")
    steps = {k: v for k, v in episode.items() if k not in ("step_type", "episode_id", "timestamp")}
    moved = {name: np.append(steps[name][1:], name == "discount").astype(float) for name in names}
    return {f"steps/{name}": values for name, values in {**steps, **moved}.items()}


def write(folder, episodes, prefix="train", shards=2, **options):
    records = [writer.example(episode) for episode in episodes]
    for number in range(shards):
        path = folder / f"{prefix}-{number:05d}-of-{shards:05d}"
        writer.write(path, records[number::shards], **options)
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "dm_control_suite_episodes" / "cartpole_swingup"


def test_episodes_are_what_followed_the_actions(folder):
    episodes = [features(seed=seed) for seed in range(3)]
    dataset = rlu_control.read(write(folder, episodes))
    assert dataset.metadata["environment"] == "cartpole.swingup"
    assert (dataset.actions, dataset.observation_shape) == (Normal(1), (5,))
    assert (dataset.num_episodes, dataset.num_transitions) == (3, 12)
    last = episodes[2]  # By its timestamp the first.
    first = dataset.episodes([0])
    np.testing.assert_array_equal(first.reward, [1.5, 2.5, 3.5, 4.5, 0.0])
    np.testing.assert_array_equal(first.discount, np.ones(5))  # Cut off, not ended.
    expected = np.concatenate([last["observation/position"], last["observation/velocity"]], axis=1)
    np.testing.assert_array_equal(first.observation, expected.astype(np.float32))
    np.testing.assert_array_equal(first.action[:-1], last["action"][:-1].astype(np.float32))
    assert first.action[-1] == 0.0
    datasets.validate(dataset)


def test_an_end_is_an_end(folder):
    discount = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    dataset = rlu_control.read(write(folder, [features(discount=discount)]))
    np.testing.assert_array_equal(dataset.discount, [1, 1, 1, 0, 0])


@pytest.mark.parametrize("end", [1.0, 0.0])
def test_tfds_form_is_the_same_data(tmp_path, folder, end):
    discount = np.array([1.0, 1.0, 1.0, 1.0, end])
    episodes = [
        features(timestamp=np.array([seed]), seed=seed, discount=discount) for seed in (0, 1)
    ]
    one = rlu_control.read(write(folder, episodes))
    other = write(
        tmp_path / "rlu_control_suite" / "cartpole_swingup" / "1.0.0",
        [tfds(episode) for episode in episodes],
        "rlu_control_suite-train.tfrecord",
        shards=1,
        compressed=False,
    )
    assert datasets.checksum(rlu_control.read(other)) == datasets.checksum(one)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodic_reward": np.zeros(5)},
         "is a transition of two .*: take the folder dm_control_suite_episodes/cartpole_swingup"),
        ({"action": np.zeros(7)}, "action has 7 values in 5 steps"),
        ({"discount": np.array([1, 1, 0, 1, 1.0])}, "has a discount that is neither"),
        ({"discount": np.ones(4)}, "has 5 rewards and 4 discounts"),
        ({"step_type": np.array([0, 1, 2, 0, 1.0])}, "is no whole episode by its step_type"),
        ({"observation/position": np.zeros(10)}, r"its parts are .*'position': 2.*before .* 3"),
    ],
)  # fmt: skip
def test_another_record_is_named(folder, changes, message):
    write(folder, [features(), features(), features(**changes)], shards=1)
    with pytest.raises(DatasetError, match=f"train-00000-of-00001: record 2: {message}"):
        rlu_control.read(folder)


def test_sarsa_files_are_told_by_their_length(folder):
    write(folder, [features(length=1)])
    with pytest.raises(DatasetError, match="record 0: is a transition of two steps"):
        rlu_control.read(folder)
    left_out = {name: x for name, x in features().items() if name != "reward"}
    write(folder, [left_out])
    with pytest.raises(DatasetError, match="record 0: lacks reward; it has action, discount, ep"):
        rlu_control.read(folder)


def test_a_task_without_one_of_its_observations_is_refused(tmp_path):
    write(tmp_path, [tfds(features())], "rlu_control_suite-train.tfrecord", shards=1)
    with pytest.raises(DatasetError, match="lacks observation/touch, which TFDS leaves out"):
        rlu_control.read(tmp_path, environment="finger.turn_hard")


def test_a_damaged_or_missing_shard_is_refused(folder):
    write(folder, [features(), features()])
    path = folder / "train-00001-of-00002"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DatasetError, match=f"{path}: record 0: it is cut short"):
        rlu_control.read(folder)
    path.unlink()
    with pytest.raises(DatasetError, match="lacks 1 of 2 files, the first train-00001-of-00002"):
        rlu_control.read(folder)


def test_the_task_is_that_of_the_folder_or_given(tmp_path, folder):
    assert rlu_control._task(tmp_path / "swim", None) == "fish.swim"
    with pytest.raises(
        ValueError, match=r"named for no task: give environment=, one of cartpole\."
    ):
        rlu_control.read(write(tmp_path / "data", [features()]))
    named = rlu_control.read(tmp_path / "data", environment="cartpole.swingup")
    assert named.num_episodes == 1
    with pytest.raises(ValueError, match="unknown control task 'cartpole'"):
        rlu_control.read(tmp_path / "data", environment="cartpole")


def test_files_of_another_form_than_the_task_are_refused(suite, tmp_path):
    folder = write(tmp_path / "cheetah_run", [features()])
    with pytest.raises(
        DatasetError, match=r"not of cheetah\.run .*'position': 3.*there .* 9\} and"
    ):
        rlu_control.read(folder)
