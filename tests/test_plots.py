import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reproduction import gallery, plots, statistics
from unplugged import methods

NOTES = {"title": "t", "caption": "c", "paper": "p", "command": "make figures"}


def test_figures_drawn_twice_are_the_same_bytes(tmp_path):
    plots.use_style()
    rows = pd.DataFrame(
        {"method": ["rosmo"] * 4 + ["bc"] * 4, "seed": [0, 1] * 4, "update": [0, 0, 10, 10] * 2,
         "mean_return": [0.0, 0.1, 1.0, 0.9, 0.0, 0.0, 0.5, 0.4]}
    )  # fmt: skip
    curves = statistics.summarise(rows, "mean_return", ["method", "update"])
    for name in ("a", "b"):
        figure, ax = plots.plt.subplots()
        for method in plots.in_order(rows["method"]):
            plots.curve(ax, curves[curves["method"] == method], method)
        plots.save_figure(figure, tmp_path / name, "f", NOTES)
        plots.save_table(rows, tmp_path / name, "f", NOTES)
        plots.plt.close(figure)
    first = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    assert set(first) == {
        "f.png", "f.pdf", "f.json", "f.table.csv", "f.table.md", "f.table.tex", "f.table.json",
    }  # fmt: skip
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()}


def test_a_figure_without_its_caption_is_refused(tmp_path):
    notes = {key: value for key, value in NOTES.items() if key != "caption"}
    with pytest.raises(ValueError, match="needs caption"):
        plots.save_table(pd.DataFrame({"a": [1]}), tmp_path / "none", "f", notes)
    assert not (tmp_path / "none").exists()


def test_curves_of_any_length_carry_markers_evenly_along_the_axis():
    figure, (short, long) = plots.plt.subplots(1, 2)
    for ax, last in ((short, 20), (long, 200)):
        plots.linear_then_log(ax, 20, last)
        x = np.arange(0, last + 1, 2)
        plots.curve(ax, pd.DataFrame({"update": x, "value": x, "low": x, "high": x}), "rosmo")
    assert short.get_xscale() == "linear"
    assert short.lines[0].get_markevery() == list(range(11))
    marked = 2 * np.array(long.lines[0].get_markevery())
    assert {0, 20} <= set(marked) and 8 < len(marked) <= 13
    log = np.log(marked[marked >= 20])
    assert np.diff(log).std() < 0.1 * np.diff(log).mean()
    assert list(long.get_xticks()) == [0, 10, 20, 60, 200]
    uneven = pd.DataFrame({"fraction": [0.01, 0.03, 1.0], "value": 0.0, "low": 0.0, "high": 0.0})
    plots.curve(short, uneven, "rosmo", x="fraction")  # The axis may become logarithmic later.
    assert short.lines[-1].get_markevery() == [0, 1, 2]
    plots.plt.close(figure)


def test_every_method_has_a_look_of_its_own():
    looks = [plots.look(name) for name in methods.METHODS]
    for cue in ("marker", "linestyle"):  # Never by colour alone.
        assert len({str(getattr(one, cue)) for one in looks}) == len(looks)
    paper = [plots.look(name).color for name in ("rosmo", "mzu", "crr", "cql", "bc")]
    assert len(set(paper)) == 5
    assert plots.look("something_new") == plots.look("something_new")
    assert plots.in_order(["zeta", "bc", "rosmo"]) == ["rosmo", "bc", "zeta"]


def test_numbers_of_a_heat_map_stand_out():
    cells = pd.DataFrame(
        {"x": np.arange(40), "y": 0, "value": np.linspace(-1, 2, 40), "low": -1.0, "high": np.nan}
    )
    cells.loc[1, "y"] = 1  # Which leaves empty cells, without a number.
    figure, ax = plots.plt.subplots()
    plots.heat_map(ax, cells, x="x", y="y")
    plots.plt.close(figure)
    assert len(ax.texts) == len(cells)
    background = ax.collections[0].get_facecolors()
    for text in ax.texts:
        column, row = (int(at) for at in text.get_position())
        luminance = plots.sns.utils.relative_luminance(background[40 * row + column])
        contrast = {"black": (luminance + 0.05) / 0.05, "white": 1.05 / (luminance + 0.05)}
        assert contrast[text.get_color()] >= 4.5  # WCAG's least for text.


def test_the_gallery_has_captions_first_and_folds_details(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notes = {
        **NOTES, "caption": "Short.", "verdict": "R1 is supported.",
        "details": "Long\n  a.\n\nList:\n\n- b\n- c",
        "notebook": "30_x", "data": ["results/cpu/x.csv", "results/claims.csv"],
    }  # fmt: skip
    figure, _ = plots.plt.subplots()
    plots.save_figure(figure, "figures/cpu", "f", notes)
    plots.plt.close(figure)
    plots.save_table(pd.DataFrame({"a": [1]}), "figures/cpu", "g", {**NOTES, "title": "u"})
    page = gallery.page(Path("figures"), {"rosmo": "ROSMO"})
    first, second = page.split("### ")[1:]
    assert first == (
        "t\n\n![t](cpu/f.png)\n\nShort.\n\n**Paper:** p\n\n**Ours:** R1 is supported.\n\n"
        "Notebook: [`30_x.ipynb`](../notebooks/30_x.ipynb); data: "
        "[`x.csv`](../results/cpu/x.csv), [`claims.csv`](../results/claims.csv); "
        "redraw: `make figures`.\n\n<details><summary>Details</summary>\n\n"
        "Long a.\n\nList:\n\n- b\n- c\n\n</details>\n\n"
    )
    assert "Redraw: `make figures`." in second and "<details>" not in second
    own = gallery.page(Path("figures/cpu"), {})
    assert "(f.png)" in own and "(../../results/cpu/x.csv)" in own


def test_contents_of_the_gallery_lead_to_its_sections_and_speed_comes_last(tmp_path):
    figure, _ = plots.plt.subplots()
    for folder in ("bench", "cpu", "paper"):
        plots.save_figure(
            figure, tmp_path / folder, "f", {**NOTES, "title": "Figure 2: on deep_sea"}
        )
    plots.plt.close(figure)
    page = gallery.page(tmp_path, {})
    found = re.findall(r"^ *- \[(.*)\]\(#(.*)\)$", page, re.M)
    name = "figure-2-on-deep_sea"
    assert [anchor for _, anchor in found] == [
        "profile-cpu", name, "profile-paper", f"{name}-1", "speed", f"{name}-2",
    ]  # fmt: skip
    headings = re.findall(r"^##+ (.*)$", page, re.M)
    assert [title for title, _ in found] == headings[2:]  # after contents and methods


def test_the_gallery_shows_videos(tmp_path):
    plots.save_video([np.zeros([4, 4, 3], np.uint8)] * 2, tmp_path / "cpu", "v", NOTES)
    assert (tmp_path / "cpu" / "v.gif").exists()
    assert "![t](cpu/v.gif)" in gallery.page(tmp_path, {})


def test_the_common_gallery_is_without_profiles_that_are_not_committed(tmp_path):
    figure, _ = plots.plt.subplots()
    for profile in ("cpu", "smoke"):
        plots.save_figure(figure, tmp_path / profile, "f", {**NOTES, "title": f"of {profile}"})
    plots.plt.close(figure)
    common = gallery.page(tmp_path, {"rosmo": "ROSMO"})
    assert "![of cpu](cpu/f.png)" in common and "smoke" not in common.split("## Methods")[1]
    own = gallery.page(tmp_path / "smoke", {"rosmo": "ROSMO"})
    assert "## Profile smoke" in own and "![of smoke](f.png)" in own and "of cpu" not in own
