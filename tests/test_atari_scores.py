"""Normalised scores by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reproduction import atari_scores

PUBLISHED = Path(__file__).parents[1] / "results" / "published"


def test_scores_by_hand():
    rows = pd.DataFrame(
        {
            "environment": ["pong", "pong", "alien", "carnival", "amidar"],
            "mean_return": [18.25, -20.3, 199.8, 5339.46, 1719.5],
            "seed": range(5),
        },
        index=[3, 1, 4, 0, 9],
    )
    scored = atari_scores.normalised(rows, PUBLISHED)
    assert list(scored.index) == [3, 1, 4, 0, 9] and list(scored["seed"]) == list(range(5))
    np.testing.assert_allclose(
        scored["score"], [1.0, 0.0, 0.0, 1.0, (1719.5 - 3.19) / (1556.96 - 3.19)]
    )
    # Pong: random -20.7, human 14.6; alien: 227.8 and 7127.7; carnival has none.
    np.testing.assert_allclose(
        scored["human_score"],
        [(18.25 + 20.7) / 35.3, 0.4 / 35.3, (199.8 - 227.8) / (7127.7 - 227.8), np.nan, 1.0],
    )


def test_another_game_is_named():
    rows = pd.DataFrame({"environment": ["ms_packman"], "mean_return": [0.0]})
    with pytest.raises(ValueError, match="unknown Atari game 'ms_packman': did you mean 'ms_pacm"):
        atari_scores.normalised(rows, PUBLISHED)
