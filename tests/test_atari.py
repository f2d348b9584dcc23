"""Atari's protocol: pixel for pixel a plain loop over the emulator, where that is installed."""

import importlib
import importlib.util
from pathlib import Path

import dm_env
import numpy as np
import pandas as pd
import pytest

from unplugged import atari, environments, settings
from unplugged.runs import benchmarks, evaluation

PUBLISHED = Path(__file__).parents[1] / "results" / "published"
emulated = pytest.mark.skipif(
    importlib.util.find_spec("ale_py") is None, reason="needs ale-py, which is an extra"
)


def plain_loop(name, seed, actions):
    """Frames [T + 1, 84, 84] uint8 and rewards [T], from the emulator alone."""
    import ale_py

    ale = ale_py.ALEInterface()
    ale.setLoggerMode(ale_py.LoggerMode.Error)
    ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", 0.25)
    ale.loadROM(ale_py.roms.get_rom_path(name))
    ale.reset_game()
    own = ale.getMinimalActionSet()
    screens, rewards = [ale.getScreenGrayscale()], []
    for action in actions:
        seen, total = [], 0.0
        for _ in range(4):
            total += ale.act(own[action])
            seen.append(ale.getScreenGrayscale())
        assert not ale.game_over()
        screens.append(np.maximum(seen[2], seen[3]))
        rewards.append(total)
    return np.stack([area(screen) for screen in screens]), np.array(rewards)


def area(screen):
    """84 x 84 means by whole numbers, for screens whose means are no halves."""
    height, width = screen.shape

    def overlap(length):  # in 1 / 84 of a pixel
        pixel, cell = np.arange(length) * 84, np.arange(84)[:, None] * length
        return np.maximum(np.minimum(pixel + 84, cell + length) - np.maximum(pixel, cell), 0)

    return overlap(height) @ screen.astype(np.int64) @ overlap(width).T / (height * width)


@emulated
@pytest.mark.parametrize("name", ["pong", "pooyan"])  # of 210 and of 220 rows
def test_it_is_a_plain_loop_over_the_emulator(name):
    actions = np.random.default_rng(0).integers(6, size=60)
    means, rewards = plain_loop(name, 7, actions)
    world = atari.Atari(name, 7)
    steps = [world.reset(), *(world.step(int(action)) for action in actions)]
    seen = np.stack([step.observation for step in steps])
    np.testing.assert_array_equal(seen[0], np.repeat(seen[0][..., :1], 4, axis=-1))
    for back in range(1, 4):  # Stacks are the frames before.
        np.testing.assert_array_equal(seen[back:, ..., 3 - back], seen[:-back, ..., 3])
    pixels = seen[..., 3] / atari.SCALE
    assert np.abs(pixels - np.rint(pixels)).max() < 1e-3
    halves = np.isclose(means % 1.0, 0.5, atol=1e-9)
    np.testing.assert_array_equal(np.rint(pixels)[~halves], np.rint(means)[~halves])
    assert np.abs(pixels - means).max() < 0.51
    np.testing.assert_array_equal([step.reward for step in steps[1:]], rewards)


@emulated
def test_frames_are_those_of_opencv_which_ale_py_has_in_it(monkeypatch):
    import ale_py

    vector = ale_py.AtariVectorEnv(
        "breakout", 1, repeat_action_probability=0.0, noop_max=0, use_fire_reset=False,
        reward_clipping=False, num_threads=1,
    )  # fmt: skip
    monkeypatch.setattr(atari.Atari, "sticky", 0.0)
    world = atari.Atari("breakout", 3)
    theirs, _ = vector.reset(seed=3)
    ours = world.reset()
    for action in [1, *np.random.default_rng(0).integers(4, size=50)]:
        np.testing.assert_array_equal(np.rint(ours.observation[..., 3] * 255), theirs[0, 3])
        theirs, reward, *_ = vector.step(np.array([action]))
        ours = world.step(int(action))
        assert ours.reward == reward[0]


@emulated
def test_a_life_ends_nothing_and_the_limit_is_a_truncation(monkeypatch):
    monkeypatch.setattr(atari.Atari, "length", 300)
    world = atari.Atari("breakout", 0)
    step, lives, steps = world.reset(), set(), 0
    while not step.last():
        step, steps = world.step(1 + steps % 3), steps + 1
        lives.add(world._ale.lives())
    assert len(lives) > 1
    if steps == 300:
        assert step.discount == 1.0
    else:
        assert step.discount == 0.0 and world._ale.lives() == 0
    monkeypatch.setattr(atari.Atari, "length", 5)
    world = atari.Atari("breakout", 0)
    steps = [world.reset(), *(world.step(0) for _ in range(5))]
    assert [step.step_type for step in steps[-2:]] == [dm_env.StepType.MID, dm_env.StepType.LAST]
    assert steps[-1].discount == 1.0


@emulated
def test_episodes_are_a_stream_of_their_seed():
    def play(seed):
        world = environments.make("atari", "pong", seed=seed)
        world.reset()
        return np.stack([world.step(2 + i % 2).observation for i in range(30)])

    np.testing.assert_array_equal(play(0), play(0))
    assert (play(0) != play(1)).any()


@emulated
@pytest.mark.slow
def test_actions_are_the_minimal_sets():
    sizes = {name: atari.Atari(name, 0).action_spec().num_values for name in atari.GAMES}
    assert sizes == atari.GAMES


@emulated
def test_episodes_are_played_in_lock_step(monkeypatch):
    monkeypatch.setattr(atari.Atari, "length", 3)

    def policy(params, observation, key):
        assert observation.shape == (2, 84, 84, 4) and observation.max() <= 1.0
        return np.zeros(2, np.int32)

    row = benchmarks.get("atari")
    assert row.form("pong")[0] == (84, 84, 4) and row.form("pong")[1].num_actions == 6
    play = row.evaluator("pong", policy, 2)
    assert isinstance(play, evaluation.LockStep)
    np.testing.assert_array_equal(play({}, 0, 0), [0.0, 0.0])


def test_games_are_those_of_the_published_scores():
    scores = pd.read_csv(PUBLISHED / "atari46_rl_unplugged_scores.csv")
    assert list(atari.GAMES) == scores["game"].tolist()
    assert atari.folder_name("up_n_down") == "UpNDown"
    with pytest.raises(ValueError, match="unknown Atari game 'ms_packman': did you mean 'ms_pac"):
        benchmarks.get("atari").check("ms_packman")


def test_it_says_which_extra_is_missing(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"needs ale-py .*: pip install -e '.\[atari\]'"):
        environments.make("atari", "pong", seed=0)


def test_the_preset_is_the_papers_table_3():
    preset = settings.ATARI
    assert (preset.num_bins, preset.batch_size, preset.td_steps) == (601, 512, 5)
    assert (preset.unroll_steps, preset.num_simulations, preset.target_interval) == (5, 20, 200)
    assert (preset.discount, preset.learning_rate) == (0.997**4, 7e-4)
    assert (len(preset.representation), len(preset.dynamics), preset.prediction) == (
        6,
        2,
        (128, 128),
    )
