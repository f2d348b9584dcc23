"""Improvement operators, search, and ways to act. Imports `model`."""
