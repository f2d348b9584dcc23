"""What a profile may say: one schema, and a file in which nothing is said twice.

A run's own parameters are checked by what takes them, `runs.Spec` and its kin; see
`reproduction.plan`, which puts both together.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pydantic
import yaml
from pydantic import AfterValidator, BeforeValidator, Field

from unplugged.common import checks
from unplugged.envs import atari

RECORDINGS = "recordings"  # within results/: datasets that come with the repository

# Names become files, folders and parts of commands.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,199}")
# Folders of results/ that are no profile's, and what lies beside experiments.
_TAKEN = {
    "profile": ("published", "pilot", "bench", RECORDINGS),
    "experiment": ("datasets", "figures", "times", "claims"),
}
# Ends of names of what is made from experiments and recordings.
_MADE = ("_statistics", "_returns", "_selection", "_selectors", "_times", "_estimates")


# Words that stand for several environments of a benchmark.
_SETS = {"atari": atari.SETS}


def environments(benchmark: Any, named: Sequence[Any]) -> list[Any]:
    """The environments that are named, those that a word stands for among them."""
    words = _SETS.get(benchmark, {}) if isinstance(benchmark, str) else {}
    found = ([*words[one]] if isinstance(one, str) and one in words else [one] for one in named)
    return list(itertools.chain.from_iterable(found))


class ProfileError(ValueError):
    """All that is wrong with a profile.

    Attributes:
      lines: one for each thing that is wrong.
    """

    def __init__(self, lines: Iterable[str]):
        self.lines = list(dict.fromkeys(lines))
        super().__init__("\n".join(self.lines))


def name(kind: str, value: str) -> str:
    """The name if it can be one of a file, a folder and a word of a command.

    Raises:
      ValueError: if it cannot, or if it is taken.
    """
    if not _NAME.fullmatch(value) or ".." in value:
        raise ValueError(
            f"{value!r} is no name for {kind}s: it must begin with a letter or digit, have only "
            "letters, digits, _, +, - and single dots, and at most 200 of them"
        )
    if value in _TAKEN.get(kind, ()) or (kind == "experiment" and value.endswith(_MADE)):
        raise ValueError(f"the name {value!r} is taken; choose another one for this {kind}")
    return value


def label(key: str, value: Any) -> str:
    """A grid value's part of a run's name, such as "mzu", "noise0.1" or "dynamics-32x64x32"."""
    if key in ("environment", "method"):
        return re.sub(r"[^\w.+-]+", "-", str(value))  # Such as ALE/Pong-v5: no folder of its own.
    if isinstance(value, dict):
        return f"{key}-{'-'.join(f'{name}{weight:g}' for name, weight in value.items())}"
    if isinstance(value, (list, tuple)):
        return f"{key}-{'x'.join(map(str, value))}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{key}{value:g}"
    return f"{key}-{str(value).lower()}"


def run_name(values: Mapping[str, Any]) -> str:
    """The name of the run of one combination of a grid's values; more updates or seeds continue it.

    Raises:
      ValueError: if it cannot be the name of a folder.
    """
    named = [label(k, x) for k, x in values.items() if k not in ("updates", "seeds")]
    return name("run", "_".join(named))


def study(experiment: str) -> str:
    """The word that an experiment's name begins with: what is made from it has it too."""
    return experiment.partition("_")[0]


# --- The schema --------------------------------------------------------------------------


def _named(kind: str) -> Any:
    return Annotated[str, AfterValidator(lambda value: name(kind, value))]


def _number(low: float, high: float = math.inf, **options: bool) -> Any:
    def check(value: Any) -> Any:
        return checks.within("it", value, low, high, **options)

    return Annotated[Any, AfterValidator(check)]


def _a_list(of: Any) -> Any:
    """A list that is not empty; one thing alone stands for itself."""
    alone = BeforeValidator(lambda value: value if isinstance(value, (list, tuple)) else [value])
    return Annotated[list[of], Field(min_length=1), alone]


def _plain(value: Any) -> Any:
    """The value, if it and all that it holds can be a parameter."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise ValueError(f"must be a number, a text or a list, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be finite, got {value}")
    return value


_Count = _number(1, integer=True)
_Value = Annotated[Any, AfterValidator(_plain)]  # of a run; what takes it knows more


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class Recording(_Section):
    """Datasets to record, one for each environment and noise; of Atari, or to import."""

    benchmark: str = "bsuite"
    environment: _a_list(str)
    noise: _a_list(_number(0.0, 1.0)) = None
    episodes: _Count = None
    transitions: _Count = None
    agent: dict[str, Any] = None
    source: str = None
    files_in: str = None
    run: _number(1, 5, integer=True) = None
    checkpoints: _Count = None
    share: _number(0.0, 1.0, open_low=True) = None

    @property
    def environments(self) -> list[str]:
        """All of them, see `environments`."""
        return environments(self.benchmark, self.environment)


class _Collection(_Section):
    seed: _number(0, 2**32 - 1, integer=True)
    random_episodes: _Count


class _Selection(_Section):
    experiment: str
    fqe_updates: _Count


class _Estimation(_Section):
    experiments: Annotated[list[str], Field(min_length=1)]
    updates: _Count


class _Picked(_Section):
    experiments: Annotated[list[str], Field(min_length=1)]
    methods: Annotated[list[str], Field(min_length=1)]
    environments: Annotated[list[str], Field(min_length=1)]


class _Evaluation(_Picked):
    episodes: _Count


class _Videos(_Picked):
    steps: _Count


class _Timing(_Section):
    experiment: _a_list(str)
    updates: _Count
    seconds: _number(0.0, 3600.0)
    repeats: _Count
    after: _Count = None


_Grid = Annotated[dict[str, Annotated[list[_Value], Field(min_length=1)]], Field(min_length=1)]


class Experiment(_Section):
    """Runs, one for each combination of a grid's values; see `plan.plan`."""

    kind: str = "offline"
    together: bool = False
    grid: _a_list(_Grid)
    common: dict[str, _Value] = Field(default_factory=dict)

    @property
    def grids(self) -> list[dict[str, list[Any]]]:
        """The grids, each with all environments that its words stand for."""
        found = []
        for grid in self.grid:
            [benchmark, *_] = grid.get("benchmark", [self.common.get("benchmark")])
            named = {"environment": environments(benchmark, grid.get("environment", []))}
            found.append({**grid, **({} if "environment" not in grid else named)})
        return found


class Values(NamedTuple):
    """A run's values: those of the `grid` that name it, and `all`, the common ones among them."""

    grid: dict[str, Any]
    all: dict[str, Any]


def runs_of(experiment: Mapping[str, Any]) -> dict[str, Values]:
    """Values by run of an experiment as `load` gives it, in a profile that is right."""
    content = Experiment.model_validate(experiment)
    found = {}
    for grid in content.grids:
        for values in itertools.product(*grid.values()):
            own = dict(zip(grid, values))
            found[run_name(own)] = Values(own, {**content.common, **own})
    return found


class Profile(_Section):
    """A whole profile."""

    profile: _named("profile")
    datasets: Annotated[list[Recording], Field(min_length=1)] = None
    collection: _Collection = None
    selection: _Selection = None
    estimation: _Estimation = None
    evaluation: _a_list(_Evaluation) = None
    timing: _Timing = None
    videos: _Videos = None
    experiments: Annotated[dict[_named("experiment"), Experiment], Field(min_length=1)]


_SECTIONS = {
    "collection": _Collection, "selection": _Selection, "estimation": _Estimation,
    "evaluation": _Evaluation, "timing": _Timing,
    "videos": _Videos,
}  # fmt: skip


def _keys(place: tuple[Any, ...]) -> list[str]:
    """The keys that there can be at a place in a profile."""
    kind: type[pydantic.BaseModel] = Profile
    if place:
        kind = {"datasets": Recording, "experiments": Experiment, **_SECTIONS}[place[0]]
    return list(kind.model_fields)


def at(place: Iterable[Any]) -> str:
    """A place in a profile as text, such as datasets[0].noise[1]."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


_KINDS = {
    "string_type": "must be a text", "bool_type": "must be true or false",
    "list_type": "must be a list", "dict_type": "must hold keys and values",
    "model_type": "must hold keys and values",
}  # fmt: skip


def _place(loc: Iterable[Any], profile: Any) -> tuple[Any, ...]:
    """Where pydantic found something; what stood alone for a list of one has no number."""
    place, value = [], profile
    for part in loc:
        if isinstance(part, int) and not isinstance(value, (list, tuple)):
            continue
        place.append(part)
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
    return tuple(place)


def _line(error: Mapping[str, Any], place: tuple[Any, ...]) -> str:
    """What pydantic found, as a line."""
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        *above, key = place
        where = f"{at(above)}: " if above else ""
        return f"{where}unknown key {key!r}: {checks.nearest(str(key), _keys(tuple(above)))}"
    if place and place[-1] == "[key]":
        place = place[:-2]
    if kind == "invalid_key":
        where = f"{at(place)}: " if place else ""
        return f"{where}a key must be a text, got {given!r}"
    if kind == "missing":
        return f"{at(place)} is missing"
    if kind == "too_short":
        return f"{at(place)} is empty"
    if given is None and kind in _KINDS:
        return f"{at(place)} is empty"
    if kind in _KINDS:
        return f"{at(place)} {_KINDS[kind]}, got {given!r}"
    if kind == "value_error":
        message = str(error["ctx"]["error"]).removeprefix("it ")
        return f"{at(place)}{'' if message.startswith('must ') else ':'} {message}"
    return f"{at(place)}: {error['msg']}, got {given!r}"


class Formed(NamedTuple):
    """What of a profile has the form that it must have.

    Attributes:
      datasets: row number -> the row, without what is wrong in it.
      experiments: name -> the experiment, without what is wrong in it.
      content: the profile as it was given, without what is wrong in it.
      lines: what is wrong.
    """

    datasets: dict[int, Recording]
    experiments: dict[str, Experiment]
    content: dict[str, Any]
    lines: list[str]


def check(profile: Any) -> Formed:
    """Holds a profile against the schema."""
    if not isinstance(profile, Mapping):
        what = "is empty" if profile is None else f"must hold keys and values, got {profile!r}"
        return Formed({}, {}, {}, [f"the profile {what}"])
    lines: list[str] = []
    try:
        Profile.model_validate(dict(profile))
    except pydantic.ValidationError as error:
        places = [_place(one["loc"], profile) for one in error.errors()]
        lines = [_line(one, place) for one, place in zip(error.errors(), places)]
        profile = _without(profile, set(places))
    if profile.get("datasets") and "collection" not in profile and not lines:
        lines.append("collection is missing: it has the seed and random_episodes of datasets")
    rows, experiments = profile.get("datasets"), profile.get("experiments")
    return Formed(
        _formed(Recording, dict(enumerate(rows)) if isinstance(rows, list) else {}),
        _formed(Experiment, experiments if isinstance(experiments, Mapping) else {}),
        dict(profile),
        lines,
    )


def _without(value: Any, wrong: Set[tuple[Any, ...]], place: tuple[Any, ...] = ()) -> Any:
    """A profile, or what stands at a place in it, without what stands at the places given."""
    if isinstance(value, Mapping):
        right = {key: x for key, x in value.items() if (*place, key) not in wrong}
        return {key: _without(x, wrong, (*place, key)) for key, x in right.items()}
    if isinstance(value, (list, tuple)):
        several = [(i, x) for i, x in enumerate(value) if (*place, i) not in wrong]
        return [_without(x, wrong, (*place, i)) for i, x in several]
    return value


def _formed(kind: Any, sections: Mapping[Any, Any]) -> dict[Any, Any]:
    """Sections that are as they must be."""
    found = {}
    for key, content in sections.items():
        with contextlib.suppress(pydantic.ValidationError):
            found[key] = kind.model_validate(content)
    return found


# --- The file ----------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is noted; merges and anchors are as ever."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self.twice: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:  # What is merged in comes later, and may be overridden.
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                where = f"line {key.start_mark.line + 1}"
                self.twice.append(f"{where}: the key {key.value!r} stands there for a second time")
            seen.add((key.tag, key.value))
        return node


def load(path: str | os.PathLike[str]) -> tuple[Any, list[str]]:
    """A profile's content, nothing in it checked yet, and the keys that stand twice, a line each.

    Raises:
      ProfileError: if there is no such file, or it is not YAML.
    """
    try:
        loader = _Loader(Path(path).read_text())
        try:
            return loader.get_single_data(), loader.twice
        finally:
            loader.dispose()
    except OSError as error:
        raise ProfileError([f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ProfileError(["is not text"]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ProfileError([f"{where}{getattr(error, 'problem', None) or error}"]) from error
