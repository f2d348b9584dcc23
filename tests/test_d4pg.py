"""The recorded D4PG: its targets and loss against NumPy, what it keeps, and a kill."""

import gymnasium
import jax
import numpy as np
import pytest

from unplugged import control, d4pg, datasets, environments, files
from unplugged.runs import benchmarks

SMALL = d4pg.Settings(
    least_episodes=6, hidden=(8, 8), batch_size=4, replay=4, atoms=5, highest=4.0, n_step=3,
    discount=0.5, target_period=3,
)  # fmt: skip


def episode(length=5, discount=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "observation": np.arange(length + 1, dtype=np.float32)[:, None] + 10 * seed,
        "action": rng.uniform(-1, 1, [length, 2]).astype(np.float32),
        "reward": np.array([1, 2, 4, 8, 16], np.float32)[:length],
        "discount": np.asarray(discount, np.float32),
    }


@pytest.mark.parametrize(("discount", "last"), [(1.0, [0.125, 0.25, 0.5]), (0.0, [0, 0, 0])])
def test_targets_of_n_steps_by_hand(discount, last):
    replay = d4pg.Replay(SMALL)
    replay.add(episode(discount=discount))
    steps = jax.tree.map(lambda x: x[0], replay._arrays)
    # 1 + 2/2 + 4/4 and so on; near the end there are fewer, and the last observation bootstraps.
    np.testing.assert_array_equal(steps.reward, [3, 6, 12, 16, 16])
    np.testing.assert_array_equal(steps.discount, [0.125, 0.125, *last])
    np.testing.assert_array_equal(steps.following[:, 0], [3, 4, 5, 5, 5])


def test_replay_is_uniform_over_the_last_episodes():
    replay = d4pg.Replay(SMALL)
    for seed in range(6):
        replay.add(episode(seed=seed))
    batch = replay.sample(np.random.default_rng(0), 500)
    assert batch.action.shape == (500, 4, 2) and batch.reward.shape == (500, 4)
    seen, counts = np.unique(batch.observation, return_counts=True)
    assert seen.tolist() == [10 * e + t for e in (2, 3, 4, 5) for t in range(5)]
    assert 60 < counts.min() and counts.max() < 140  # Of 100 each.


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_the_loss_is_that_of_numpy():
    agent = d4pg.Agent(2, SMALL)
    state = agent.init(0, np.zeros(1, np.float32))
    replay = d4pg.Replay(SMALL)
    replay.add(episode())
    batch = jax.tree.map(lambda x: x[0], replay.sample(np.random.default_rng(0), 1))
    other = agent.init(1, np.zeros(1, np.float32)).params
    policy, critic = jax.jit(agent._policy.apply), jax.jit(agent._critic.apply)
    atoms = np.linspace(0.0, 4.0, 5)
    acting = policy(other["policy"], batch.following)
    following = softmax(np.asarray(critic(other["critic"], batch.following, acting)))
    logits = np.asarray(critic(state.params["critic"], batch.observation, batch.action))
    cross = 0.0
    for i in range(4):
        target = np.zeros(5)
        for p, z in zip(following[i], np.clip(batch.reward[i] + batch.discount[i] * atoms, 0, 4)):
            below = min(int(z), 3)
            target[below] += p * (below + 1 - z)
            target[below + 1] += p * (z - below)
        cross -= (target * np.log(softmax(logits[i]))).sum() / 4
    action = policy(state.params["policy"], batch.observation)
    values = softmax(np.asarray(critic(state.params["critic"], batch.observation, action)))
    expected = cross - (values @ atoms).mean()
    loss_and_gradient = jax.jit(jax.value_and_grad(agent.loss))
    loss, gradient = loss_and_gradient(state.params, other, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    # The policy's part reaches the policy alone: with another one the critic learns the same.
    assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient["policy"]))
    moved = jax.tree.map(lambda x: x + 0.5, state.params["policy"])
    _, again = loss_and_gradient({**state.params, "policy": moved}, other, batch)
    jax.tree.map(np.testing.assert_array_equal, gradient["critic"], again["critic"])


def test_of_high_returns_one_in_three_is_kept():
    returns = np.array([0.0, 1, 2, 60, 50, 100, 49, 70, 80, 90, 55, 3])
    # High, from 50 on: episodes 3, 4, 5, 7, 8, 9 and 10, of which 3, 7 and 10 stay.
    assert d4pg.kept(returns, 8).tolist() == [0, 1, 2, 3, 6, 7, 10, 11]
    assert d4pg.kept(returns, 3).tolist() == [0, 6, 11]
    assert d4pg.kept(np.ones(30), 10).tolist() == list(range(0, 30, 3))
    assert dict(list(d4pg.EPISODES.items())[:2]) == {
        "cartpole.swingup": 40,
        "finger.turn_hard": 500,
    }


def train(folder=None, **changes):
    options = {"episodes": 2, "seed": 3, "settings": SMALL, "partial": folder, **changes}
    return d4pg.train("cartpole.swingup", **options)


@pytest.fixture
def short(suite, monkeypatch):
    """Pendulum's episodes of 40 steps instead, saved two by two."""

    def make(benchmark, name, *, seed):
        raw = gymnasium.make("Pendulum-v1", max_episode_steps=40)
        return environments.FromGymnasium(raw, seed)

    monkeypatch.setattr(d4pg.environments, "make", make)
    monkeypatch.setattr(d4pg, "STRETCH", 2)


def test_cut_off_it_goes_on_to_the_same_bytes(short, monkeypatch, tmp_path):
    datasets.save(train(), tmp_path / "whole.npz")
    write = files.write_whole
    for number in (5, 1, 3):  # Files that are still written before the kill.
        left = iter(range(number))

        def write_or_die(path, content, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            write(path, content)

        monkeypatch.setattr(files, "write_whole", write_or_die)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "partial")
    monkeypatch.setattr(files, "write_whole", write)
    assert (tmp_path / "partial" / "index.json").exists()
    datasets.save(train(tmp_path / "partial"), tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_a_recording_of_a_task(suite):
    settings = d4pg.Settings(least_episodes=3, hidden=(8, 8), batch_size=4)
    dataset = train(episodes=1, settings=settings)
    datasets.validate(dataset)
    world = environments.make("control", "cartpole.swingup", seed=0)
    datasets.check_fits(dataset, *environments.form(world))
    assert dataset.num_transitions == control.LENGTH and (dataset.discount == 1.0).all()
    assert dataset.metadata["episodes_seen"] == 3
    assert 0.25 < dataset.action.std() < 0.35  # Nearly the exploration alone.
    assert benchmarks.dataset_name("control", "cartpole.swingup") == "control_cartpole.swingup"
    columns = list(benchmarks.get("control").recorder.returns(dataset))
    assert columns == ["environment", "episode", "return"]
    (returned,) = d4pg.random_returns("cartpole.swingup", episodes=1, seed=0)
    assert 0.0 <= returned < 200.0


def test_a_recording_that_thins_too_much_is_refused(suite):
    with pytest.raises(ValueError, match="times must lie in"):
        train(settings=d4pg.Settings(times=2))
    with pytest.raises(ValueError, match="episodes must lie in"):
        train(episodes=0)
