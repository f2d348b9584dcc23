"""Acting, stored steps and learning in one compiled loop. Imports all packages before it."""

from unplugged.online.spec import PARAMETERS, OnlineSpec, build

__all__ = ["PARAMETERS", "OnlineSpec", "build"]
