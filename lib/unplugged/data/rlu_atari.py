"""RL Unplugged's episodes of Atari (Gulcehre et al., 2020), from files on disk.

They are `atari_episodes_ordered/{Game}/run_{1..5}-*`: whole episodes in their order, a record each,
a file a checkpoint; or the same in TFDS's form, `{Game}_run_{r}/1.1.0/` with files
`*-checkpoint_{NN}.tfrecord-*`. A row is a frame, which is a PNG of 84 x 84 grey pixels, an action,
and a reward. Rewards are clipped, under whatever name. Whether an episode's last row holds a
reward, or its frame alone, the files do not say; its last reward and its return show it
(`last_row`). An episode that reaches the limit of steps is marked as ended, and is cut off.
"""

from __future__ import annotations

import collections
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unplugged.common import checks, files
from unplugged.data import frames, tfrecord
from unplugged.data.datasets import DatasetError
from unplugged.envs import atari

RUNS = (1, 2, 3, 4, 5)
CHECKPOINTS = 50  # of a run, a shard each
FEWER = {"carnival": 49, "gravitar": 49, "star_gunner": 49}
_STEPS = "steps/"  # of names in TFDS's form
_CHECKPOINT = re.compile(r"(?P<prefix>.+-checkpoint_(?P<number>\d+)\.tfrecord)-\d{5}-of-\d{5}")
_VERSION = re.compile(r"\d+\.\d+\.\d+")  # not the folder of a download that was cut off
_CLOSE = 1e-3  # within which a float32 return is a sum of rewards


def source(
    folder: str | os.PathLike[str], game: str, run: int = 1, checkpoints: int | None = None
) -> frames.Source:
    """A game's episodes of one run, of five that were recorded.

    Args:
      folder: where the games' folders lie.
      game: one of `atari.GAMES`.
      run: 1 to 5.
      checkpoints: how many files there are, the first ones; None: as many as their names say.

    Raises:
      FileNotFoundError: if there are no such files.
      DatasetError: if some are missing.
      ValueError: if there is no such game or run.
    """
    name, run = _named(game, run)
    folder = files.expanded(folder)
    try:
        shards = tfrecord.shards(_below(folder, name), f"run_{run}", checkpoints)
    except tfrecord.MissingError as error:
        raise DatasetError(f"{error}, or say how many you have (checkpoints)") from error
    return _source(
        frames.of_game(game, run, "RL Unplugged, atari_episodes_ordered"),
        [[path] for path in shards],
    )


def source_tfds(
    folder: str | os.PathLike[str], game: str, run: int = 1, checkpoints: int | None = None
) -> frames.Source:
    """The same from TFDS's form, `rlu_atari_checkpoints_ordered`; see `source`.

    Where TFDS's own `dataset_info.json` lies beside the files, they must have as many records as
    it says; `checkpoints` is then how many it names, and else how many were published.

    Raises:
      FileNotFoundError: if there are no such files.
      DatasetError: if some are missing.
      ValueError: if there is no such game or run.
    """
    name, run = _named(game, run)
    folder = _below(files.expanded(folder), f"{name}_run_{run}")
    if versions := sorted(path for path in folder.iterdir() if _VERSION.fullmatch(path.name)):
        folder = versions[-1]
    matches = (_CHECKPOINT.fullmatch(path.name) for path in folder.iterdir())
    prefixes = {int(match["number"]): match["prefix"] for match in matches if match}
    if not prefixes:
        raise FileNotFoundError(f"no files ...-checkpoint_NN.tfrecord-NNNNN-of-NNNNN in {folder}")
    lengths = _lengths(folder)
    wanted = checkpoints or len(lengths) or FEWER.get(game, CHECKPOINTS)
    if (there := max(prefixes) + 1) > wanted:
        raise DatasetError(
            f"{folder} has {there} checkpoints, not {wanted}: say {there}, or move others away"
        )
    numbers = range(wanted)
    if missing := [number for number in numbers if number not in prefixes]:
        raise DatasetError(
            f"{folder} lacks {len(missing)} of {len(numbers)} checkpoints, the first {missing[0]}: "
            "get them, or say how many you have (checkpoints)"
        )
    shards = [tfrecord.shards(folder, prefixes[number]) for number in numbers]
    return _source(
        frames.of_game(game, run, "RL Unplugged, rlu_atari_checkpoints_ordered of TFDS"),
        shards,
        {
            path: count
            for number, paths in zip(numbers, shards)
            for path, count in zip(paths, lengths.get(number, []))
        },
    )


def _lengths(folder: Path) -> dict[int, list[int]]:
    """How many records each file of each checkpoint has, by TFDS's own account if it is there."""
    path = folder / "dataset_info.json"
    if not path.is_file():
        return {}
    try:
        splits = json.loads(path.read_text())["splits"]
        return {
            int(split["name"].removeprefix("checkpoint_")): [
                int(n) for n in split.get("shardLengths", [])
            ]
            for split in splits
            if split["name"].startswith("checkpoint_")
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} is damaged ({error}); get the file again") from error


def _named(game: str, run: int) -> tuple[str, int]:
    """The game's name in folders, and the run; raises ValueError if there is none such."""
    return atari.folder_name(game), checks.within("run", run, RUNS[0], RUNS[-1], integer=True)


def _below(folder: Path, name: str) -> Path:
    """The folder of that name, or the one in it."""
    if folder.name == name and folder.is_dir():
        return folder
    if (folder / name).is_dir():
        return folder / name
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    there = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    shown = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
    raise FileNotFoundError(f"there is no folder {name} in {folder}; it has {shown or 'none'}")


def _source(
    facts: dict[str, Any],
    shards: Sequence[Sequence[Path]],
    lengths: Mapping[Path, int] | None = None,
) -> frames.Source:
    def episodes(shard: int, share: float) -> Iterator[frames.Episode]:
        return _episodes(shards[shard], shard, share, lengths or {})

    return frames.Source(facts, [paths[0].name for paths in shards], episodes)


def _episodes(
    paths: Sequence[Path], shard: int, share: float, lengths: Mapping[Path, int]
) -> Iterator[frames.Episode]:
    """The first episodes of each checkpoint in some files, all records of which are looked at."""
    counts = collections.Counter[int]()
    if share < 1.0:
        counts.update(_checkpoint(steps, shard) for _, steps in _records(paths, lengths))
    seen = collections.Counter[int]()
    for where, steps in _records(paths, lengths):
        checkpoint = _checkpoint(steps, shard)
        number, seen[checkpoint] = seen[checkpoint], seen[checkpoint] + 1
        if share == 1.0 or number < frames.first(counts[checkpoint], share):
            try:
                yield _episode(steps, checkpoint, number)
            except DatasetError as error:
                raise DatasetError(f"{where}: {error}") from error


def _records(
    paths: Iterable[Path], lengths: Mapping[Path, int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each record stands, and its features; raises if a file has another number of them."""
    for path in paths:
        if not path.stat().st_size:
            raise DatasetError(f"{path}: it is empty; get the file again")
        count = 0
        for number, record in enumerate(tfrecord.records(path)):
            where = f"{path}: record {number}"
            try:
                features = tfrecord.example(record)
            except DatasetError as error:
                raise DatasetError(f"{where}: {error}") from error
            yield where, features
            count = number + 1
        if count != lengths.get(path, count):
            raise DatasetError(
                f"{path} has {count} records, and dataset_info.json says {lengths[path]}; get the "
                "file again"
            )


def _checkpoint(features: dict[str, Any], shard: int) -> int:
    """The checkpoint of an episode; files that do not say have one each."""
    for name in ("checkpoint_idx", "checkpoint_id"):
        if name in features and len(features[name]):
            return int(features[name][0])
    return shard


def _episode(features: dict[str, Any], checkpoint: int, number: int) -> frames.Episode:
    """An episode of either form."""
    if "o_t" in features:
        raise DatasetError(
            "is a shuffled transition, not an episode: take the folder atari_episodes_ordered"
        )
    tfds = any(name.startswith(_STEPS) for name in features)
    if tfds:
        of = {name.removeprefix(_STEPS): values for name, values in features.items()}
        names = ("observation", "action", "reward", "is_terminal")
    else:
        of = features
        names = ("observations", "actions", "clipped_rewards", "discounts")
    if missing := [name for name in names if name not in of]:
        raise DatasetError(f"lacks {', '.join(missing)}; it has {', '.join(sorted(of))}")
    images, action, reward, end = (of[name] for name in names)
    if not len(images) == len(action) == len(reward) == len(end) or not len(images):
        raise DatasetError(
            f"has {len(images)} observations, {len(action)} actions, {len(reward)} rewards and "
            f"{len(end)} {names[3]}"
        )
    ended = bool(end[-1]) if tfds else bool(end[-1] == 0.0)
    terminated = ended and len(reward) < atari.LENGTH
    reward = np.asarray(reward, np.float32)
    if np.abs(reward).max() > 1.0:
        raise DatasetError(f"has a reward {np.abs(reward).max():g}, and clipped ones are within 1")
    pixels = [_pixels(png, i) for i, png in enumerate(images)]
    if len(sizes := {image.shape for image in pixels}) > 1:
        shown = " and ".join(" x ".join(map(str, size)) for size in sorted(sizes))
        raise DatasetError(f"has frames of {shown}, expected one size")
    return frames.Episode(
        frames=np.stack(pixels),
        action=np.asarray(action),
        reward=reward,
        terminated=terminated,
        checkpoint=checkpoint,
        number=number,
        last=_last_row(of, reward) if terminated else None,
    )


def _last_row(features: Mapping[str, Any], reward: np.ndarray) -> str | None:
    """`last_row` by the episode's clipped return, or by its return, if that is of such rewards."""
    for name in ("clipped_episode_return", "episode_return"):
        if len(features.get(name, ())):
            last = last_row(reward, float(features[name][0]))
            if last != frames.UNCLEAR or name == "clipped_episode_return":
                return last
    return last_row(reward, None)


def last_row(reward: np.ndarray, claimed: float | None) -> str | None:
    """What the last row of an episode is, as its rewards and return show it.

    Args:
      reward: [T], of every row.
      claimed: the episode's return; None: it is not known.

    Returns:
      `frames.TRANSITION` if the last reward, not 0, is part of the return, or the return is not
      known; `frames.FRAME` if it is not part of it; `frames.UNCLEAR` if the return is neither sum;
      None if the last reward is 0.
    """
    total = float(reward.sum(dtype=np.float64))
    if claimed is None or abs(claimed - total) < _CLOSE:
        return None if reward[-1] == 0.0 else frames.TRANSITION
    without = abs(claimed - total + float(reward[-1])) < _CLOSE
    return frames.FRAME if without else frames.UNCLEAR


def _pixels(png: bytes, step: int) -> np.ndarray:
    """A frame [H, W] uint8 of a PNG."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.mode != "L":
                raise DatasetError(f"frame {step} is of mode {image.mode}, expected grey (L)")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"frame {step} is no PNG, or a damaged one ({error})") from error
