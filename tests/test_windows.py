import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unplugged import datasets, windows

sample = jax.jit(windows.sample, static_argnums=(2, 3))


def steps(lengths, terminated):
    """Episodes whose observation is the step's own index in the flat dataset."""
    episodes, at = [], 0
    for length, ended in zip(lengths, terminated):
        index = np.arange(at, at + length + 1)
        episodes.append(
            {
                "observation": index[:, None],
                "action": index[:-1] % 3,
                "reward": index[:-1] + 0.5,
                "terminated": ended,
            }
        )
        at += length + 1
    return datasets.from_episodes(episodes, {"num_actions": 3, "environment": "toy"})


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=6),
    st.integers(1, 12),
    st.integers(0, 10),
)
def test_no_window_leaves_its_episode(shape, length, seed):
    dataset = steps(*zip(*shape))
    data = windows.store(dataset)
    batch = jax.tree.map(np.asarray, sample(data, jax.random.key(seed), 16, length))
    episode = np.cumsum(dataset.is_first) - 1
    index = batch.observation[..., 0].astype(int)
    assert (episode[index] == episode[index[0]]).all()
    assert batch.real[0].all() and batch.known[0].all()
    np.testing.assert_array_equal(batch.real, ~dataset.is_last[index])
    np.testing.assert_array_equal(batch.reward, np.where(batch.real, index + 0.5, 0.0))
    np.testing.assert_array_equal(np.diff(index, axis=0), batch.real[:-1].astype(int))
    truly_ended = np.array([ended for _, ended in shape])[episode[index]]
    np.testing.assert_array_equal(batch.absorbing, ~batch.real & truly_ended)
    # Past a truncation only the last observation is known.
    past = np.cumsum(~batch.real, axis=0)
    np.testing.assert_array_equal(batch.known, truly_ended | (past <= 1))


def test_sampling_is_uniform_over_transitions():
    dataset = steps([1, 2, 5], [True, False, True])
    data = windows.store(dataset)
    batch = windows.sample(data, jax.random.key(0), 16_000, 1)
    counts = np.bincount(np.asarray(batch.observation[0, :, 0], int), minlength=11)
    assert (counts[dataset.is_last] == 0).all()
    np.testing.assert_allclose(counts[~dataset.is_last], 2_000, rtol=0.1)


def test_a_window_by_hand():
    data = windows.store(steps([2, 3], [True, False]))
    batch = windows.at(data, jnp.array([1, 4]), 4)
    np.testing.assert_array_equal(batch.observation[..., 0].T, [[1, 2, 2, 2], [4, 5, 6, 6]])
    np.testing.assert_array_equal(batch.real.T, [[1, 0, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(batch.known.T, [[1, 1, 1, 1], [1, 1, 1, 0]])
    np.testing.assert_array_equal(batch.discount.T, [[0, 0, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal(batch.reward.T, [[1.5, 0, 0, 0], [4.5, 5.5, 0, 0]])


@pytest.mark.parametrize("length", [1, 9])
def test_shapes(dataset, length):
    batch = windows.sample(windows.store(dataset), jax.random.key(0), 5, length)
    assert batch.observation.shape == (length, 5, 2, 2)
    assert {x.shape for x in jax.tree.leaves(batch[1:])} == {(length, 5)}
    assert batch.improved is None


def test_windows_begin_at_transitions_and_have_a_length(dataset):
    data = windows.store(dataset)  # Its first episode ends at step 3.
    for start in (3, -1, dataset.num_steps):
        with pytest.raises(ValueError, match=f"no transition begins at step {start}"):
            windows.at(data, jnp.array([0, start]), 2)
    for start in (jnp.array(0), jnp.array([0.0])):
        with pytest.raises(ValueError, match=r"start must be whole numbers \[B\]"):
            windows.at(data, start, 2)
    with pytest.raises(ValueError, match="length of windows must lie in"):
        windows.at(data, jnp.array([0]), 0)
    with pytest.raises(ValueError, match="batch_size must lie in"):
        windows.sample(data, jax.random.key(0), 0, 2)


def test_what_breaks_the_contract_is_not_stored(dataset):
    for wrong in ({"action": dataset.action + 9}, {"reward": dataset.reward.astype(np.float64)}):
        with pytest.raises(datasets.DatasetError):
            windows.store(dataclasses.replace(dataset, **wrong))
