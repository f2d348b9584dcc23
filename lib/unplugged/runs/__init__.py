"""A run: from parameters to checkpoints and result rows. Imports all packages before it."""

from unplugged.runs.identity import description, environment, programs, source, versions
from unplugged.runs.results import ADOPTED, differs_in_seeds_only
from unplugged.runs.spec import (
    PARAMETERS,
    AnySpec,
    Spec,
    build,
    check_range,
    divide,
    of_folder,
    on_device,
)
from unplugged.runs.training import (
    by_selectors,
    check_losses,
    check_params,
    last_state,
    restore,
    saved_states,
    train,
)

__all__ = [
    "ADOPTED",
    "PARAMETERS",
    "AnySpec",
    "Spec",
    "build",
    "by_selectors",
    "check_losses",
    "check_params",
    "check_range",
    "description",
    "differs_in_seeds_only",
    "divide",
    "environment",
    "last_state",
    "of_folder",
    "on_device",
    "programs",
    "restore",
    "saved_states",
    "source",
    "train",
    "versions",
]
