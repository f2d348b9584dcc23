import json
import shutil

import pytest

from unplugged import fingerprint, runs


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
