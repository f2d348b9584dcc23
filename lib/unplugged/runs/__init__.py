"""A run: from parameters to checkpoints and result rows. Imports all packages before it."""

from unplugged.runs.training import (
    ADOPTED,
    PARAMETERS,
    Spec,
    build,
    by_selectors,
    restore,
    saved_states,
    train,
)

__all__ = [
    "ADOPTED",
    "PARAMETERS",
    "Spec",
    "build",
    "by_selectors",
    "restore",
    "saved_states",
    "train",
]
