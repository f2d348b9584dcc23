"""Captions: text files whose placeholders are filled in, checked by name."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from reproduction import captions, claims

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / captions.FOLDER).glob("*.yaml"))
TEXT = """
curves:
  title: On {game}
  order: 1
  data: [curves.csv, more.csv, ../claims.csv]
  caption: >-
    Return. {runs}
  paper: >-
    100% of {game}.
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A repository with one caption file, two of its three CSVs there."""
    monkeypatch.chdir(tmp_path)
    for folder in (captions.FOLDER, "results/mine"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / captions.FOLDER / "30_curves.yaml").write_text(TEXT)
    (tmp_path / "results/mine/curves.csv").touch()
    (tmp_path / "results/claims.csv").touch()
    return Path("results/mine")


def test_an_entry_is_filled_in_and_says_where_it_comes_from(results):
    notes = captions.read("30_curves", "curves", results, game="catch", runs="5  seeds. ")
    assert notes == {
        "title": "On catch",
        "order": 1,
        "data": ["results/mine/curves.csv", "results/claims.csv"],  # Those that are there.
        "caption": "Return. 5 seeds.",
        "paper": "100% of catch.",
        "command": "make figures PROFILE=mine",
        "notebook": "30_curves",
    }


def test_the_longer_runs_figure_stands_after_the_others_and_is_of_its_own_data(results):
    path = captions.FOLDER / "30_curves.yaml"
    path.write_text(TEXT.replace("[curves.csv", '["{study}_curves.csv"'))
    for name in ("minatar_curves.csv", "pixels_curves.csv"):
        (results / name).touch()
    facts = {"game": "catch", "runs": ""}
    found = [
        captions.read("30_curves", "curves", results, study=study, **facts)
        for study in ("minatar", "pixels")
    ]
    assert [one["data"][0] for one in found] == [
        "results/mine/minatar_curves.csv", "results/mine/pixels_curves.csv",
    ]  # fmt: skip
    assert [(one["title"], one["order"]) for one in found] == [
        ("On catch", 1), ("On catch, longer runs", 1.5),
    ]  # fmt: skip


def test_paragraphs_stay_apart():
    entry = {"caption": "a", "details": yaml.safe_load(">-\n  One\n  two.\n\n  {more}\n\n  {list}")}
    filled = captions.fill(entry, {"more": "", "list": "R1:\n- a  b\n- c\nR2:\n- d"}, "here")
    assert filled == {"caption": "a", "details": "One two.\n\nR1:\n\n- a b\n- c\n\nR2:\n\n- d"}


def test_placeholders_and_facts_have_to_match(results):
    with pytest.raises(ValueError, match=r"curves in 30_curves: nothing is given for {game}, {ru"):
        captions.read("30_curves", "curves", results)
    with pytest.raises(ValueError, match=r"no text has {seeds}"):
        captions.read("30_curves", "curves", results, game="catch", runs="", seeds=5)


def test_a_fact_is_a_text_or_a_number(results):
    assert captions.read("30_curves", "curves", results, game=np.int64(3), runs=2.5)
    with pytest.raises(ValueError, match=r"{runs} has to be a text or a number, not a DataFrame"):
        captions.read("30_curves", "curves", results, game="catch", runs=pd.DataFrame())


def test_an_unknown_figure_names_the_nearest(results):
    with pytest.raises(ValueError, match="'curve': did you mean 'curves'"):
        captions.read("30_curves", "curve", results)
    with pytest.raises(FileNotFoundError, match="run in the repository's root"):
        captions.read("31_curves", "curves", results)


def test_an_entry_that_is_not_whole_is_refused(tmp_path):
    entry = {"title": "t", "order": 1, "data": [], "caption": "c", "paper": "p"}
    for change, message in (
        ({"paper": None}, "there is no paper"),
        ({"detail": "d"}, "did you mean 'details'"),
    ):
        changed = {key: value for key, value in {**entry, **change}.items() if value is not None}
        (tmp_path / "x.yaml").write_text(yaml.safe_dump({"f": changed}))
        with pytest.raises(ValueError, match=message):
            captions.load("x", tmp_path)


def test_a_placeholder_is_a_plain_name():
    assert captions.placeholders("{a} of {b}, {{c}}, 5%") == {"a", "b"}
    for text in ("{a:.2f}", "{a.b}", "{}", "{a!r}"):
        with pytest.raises(ValueError, match="a placeholder is a name in braces"):
            captions.placeholders(text)


def calls(notebook):
    """The calls of `captions.read` in a notebook: figure -> names of the facts, and "**"."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    found = {}
    for cell in cells:
        code = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "captions.read":
                name, figure = (argument.value for argument in node.args[:2])
                assert name == notebook
                found[figure] = {keyword.arg or "**" for keyword in node.keywords}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_caption_is_used_by_its_notebook(path):
    entries, used = captions.load(path.stem, path.parent), calls(path.stem)
    assert set(entries) == set(used)
    for figure, entry in entries.items():
        wanted = set().union(*(captions.placeholders(entry.get(key, "")) for key in captions.TEXTS))
        facts = used[figure] - {"study"}
        assert facts - {"**"} <= wanted
        if "**" not in facts:
            assert facts == wanted


def to_come():
    """CSVs that need not be there: those that the profiles' grids will make, and from them."""
    paths = [ROOT / "profiles" / f"{name}.yaml" for name in ("cpu", "atari-cpu")]
    experiments = [x for path in paths for x in yaml.safe_load(path.read_text())["experiments"]]
    made = ("minatar_frames", "minatar_errors", "pixels_selectors", "pixels_times",
            "bsuite_estimates", "minatar_estimates", "sepsis_estimates")  # fmt: skip
    return {f"{name}.csv" for name in (*experiments, *made)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_data_that_captions_name_are_committed(path):
    if path.stem == "01_first_figure":
        pytest.skip("profile quick is not committed")
    results = ROOT / "results" / ("bench" if path.stem == "90_bench" else "cpu")
    known = to_come()
    for entry in captions.load(path.stem, path.parent).values():
        names = {name.format(study="minatar") for name in entry["data"]}
        names -= {"minatar_baselines.csv"}  # Only the longer runs have them.
        assert {name for name in names if not (results / name).exists()} <= known
        longer = {name.format(study="pixels") for name in entry["data"] if "{study}" in name}
        assert longer - {"pixels_ablations.csv", "pixels_onestep.csv"} <= known


def test_every_figure_notebook_has_its_captions_and_no_order_is_used_twice():
    stems = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.stem for path in FILES} == {
        stem for stem in stems if stem[0] in "3456789" or stem == "01_first_figure"
    }
    orders = [
        entry["order"] for path in FILES if path.stem != "90_bench"
        for entry in captions.load(path.stem, path.parent).values()
    ]  # fmt: skip
    assert len(orders) == len(set(orders))


def test_the_claims_table_names_all_that_claims_rest_on():
    entry = captions.load("80_claims", ROOT / captions.FOLDER)["claims.table"]
    assert {f"{name}.csv" for name in claims.EXPERIMENTS} <= set(entry["data"])


def test_committed_captions_are_short_and_say_seeds_and_device():
    for path in sorted((ROOT / "figures").glob("*/*.json")):
        notes = json.loads(path.read_text())
        sentences = re.split(r"(?<=[.!?]) ", notes["caption"])
        assert len(sentences) <= 5 and len(notes["caption"]) <= 520, path.name
        assert not re.search(r"{\w+}|\(\s*\)|\bnan\b", json.dumps(notes)), path.name
        assert not re.search(r"\([^()]*\(", notes["caption"]), f"{path.name}: brackets in brackets"
        assert re.search(r"seed|One run on", notes["caption"]), path.name
