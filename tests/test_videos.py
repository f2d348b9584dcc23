"""What an agent saw, as pictures and GIFs."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from unplugged import datasets, runs, videos
from unplugged.recording import collect


def test_a_board_is_grey():
    image = videos.picture(np.array([[0.0, 1.0], [0.5, 0.0]], np.float32))
    assert image.shape == (2, 2, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image[..., 0], [[0, 255], [128, 0]])
    assert (image == image[..., :1]).all()


def test_planes_have_a_colour_each_and_the_last_one_lies_on_top():
    planes = np.zeros([1, 4, 3], np.float32)
    planes[0, 0, 0] = planes[0, 1, 2] = planes[0, 2, 0] = planes[0, 2, 2] = 1.0
    row = videos.picture(planes)[0]
    assert (row[3] == 0).all()
    assert (row[1] == row[2]).all() and (row[0] != row[1]).any()


def test_of_a_stack_of_frames_the_last_is_shown():
    frames = np.zeros([84, 84, 4], np.uint8)
    frames[0, 0, 3], frames[1, 1, 2] = 200, 100
    image = videos.picture(frames)
    assert image.shape == (84, 84, 3)
    assert image[0, 0].tolist() == [200] * 3 and image[1, 1].tolist() == [0] * 3
    np.testing.assert_array_equal(videos.picture((frames / 255).astype(np.float32)), image)


def test_a_vector_has_no_picture():
    with pytest.raises(ValueError, match=r"shape \[6\] is no image"):
        videos.picture(np.zeros(6))


def test_a_gif_has_every_picture_enlarged(tmp_path):
    pictures = [np.full([10, 12, 3], 20 * i, np.uint8) for i in range(3)]
    path = videos.save(pictures, tmp_path / "new" / "a.gif", fps=10)
    with Image.open(path) as found:
        assert found.n_frames == 3 and found.size == (12 * 17, 170)
        assert found.info["duration"] == 100
    for wrong, message in ((["a.mp4"], "as .gif, not as a.mp4"), (["a.gif"], "no pictures")):
        with pytest.raises(ValueError, match=message):
            videos.save(pictures if "mp4" in wrong[0] else [], tmp_path / wrong[0])


def test_episodes_stand_beside_each_other_and_the_shorter_one_is_dimmed():
    bright = np.full([10, 10, 3], 240, np.uint8)
    long = [(bright, f"long {i}") for i in range(3)]
    sheets = list(videos.beside([long, long[:1], long], columns=2))
    assert len(sheets) == 3
    (height, width), side = sheets[0].shape[:2], 100  # the least whole multiple of 10 above 96
    assert all(sheet.shape == (height, width, 3) for sheet in sheets)
    middle = [(16 + side // 2, 4 + side // 2 + x) for x in (0, width // 2)]
    assert [[int(sheet[at][0]) for at in middle] for sheet in sheets] == [
        [240, 240], [240, 80], [240, 80],
    ]  # fmt: skip
    assert (sheets[0][height // 2 :, width // 2 :] == 255).all()  # no fourth episode
    labels = [sheet[:14, : width // 2] for sheet in sheets]
    assert (labels[0] < 128).any() and (labels[0] != labels[1]).any()
    for episodes in ([], [long, []]):
        with pytest.raises(ValueError, match="no pictures"):
            next(videos.beside(episodes, columns=1))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    dataset = collect.train_dqn("catch", episodes=20, noise=0.0, seed=0)
    datasets.save(dataset, folder / "catch.npz")
    small = {"representation": [8], "dynamics": [8], "prediction": [8], "batch_size": 8}
    spec = runs.Spec(
        dataset=str(folder / "catch.npz"), environment="catch", method="bc", seeds=[0],
        updates=2, eval_every=2, eval_episodes=2, overrides=small,
    )  # fmt: skip
    runs.train(spec, folder / "run")
    return folder / "run", spec


def test_an_episode_of_catch_is_seen_from_its_first_step_to_its_last(run):
    folder, spec = run
    assert runs.of_folder(folder) == spec
    learner, state = runs.restore(spec, folder, 0)
    seen = list(videos.episode(spec, learner, state.params, seed=3))
    assert len(seen) == 10 and seen[0].reward == 0.0
    assert {step.reward for step in seen[1:-1]} == {0.0} and abs(seen[-1].reward) == 1.0
    assert seen[0].observation[0].sum() == 1.0  # The ball is at the top.
    again = list(videos.episode(spec, learner, state.params, seed=3))
    assert all((a.observation == b.observation).all() for a, b in zip(seen, again))


def test_an_episode_of_a_compiled_game_ends_where_the_game_does(run):
    small = {"representation": [2, 2], "dynamics": [2, 2], "prediction": [4]}
    spec = runs.Spec(
        dataset="none", benchmark="minatar", environment="breakout", method="bc", overrides=small
    )
    learner = spec.learner(*spec.form())
    params = learner.init(0).params
    seen = list(videos.episode(spec, learner, params, seed=0))
    assert 2 < len(seen) < 1000 and seen[0].observation.shape == (10, 10, 4)
    assert all(step.reward in (0.0, 1.0) for step in seen)


def test_a_run_without_environment_cannot_be_watched(run):
    _, spec = run
    spec = dataclasses.replace(spec, benchmark="logged", environment="clinic", holdout=0.2)
    with pytest.raises(ValueError, match="'logged' has no environment to watch"):
        next(videos.episode(spec, None, None))


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no finished run: it has no provenance\.json"):
        runs.of_folder(tmp_path)
