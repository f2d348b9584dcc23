"""This study of two papers: profiles, statistics, figures, tables and claims.

It imports `unplugged`, never the other way round. What draws imports no jax.
"""
