import functools
import json
import linecache
import shutil

import jax
import numpy as np
import optax
import pytest

from unplugged import fingerprint, losses, runs


def code():
    """The fingerprint of a run."""
    return runs.Spec(dataset="", benchmark="minatar", environment="asterix", method="rosmo").code()


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """A copy of the library in which a test may change a file; returns the fingerprint then."""
    package = tmp_path / "unplugged"
    shutil.copytree(fingerprint._PACKAGE, package)

    def change(file, old, new):
        text = (package / file).read_text()
        assert old in text
        (package / file).write_text(text.replace(old, new, 1))
        fingerprint._definitions.cache_clear()
        return code()

    before = code()
    monkeypatch.setattr(fingerprint, "_PACKAGE", package)
    fingerprint._definitions.cache_clear()
    assert code() == before
    change.before = before
    yield change
    monkeypatch.undo()
    fingerprint._definitions.cache_clear()


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("losses.py", "(1.0 - scale)", "(2.0 - scale)"),
        ("transforms.py", "EPSILON = 1e-3", "EPSILON = 1e-2"),
        ("improvement.py", "root.prior_logits + q", "root.prior_logits - q"),
        ("methods.py", 'selector="improved"', 'selector="policy"'),
        ("networks.py", "zero=True, name=name", "zero=False, name=name"),
        ("settings.py", "batch_size: int = 128", "batch_size: int = 64"),
        ("settings.py", "td_steps=5", "td_steps=7"),  # MinAtar's
        ("networks.py", "defvjp(_convolve_forward, ", "defvjp(None, "),
        ("networks.py", "_correlate(x, w, stride, padding), x)[1](g)", "x, x)[1](g)"),
        ("games.py", '"asterix": "Asterix', '"asterix": "Freeway'),
        ("acting.py", "one_step(model, params, root, key, settings).p", "mcts(model, settings).p"),
    ],
)
def test_code_that_a_run_reaches_counts(changed, file, old, new):
    assert changed(file, old, new) != changed.before


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("losses.py", "from __future__", "# A comment.\nfrom __future__"),
        ("losses.py", '"""The identity, whose', '"""Still the identity, whose'),
        ("methods.py", 'selector="search"', 'selector="policy"'),  # mzu's row
        ("methods.py", '    "bc": Method(', '    "new": None,\n    "bc": Method('),
        ("acting.py", "jnp.argmax(better", "jnp.argmin(better"),
        ("improvement.py", "def mcts_q(", "def mcts_other("),
        ("games.py", '"breakout": "Breakout', '"breakout": "Freeway'),
        ("improvement.py", "def mcts(", "def another():\n    pass\n\n\ndef mcts("),
        ("plots.py", "linewidth=3", "linewidth=4"),
        ("environments.py", "cartpole.Cartpole,", "None,"),
        ("settings.py", "BSUITE = Settings()", "BSUITE = Settings(td_steps=7)"),
    ],
)
def test_what_it_does_not_reach_does_not_count(changed, file, old, new):
    assert changed(file, old, new) == changed.before


def test_actors_count_in_online_runs_alone(changed):
    online = fingerprint.of_library(["online.build"])
    running = "actors.running + tick.reward"
    assert changed("online_learner.py", running, "actors.running") == changed.before
    assert fingerprint.of_library(["online.build"]) != online


def one_s_own(source, name="f", **values):
    """A function as a notebook cell would define it, its source at hand."""
    file = f"<cell {source} {sorted(values)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    scope = {"__name__": "__main__", **values}
    exec(compile(source, file, "exec"), scope)
    return scope[name]


def of(function):
    return fingerprint.of_functions({"part": function}, [], "")


def helper(scale):
    return one_s_own(f"def helper(x):\n    return {scale} * x\n", "helper")


class Scaled:
    """What a user may write in place of a function."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x):
        return self.scale * x


@pytest.mark.parametrize(
    "make",
    [
        lambda x: one_s_own("def f():\n    return TAU\n", TAU=x),
        lambda x: one_s_own("def f():\n    return [TAU for _ in range(2)]\n", TAU=x),
        lambda x: one_s_own("def f(tau=TAU):\n    return tau\n", TAU=x),
        lambda x: one_s_own("def f(*, tau=TAU):\n    return tau\n", TAU=x),
        lambda x: one_s_own("def f():\n    return helper(2)\n", helper=helper(x)),
        lambda x: one_s_own("def f():\n    return table['a']\n", table={"a": {x}}),
        lambda x: one_s_own("def f():\n    return w\n", w=np.arange(5_000) == 2_000 + x),
        lambda x: one_s_own("def f():\n    return k\n", k=jax.random.key(x)),
        lambda x: functools.partial(helper(1), x),
        lambda x: functools.partial(print, helper(x)),
        lambda x: jax.jit(helper(x)),
        lambda x: Scaled(x),
        lambda x: Scaled(x).__call__,
        lambda x: optax.exponential_decay(float(x), 1, 0.5),
    ],
)
def test_all_that_a_function_of_ones_own_refers_to_counts(make):
    codes = [of(make(x)) for x in (1, 2, 1)]
    assert codes[0] == codes[2] != codes[1]


def test_the_librarys_code_counts_where_ones_own_uses_it(changed):
    function = one_s_own("def f(x):\n    return losses.heaviside(x)\n", losses=losses)
    before = of(function)
    changed("losses.py", "def heaviside(", "def heaviside(x, /):\n    pass\n\n\ndef heaviside(")
    assert of(function) != before


def test_what_cannot_be_told_apart_is_refused():
    function = one_s_own("def f():\n    return thing\n", thing=object())
    with pytest.raises(ValueError, match=r"<object object at 0x.*not resumable"):
        of(function)
    with pytest.raises(ValueError, match="no source of <function"):
        of(eval("lambda: 0", {"__name__": "__main__"}))


def test_an_unknown_root():
    with pytest.raises(KeyError, match=r"methods\.rosmoo"):
        fingerprint.of_library(["methods.rosmoo"])


def test_of_a_notebook_only_code_counts(tmp_path):
    def write(code, text="t", outputs=()):
        cells = [
            {"cell_type": "markdown", "source": [text], "metadata": {}},
            {"cell_type": "code", "source": [code], "outputs": list(outputs), "metadata": {}},
        ]
        (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
        return fingerprint.of_notebook(tmp_path / "n.ipynb")

    first = write("x = 1")
    assert write("x = 1", text="other", outputs=["out"]) == first
    assert write("x = 2") != first
