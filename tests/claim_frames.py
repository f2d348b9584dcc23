"""Made-up results of the experiments that claims rest on."""

from pathlib import Path

import numpy as np
import pandas as pd

from reproduction import (
    claims_muzero,
    claims_rosmo,
)

CLAIMS = pd.read_csv(Path(__file__).parents[1] / "results" / "claims.csv")
PRESET = {"noise": 0.0, "fraction": 1.0, "hidden": 256, "num_simulations": 4,
          "search_depth": np.nan, "unroll_steps": 5, "selector": "policy",
          "overrides": "{}"}  # fmt: skip
BSUITE = [f"R{i}" for i in range(1, 10)]
MINATAR = [*(f"R{i}" for i in range(10, 17)), *(f"M{i}" for i in range(3, 9))]


def runs(method, environment, level, seeds=4, updates=20, spread=0.01, **setting):
    """Rows of a run whose score comes to `level`, plus a little for each seed, by update 20."""
    setting = {**PRESET, **setting, "overrides": str(setting)}
    return pd.DataFrame(
        [
            {"method": method, "environment": environment, "seed": seed, "update": update,
             "score": level * min(1, update / 20) + spread * seed,
             "mean_return": 10 * (level * min(1, update / 20) + spread * seed), **setting}
            for seed in range(seeds) for update in (0, 2, *range(10, updates + 1, 10))
        ]
    )  # fmt: skip


def study(**levels):
    """All experiments, at level 1 but where `levels` says otherwise."""

    def level(experiment, method, *setting):
        names = "_".join(map(str, (experiment, method, *setting))), f"{experiment}_{method}", method
        return next((levels[name] for name in names if name in levels), 1.0)

    worlds = ("catch", "cartpole", "mountain_car")
    both = [(m, e) for m in ("rosmo", "mzu") for e in worlds]
    return {
        "bsuite_curves": pd.concat(
            [runs(m, e, level("curves", m, e), updates=40) for m in claims_rosmo.PAPER_METHODS
             for e in worlds]
        ),
        "bsuite_fractions": pd.concat(
            [runs(m, e, level("fractions", m, f), fraction=f) for m, e in both
             for f in (0.01, 0.1)]
        ),
        "bsuite_noise": pd.concat(
            [runs(m, "catch", level("noise", m), noise=0.5) for m in ("rosmo", "mzu")]
        ),
        "bsuite_capacity": pd.concat(
            [runs(m, e, level("capacity", m, h), fraction=0.1, hidden=h) for m, e in both
             for h in (16, 1024)]
        ),
        "bsuite_search": pd.concat(
            [runs("mzu", e, level("search", "mzu", n, d), num_simulations=n,
                  search_depth=np.nan if d is None else d)
             for e in worlds[:2] for n, d in ((1, None), (16, 1), (16, 2), (16, None))]
        ),
    }  # fmt: skip


def times(**seconds):
    """Seconds an update by method: asterix at these, breakout at thrice as many, one outlier."""
    return pd.DataFrame(
        [
            {"environment": world, "method": method, "repeat": repeat, "seconds": factor * each}
            for method, each in seconds.items()
            for world, factors in (("asterix", (1.0, 1.0, 100.0)), ("breakout", (3.0, 3.0, 100.0)))
            for repeat, factor in enumerate(factors)
        ]
    )


def pixels(**levels):
    """All experiments on two games, at level 1 but where `levels` says otherwise."""

    def rows(experiment, method, *names, worlds=("asterix", "breakout"), **setting):
        names = "_".join([experiment, method, *names]), method
        level = next((levels[name] for name in names if name in levels), 1.0)
        setting = {"num_simulations": 20, **setting}
        return [runs(method, world, level, **setting) for world in worlds]

    game = {"worlds": ("asterix",)}
    few = {"num_simulations": 4, **game}
    return {
        name: pd.concat(frames)
        for name, frames in {
            "minatar_curves": [
                x for m in claims_rosmo.PAPER_METHODS
                for x in rows("curves", m)
            ],
            "minatar_times": [times(rosmo=1.0, mzu=10.0)],
            "minatar_fractions": [
                x for m in ("rosmo", "mzu") for f in (0.01, 0.1)
                for x in rows("fractions", m, str(f), fraction=f)
            ],
            "minatar_onestep": [
                x for f in (0.01, 1.0) for x in rows("onestep", "onestep", str(f), fraction=f)
            ],
            "minatar_ablations": [
                *rows("ablations", "behavior", **game),
                *rows("ablations", "rosmo_sampled", **game),
                *(x for m in ("mzu", "mzu_q") for x in rows("ablations", m, "4", **few)),
                *(x for m in ("rosmo", "mzu")
                  for x in rows("ablations", m, "1", unroll_steps=1, **game)),
            ],
            "minatar_selectors": [
                *(x for s in ("policy", "value", "search")
                  for loss, run in claims_muzero.LOSSES.items() if "unroll_steps" in run
                  for x in rows("selectors", loss, s, selector=s,
                                unroll_steps=run["unroll_steps"])),
                *rows("selectors", "supervised_q", "critic", selector="critic"),
            ],
        }.items()
    }  # fmt: skip
