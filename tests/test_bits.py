import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unplugged import bits, datasets, windows
from unplugged.model.actions import Discrete

pack, unpack = (jax.jit(function, static_argnums=1) for function in (bits.pack, bits.unpack))


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.lists(st.integers(1, 4), max_size=2),
    st.integers(0, 99),
)
def test_unpacking_reverses_packing(shape, leading, seed):
    x = np.random.default_rng(seed).random([*leading, *shape]) < 0.5
    packed = pack(jnp.asarray(x), len(shape))
    assert packed.dtype == jnp.uint8 and packed.shape == (*leading, -(-np.prod(shape) // 8))
    np.testing.assert_array_equal(packed, np.packbits(x.reshape(*leading, -1), axis=-1))
    np.testing.assert_array_equal(unpack(packed, tuple(shape)), x.astype(np.float32))


def both_ways():
    """The same two episodes, packed and not."""
    rng = np.random.default_rng(0)
    plain = datasets.from_episodes(
        [
            {"observation": rng.random([5, 3, 3, 2]) < 0.5, "action": [0, 1, 0, 1],
             "reward": rng.normal(size=4), "terminated": ended}
            for ended in (True, False)
        ],
        {"num_actions": 2},
    )  # fmt: skip
    arrays = {k: getattr(plain, k) for k in ("action", "reward", "discount", "is_first", "is_last")}
    packed = datasets.Dataset(
        **arrays,
        observation=np.packbits(plain.observation.reshape(10, -1).astype(bool), axis=-1),
        metadata={"num_actions": 2, "packed_shape": [3, 3, 2]},
    )
    return plain, packed


def test_windows_of_packed_observations_are_those_of_the_observations(tmp_path):
    plain, packed = both_ways()
    datasets.save(packed, tmp_path / "packed.npz")
    again = datasets.load(tmp_path / "packed.npz")
    assert again.observation.dtype == np.uint8 and again.observation_shape == (3, 3, 2)
    datasets.check_fits(again, (3, 3, 2), Discrete(2))
    one, other = (
        windows.at(windows.store(data), jnp.array([0, 2, 6]), 4) for data in (plain, again)
    )
    for a, b in zip(one, other):
        np.testing.assert_array_equal(a, b)


def test_packed_observations_of_the_wrong_size_are_refused():
    _, packed = both_ways()
    wrong = datasets.Dataset(
        **{k: getattr(packed, k) for k in datasets._ARRAYS},
        metadata={"num_actions": 2, "packed_shape": [9, 9, 2]},
    )
    with pytest.raises(
        datasets.DatasetError, match=r"must be uint8 \[N, 21\], got uint8 \[10, 3\]"
    ):
        datasets.validate(wrong)


def test_what_is_no_bits_is_not_packed():
    with pytest.raises(ValueError, match="only 0 and 1 can be packed"):
        bits.pack(jnp.array([[0.0, 0.5]]), 1)
    with pytest.raises(ValueError, match=r"3 dimensions of an array \[1, 2\]"):
        bits.pack(jnp.zeros([1, 2]), 3)
    for wrong in (jnp.zeros([4, 3], jnp.uint8), jnp.zeros([4, 1], jnp.int32)):
        with pytest.raises(ValueError, match=r"must be uint8 \[..., 1\], got "):
            bits.unpack(wrong, (2, 2))
