"""The presets are the papers' tables, but for what a preset says it has of its own."""

import dataclasses
import inspect

import pytest

from unplugged import settings

# ROSMO, Table 4 (BSuite), and D.2.2 for alpha and the simulations.
TABLE_4 = {
    "representation": (64, 64, 32),
    "dynamics": (32, 256, 32),
    "prediction": (32,),
    "discount": 0.997**4,
    "batch_size": 128,
    "learning_rate": 7e-4,
    "weight_decay": 1e-4,
    "decay_rate": 0.1,
    "max_grad_norm": 5.0,
    "target_interval": 200,
    "policy_weight": 1.0,
    "value_weight": 0.25,
    "unroll_steps": 5,
    "td_steps": 3,
    "num_bins": 20,
    "behavior_weight": 0.2,
    "num_simulations": 4,
    "search_depth": None,
}

# ROSMO, Table 3 (Atari), of what MinAtar shares with it, and D.2.2.
TABLE_3 = {
    "discount": 0.997**4,
    "learning_rate": 7e-4,
    "weight_decay": 1e-4,
    "decay_rate": 0.1,
    "max_grad_norm": 5.0,
    "policy_weight": 1.0,
    "value_weight": 0.25,
    "unroll_steps": 5,
    "td_steps": 5,
    "behavior_weight": 0.2,
    "num_simulations": 20,
    "search_depth": None,
}

# What MinAtar's preset has of its own: 10 x 10 pixels, a CPU, 10,000 updates instead of 200,000.
OWN = {
    "network": "conv",
    "representation": (16, 16),
    "dynamics": (16, 16),
    "prediction": (64,),
    "num_bins": 21,
    "batch_size": 64,
    "warmup_updates": 100,
    "target_interval": 50,
    "num_samples": 4,
}

# In no table: ROSMO's authors' code, Appendix A, and what other methods need.
ELSEWHERE = {
    "warmup_updates": 1_000,
    "decay_updates": 100_000,
    "decay_staircase": False,
    "gradient_scale": 0.5,
    "reward_weight": 1.0,
    "conservative_weight": 1.0,
    "num_quantiles": 200,
    "num_heads": 200,
    "num_taus": 64,
    "bcq_threshold": 0.3,
    "temperature": 0.1,
    "num_samples": 2,
    "network": "mlp",
    "ties": "step",
    "rescale_values": True,
    "cloning_updates": 0,
    "standardize": False,
    "width": None,
    "num_atoms": 51,
    "bin_spacing": 1.0,
    "behavior_penalty": 1.0,
    "policy_head": "normal",
    "action_bins": 7,
    "num_candidates": 20,
    "injection": 0.25,
    "compute_dtype": "float32",
}


@pytest.mark.parametrize(
    ("preset", "stated"),
    [
        (settings.BSUITE, {**ELSEWHERE, **TABLE_4}),
        (settings.MINATAR, {**ELSEWHERE, **TABLE_3, **OWN}),
    ],
    ids=["bsuite", "minatar"],
)
def test_presets_are_the_papers_tables(preset, stated):
    assert dataclasses.asdict(preset) == stated


def test_every_setting_is_documented():
    text = inspect.getdoc(settings.Settings)
    assert all(f"\n  {x.name}: " in text for x in dataclasses.fields(settings.Settings))
