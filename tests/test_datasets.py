import dataclasses
import json
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unplugged import datasets


def test_saved_and_loaded_is_the_same(dataset, tmp_path):
    datasets.save(dataset, tmp_path / "toy.npz")
    again = datasets.load(tmp_path / "toy.npz")
    for name in ("observation", "action", "reward", "discount", "is_first", "is_last"):
        np.testing.assert_array_equal(getattr(again, name), getattr(dataset, name))
    assert again.metadata == dataset.metadata
    assert datasets.checksum(again) == datasets.checksum(dataset)
    assert [p.name for p in tmp_path.iterdir()] == ["toy.npz"]


def test_a_part_is_saved_with_its_own_count_of_episodes(dataset, tmp_path):
    counted = dataclasses.replace(dataset, metadata={**dataset.metadata, "episodes": 6})
    datasets.save(counted.episodes([0, 2]), tmp_path / "part.npz")
    assert datasets.load(tmp_path / "part.npz").metadata["episodes"] == 2


def test_saving_twice_gives_the_same_bytes(dataset, tmp_path):
    for name in ("a.npz", "b.npz"):
        datasets.save(dataset, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_counts_and_returns(dataset):
    assert (dataset.num_episodes, dataset.num_transitions) == (6, 3 + 4 + 5 + 6 + 7 + 8)
    first = dataset.episodes([0])
    np.testing.assert_allclose(dataset.episode_returns[0], first.reward.sum(), rtol=1e-6)
    # Episode 0 truly ended: its last transition and last step have discount 0.
    np.testing.assert_array_equal(first.discount, [1, 1, 0, 0])
    np.testing.assert_array_equal(dataset.episodes([1]).discount, [1] * 5)


@settings(deadline=None, derandomize=True)
@given(st.floats(0.001, 1.0), st.integers(0, 5), st.integers(1, 60))
def test_subsample_keeps_whole_episodes_spread_evenly(fraction, seed, total):
    episodes = [
        {"observation": np.full([3, 1], i), "action": [0, 0], "reward": [i, 0], "terminated": True}
        for i in range(total)
    ]
    whole = datasets.from_episodes(episodes, {"num_actions": 1})
    part = datasets.subsample(whole, fraction, seed)
    datasets.validate(part)
    keep = max(1, round(fraction * total))
    which = part.episode_returns.astype(int)
    assert len(which) == keep and (np.diff(which) > 0).all()
    # One from each of `keep` equal stretches.
    edges = np.linspace(0, total, keep + 1).round()
    assert ((which >= edges[:-1]) & (which < edges[1:])).all()
    again = datasets.subsample(whole, fraction, seed).episode_returns
    np.testing.assert_array_equal(again, part.episode_returns)


@settings(deadline=None, derandomize=True)
@given(st.floats(0.001, 0.99), st.integers(0, 5), st.integers(2, 40))
def test_split_parts_are_disjoint_and_whole(holdout, seed, total):
    episodes = [
        {"observation": np.full([3, 1], i), "action": [0, 0], "reward": [i, 0], "terminated": True}
        for i in range(total)
    ]
    whole = datasets.from_episodes(episodes, {"num_actions": 1})
    if round(holdout * total) == total:
        with pytest.raises(ValueError, match="leaves none to train on"):
            datasets.split(whole, holdout, seed)
        return
    train, held = datasets.split(whole, holdout, seed)
    both = np.concatenate([train.episode_returns, held.episode_returns])
    assert sorted(both) == list(range(total))
    assert held.num_episodes == max(1, round(holdout * total))
    assert (np.diff(train.episode_returns) > 0).all()


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_fraction_out_of_range(dataset, fraction):
    with pytest.raises(ValueError, match="fraction must lie in"):
        datasets.subsample(dataset, fraction, 0)


def damage(path, how):
    """Rewrites a saved dataset with something wrong."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(str(arrays["header"]))
    if how == "altered":
        arrays["reward"][2] += 1.0
    elif how == "version":
        header["version"] = 99
    elif how == "not finite":
        arrays["observation"][3] = np.nan
        parts = {k: v for k, v in arrays.items() if k != "header"}
        header["checksum"] = datasets.checksum(
            datasets.Dataset(**parts, metadata=header["metadata"])
        )
    elif how == "pickled":
        arrays["reward"] = np.array([{}] * 3, dtype=object)
    elif how == "lacks":
        del arrays["discount"]
    arrays["header"] = np.array(json.dumps(header))
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "how, message",
    [
        ("altered", "altered since it was written"),
        ("version", "format version 99, this code reads 1"),
        ("not finite", "observation is not finite .* at step 3"),
        ("pickled", "pickled objects, which are never loaded"),
        ("lacks", "lacks discount"),
    ],
)
def test_damaged_files_are_refused(dataset, tmp_path, how, message):
    datasets.save(dataset, tmp_path / "toy.npz")
    damage(tmp_path / "toy.npz", how)
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.load(tmp_path / "toy.npz")


@pytest.mark.parametrize("keep", [0, 10, 200, 0.5, 0.99])
def test_a_file_cut_short_is_refused(dataset, tmp_path, keep):
    datasets.save(dataset, tmp_path / "toy.npz")
    data = (tmp_path / "toy.npz").read_bytes()
    size = keep if isinstance(keep, int) else int(keep * len(data))
    (tmp_path / "toy.npz").write_bytes(data[:size])
    with pytest.raises(datasets.DatasetError, match="cut short"):
        datasets.load(tmp_path / "toy.npz")


def test_a_pickle_is_refused(dataset, tmp_path):
    (tmp_path / "toy.npz").write_bytes(pickle.dumps(dataset.observation))
    with pytest.raises(datasets.DatasetError, match="a pickle, which is never loaded"):
        datasets.load(tmp_path / "toy.npz")


def test_a_flipped_byte_is_noticed(dataset, tmp_path):
    path = tmp_path / "toy.npz"
    datasets.save(dataset, path)
    with zipfile.ZipFile(path) as file:
        at = file.getinfo("reward.npy").header_offset + 60
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(datasets.DatasetError):
        datasets.load(path)


def test_a_missing_file_names_its_neighbours(dataset, tmp_path):
    datasets.save(dataset, tmp_path / "catch.npz")
    with pytest.raises(FileNotFoundError, match="did you mean 'catch'"):
        datasets.load(tmp_path / "cacth.npz")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"reward": np.inf}, "reward is not finite"),
        ({"discount": 0.5}, "discount must be 0"),
        ({"discount": 0.0}, "discount is 0 inside an episode"),
        ({"action": 3}, "action 3 at step 1 is outside 0..2"),
        ({"is_last": True}, "not whole"),
        ({"is_first": True}, "not whole"),
    ],
)
def test_validate_names_what_is_wrong(dataset, change, message):
    name, value = next(iter(change.items()))
    array = getattr(dataset, name).copy()
    array[1] = value
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.validate(dataclasses.replace(dataset, **{name: array}))


def test_lengths_of_an_episode_must_fit():
    episode = {
        "observation": np.zeros([3, 1]), "action": [0, 0, 0], "reward": [0, 0, 0],
        "terminated": True,
    }  # fmt: skip
    with pytest.raises(datasets.DatasetError, match="episode 0: 3 observations, 3 actions"):
        datasets.from_episodes([episode], {"num_actions": 1})


def test_actions_must_be_whole_numbers():
    episode = {"observation": np.zeros([3, 1]), "reward": [0, 0], "terminated": True}
    with pytest.raises(datasets.DatasetError, match="episode 0: actions must be whole numbers"):
        datasets.from_episodes([{**episode, "action": [0.9, 1.7]}], {"num_actions": 2})
    whole = datasets.from_episodes([{**episode, "action": [0.0, 1.0]}], {"num_actions": 2})
    assert whole.action.tolist() == [0, 1, 0]


def test_dataset_of_another_environment(dataset):
    datasets.check_fits(dataset, (2, 2), 3)
    with pytest.raises(datasets.DatasetError, match=r"observations \(2, 2\)"):
        datasets.check_fits(dataset, (4,), 3)
    with pytest.raises(datasets.DatasetError, match="has 3 actions, the environment 2"):
        datasets.check_fits(dataset, (2, 2), 2)


def test_nothing_half_written_when_saving_fails(dataset, tmp_path, monkeypatch):
    datasets.save(dataset, tmp_path / "toy.npz")
    before = (tmp_path / "toy.npz").read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        datasets.save(dataset, tmp_path / "toy.npz")
    assert (tmp_path / "toy.npz").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_statistics_of_a_recording():
    episodes = [
        {"observation": np.zeros([3, 2]), "action": [0, 1], "reward": [0.0, float(i)],
         "terminated": True}
        for i in range(20)
    ]  # fmt: skip
    recording = datasets.from_episodes(episodes, {"environment": "made up", "num_actions": 2})
    row = datasets.statistics(recording, np.array([1.0, 2.0]), seed=3).iloc[0]
    assert (row["environment"], row["noise"], row["seed"]) == ("made up", 0.0, 3)
    assert (row["episodes"], row["transitions"]) == (20, 40)
    assert row["mean_return"] == 9.5
    assert row["online_return"] == 18.5  # the last two
    assert (row["random_return"], row["random_episodes"]) == (1.5, 2)
    assert row["checksum"] == datasets.checksum(recording)
