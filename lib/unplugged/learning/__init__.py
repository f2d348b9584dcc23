"""Losses, the table of methods and the learner.

Imports `common`, `model`, `planning` and `data`.
"""
