"""What is read out of bench.csv."""

import numpy as np
import pytest

from reproduction import speed

ROWS = """measure,method,setting,value,unit,repeats,note
fused / reference,rosmo,"data=catch, pair=1",2.0,ratio,1,
fused / reference,rosmo,"data=catch, statistic=median",3.0,ratio,3,
time of part,mzu,"data=catch, part=loss forward",5.0,us,1,
time of part,mzu,"data=catch, part=loss forward and backward",12.0,us,1,
time of part,mzu,"data=catch, part=search",40.0,us,1,
time of part,mzu,"data=catch, part=whole",60.0,us,1,
growth,rosmo,"data=breakout, num_simulations=4",60.0,updates/s,3,
growth,mzu,"data=breakout, num_simulations=20",6.0,updates/s,3,
growth,mzu,"data=breakout, num_simulations=4",30.0,updates/s,3,
growth,mzu,"data=breakout, num_simulations=4",1920.0,windows/s,3,
"""


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "bench.csv").write_text(ROWS)
    return speed.load(tmp_path)


def test_settings_become_columns(bench):
    assert speed.value(bench, "fused / reference", data="catch", statistic="median") == 3.0
    assert speed.select(bench, "fused / reference")["pair"].tolist()[0] == "1"
    assert "part" not in speed.select(bench, "fused / reference")
    assert np.isnan(speed.value(bench, "fused / reference", data="cartpole"))
    assert speed.select(bench, "growth", actors="110").empty


def test_backward_is_the_difference_of_two_timings(bench):
    table = speed.time_of_parts(bench)["mzu", "catch"]
    assert table.to_dict() == {"search": 40.0, "forward": 5.0, "backward": 7.0, "whole": 60.0}


def test_the_cost_of_search_is_a_ratio_of_times(bench):
    assert speed.cost_of_search(bench, "breakout").to_dict() == {4: 2.0, 20: 10.0}


def test_ratios_and_what_misses_its_target(bench):
    ratios = speed.ratios(bench, ["catch"])
    assert ratios.to_dict() == {("rosmo", "catch"): 3.0}
    assert speed.in_words(ratios) == "rosmo 3.0 on catch"
    assert speed.missed(ratios, {"rosmo": 6.0}) == "rosmo 3.0 on catch"
    assert speed.missed(ratios, {"rosmo": 3.0}) == "none"


def test_a_quick_run_says_that_it_is_no_result():
    about = {"cpu": "X", "packages": {"jax": "0.1"}, "time": "2030-01-02T03:04", "quick": False}
    assert speed.measured_where(about) == "X, jax 0.1, 2030-01-02"
    assert "QUICK" in speed.measured_where({**about, "quick": True})


def test_parts_of_several_networks_stand_beside_each_other(tmp_path):
    timed = [("catch", "mlp", 1.0), ("breakout", "conv", 9.0), ("breakout", "conv_mlp", 3.0)]
    rows = [
        f'time of part,mzu,"data={data}, network={network}, part={part}",{value},us/update,3,'
        for data, network, value in timed
        for part in ("loss forward", "loss forward and backward", "whole")
    ]
    header = ROWS.partition("\n")[0]
    (tmp_path / "bench.csv").write_text("\n".join([header, *rows]))
    table = speed.time_of_parts(speed.load(tmp_path))
    assert table.loc["whole"].to_dict() == {
        ("mzu", "breakout, conv"): 9.0, ("mzu", "breakout, conv_mlp"): 3.0, ("mzu", "catch"): 1.0,
    }  # fmt: skip
