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

from unplugged import datasets

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


def test_what_the_editable_install_builds_with_is_pinned():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    pins = locked()
    assert build == [f"setuptools=={pins['setuptools']}"]
    assert "--no-build-isolation -e ." in (ROOT / "Makefile").read_text()


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
def test_files_that_notebooks_name_exist(path):
    text = path.read_text()
    for name in re.findall(r"(?:lib|notebooks|docs|profiles)/[\w/]+\.\w+", text):
        assert (ROOT / name).exists(), name
    stems = {x.stem for x in NOTEBOOKS}
    named = re.findall(r"(?<![\w/])\d\d_[a-z]\w+", text)
    assert set(named) <= stems | {f"{stem}.out" for stem in stems}


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


def imports(path):
    """Dotted names that a module imports: of packages, and of what it takes from them."""
    text = path.read_text()
    return set(re.findall(r"^\s*(?:from|import) ([\w.]+)", text, re.M)) | {
        f"{package}.{name.split()[0]}"
        for package, group in re.findall(r"^\s*from ([\w.]+) import \(?([\w,\s]+)\)?", text, re.M)
        for name in group.replace("\n", ",").split(",")
        if name.strip()
    }


def modules(*names):
    return [path for name in names for path in sorted((ROOT / "lib").rglob(f"{name}.py"))]


def test_what_draws_and_decides_imports_no_jax():
    found = modules(
        "claims", "claims_*", "statistics", "comparisons", "measures", "speed", "plots", "tables",
        "reports", "sentences", "captions", "checksums", "speed_plots", "dream_plots", "gallery",
    )  # fmt: skip
    assert len(found) > 10
    for path in found:
        assert not {"jax", "haiku", "mctx"} & imports(path), path


def test_data_and_environments_know_nothing_of_learning():
    learning = {
        f"unplugged.{name}" for name in ("networks", "losses", "methods", "learner", "runs")
    }
    learning |= {
        f"unplugged.{name}" for name in ("model.networks", "planning", "learning", "online")
    }
    found = modules("datasets", "environments", "windows", "transforms")
    assert len(found) >= 4
    for path in found:
        assert not learning & imports(path), path


def test_the_methods_do_not_import_the_study():
    for path in sorted((ROOT / "lib" / "unplugged").rglob("*.py")):
        assert not [name for name in imports(path) if name.split(".")[0] == "reproduction"], path


README = ROOT / "README.md"
PROSE = [
    README,
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "results/README.md")),
]


def cells(row):
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def table_rows(text):
    """The cells of each row of a Markdown table, but for the line below its head."""
    rows = [cells(line) for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def slugs(text):
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", without_code(text), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 220


def test_the_readmes_numbers_are_rows_of_a_committed_table():
    text = README.read_text()
    shown = re.findall(r"<!-- rows of (\S+) -->\n(.*?)<!-- end -->", text, re.S)
    assert shown
    for path, table in shown:
        committed = table_rows((ROOT / path).read_text())
        rows = table_rows(table)
        assert rows[0] == committed[0], f"README.md has other columns than {path}"
        assert len(rows) == 6
        for row in rows[1:]:
            assert row in committed[1:], f"not a row of {path}: {row}"


def test_the_readmes_figure_has_the_seeds_and_updates_of_its_results():
    text = README.read_text()
    caption = re.search(r"bsuite_curves\.png\)\n\n\*(.*?)\*\n\n", text, re.S)[1]
    upper, lower = (
        pd.read_csv(ROOT / "results" / "cpu" / f"{name}.csv")
        for name in ("bsuite_table2", "bsuite_curves")
    )
    variants = lower[~lower["method"].isin(["crr", "cql", "bc"]) & (lower["update"] <= 20_000)]
    runs = pd.concat([upper.assign(panel="upper"), variants.assign(panel="lower")])
    seeds = runs.groupby(["panel", "environment", "method"])["seed"].nunique()
    ends = [
        of.groupby(["environment", "method"])["update"].max().unique() for of in (upper, variants)
    ]

    def stated(noun):
        found = re.findall(rf"([\d,]+)\s+{noun}", caption)
        return [int(number.replace(",", "")) for number in found]

    assert set(stated("seeds")) == set(seeds)
    assert set(stated("episodes")) == set(runs["episodes"])
    assert stated("updates") == [int(end) for of in ends for end in of]


def test_the_readme_tells_the_verdict_of_every_claim_of_the_papers():
    decided = pd.read_csv(ROOT / "results" / "cpu" / "claims.csv").drop_duplicates("id")
    decided = decided[decided["paper"] != "ours"]
    wanted = decided.groupby("claim_verdict")["id"].agg(set).to_dict()
    rows = re.findall(
        r"^\| (supported|not supported|undecided|not run) \| (.*) \|$", README.read_text(), re.M
    )
    assert len(rows) == len(wanted)
    assert {verdict: set(re.findall(r"\b[RM]\d+\b", ids)) for verdict, ids in rows} == wanted
    told = [name for _, ids in rows for name in re.findall(r"\b[RM]\d+\b", ids)]
    assert len(told) == len(set(told)), "a claim is told twice"


@pytest.mark.parametrize("page", PROSE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_relative_links_resolve(page):
    text = without_code(page.read_text())
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert targets or page != README
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in slugs(other.read_text()), f"{page.name}: no heading {target}"


@pytest.mark.parametrize("page", PROSE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_make_targets_that_are_shown_exist(page):
    text = page.read_text()
    shown = set(re.findall(r"^make ([a-z]+)", text, re.M)) | set(
        re.findall(r"`make ([a-z]+)", text)
    )
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert shown <= set(targets)


@pytest.mark.parametrize("page", PROSE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_python_that_is_shown_is_python(page):
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S):
        compile(block, str(page), "exec")


def test_notebooks_and_figures_that_the_docs_name_exist():
    text = (ROOT / "docs" / "notebooks.md").read_text()
    named = {f"notebooks/{name}.ipynb" for name in re.findall(r"^\| `(\d\d_\w+)` \|", text, re.M)}
    assert named == {path.relative_to(ROOT).as_posix() for path in NOTEBOOKS}
    outputs = set(re.findall(r"`(\w+\.(?:png|gif|table\.md))`", text))
    there = {path.name for path in (ROOT / "figures").glob("*/*")}
    assert outputs and outputs <= there


def test_figures_of_the_gallery_exist():
    gallery = (ROOT / "figures" / "README.md").read_text()
    named = re.findall(r"\]\(([^#()]+)\)", gallery)
    assert len(named) > 8
    assert not [name for name in named if not (ROOT / "figures" / name).exists()]


def test_committed_recordings_are_those_of_their_statistics_and_of_the_runs_on_them():
    recordings = ROOT / "results" / "recordings"
    rows = pd.read_csv(recordings / "minatar_statistics.csv").set_index("environment")
    assert {path.stem for path in recordings.glob("*.npz")} == {f"minatar_{x}" for x in rows.index}
    for game, row in rows.iterrows():
        dataset = datasets.load(recordings / f"minatar_{game}.npz")
        assert datasets.checksum(dataset) == row["checksum"]
        assert dataset.num_transitions == row["transitions"]
        assert dataset.episode_returns.mean() == pytest.approx(row["mean_return"])
    for path in (ROOT / "results" / "cpu").glob("*.provenance.json"):
        for record in json.loads(path.read_text()).values():
            of = record["parameters"]
            if Path(of.get("dataset") or "").parent.name == "recordings" and not of.get("world"):
                found, whole = record.get("data_checksum"), of["fraction"] == 1.0
                assert found in (None, rows.loc[of["environment"], "checksum"]) or not whole


def test_versions_agree():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert project()["version"] == cited
    assert f"\n## {cited}" in (ROOT / "CHANGELOG.md").read_text()
