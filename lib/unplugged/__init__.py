"""Planning with a learned model, online and offline: MuZero Unplugged, ROSMO and baselines.

One way through: dataset -> windows -> learner -> parameters -> evaluation -> results row.
"""

__version__ = "0.1.0"
