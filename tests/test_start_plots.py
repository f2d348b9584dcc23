"""How planners begin, with one change each."""

import numpy as np
import pandas as pd
import pytest

from reproduction import claims_own, plots, start_plots

PRESET = {"method": "rosmo", "environment": "asterix", "cloning_updates": 0,
          "rescale_values": True, "target_interval": 50}  # fmt: skip


def rows(**change):
    diagnosed = {
        f"{of}_{name}": 0.5 for of in ("policy", "target") for name in start_plots.DIAGNOSED
    }
    return pd.DataFrame(
        [
            {**PRESET, **change, "seed": seed, "update": update, "mean_return": update + seed,
             **{k: x if update else np.nan for k, x in diagnosed.items()}}
            for seed in (0, 1) for update in (0, 10, 20)
        ]
    )  # fmt: skip


def test_each_run_is_named_by_its_change():
    changed = pd.concat(
        [rows(cloning_updates=2000), rows(target_interval=200), rows(rescale_values=False),
         rows(method="rosmo_recorded"), rows(cloning_updates=1000)]
    )  # fmt: skip
    preset = claims_own.preset(rows())
    found = start_plots.by_change(changed, rows(), preset)["change"]
    assert list(found.cat.categories) == [
        "no change", "2,000 updates of cloning first", "target interval 200",
        "values not rescaled", "filter by the recorded step", "1,000 updates of cloning first",
    ]  # fmt: skip
    assert (found.value_counts() == 6).all()
    with pytest.raises(ValueError, match="2 changes: cloning_updates, target_interval"):
        changed = rows(cloning_updates=1000, target_interval=200)
        start_plots.by_change(changed, rows(), preset)
    with pytest.raises(ValueError, match="0 changes: none"):
        start_plots.by_change(rows(), rows(), preset)
    longer = rows(target_interval=200)  # The main runs on their games may be to come.
    found = start_plots.by_change(longer, rows()[:0], preset)["change"]
    assert found.unique().tolist() == ["target interval 200"]


def test_what_is_there_is_drawn():
    datasets = pd.DataFrame({"online_return": [30.0, 30.0]}, index=["asterix", "breakout"])
    changed = pd.concat(
        [rows(cloning_updates=1000), rows(cloning_updates=1000, environment="breakout")]
    )
    for main in (rows(), rows()[:0]):  # The main runs may still be to come.
        found = start_plots.by_change(changed, main, claims_own.preset(rows()))
        figure = start_plots.draw(found, datasets)
        panels = np.array(figure.axes).reshape(3, 2)
        assert [ax.get_title() for ax in panels[0]] == ["asterix", "breakout"]
        kinds = 2 if len(main) else 1
        assert len(panels[0, 0].lines) == kinds + 1 and len(panels[0, 1].lines) == 2
        assert len(panels[1, 0].lines) == 2 * kinds  # Of the policy and of the target.
        assert panels[1, 0].lines[0].get_xdata().tolist() == [10, 20]
        assert len(panels[0, 1].get_legend().get_texts()) == kinds + 1
        plots.plt.close(figure)
        told = start_plots.told(found)
        assert told["first", "mean_return"].tolist() == [10.5] * kinds
        assert told["last", "mean_return"].tolist() == [20.5] * kinds
