"""MinAtar games, the DQN that records them, and the networks that learn from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import compiled, random_params
from unplugged import bits, datasets, dqn, games, networks
from unplugged.model.actions import Discrete

pytestmark = pytest.mark.slow


def test_a_game_that_is_not_there():
    with pytest.raises(ValueError, match="did you mean 'breakout'"):
        games.make("minatar", "brekout")
    with pytest.raises(ValueError, match="sticky must lie in"):
        games.make("minatar", "breakout", sticky=1.5)


@pytest.mark.parametrize("name", games.MINATAR)
def test_games_have_ten_by_ten_bits(name):
    game = games.make("minatar", name)
    state, observation = game.reset(jax.random.key(0))
    assert observation.shape == game.observation_shape and observation.shape[:2] == (10, 10)
    _, step = jax.jit(game.step)(state, jnp.int32(0), jax.random.key(1))
    for x in (observation, step.observation):
        assert x.dtype == jnp.float32 and set(np.unique(x)) <= {0.0, 1.0}
    assert step.discount == 1.0 and not step.last


def test_sticky_actions_repeat_what_was_executed():
    """In freeway action 1 goes up; with sticky 1 the first action, nothing, stays for ever."""
    for sticky, moves in ((0.0, True), (1.0, False)):
        game = games.make("minatar", "freeway", sticky=sticky)
        step = jax.jit(game.step)
        state, before = game.reset(jax.random.key(0))
        for i in range(4):
            state, after = step(state, jnp.int32(1), jax.random.key(i))
        chicken = [np.argwhere(x[..., 0])[0].tolist() for x in (before, after.observation)]
        assert (chicken[0] != chicken[1]) == moves


def test_the_time_limit_is_no_true_end():
    game = games.make("minatar", "freeway")
    state, _ = game.reset(jax.random.key(0))
    state = (state[0].replace(time=jnp.int32(game.max_steps - 2)), state[1])
    state, step = game.step(state, jnp.int32(0), jax.random.key(0))
    assert not step.last
    state, step = game.step(state, jnp.int32(0), jax.random.key(0))
    assert step.last and step.discount == 1.0


def test_episodes_in_lock_step_equal_a_loop():
    game = games.make("minatar", "breakout")

    def act(observation, key):
        return jax.random.randint(key, [observation.shape[0]], 0, game.num_actions)

    key = jax.random.key(3)
    returns, lengths = jax.jit(lambda key: games.play(game, act, key, 4))(key)
    reset_key, key = jax.random.split(key)
    state, observation = jax.vmap(game.reset)(jax.random.split(reset_key, 4))
    total, steps, over = np.zeros(4), np.zeros(4, int), np.zeros(4, bool)
    time, one_step = 0, jax.jit(jax.vmap(game.step))
    while not over.all():
        act_key, step_key = jax.random.split(jax.random.fold_in(key, time))
        state, step = one_step(state, act(observation, act_key), jax.random.split(step_key, 4))
        observation = step.observation
        total += np.where(over, 0.0, step.reward)
        steps += ~over
        over |= np.asarray(step.last)
        time += 1
    np.testing.assert_array_equal(returns, total)
    np.testing.assert_array_equal(lengths, steps)
    assert len(set(steps)) > 1


def test_whole_episodes_equal_a_loop():
    rng = np.random.default_rng(0)
    T, E = 40, 3
    last = rng.random([T, E]) < 0.2
    recorded = dqn.Recorded(
        observation=rng.integers(0, 256, [T, E, 2], np.uint8),
        action=rng.integers(0, 3, [T, E]).astype(np.int8),
        reward=rng.normal(size=[T, E]).astype(np.float32),
        discount=np.where(last & (rng.random([T, E]) < 0.5), 0.0, 1.0).astype(np.float32),
        last=last,
        following=rng.integers(0, 256, [T, E, 2], np.uint8),
    )
    parts = [dqn.Recorded(*(x[a:b] for x in recorded)) for a, b in ((0, 15), (15, 40))]
    dataset = datasets.Dataset(
        **dqn.whole_episodes(parts), metadata={"num_actions": 3, "packed_shape": [16]}
    )
    datasets.validate(dataset)
    at = 0
    begin = [0] * E
    for t in range(T):
        for e in range(E):
            if not last[t, e]:
                continue
            length = t - begin[e] + 1
            here = slice(at, at + length)
            mine = slice(begin[e], t + 1)
            np.testing.assert_array_equal(dataset.observation[here], recorded.observation[mine, e])
            np.testing.assert_array_equal(
                dataset.observation[at + length], recorded.following[t, e]
            )
            np.testing.assert_array_equal(dataset.action[here], recorded.action[mine, e])
            np.testing.assert_array_equal(dataset.reward[here], recorded.reward[mine, e])
            assert dataset.is_first[at] and dataset.is_last[at + length]
            assert dataset.discount[at + length] == recorded.discount[t, e]
            at += length + 1
            begin[e] = t + 1
    assert at == dataset.num_steps


@pytest.fixture(scope="module")
def recording():
    small = dqn.Settings(
        environments=4, channels=4, hidden=16, batch_size=8, replay=400, learn_after=100
    )
    return dqn.train("breakout", transitions=2_000, seed=1, settings=small)


def test_a_recording_is_a_dataset_of_whole_episodes(recording, tmp_path):
    datasets.validate(recording)
    assert 1_500 < recording.num_transitions <= 2_000
    assert recording.observation_shape == (10, 10, 4) and recording.observation.shape[1] == 50
    first = bits.unpack(jnp.asarray(recording.observation[0]), recording.observation_shape)
    assert first[9, 4, 0] == 1.0  # Every game of breakout begins with the paddle there.
    assert (recording.episode_returns >= 0).all()
    datasets.save(recording, tmp_path / "breakout.npz")
    assert datasets.checksum(datasets.load(tmp_path / "breakout.npz")) == datasets.checksum(
        recording
    )


def test_the_same_seed_records_the_same(recording):
    small = dqn.Settings(**recording.metadata["settings"])
    again = dqn.train("breakout", transitions=2_000, seed=1, settings=small)
    assert datasets.checksum(again) == datasets.checksum(recording)


# --- Networks ------------------------------------------------------------------------------

SIZES = {
    "conv": dict(representation=(6, 5), dynamics=(4, 5), prediction=(7,)),
    "conv_mlp": dict(representation=(6, 4, 8), dynamics=(5, 8), prediction=(7,)),
    "resnet": dict(representation=(4, 4), dynamics=(4,), prediction=(7, 6)),
}


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size", [(10, 9), (40, 38)])
def test_gradients_of_a_convolution_are_autodiffs(size, stride, padding):
    x = jax.random.normal(jax.random.key(0), (7, *size, 6))
    w = jax.random.normal(jax.random.key(1), (3, 3, 6, 5))

    def plain(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def ours(x, w):
        return networks.convolve(x, w, stride, padding)

    np.testing.assert_array_equal(ours(x, w), plain(x, w))
    wanted, got = (
        jax.jit(jax.grad(lambda x, w, f=f: jnp.sum(jnp.sin(f(x, w))), (0, 1)))(x, w)
        for f in (plain, ours)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), got, wanted)


@pytest.mark.parametrize("kind", SIZES)
def test_pixel_networks_unroll_all_actions_as_one_by_one(kind):
    model = compiled(
        networks.NETWORKS[kind](
            observation_shape=(10, 10, 3), actions=Discrete(3), num_bins=5, **SIZES[kind]
        )
    )
    params = random_params(model, 0)
    observation = np.random.default_rng(0).random([2, 4, 10, 10, 3]) < 0.5
    state = model.represent(params, jnp.asarray(observation, jnp.float32))
    assert state.shape[:2] == (2, 4) and state.ndim == 3
    reward, following = model.dynamics(params, state[:, :, None], jnp.arange(3)[None, None])
    policy, value = model.predict(params, following)
    assert reward.shape == value.shape == (2, 4, 3, 5) and policy.shape == (2, 4, 3, 3)
    for a in range(3):
        alone = model.dynamics(params, state, jnp.full([2, 4], a))
        np.testing.assert_allclose(reward[:, :, a], alone[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(following[:, :, a], alone[1], rtol=1e-4, atol=1e-4)


def test_resnet_has_the_papers_shapes_and_parameters():
    """ROSMO, Appendix D.2.1, at Atari size, counted by hand."""
    model = networks.resnet(
        observation_shape=(84, 84, 4), actions=Discrete(18), num_bins=601,
        representation=[64] * 6, dynamics=[64] * 2, prediction=[128] * 2,
    )  # fmt: skip
    params = jax.eval_shape(model.init, jax.random.key(0))
    count = {part: sum(x.size for x in jax.tree.leaves(params[part])) for part in params}

    def conv(inputs, outputs, bias=True):
        return 9 * inputs * outputs + bias * outputs

    def block(channels):
        return 2 * (conv(channels, channels) + 2 * channels)

    norm = 2 * 64  # behind the last block, before the heads

    def head(out):
        return 2304 * 128 + 128 + 128 * 128 + 128 + 128 * out + out

    assert count == {
        "representation": conv(4, 32) + block(32) + conv(32, 64) + 9 * block(64),
        "dynamics": conv(64, 64) + conv(18, 64, bias=False) + 2 * block(64) + norm + head(601),
        "prediction": 2 * block(64) + norm + head(18) + head(601),
    }
    state = jax.eval_shape(model.represent, params, jnp.zeros([2, 84, 84, 4]))
    assert state.shape == (2, 6 * 6 * 64)


def test_pixel_networks_that_do_not_fit_are_refused():
    common = dict(observation_shape=(10, 10, 3), actions=Discrete(3), num_bins=5, prediction=(4,))
    with pytest.raises(ValueError, match="representation ends in 5 channels"):
        networks.conv(representation=(5,), dynamics=(4,), **common)
    with pytest.raises(ValueError, match="equal channels"):
        networks.resnet(representation=(5,), dynamics=(4,), **common)
    with pytest.raises(ValueError, match="representation ends in 8 units"):
        networks.conv_mlp(representation=(4, 8), dynamics=(4,), **common)
    with pytest.raises(ValueError, match=r"no convolution: .* such as \[16, 16, 128\]"):
        networks.conv_mlp(representation=(4,), dynamics=(4,), **common)
    model = networks.resnet(representation=(4,), dynamics=(4,), **common)
    params = model.init(jax.random.key(0))
    with pytest.raises(TypeError, match="must be floating-point numbers, got uint8"):
        model.represent(params, jnp.zeros([1, 10, 10, 3], jnp.uint8))
    flat = {**common, "observation_shape": (10, 5)}
    for make in (networks.conv, networks.conv_mlp, networks.resnet):
        with pytest.raises(ValueError, match=r"shape \[10, 5\] are no images .* \"mlp\""):
            make(representation=(4,), dynamics=(4,), **flat)


def test_random_play_is_that_of_the_uniform_policy():
    returns = dqn.random_returns("asterix", episodes=64, seed=1)
    np.testing.assert_array_equal(returns, dqn.random_returns("asterix", episodes=64, seed=1))
    # Two steps of standard error about what a thousand episodes have in the committed results.
    assert abs(returns.mean() - 0.456) < 2 * returns.std() / 8
