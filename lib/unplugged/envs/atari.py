"""Atari games at the papers' protocol (Machado et al., 2018), by name, through ale-py.

An action is repeated for 4 frames of the emulator, and in each frame it is the one before with
probability 0.25 (sticky). An observation is the last 4 of the frames that are seen, an action's
pixelwise larger of its last two, grey, 84 x 84, float32 in [0, 1], the newest last; before an
episode's start its first frame stands. Nothing else is done to the game: losing a life ends
nothing, nothing is pressed before the agent acts, rewards are as the game gives them, actions are
the game's minimal set. An episode is cut off after 27,000 steps.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from unplugged.common import checks

# RL Unplugged's 46 games, each with the size of its minimal set of actions.
GAMES = {
    "alien": 18, "amidar": 10, "assault": 7, "asterix": 9, "atlantis": 4, "bank_heist": 18,
    "battle_zone": 18, "beam_rider": 9, "boxing": 18, "breakout": 4, "carnival": 6,
    "centipede": 18, "chopper_command": 18, "crazy_climber": 9, "demon_attack": 6,
    "double_dunk": 18, "enduro": 9, "fishing_derby": 18, "freeway": 3, "frostbite": 18,
    "gopher": 8, "gravitar": 18, "hero": 18, "ice_hockey": 18, "jamesbond": 18, "kangaroo": 18,
    "krull": 18, "kung_fu_master": 14, "ms_pacman": 9, "name_this_game": 6, "phoenix": 8,
    "pong": 6, "pooyan": 6, "qbert": 6, "riverraid": 18, "road_runner": 18, "robotank": 18,
    "seaquest": 18, "space_invaders": 6, "star_gunner": 18, "time_pilot": 10, "up_n_down": 6,
    "video_pinball": 9, "wizard_of_wor": 10, "yars_revenge": 18, "zaxxon": 18,
}  # fmt: skip
# Words that stand for several games: those of ROSMO's Table 8, and RL Unplugged's 46.
SETS = {
    "rosmo": (
        "amidar", "asterix", "breakout", "frostbite", "gravitar", "jamesbond", "ms_pacman",
        "phoenix", "pong", "qbert", "riverraid", "seaquest",
    ),
    "all": tuple(GAMES),
}  # fmt: skip
SIZE = 84  # pixels of a side
STACK = 4  # frames of an observation
SCALE = np.float32(1 / 255)  # of a pixel; a product is rounded alike by NumPy and by XLA
LENGTH = 27_000  # steps of an episode, 108,000 frames


def check(name: str) -> str:
    """Returns the name of a game; raises ValueError, naming the nearest, if there is none such."""
    return checks.one_of("Atari game", name, GAMES)


def folder_name(name: str) -> str:
    """A game's name as the public datasets' folders have it: MsPacman of ms_pacman."""
    return "".join(part.capitalize() for part in check(name).split("_"))


def emulator() -> Any:
    """The module `ale_py`; raises ValueError, naming the extra, if it is not installed."""
    try:
        return importlib.import_module("ale_py")
    except ImportError as error:
        raise ValueError(f"atari needs ale-py ({error}): pip install -e '.[atari]'") from error


class Atari(dm_env.Environment):
    """A game; actions 0..A - 1 of its minimal set."""

    sticky = 0.25  # probability, in a frame, that the action before goes on
    skip = 4  # frames of an action
    length = LENGTH
    size = SIZE
    stack = STACK

    def __init__(self, name: str, seed: int):
        check(name)
        ale_py = emulator()
        self._ale = ale_py.ALEInterface()
        self._ale.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale.setInt("random_seed", seed & 0x7FFFFFFF)
        self._ale.setFloat("repeat_action_probability", self.sticky)
        self._ale.setInt("frame_skip", 1)
        self._ale.setBool("color_averaging", False)
        self._ale.setInt("max_num_frames_per_episode", 0)  # Steps are counted here.
        self._ale.loadROM(ale_py.roms.get_rom_path(name))
        self._actions = self._ale.getMinimalActionSet()
        height, width = self._ale.getScreenDims()
        self._rows, self._columns = self.overlaps(height), self.overlaps(width)
        self._frames = np.zeros([self.size, self.size, self.stack], np.float32)
        self._steps = 0

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        self._ale.reset_game()
        self._steps = 0
        self._frames = np.repeat(self._shown(self._ale.getScreenGrayscale()), self.stack, axis=-1)
        return dm_env.restart(self._frames)

    def step(self, action: int) -> dm_env.TimeStep:
        """One step, 4 frames of the emulator unless the game ends before."""
        reward, screens = 0.0, []
        for frame in range(self.skip):
            reward += self._ale.act(self._actions[action])
            over = self._ale.game_over()
            if over or frame >= self.skip - 2:
                screens.append(self._ale.getScreenGrayscale())
            if over:
                break
        self._steps += 1
        seen = self._shown(np.maximum(screens[0], screens[-1]))
        self._frames = np.concatenate([self._frames[..., 1:], seen], axis=-1)
        if over:
            return dm_env.termination(reward, self._frames)
        if self._steps == self.length:
            return dm_env.truncation(reward, self._frames)
        return dm_env.transition(reward, self._frames)

    def _shown(self, screen: np.ndarray) -> np.ndarray:
        """A grey screen [height, width] as a frame [84, 84, 1] float32."""
        return self.shrunk(screen, self._rows, self._columns)[..., None] * SCALE

    @classmethod
    def overlaps(cls, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Which of `length` pixels each of 84 covers, and how much. Shapes [84, K], K at most 4."""
        scale = length / cls.size
        found = []
        for i in range(cls.size):
            begin, end = i * scale, min((i + 1) * scale, length)
            pixels = range(math.floor(begin), math.ceil(end))
            parts = [(j, min(j + 1, end) - max(j, begin)) for j in pixels]
            parts = [(j, part / (end - begin)) for j, part in parts if part > 1e-3]
            found.append(parts + [(parts[-1][0], 0.0)] * (4 - len(parts)))
        of = np.array(found)  # [84, 4, 2]
        used = int((of[..., 1] > 0.0).sum(axis=1).max())
        return of[:, :used, 0].astype(np.int64), of[:, :used, 1].astype(np.float32)

    @staticmethod
    def shrunk(
        screen: np.ndarray,
        rows: tuple[np.ndarray, np.ndarray],
        columns: tuple[np.ndarray, np.ndarray],
    ) -> np.ndarray:
        """A screen uint8 as 84 x 84 uint8: means over areas, in the order of OpenCV's INTER_AREA.

        Args:
          screen: [height, width].
          rows: `overlaps` of its height.
          columns: `overlaps` of its width.
        """
        narrow: Any = np.float32(0.0)
        for index, weight in zip(columns[0].T, columns[1].T):
            narrow = narrow + screen[:, index] * weight
        small: Any = np.float32(0.0)
        for index, weight in zip(rows[0].T, rows[1].T):
            small = small + narrow[index] * weight[:, None]
        return np.rint(small).astype(np.uint8)

    def observation_spec(self) -> specs.BoundedArray:
        """Shape and type of an observation."""
        return specs.BoundedArray((self.size, self.size, self.stack), np.float32, 0.0, 1.0)

    def action_spec(self) -> specs.DiscreteArray:
        """Actions of the game's minimal set."""
        return specs.DiscreteArray(len(self._actions))
