"""Checks of input, files that appear whole, notebooks' parameters, hashes.

Imports nothing of ours.
"""
