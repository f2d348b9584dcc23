"""Frames that a world model saw, reconstructed and imagined, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

KINDS = ("recorded", "reconstructed", "imagined")
SIZE = 10  # of MinAtar's images


def image(bits: pd.DataFrame, channels: int) -> np.ndarray:
    """A frame in colour [height, width, 3], on white: a colour a channel, mixed by probability.

    Args:
      bits: rows with `row`, `column`, `channel` and `probability`.
      channels: how many there are.
    """
    colors = np.array(sns.color_palette("husl", channels))
    ink = np.zeros([SIZE, SIZE, channels])
    ink[bits["row"], bits["column"], bits["channel"]] = bits["probability"]
    total = ink.sum(axis=-1, keepdims=True)
    strength = ink.max(axis=-1, keepdims=True)
    mixed = (ink @ colors) / np.maximum(total, 1e-9)
    return 1.0 - strength * (1.0 - mixed)


def draw(frames: pd.DataFrame, errors: pd.DataFrame, steps: Sequence[int]) -> Figure:
    """Frames of each game above, errors by steps ahead below.

    Args:
      frames: rows of `unplugged.runs.dreams.frames`.
      errors: rows of `unplugged.runs.dreams.errors`.
      steps: which steps are shown, of those that there are; 0 is the first one imagined.
    """
    games = list(dict.fromkeys(frames["environment"]))
    steps = [step for step in steps if step in set(frames["step"])]
    rows = len(KINDS) * len(games)
    fig = plt.figure(figsize=(1.1 * len(steps), 1.1 * rows + 2.4))
    grid = fig.add_gridspec(rows + 1, len(steps), height_ratios=[1.0] * rows + [2.2], hspace=0.15)
    for number, (game, kind) in enumerate((g, k) for g in games for k in KINDS):
        of = frames[frames["environment"] == game]
        channels = int(of["channel"].max()) + 1
        for column, step in enumerate(steps):
            ax = fig.add_subplot(grid[number, column])
            ax.set(xticks=[], yticks=[])
            if column == 0:
                ax.set_ylabel(f"{game}\n{kind}", fontsize=6)
            if number == 0:
                ax.set_title(f"step {step}", fontsize=7)
            if kind == "imagined" and step < 0:
                ax.spines[:].set_visible(False)  # The row's name stays.
                continue
            ax.imshow(image(of[(of["kind"] == kind) & (of["step"] == step)], channels))
    ax = fig.add_subplot(grid[rows, :])
    for game, color in zip(games, sns.color_palette("colorblind")):
        of = errors[errors["environment"] == game]
        for name, line in (("imagined", "-"), ("repeated", "--")):
            ax.plot(of["ahead"], of[name], line, color=color, label=f"{game}, {name}")
    ax.set(xlabel="steps ahead", ylabel="bits not shared", ylim=(0, None))
    ax.legend(fontsize=7, ncols=len(games))
    return fig
