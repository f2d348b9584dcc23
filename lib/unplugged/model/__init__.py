"""The learned model: scalars as categories, networks, the critic. Imports nothing of ours."""
