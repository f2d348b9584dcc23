"""The agents that make data. Imports `common`, `model`, `envs` and `data`."""
