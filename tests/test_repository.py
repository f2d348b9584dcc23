"""The repository itself: environments that agree, notebooks as they should be committed."""

import json
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def locked():
    lines = (ROOT / "requirements.lock").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-]+==[^=/@:]+", line) for line in lines)
    return {canonical(line.split("==")[0]): line.split("==")[1] for line in lines}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_lock_pins_every_direct_need_within_its_bounds():
    pins = locked()
    for text in project()["dependencies"] + project()["optional-dependencies"]["dev"]:
        need = Requirement(text)
        assert canonical(need.name) in pins, f"{need.name} is not in requirements.lock"
        assert need.specifier.contains(pins[canonical(need.name)], prereleases=True), text


def test_locked_packages_install_on_the_oldest_python():
    """pip skips a version that needs a later Python, even a later patch of the same minor."""
    needed = {name: metadata.metadata(name)["Requires-Python"] or "" for name in locked()}
    assert not {name: of for name, of in needed.items() if not SpecifierSet(of).contains("3.11.0")}


def test_conda_environment_installs_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    python = next(d for d in environment["dependencies"] if str(d).startswith("python="))
    version = tuple(map(int, python.split("=")[1].split(".")))
    assert version in ((3, 11), (3, 12))
    assert project()["requires-python"] == ">=3.11,<3.13"


def test_required_packages_are_direct_needs():
    needs = {canonical(Requirement(text).name) for text in project()["dependencies"]}
    assert needs >= {
        "jupyterlab", "papermill", "jax", "dm-haiku", "optax", "mctx", "rlax", "matplotlib",
        "pandas", "seaborn",
    }  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_committed_clean(path):
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1, "exactly one cell is tagged parameters"
    for line in "".join(tagged[0]["source"]).splitlines():
        assert re.fullmatch(r"\w+: \w+ = .+  # .+", line), f"not explained: {line}"
    assert notebook["cells"][0]["cell_type"] == "markdown"
    assert "".join(notebook["cells"][0]["source"]).startswith("# ")
    assert max(len("".join(cell["source"]).splitlines()) for cell in code) <= 45


def test_notebooks_have_numbers_of_their_own():
    numbers = [path.stem.partition("_")[0] for path in NOTEBOOKS]
    assert all(re.fullmatch(r"\d\d", number) for number in numbers)
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_papermill_explains_the_parameters(path):
    from papermill.inspection import inspect_notebook

    parameters = inspect_notebook(str(path))
    assert parameters
    assert all(p["help"] and p["inferred_type_name"] != "None" for p in parameters.values())


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split())
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert {line.split()[1] for line in shown.splitlines() if "  make " in line} == targets


def test_imports_go_one_way():
    """Statistics and plots know no jax; data and environments know nothing of learning."""

    def imports(module):
        text = (ROOT / "lib" / "unplugged" / f"{module}.py").read_text()
        return set(re.findall(r"^(?:from|import) ([\w.]+)", text, re.M)) | {
            f"unplugged.{name.strip()}"
            for group in re.findall(r"^from unplugged import \(?([\w,\s]+)\)?", text, re.M)
            for name in group.replace("\n", ",").split(",")
            if name.strip()
        }

    rules = ("claims", "claims_rosmo", "claims_muzero")
    numbers = (*rules, "statistics", "comparisons", "measures", "speed")
    for module in (*numbers, "plots", "speed_plots", "tables", "reports", "captions", "gallery"):
        assert not {"jax", "haiku", "mctx"} & imports(module)
    learning = {f"unplugged.{m}" for m in ("networks", "losses", "methods", "learner", "runs")}
    for module in ("datasets", "environments", "windows", "transforms", "collect"):
        assert not learning & imports(module), module


def test_readme_shows_the_committed_table():
    shown = re.findall(r"<!-- (\S+) -->\n(.*?)<!-- end -->", (ROOT / "README.md").read_text(), re.S)
    assert shown
    for path, table in shown:
        assert table == (ROOT / path).read_text(), f"README.md differs from {path}"


def test_the_readmes_figure_has_the_seeds_and_updates_of_its_caption():
    figure = json.loads((ROOT / "figures" / "cpu" / "bsuite_curves.json").read_text())
    facts = re.search(r"\d+ seeds, .* updates, \d+ episodes", figure["caption"])
    assert facts and facts[0] in " ".join((ROOT / "README.md").read_text().split())


def test_the_readme_tells_every_claims_verdict():
    decided = pd.read_csv(ROOT / "results" / "cpu" / "claims.csv").drop_duplicates("id")
    wanted = decided.groupby("claim_verdict")["id"].agg(set).to_dict()
    rows = re.findall(
        r"^\| (supported|not supported|undecided|not run) \| (.*) \|$",
        (ROOT / "README.md").read_text(),
        re.M,
    )
    assert {verdict: set(re.findall(r"[RM]\d+", ids)) for verdict, ids in rows} == wanted


def test_files_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"\]\(([\w/.]+)\)", text))
    named |= {f"notebooks/{name}.ipynb" for name in re.findall(r"^\| `(\d\d_\w+)` \|", text, re.M)}
    named |= set(re.findall(r"`(figures/[\w/]+\.png)`", text))
    gallery = (ROOT / "figures" / "README.md").read_text()
    named |= {f"figures/{link}" for link in re.findall(r"\]\(([^#()]+)\)", gallery)}
    assert len(named) > 8
    assert not [name for name in named if not (ROOT / name).exists()]
