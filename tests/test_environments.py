"""Environments by name: seeds, noise, endings, and what a wrong name answers."""

import re

import dm_env
import gymnasium
import numpy as np
import pytest
from dm_env import specs
from gymnasium import spaces

from unplugged import environments
from unplugged.model.actions import Discrete, Normal


class Recorder(dm_env.Environment):
    """Never ends; keeps the actions that reach it, and rewards each with itself."""

    def __init__(self, num_actions=4):
        self.actions = []
        self._num_actions = num_actions

    def reset(self):
        return dm_env.restart(np.zeros(2))

    def step(self, action):
        self.actions.append(action)
        return dm_env.transition(float(action), np.full(2, action))

    def observation_spec(self):
        return specs.Array((2,), np.float64)

    def action_spec(self):
        return specs.DiscreteArray(self._num_actions)


class Scripted(gymnasium.Env):
    """Ends as told: steps are (terminated, truncated). Observes its seeded generator."""

    def __init__(self, steps=((False, False),), observation_space=None, action_space=None):
        self.observation_space = observation_space or spaces.Box(0.0, 1.0, (3,), np.float64)
        self.action_space = action_space or spaces.Discrete(2)
        self.seeds = []
        self._steps = steps
        self._time = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self._time = 0
        return self.np_random.random(3), {}

    def step(self, action):
        terminated, truncated = self._steps[self._time]
        self._time += 1
        return self.np_random.random(3), np.float64(action + 0.5), terminated, truncated, {}


def play(environment, seed=0, steps=None):
    """One episode, or its first steps, of a policy that draws from `seed`."""
    rng = np.random.default_rng(seed)
    timesteps = [environment.reset()]
    while not timesteps[-1].last() and len(timesteps) != steps:
        action = int(rng.integers(environment.action_spec().num_values))
        timesteps.append(environment.step(action))
    return timesteps


def observations(timesteps):
    return np.stack([timestep.observation for timestep in timesteps])


@pytest.mark.parametrize(
    ("name", "shape", "num_actions"),
    [("cartpole", (1, 6), 3), ("catch", (10, 5), 3), ("mountain_car", (1, 3), 3)],
)
def test_the_bsuite_environments(name, shape, num_actions):
    assert {"cartpole", "catch", "mountain_car"} < set(environments.BSUITE)
    environment = environments.make("bsuite", name, seed=0)
    assert not isinstance(environment, environments.ActionNoise)
    assert environments.form(environment) == (shape, Discrete(num_actions))
    assert environment.reset().observation.shape == shape


@pytest.mark.parametrize(("name", "length"), [("catch", 9), ("mountain_car", 1_000)])
def test_bsuite_ends_its_episodes_with_a_termination(name, length):
    timesteps = play(environments.make("bsuite", name, seed=0))
    assert len(timesteps) == length + 1
    assert timesteps[-1].discount == 0.0
    assert {timestep.discount for timestep in timesteps[1:-1]} == {1.0}


@pytest.mark.parametrize(
    ("benchmark", "name"),
    [("bsuite", "catch"), ("bsuite", "cartpole"), ("gymnasium", "CartPole-v1")],
)
def test_the_seed_gives_a_stream_of_its_own(benchmark, name):
    def episodes(seed):
        environment = environments.make(benchmark, name, seed=seed)
        return [observations(play(environment, steps=6)) for _ in range(8)]

    first = episodes(3)
    for one, again in zip(first, episodes(3)):
        np.testing.assert_array_equal(one, again)
    assert any((one != other).any() for one, other in zip(first, episodes(4)))
    # The next episode is another one, not the same again.
    assert any((first[0] != later).any() for later in first[1:])


def noise_run(noise, seed, actions):
    recorder = Recorder()
    environment = environments.ActionNoise(recorder, noise, seed)
    environment.reset()
    for action in actions:
        environment.step(action)
    return recorder.actions


def test_action_noise_replaces_its_share_by_uniform_actions():
    number = 20_000
    taken = np.array(noise_run(0.3, 0, [2] * number))
    counts = np.bincount(taken, minlength=4) / number
    # A uniform replacement may be the agent's own action: 0.7 + 0.3 / 4, and 0.3 / 4 each.
    # Four standard deviations are 0.012 and less.
    np.testing.assert_allclose(counts, [0.075, 0.075, 0.775, 0.075], atol=0.013)


def test_action_noise_at_its_ends():
    actions = np.random.default_rng(0).integers(4, size=200).tolist()
    assert noise_run(0.0, 0, actions) == actions
    always = noise_run(1.0, 0, [2] * 200)
    assert set(always) == {0, 1, 2, 3}
    assert always == noise_run(1.0, 0, [1] * 200)  # Nothing of the agent's action is left.


def test_action_noise_has_a_stream_of_its_own():
    assert noise_run(0.5, 1, [2] * 50) == noise_run(0.5, 1, [2] * 50)
    assert noise_run(0.5, 1, [2] * 50) != noise_run(0.5, 2, [2] * 50)


def test_action_noise_hands_on_what_the_environment_says():
    recorder = Recorder()
    environment = environments.ActionNoise(recorder, 1.0, seed=0)
    assert environment.observation_spec() == recorder.observation_spec()
    assert environment.action_spec() == recorder.action_spec()
    assert environment.reset().first()
    step = environment.step(0)
    assert step.reward == recorder.actions[0]
    np.testing.assert_array_equal(step.observation, np.full(2, recorder.actions[0]))


def test_make_adds_the_noise_and_leaves_the_episodes_alone():
    quiet = environments.make("bsuite", "catch", seed=5)
    noisy = environments.make("bsuite", "catch", seed=5, noise=0.5)
    assert isinstance(noisy, environments.ActionNoise)
    assert environments.form(noisy) == environments.form(quiet)
    differ = 0
    for _ in range(10):  # The ball's first column comes from the episodes' stream.
        one, other = observations(play(quiet)), observations(play(noisy))
        np.testing.assert_array_equal(one[0], other[0])
        differ += (one != other).any()
    assert differ  # The same actions were asked for: the noise moved the paddle.


@pytest.mark.parametrize(
    ("terminated", "truncated", "last", "discount"),
    [
        (False, False, False, 1.0),
        (True, False, True, 0.0),
        (False, True, True, 1.0),
        (True, True, True, 0.0),
    ],
)
def test_gymnasium_endings(terminated, truncated, last, discount):
    environment = environments.FromGymnasium(
        Scripted(steps=((False, False), (terminated, truncated))), seed=0
    )
    first = environment.reset()
    assert first.first() and first.reward is None and first.discount is None
    middle, step = environment.step(0), environment.step(1)
    assert middle.mid() and (middle.reward, middle.discount) == (0.5, 1.0)
    assert step.last() == last
    assert (step.reward, step.discount) == (1.5, discount)


def test_a_time_limit_of_gymnasium_is_a_truncation():
    raw = gymnasium.make("CartPole-v1", max_episode_steps=5)
    timesteps = play(environments.FromGymnasium(raw, seed=0))
    assert len(timesteps) == 6
    assert timesteps[-1].last() and timesteps[-1].discount == 1.0


def test_closing_reaches_the_gymnasium_environment():
    raw = Scripted()
    closed = []
    raw.close = lambda: closed.append(raw)
    noisy = environments.ActionNoise(environments.FromGymnasium(raw, seed=0), 0.1, seed=0)
    noisy.close()
    assert closed == [raw]


def test_a_fallen_pole_of_gymnasium_is_a_termination():
    timesteps = play(environments.make("gymnasium", "CartPole-v1", seed=0))
    assert 9 <= len(timesteps) < 501
    assert timesteps[-1].last() and timesteps[-1].discount == 0.0
    assert sum(timestep.reward for timestep in timesteps[1:]) == len(timesteps) - 1


def test_gymnasium_observations_are_float32_of_the_spec():
    environment = environments.FromGymnasium(Scripted(), seed=0)
    spec = environment.observation_spec()
    for timestep in (environment.reset(), environment.step(np.int32(1))):
        assert timestep.observation.dtype == np.float32
        spec.validate(timestep.observation)
    assert environments.form(environment) == ((3,), Discrete(2))


def test_gymnasium_is_seeded_once():
    raw = Scripted()
    environment = environments.FromGymnasium(raw, seed=11)
    starts = [environment.reset().observation for _ in range(3)]
    assert raw.seeds == [11, None, None]
    expected = np.random.Generator(np.random.PCG64(11)).random((3, 3), np.float64)
    np.testing.assert_array_equal(starts, expected.astype(np.float32))


@pytest.mark.parametrize(
    "action_space", [spaces.Discrete(2, start=1), spaces.MultiDiscrete([2, 2])]
)
def test_other_actions_of_gymnasium_are_refused(action_space):
    message = f"actions must be Discrete from 0 or a Box, got {re.escape(str(action_space))}"
    with pytest.raises(ValueError, match=message):
        environments.FromGymnasium(Scripted(action_space=action_space), seed=0)


@pytest.mark.parametrize(
    "observation_space", [spaces.Discrete(5), spaces.Dict(a=spaces.Discrete(2))]
)
def test_other_observations_of_gymnasium_are_refused(observation_space):
    with pytest.raises(ValueError, match="observations must be a Box, got "):
        environments.FromGymnasium(Scripted(observation_space=observation_space), seed=0)


def test_actions_of_a_box_are_rescaled_to_its_bounds():
    low, high = np.array([[-2.0, 0.0]]), np.array([[2.0, 1.0]])
    raw = Scripted(action_space=spaces.Box(low, high, dtype=np.float64))
    taken = []
    raw.step = lambda action: (
        taken.append(action) or (raw.np_random.random(3), 0.0, *[False] * 2, {})
    )
    environment = environments.FromGymnasium(raw, seed=0)
    assert environments.form(environment) == ((3,), Normal(2))
    environment.reset()
    for action in ([-1.0, -1.0], [1.0, 1.0], [0.5, 0.0]):
        environment.step(np.array(action, np.float32))
    assert [action.tolist() for action in taken] == [[[-2, 0]], [[2, 1]], [[1, 0.5]]]
    back = environments.unscaled(np.stack(taken), raw.action_space)
    np.testing.assert_array_equal(back, [[-1, -1], [1, 1], [0.5, 0]])


@pytest.mark.parametrize(
    "space", [spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(0, 255, (2,), np.uint8)]
)
def test_a_box_without_bounds_has_the_advised_way(space):
    with pytest.raises(
        ValueError, match=r"must be floats with finite bounds, got Box.*TransformAct"
    ):
        environments.FromGymnasium(Scripted(action_space=space), seed=0)
    bounded = gymnasium.wrappers.TransformAction(
        Scripted(action_space=space), lambda action: action, spaces.Box(-1.0, 1.0, (2,))
    )
    assert environments.form(environments.FromGymnasium(bounded, 0)) == ((3,), Normal(2))


def test_noise_on_continuous_actions_is_uniform_within_the_bounds():
    environment = environments.make("gymnasium", "Pendulum-v1", seed=0, noise=1.0)
    spec, rng = environment.action_spec(), np.random.default_rng(0)
    drawn = np.concatenate([environments.uniform(spec, rng) for _ in range(2_000)])
    assert drawn.dtype == np.float32 and -1.0 <= drawn.min() < -0.99 < 0.99 < drawn.max() <= 1.0
    assert abs(drawn.mean()) < 0.05
    quiet = environments.make("gymnasium", "Pendulum-v1", seed=0)
    one, other = ([e.reset(), e.step(np.zeros(1))][1] for e in (environment, quiet))
    assert (one.observation != other.observation).any()  # Something else was done.


@pytest.mark.parametrize(
    ("benchmark", "name", "message"),
    [
        ("bsuit", "catch", r"unknown benchmark 'bsuit': did you mean 'bsuite'\?"),
        ("zzz", "Pong", r"unknown benchmark 'zzz': Valid: atari, bsuite, control, gymnasium"),
        ("bsuite", "cach", r"unknown bsuite environment 'cach': did you mean 'catch'\?"),
        ("bsuite", "mountaincar", r"did you mean 'mountain_car'\?"),
        (
            "bsuite",
            "CartPole-v1",
            r"did you mean 'cartpole'\? Valid: cartpole, catch, ",
        ),
        (
            "gymnasium",
            "CartPole-v9",
            r"unknown gymnasium environment 'CartPole-v9': did you mean 'C",
        ),
        ("gymnasium", "Cartpol-v1", r"did you mean .*'CartPole-v1'"),
        ("gymnasium", "zzzzzzzz", r"environment 'zzzzzzzz': see gymnasium\.registry"),
    ],
)
def test_an_unknown_name_answers_with_the_nearest(benchmark, name, message):
    with pytest.raises(ValueError, match=message):
        environments.make(benchmark, name, seed=0)


@pytest.mark.parametrize("noise", [-0.1, 1.5, float("nan"), "a lot", True])
def test_noise_out_of_range_is_refused(noise):
    with pytest.raises(ValueError, match="noise must "):
        environments.make("bsuite", "catch", seed=0, noise=noise)
