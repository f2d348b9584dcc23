"""What an agent saw in an episode, as pictures and as an animated GIF."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from unplugged import runs
from unplugged.common import checks, files
from unplugged.envs import environments
from unplugged.runs import evaluation

FRAMES = 32  # Pixels a side from which the last axis holds a stack of grey frames, not planes.
SIDE = 168  # Least pixels a side of what is saved.
CELL = 96  # Least pixels a side of each of several episodes.


class Seen(NamedTuple):
    """A step of an episode.

    Attributes:
      observation: what the agent saw. Shape [...].
      reward: what the step to here brought; 0 at the first.
    """

    observation: np.ndarray
    reward: float


def picture(observation: np.ndarray) -> np.ndarray:
    """An observation as an image, [height, width, 3] uint8.

    Args:
      observation: a board [height, width]; planes of bits [height, width, C], of which the last
        one that is set gives the colour; or, from `FRAMES` pixels a side on, a stack of C grey
        frames, of which the last is shown. Grey is in [0, 1], or in [0, 255] as uint8.

    Raises:
      ValueError: if it is of another shape.
    """
    x = np.asarray(observation)
    if x.ndim not in (2, 3):
        raise ValueError(f"an observation of shape {list(x.shape)} is no image: it has no picture")
    if x.ndim == 3 and min(x.shape[:2]) < FRAMES:
        colours = colormaps["tab10"](np.arange(x.shape[2]) % 10)[:, :3]
        top = x.shape[2] - 1 - np.argmax(x[..., ::-1] > 0, axis=-1)
        image = np.where(np.any(x > 0, axis=-1, keepdims=True), colours[top], 0.0)
    else:
        grey = x if x.ndim == 2 else x[..., -1]
        grey = grey / 255.0 if grey.dtype == np.uint8 else grey
        image = np.repeat(np.clip(grey, 0.0, 1.0)[..., None], 3, axis=-1)
    return np.round(255 * image).astype(np.uint8)


def episode(
    spec: runs.Spec, learner: Any, params: Any, *, seed: int = 0, greedy: bool = False
) -> Iterator[Seen]:
    """Plays one episode of a run's environment by its own selector, a step at a time.

    Args:
      spec: the run.
      learner: its learner, see `runs.restore`.
      params: the parameters that act.
      seed: randomness of episode and agent.
      greedy: whether the most probable action is taken, instead of drawn.

    Raises:
      ValueError: if the run's benchmark has no environment.
    """
    benchmark = spec.of_benchmark
    if benchmark.game is None and spec.benchmark not in environments.MAKERS:
        raise ValueError(f"benchmark {spec.benchmark!r} has no environment to watch an agent in")
    policy = evaluation.make_policy(learner.model, spec.acts_by, spec.settings, greedy=greedy)
    key = jax.random.key(seed)

    def act(observation: np.ndarray, number: int) -> Any:
        x = np.asarray(observation, np.float32)[None]
        return np.asarray(policy(params, x, jax.random.fold_in(key, number)))[0]

    if benchmark.game is None:
        world = environments.make(spec.benchmark, spec.environment, seed=seed)
        try:
            step, number = world.reset(), 0
            yield Seen(step.observation, 0.0)
            while not step.last():
                step = world.step(evaluation.playable(act(step.observation, number)))
                number += 1
                yield Seen(step.observation, float(step.reward))
        finally:
            world.close()
        return
    game = benchmark.game(spec.environment)
    reset_key, step_key = jax.random.split(jax.random.split(key)[1])
    state, observation = jax.jit(game.reset)(reset_key)
    yield Seen(np.asarray(observation), 0.0)
    move = jax.jit(game.step)
    for number in range(game.max_steps):
        state, now = move(state, act(observation, number), jax.random.fold_in(step_key, number))
        observation = now.observation
        yield Seen(np.asarray(observation), float(now.reward))
        if now.last:
            return


def _enlarged(image: np.ndarray, least: int) -> np.ndarray:
    """An image enlarged by a whole number to at least so many pixels a side."""
    factor = -(-least // min(image.shape[:2]))
    return np.kron(image, np.ones((factor, factor, 1), np.uint8))


def _titled(image: np.ndarray, label: str) -> np.ndarray:
    """An image with a white border and a line of text above it."""
    font, border, line = ImageFont.load_default(11), 4, 16
    height, width = image.shape[:2]
    sheet = Image.new("RGB", (width + 2 * border, height + line + border), "white")
    ImageDraw.Draw(sheet).text((border, 1), label, fill="black", font=font)
    sheet.paste(Image.fromarray(image), (border, line))
    return np.asarray(sheet)


def beside(
    episodes: Sequence[Sequence[tuple[np.ndarray, str]]], columns: int
) -> Iterator[np.ndarray]:
    """Several episodes at once, row by row; one that is over keeps its last picture, dimmed.

    Args:
      episodes: pictures of one size, [height, width, 3] uint8, each with the text above it.
      columns: episodes in a row.

    Yields:
      The picture of each step of the longest episode, [height', width', 3] uint8.

    Raises:
      ValueError: if there are no episodes, or one has no pictures.
    """
    if not episodes or not all(map(len, episodes)):
        raise ValueError("there are no pictures")
    checks.within("columns", columns, 1, integer=True)
    for step in range(max(map(len, episodes))):
        cells = []
        for episode in episodes:
            image, label = episode[min(step, len(episode) - 1)]
            dimmed = image if step < len(episode) else image // 3
            cells.append(_titled(_enlarged(dimmed, CELL), label))
        cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
        rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
        yield np.concatenate([np.concatenate(row, axis=1) for row in rows])


def save(pictures: Sequence[np.ndarray], path: str | os.PathLike[str], *, fps: float = 15) -> Path:
    """Writes an animated GIF, enlarged by a whole number to at least `SIDE` pixels a side.

    Args:
      pictures: images of one size, [height, width, 3] uint8.
      path: ends in .gif.
      fps: pictures a second; a GIF has steps of a hundredth of a second.

    Raises:
      ValueError: if there are no pictures, or the path ends otherwise.
    """
    path = files.expanded(path)
    if path.suffix != ".gif":
        raise ValueError(f"a video is written as .gif, not as {path.name}")
    checks.within("fps", fps, 1, 100)
    if not len(pictures):
        raise ValueError("there are no pictures")
    large = [Image.fromarray(_enlarged(x, SIDE)) for x in pictures]
    buffer = io.BytesIO()
    large[0].save(
        buffer, "GIF", save_all=True, append_images=large[1:], duration=round(1000 / fps), loop=0
    )
    files.write_whole(path, buffer.getvalue())
    return path
