"""Sources of stored data by themselves: windows, the ring, the best episodes."""

import jax
import jax.numpy as jnp
import numpy as np

from unplugged import bits, datasets, replay, windows
from unplugged.improvement import Improvement

LENGTH = 5


def episodes_of_ticks(lengths, ends, actors, seed=0):
    """Random episodes, one stream an actor: ticks [N, E, ...] and the same as a dataset."""
    rng = np.random.default_rng(seed)
    shape, recorded, columns = (3, 4), [], []
    for actor in range(actors):
        rows = []
        for length, ended in zip(lengths[actor], ends[actor]):
            observation = (rng.random([length + 1, *shape]) < 0.5).astype(np.float32)
            action, reward = rng.integers(3, size=length), rng.normal(size=length)
            recorded.append({"observation": observation, "action": action,
                             "reward": reward.astype(np.float32), "terminated": ended})  # fmt: skip
            for t in range(length + 1):
                last = t == length
                rows.append((observation[t], 0 if last else action[t], 0.0 if last else reward[t],
                             0.0 if ended and t >= length - 1 else 1.0, last))  # fmt: skip
        columns.append(rows)
    count = min(map(len, columns))
    assert all(len(rows) == count for rows in columns)
    parts = [np.array([[rows[t][i] for rows in columns] for t in range(count)]) for i in range(5)]
    packed = bits.pack(jnp.asarray(parts[0]), 2)
    improved = Improvement(
        policy=jnp.asarray(rng.dirichlet(np.ones(3), [count, actors])),
        value=jnp.asarray(rng.normal(size=[count, actors])),
        action_values=jnp.zeros([count, actors, 3]),
    )
    ticks = replay.Tick(
        packed, jnp.asarray(parts[1], jnp.int32), jnp.asarray(parts[2], jnp.float32),
        jnp.asarray(parts[3], jnp.float32), jnp.asarray(parts[4], bool), improved,
    )  # fmt: skip
    dataset = datasets.from_episodes(recorded, {"environment": "made up", "num_actions": 3})
    return ticks, dataset, shape


def add_all(source, ticks):
    state = source.init(jax.tree.map(lambda x: jnp.zeros_like(x[0]), ticks))
    return jax.lax.scan(lambda s, tick: (source.add(s, tick), None), state, ticks)[0]


def test_windows_of_ticks_equal_the_datasets():
    ticks, dataset, shape = episodes_of_ticks([[7, 4, 2, 9]], [[True, False, True, True]], 1)
    store = windows.store(dataset)
    start = jnp.asarray(np.flatnonzero(~dataset.is_last))
    start = start[start + LENGTH <= len(dataset.action)]
    wanted = windows.at(store, start, LENGTH)
    rows = start + jnp.arange(LENGTH)[:, None]
    got = replay.window_of(jax.tree.map(lambda x: x[rows, 0], ticks), shape, improved=True)
    for name in ("observation", "action", "reward", "discount", "real", "known"):
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name), name)
    inside = np.asarray(wanted.known & wanted.real)
    values = np.asarray(ticks.improved.value)[np.asarray(rows), 0]
    np.testing.assert_array_equal(np.asarray(got.improved.value)[inside], values[inside])


def test_the_ring_draws_whole_windows_of_the_last_ticks_only():
    ticks, _, shape = episodes_of_ticks([[6, 5, 7, 5], [3, 8, 5, 7]], [[True] * 4] * 2, 2)
    count = len(ticks.action)
    source = replay.Recent(2 * 12, 2, LENGTH, shape)
    state = add_all(source, ticks)
    wanted = np.zeros([12, 2])
    for age in range(LENGTH - 1, 12):
        row = count - 1 - age
        wanted[row % 12] = ~np.asarray(ticks.is_last[row])
    np.testing.assert_array_equal(state.whole, wanted)
    drawn = source.sample(state, (), jax.random.key(0), 4_000, improved=True)
    # Each start's value tells which row it is; all are drawn about equally often.
    values, counts = np.unique(np.asarray(drawn.improved.value[0]), return_counts=True)
    starts = [(r, a) for r in range(count - 12, count - LENGTH + 1) for a in range(2)
              if not ticks.is_last[r, a]]  # fmt: skip
    expected = np.array([ticks.improved.value[r, a] for r, a in starts])
    np.testing.assert_array_equal(values, np.sort(expected))
    assert counts.min() > 0.7 * counts.mean() and counts.max() < 1.3 * counts.mean()


def test_the_best_episodes_are_kept():
    lengths = [[6, 5, 7, 4], [3, 8, 5, 6]]
    ticks, dataset, shape = episodes_of_ticks(lengths, [[True] * 4] * 2, 2)
    source = replay.Best(3, 8, LENGTH, shape)
    state = add_all(source, ticks)
    best = np.sort(dataset.episode_returns)[-3:]
    np.testing.assert_allclose(np.sort(state.returns), best, rtol=1e-5)
    drawn = source.sample(state, (), jax.random.key(0), 300)
    assert drawn.real[0].all()
    kept = datasets.best(dataset, 3 / 8)
    np.testing.assert_allclose(np.sort(kept.episode_returns), best, rtol=1e-5)
    # Windows as those of the dataset, and every transition about as often; rewards tell which.
    drawn = source.sample(state, (), jax.random.key(1), 4_000)
    steps = np.flatnonzero(~kept.is_last)
    start = np.array([np.flatnonzero(kept.reward == x)[0] for x in np.asarray(drawn.reward[0])])
    wanted = windows.at(windows.store(kept), jnp.asarray(start), LENGTH)
    for name in ("observation", "action", "reward", "discount", "real", "known"):
        np.testing.assert_array_equal(getattr(drawn, name), getattr(wanted, name), name)
    found, counts = np.unique(start, return_counts=True)
    np.testing.assert_array_equal(found, steps)
    assert counts.min() > 0.7 * counts.mean() and counts.max() < 1.3 * counts.mean()


def test_shares_are_whole_windows():
    assert replay.shares({"recent": 1.0, "best": 1.0, "dataset": 2.0}, 7) == {
        "recent": 2, "best": 2, "dataset": 3,
    }  # fmt: skip
    assert replay.shares({"recent": 0.9, "best": 0.0}, 4) == {"recent": 4}
