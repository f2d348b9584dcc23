"""Recorded episodes, windows drawn from them, and their formats.

Knows nothing of learning;
imports `common`, `model` and `envs`.
"""
