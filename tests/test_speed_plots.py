"""What the panels of the benchmark draw, from a made-up one."""

import pytest

from reproduction import plots, speed, speed_plots

ROWS = """measure,method,setting,value,unit,repeats,note
fused / reference,rosmo,"data=catch, pair=1",2.0,ratio,1,
fused / reference,rosmo,"data=catch, pair=2",4.0,ratio,1,
fused / reference,rosmo,"data=catch, statistic=median",3.0,ratio,2,
fused / reference,rosmo,"data=catch, statistic=max",4.0,ratio,2,
fused / reference,mzu,"data=catch, pair=1",1.5,ratio,1,
fused / reference,mzu,"data=catch, statistic=median",1.5,ratio,1,
fused / reference,rosmo,"data=breakout, statistic=median",9.0,ratio,1,
time of part,mzu,"data=catch, part=search",4000.0,us,1,
time of part,mzu,"data=catch, part=loss forward",500.0,us,1,
time of part,mzu,"data=catch, part=loss forward and backward",1500.0,us,1,
time of part,mzu,"data=catch, part=whole",6000.0,us,1,
time of part,rosmo,"data=breakout, part=whole",1000.0,us,1,
growth,rosmo,"data=catch, num_simulations=4",60.0,updates/s,3,"min 50, max 70"
growth,mzu,"data=catch, num_simulations=20",6.0,updates/s,3,"min 5, max 8"
growth,mzu,"data=catch, num_simulations=4",30.0,updates/s,3,"min 20, max 40"
growth,rosmo,"data=catch, seeds=2, way=vmapped",80.0,updates x seeds/s,3,"min 70, max 90"
growth,rosmo,"data=catch, seeds=2, way=looped",90.0,updates x seeds/s,3,"min 80, max 95"
online,mzu,"simulations=8, actors=110, reanalysed=0.9",20.0,updates/s,3,
online,mzu,"simulations=8, actors=110, reanalysed=0.9",40.0,updates/s,3,
online,mzu,"simulations=2, actors=110, reanalysed=0.9",50.0,updates/s,3,
online,mzu,"simulations=8, actors=11, reanalysed=0.9",70.0,updates/s,3,
time of part online,mzu,"reanalysed=0, part=acting",30.0,ms/update,1,
time of part online,mzu,"reanalysed=0, part=reanalysing",0.0,ms/update,1,
time of part online,mzu,"reanalysed=0, part=learning",10.0,ms/update,1,
time of part online,mzu,"reanalysed=0.9, part=acting",3.0,ms/update,1,
time of part online,mzu,"reanalysed=0.9, part=reanalysing",28.0,ms/update,1,
time of part online,mzu,"reanalysed=0.9, part=learning",9.0,ms/update,1,
"""


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "bench.csv").write_text(ROWS)
    return speed.load(tmp_path)


@pytest.fixture
def ax():
    figure, ax = plots.plt.subplots()
    yield ax
    plots.plt.close(figure)


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def test_bars_of_ratios_are_medians_with_each_pair_and_the_target(bench, ax):
    speed_plots.ratio_bars(ax, bench, ["catch"], {"rosmo": 6.0, "mzu": 5.0})
    assert [bar.get_height() for bar in ax.patches] == [3.0, 1.5]
    assert [list(line.get_ydata()) for line in ax.lines] == [[2.0, 4.0], [1.5]]
    assert [lines.get_segments()[0][0][1] for lines in ax.collections] == [6.0, 5.0]
    assert labels(ax.get_xticklabels()) == ["rosmo\ncatch", "mzu\ncatch"]


def test_methods_are_ordered_by_their_median(bench, ax):
    speed_plots.method_ratios(ax, bench, "catch", 2.0)
    assert labels(ax.get_yticklabels()) == ["mzu", "rosmo"]
    assert [bar.get_width() for bar in ax.patches] == [1.5, 3.0]
    assert [list(line.get_xdata()) for line in ax.lines] == [[1.5], [2.0, 4.0], [2.0, 2.0]]


def test_parts_are_stacked_in_milliseconds_beside_the_whole(bench, ax):
    speed_plots.time_split(ax, bench, "catch")
    stacked = [(bar.get_y(), bar.get_height()) for bar in ax.patches]
    assert stacked == [(0.0, 4.0), (4.0, 0.5), (4.5, 1.0)]  # Search, forward, backward.
    assert list(ax.lines[-1].get_ydata()) == [6.0]
    assert labels(ax.get_xticklabels()) == ["mzu\ncatch"]


def test_each_network_has_its_bar(tmp_path, ax):
    parts = ("loss forward", "loss forward and backward", "whole")
    rows = [
        f'time of part,mzu,"data=breakout, network={network}, part={part}",{value},us,1,'
        for network, value in (("conv", 9e3), ("conv_mlp", 3e3)) for part in parts
    ]  # fmt: skip
    (tmp_path / "bench.csv").write_text("\n".join([ROWS.partition("\n")[0], *rows]))
    speed_plots.time_split(ax, speed.load(tmp_path), "breakout")
    assert labels(ax.get_xticklabels()) == ["mzu\nconv", "mzu\nconv_mlp"]
    assert list(ax.lines[-1].get_ydata()) == [9.0, 3.0]


def test_growth_has_a_curve_a_method_with_its_range(bench, ax):
    speed_plots.growth(ax, bench, "num_simulations", "updates/s", "t")
    curves = {line.get_label(): sorted(zip(*line.get_data())) for line in ax.lines}
    assert curves == {"mzu": [(4, 30.0), (20, 6.0)], "rosmo": [(4, 60.0)]}
    ranges = [segment[:, 1].tolist() for of in ax.collections for segment in of.get_segments()]
    assert sorted(ranges) == [[5.0, 8.0], [20.0, 40.0], [50.0, 70.0]]


def test_ways_of_training_seeds_have_curves_of_their_own(bench, ax):
    speed_plots.growth(ax, bench, "seeds", "updates x seeds/s", "t")
    assert {line.get_label(): line.get_linestyle() for line in ax.lines} == {
        "rosmo, vmapped": "--", "rosmo, looped": "-",
    }  # fmt: skip


def test_the_cost_of_search_is_drawn_against_rosmos(bench, ax):
    speed_plots.cost_of_search(ax, bench, "catch")
    assert list(zip(*ax.lines[0].get_data())) == [(4, 2.0), (20, 10.0)]
    assert list(ax.lines[1].get_ydata()) == [1.0, 1.0]


def test_online_rates_hold_the_other_settings_fixed(bench, ax):
    speed_plots.online_rates(ax, bench, "simulations", "t", actors="110", reanalysed="0.9")
    updates = next(line for line in ax.lines if line.get_label() == "updates/s")
    assert list(zip(*updates.get_data())) == [(2.0, 50.0), (8.0, 30.0)]  # A mean of two.


def test_online_parts_add_up_to_the_whole(bench, ax):
    speed_plots.online_split(ax, bench)
    tops = [bar.get_y() + bar.get_height() for bar in ax.patches]
    assert tops == [30.0, 3.0, 30.0, 31.0, 40.0, 40.0]
    assert labels(ax.get_xticklabels()) == ["0", "0.9"]
