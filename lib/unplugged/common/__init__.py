"""Checks of input, files that appear whole, notebooks' parameters, hashes,
memory.

Imports nothing of ours.
"""
