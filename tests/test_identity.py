"""Runs are known by their programs: what changes no program changes no run."""

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from reproduction import fingerprint
from unplugged import (
    environments,
    frame_stores,
    hashing,
    improvement,
    losses,
    methods,
    networks,
    online,
    runs,
    settings,
    transforms,
    windows,
)
from unplugged.model.actions import Discrete

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SMALL = {"representation": [4, 4], "dynamics": [4, 4], "prediction": [4], "batch_size": 4}


def programs(**parameters):
    return runs.programs(runs.Spec(**{"dataset": "", "overrides": SMALL, **parameters}))


@pytest.fixture(scope="module")
def before():
    return programs()


def changed(before, after):
    return {name for name in before if before[name] != after[name]}


def test_names_and_places_of_functions_do_not_count():
    def inner(x):
        return jnp.sin(x) * 2.0

    def renamed(x):
        """The same."""
        return jnp.sin(x) * 2.0

    x = jax.ShapeDtypeStruct((3,), jnp.float32)
    first = hashing.of_program(jax.jit(lambda x: jax.jit(inner)(x) + 1.0), x)

    def outer(y):
        return jax.jit(renamed)(y) + 1.0

    assert hashing.of_program(jax.jit(outer), x) == first
    assert hashing.of_program(jax.jit(lambda x: jax.jit(inner)(x) + 2.0), x) != first
    named, other = (jax.jit(lambda x, n=n: {n: jnp.sin(x)}) for n in ("loss", "total"))
    assert hashing.of_program(named, x) == hashing.of_program(other, x)
    assert hashing.canonical("call @a(@b) @a @b_1") == hashing.canonical("call @x(@y) @x @a")
    lambdas, functions = 'call @"<lambda>"(@b) @"<lambda>"', "call @f(@b) @f"
    assert hashing.canonical(lambdas) == hashing.canonical(functions)
    assert hashing.canonical("@a @b @a") != hashing.canonical("@a @b @b")


def test_another_process_finds_the_same(before):
    code = (
        "import json; from unplugged import runs; "
        f"print(json.dumps(runs.programs(runs.Spec(dataset='', overrides={SMALL}))))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == before


EVERYTHING = {"initialisation", "training", "evaluation", "environment"}


@pytest.mark.parametrize(
    "parameters, parts",
    [
        ({"seeds": [3], "updates": 80_000, "eval_every": 2_000, "fraction": 0.1}, set()),
        ({"overrides": {**SMALL, "conservative_weight": 2.0, "num_simulations": 9}}, set()),
        ({"overrides": {**SMALL, "td_steps": 4}}, {"training"}),
        ({"overrides": {**SMALL, "discount": 0.9}}, {"training", "evaluation"}),
        ({"method": "onestep"}, {"training"}),
        ({"selector": "greedy"}, {"evaluation"}),
        ({"eval_episodes": 3}, {"evaluation"}),
        ({"overrides": {**SMALL, "prediction": [5]}}, EVERYTHING - {"environment"}),
        ({"environment": "mountain_car"}, EVERYTHING),
        ({"benchmark": "gymnasium", "environment": "CartPole-v1"}, EVERYTHING),
    ],
)
def test_parameters_change_the_programs_that_they_are_part_of(before, parameters, parts):
    assert changed(before, programs(**parameters)) == parts


@pytest.mark.parametrize(
    "where, name, value, parts",
    [
        (losses, "scale_gradient", lambda x, scale: x, {"training"}),
        (transforms, "EPSILON", 1e-2, {"training", "evaluation"}),
        (improvement, "mcts", None, set()),  # mzu's
        (environments, "form", lambda world: ((10, 5), Discrete(3)), set()),
    ],
)
def test_code_counts_where_a_program_has_it(monkeypatch, before, where, name, value, parts):
    monkeypatch.setattr(where, name, value)
    assert changed(before, programs()) == parts


def test_what_ones_own_operator_refers_to_counts(monkeypatch, before):
    def method(scale):
        def operator(model, params, root, key, settings):
            found = improvement.one_step(model, params, root, key, settings)
            return found._replace(policy=jax.nn.softmax(scale * found.action_values))

        return dataclasses.replace(methods.METHODS["rosmo"], operator=operator)

    found = []
    for scale in (1.0, 1.0, 2.0):
        monkeypatch.setitem(methods.METHODS, "mine", method(scale))
        found.append(programs(method="mine"))
    assert found[0] == found[1]
    assert changed(found[0], found[2]) == changed(before, found[0]) == {"training"}


def test_an_online_run_has_its_actors(monkeypatch):
    one = online.OnlineSpec(
        benchmark="gymnax", environment="catch", method="mzu", overrides={**SMALL, "batch_size": 4},
        reanalyse_fraction=0.5, replay_capacity=10_000,
    )  # fmt: skip
    first = runs.programs(one)
    assert changed(first, runs.programs(dataclasses.replace(one, replay_capacity=20_000))) == {
        "initialisation",
        "training",
    }
    assert runs.programs(dataclasses.replace(one, updates=2_000)) == first


def test_an_environment_in_python_is_known_by_its_source(monkeypatch, tmp_path):
    world = environments.make("bsuite", "catch", seed=0)
    first = hashing.of_environment(world)
    assert hashing.of_environment(environments.make("bsuite", "catch", seed=1)) == first
    assert hashing.of_environment(environments.make("bsuite", "cartpole", seed=0)) != first
    noisy = environments.make("bsuite", "catch", seed=0, noise=0.1)
    assert hashing.of_environment(noisy) != first
    text = "class World:\n    def step(self):\n        return 1\n"
    found = []
    for number, code in enumerate((text, text.replace("1", "1  # why"), text.replace("1", "2"))):
        (tmp_path / f"own_world_{number}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        module = __import__(f"own_world_{number}")
        found.append(hashing.of_environment(module.World()))
    assert found[0] == found[1] != found[2]


def test_how_an_environment_was_made_counts():
    class World:
        def __init__(self, length):
            self._length, self._rng = length, object()

    class Around:
        def __init__(self, world):
            self.env = world

    first = hashing.of_environment(Around(World(2)))
    assert hashing.of_environment(Around(World(2))) == first
    assert hashing.of_environment(Around(World(3))) != first


def test_a_hash_of_code_is_the_same_in_every_python():
    code = 'class A(B):\n    """Text."""\n    def f(self, x: int = 1, *y):\n        return x\n'
    assert hashing.of_code(code) == "31e4fa426b2f7079"
    assert "type_params" not in hashing.dump(ast.parse(code))


def test_versions_beneath_the_programs():
    compiled = runs.Spec(dataset="", benchmark="minatar", environment="asterix")
    assert set(runs.versions(compiled)) == {"jaxlib"}
    assert set(runs.versions(runs.Spec(dataset=""))) == {"jaxlib", "bsuite", "numpy"}


def test_source_of_modules_follows_imports(monkeypatch):
    found = hashing.of_modules(["unplugged.model.transforms"])
    assert (
        hashing.of_modules(["unplugged.model.transforms"], alone=True) == found
    )  # It imports none.
    whole = hashing.of_modules(["unplugged.runs"])
    assert whole != hashing.of_modules(["unplugged.runs"], alone=True)
    code = hashing._code
    name = transforms.__name__
    monkeypatch.setattr(hashing, "_code", lambda x: "other" if x == name else code(x))
    assert hashing.of_modules(["unplugged.runs"]) != whole
    with pytest.raises(KeyError, match=r"unplugged\.methodss"):
        hashing.of_modules(["unplugged.methodss"])


def test_of_a_notebook_only_what_its_code_does_counts(tmp_path):
    def write(*code, text="t", outputs=()):
        cells = [{"cell_type": "markdown", "source": [text], "metadata": {}}] + [
            {"cell_type": "code", "source": [one], "outputs": list(outputs), "metadata": {}}
            for one in code
        ]
        (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
        return fingerprint.of_notebook(tmp_path / "n.ipynb")

    first = write("x = 1")
    assert write("x = 1", text="other", outputs=["out"]) == first
    assert write("x  =  1  # why\n", "", "# nothing") == first
    assert write("x = 2") != first
    assert write("%time x = 1") not in (first, write("%time x = 2"))
    magic = write("%matplotlib inline\nx = 1\n!ls")
    assert write("# why\n%matplotlib inline\n\nx = 1  # one\n!ls\n") == magic
    assert write("%matplotlib inline\nx = 2\n!ls") != magic
    assert write("x = (") != write("x = [")  # It fails, and that is all that is known.


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("[12]*.ipynb")), ids=lambda path: path.stem)
def test_a_comment_or_an_empty_cell_in_a_notebook_changes_no_run(tmp_path, path):
    notebook = json.loads(path.read_text())
    empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": 1}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = ["# first\n", "\n", *cell["source"], "  \n", "\n"]
    for source in ([], ["\n"], ["# nothing"]):
        notebook["cells"].insert(2, {**empty, "source": source})
        notebook["cells"].append({**empty, "source": source})
    (tmp_path / "n.ipynb").write_text(json.dumps(notebook))
    assert fingerprint.of_notebook(tmp_path / "n.ipynb") == fingerprint.of_notebook(path)


def test_settings_and_networks_of_the_papers_are_what_is_hashed():
    """The preset's own networks, so that a changed preset is another run."""
    assert runs.Spec(dataset="").settings == settings.BSUITE
    assert settings.BSUITE.network in networks.NETWORKS


ATARI = {**SMALL, "num_bins": 21, "compute_dtype": "bfloat16"}


@pytest.mark.parametrize(
    "parameters",
    [
        {
            "method": "rosmo",
            "overrides": {"representation": [8], "dynamics": [8], "prediction": [8]},
        },
        {"method": "mzu", "benchmark": "minatar", "environment": "breakout"},
        {"method": "mzu", "benchmark": "atari", "environment": "pong", "overrides": ATARI},
    ],
    ids=["bsuite", "minatar", "atari"],
)
def test_training_lowers_for_accelerators(parameters):
    spec = runs.Spec(**{"dataset": "", "overrides": SMALL, **parameters})
    frames = spec.of_benchmark.of_frames
    shape, actions = ((84, 84, 4), Discrete(6)) if frames else spec.form()  # without an emulator
    learner = spec.learner(shape, actions)
    state = jax.eval_shape(lambda: learner.init(0))
    if frames:
        store = frame_stores.described(shape, 100, 90, actions)
    else:
        store = windows.described(shape, spec.of_benchmark.packed, 100, 90, actions)
    traced = learner.run.trace(state, spec.described_data(store), spec.updates_at_once)
    for platform in ("cuda", "tpu"):
        assert "stablehlo.while" in traced.lower(lowering_platforms=(platform,)).as_text()


def test_a_device_s_precision_is_no_part_of_a_program(before):
    with jax.default_matmul_precision("float32"):
        assert programs() == before
