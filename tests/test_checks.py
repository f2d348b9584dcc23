"""What is given is checked where it enters, and kept as Python's own types."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import yaml

from unplugged import checks, notebooks, online, runs, settings


def spec(**parameters):
    return runs.Spec(**{"dataset": "x", **parameters})


NO_INTEGERS = ("2", 2.5, True, None, 2.0, np.float64(2.0), [2], float("nan"), 1j, b"2")
WRONG = {
    bool: ("false", "no", 0, 1, 0.0, np.int64(1), []),
    int: NO_INTEGERS,
    float: ("2", "nan", True, np.bool_(True), None, float("inf"), float("nan"), 1j, [0.5]),
    str: (None, 3, True, ["x"], b"x", {}),
    Sequence: (3, "[0, 1]", "0", None, {0: 1}, {0, 1}, [["0"]], [True], np.zeros([1, 1]), b"01"),
    Literal: ("other", 3, True, None, ["x"]),
    Mapping: ('{"td_steps": 3}', None, [], [["td_steps", 3]], 3, {3: 3}),
}


def wrong_values(kind):
    """Field and wrong value by the field's annotation, of a record with checked fields."""
    for name, hint in checks._hints(kind).items():
        arguments = getattr(hint, "__args__", ())
        optional = type(None) in arguments
        hint = next(x for x in arguments if x is not type(None)) if optional else hint
        hint = getattr(hint, "__origin__", hint)
        hint = Sequence if hint is tuple else hint
        for value in WRONG[hint]:
            if not (optional and value is None):
                yield name, value


@pytest.mark.parametrize("kind", [runs.Spec, online.OnlineSpec, settings.Settings])
def test_every_field_refuses_what_is_of_another_type_by_its_name(kind):
    given = {"dataset": "x"} if kind is runs.Spec else {}
    if kind is online.OnlineSpec:
        given = {"benchmark": "gymnax", "method": "mzu"}
    assert kind(**given)
    seen = set()
    for name, value in wrong_values(kind):
        with pytest.raises(ValueError, match=rf"^({name}(\[\S+\])? (must|holds)|unknown {name} )"):
            kind(**{**given, name: value})
        seen.add(name)
    assert seen == {field.name for field in dataclasses.fields(kind)}


def test_numbers_of_numpy_are_numbers():
    one = spec(
        seeds=np.arange(2), updates=np.int32(20), eval_every=np.int64(10), fraction=np.float32(0.5),
        keep_checkpoints=np.bool_(True), method=np.str_("mzu"), dataset=Path("a", "b"),
        overrides={"num_simulations": np.int64(8), "dynamics": np.array([8, 8])},
    )  # fmt: skip
    ours = spec(
        seeds=[0, 1], updates=20, eval_every=10, fraction=0.5, keep_checkpoints=True, method="mzu",
        dataset="a/b", overrides={"num_simulations": 8, "dynamics": [8, 8]},
    )  # fmt: skip
    assert one == ours and repr(one) == repr(ours)
    assert settings.Settings(num_bins=np.int64(8)).num_bins.__class__ is int
    assert checks.within("episodes", np.int8(3), 1, integer=True).__class__ is int


def test_whole_numbers_stay_as_they_were_given():
    """1 and 1.0 are other programs' constants, and other texts in a provenance."""
    assert repr(settings.Settings(discount=1).discount) == "1"
    assert repr(settings.Settings(discount=1.0).discount) == "1.0"


@pytest.mark.parametrize(
    "name, value",
    [
        ("keep_checkpoints", "false"),
        ("vmap_seeds", "true"),
        ("seeds", "[0, 1]"),
        ("overrides", '{"num_simulations": 16}'),
        ("updates", "2000"),
    ],
)
def test_what_papermill_passes_as_a_text_says_how_it_is_passed(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got '.*', a text") as failed:
        spec(**{name: value})
    advice = re.search(r"by -y '(.*)'$", str(failed.value))[1]
    assert spec(**yaml.safe_load(advice))  # As papermill reads it.
    typed = {"bool": "False", "list": "[0]", "dict": "{}", "int": "1"}
    kind = {"vmap_seeds": "bool", "keep_checkpoints": "bool", "seeds": "list"}
    of = kind.get(name, "dict" if name == "overrides" else "int")
    cells = [f"{name}: {of} = {typed[of]}  # what", f"# Parameters\n{name} = {value!r}"]
    with pytest.raises(ValueError, match=f"^{name} must be .* -y '{name}: "):
        notebooks.parameters({"In": cells, name: value}, [name])


def test_a_setting_as_a_text_says_how_overrides_are_passed():
    with pytest.raises(ValueError, match=r"^batch_size must be an integer, got '64', a") as failed:
        spec(overrides={"batch_size": "64"})
    advice = yaml.safe_load(re.search(r"by -y '(.*)'$", str(failed.value))[1])
    assert spec(**advice).settings.batch_size == 64


def test_a_notebooks_parameters_are_of_the_types_that_its_cell_says():
    cells = ["%matplotlib inline", "folder: str = 'x'\nepisodes: int = None\nrate: float = 1.0"]

    def given(**values):
        return {"In": cells, "folder": "y", "episodes": None, "rate": 2, **values}

    names = ["folder", "episodes", "rate"]
    assert notebooks.parameters(given(), names) == {"folder": "y", "episodes": None, "rate": 2}
    for name, value in (("folder", 3), ("folder", None), ("episodes", 2.5), ("rate", "x")):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            notebooks.parameters(given(**{name: value}), names)


@dataclasses.dataclass(frozen=True)
class Record:
    share: Annotated[float, checks.Range(0.0, 1.0, open_low=True, open_high=True)]
    anything: Any = None

    def __post_init__(self):
        checks.fields(self)


def test_ranges_are_open_where_they_say_so():
    assert Record(0.5, anything=(np.int64(1), {"a": np.ones(1)})).anything == (1, {"a": [1.0]})
    for value in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"share must lie in \(0.0, 1.0\), got"):
            Record(value)
    with pytest.raises(ValueError, match=r"holdout must lie in \[0.0, 1.0\), got 1"):
        spec(holdout=1.0)
    with pytest.raises(ValueError, match=r"learning_rate must lie in \(0.0, inf\), got inf"):
        spec(overrides={"learning_rate": float("inf")})
