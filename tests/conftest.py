"""Small data and models that many tests share."""

import dataclasses
import importlib.metadata
import os
from pathlib import Path

os.environ.setdefault("NPROC", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # whose bits are compared, by several processes
# Compiling takes most of the tests' time, and what is compiled runs for a moment. The last flag
# halves it; another version may not know it, and end.
os.environ["XLA_FLAGS"] = " ".join(
    ["--xla_cpu_multi_thread_eigen=false", "--xla_backend_optimization_level=0"]
    + ["--xla_cpu_use_fusion_emitters=false"]
    * importlib.metadata.version("jaxlib").startswith("0.10.")
)
# The same program is compiled once for all tests, their processes and notebooks.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import numpy as np
import pytest

from unplugged import control, datasets, settings
from unplugged.model.actions import Discrete
from unplugged.runs.spec import model_of

# Files that take longest, so that no core waits for one of them in the end.
FIRST = (
    "pipeline", "runs", "online", "notebooks", "worlds", "learner", "objectives", "parallel",
    "policy", "continuous", "candidates", "identity", "logged", "benchmarks", "selection", "losses",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    def place(item):
        name = item.path.stem.removeprefix("test_")
        return FIRST.index(name) if name in FIRST else len(FIRST)

    items.sort(key=place)


@pytest.fixture
def suite():
    """The DM Control suite; tests that need it are left out where it is not installed."""
    try:
        return control.suite()
    except ValueError as error:
        pytest.skip(str(error))


NUM_ACTIONS = 3
OBSERVATION = (2, 2)


@pytest.fixture(scope="session")
def small():
    """Settings small enough to follow by hand, K = 2 and n = 2."""
    return settings.Settings(
        representation=(7, 5),
        dynamics=(6, 9, 5),
        prediction=(4,),
        num_bins=6,
        num_quantiles=5,
        num_heads=4,
        num_taus=3,
        batch_size=4,
        unroll_steps=2,
        td_steps=2,
        discount=0.9,
        warmup_updates=2,
        target_interval=3,
        num_simulations=4,
    )


def compiled(model):
    """The model, each function compiled whole instead of operation by operation."""
    functions = ("init", "represent", "dynamics", "predict")
    return dataclasses.replace(model, **{name: jax.jit(getattr(model, name)) for name in functions})


@pytest.fixture(scope="session")
def model(small):
    """The model of `small`."""
    return compiled(model_of(small, OBSERVATION, Discrete(NUM_ACTIONS)))


def random_params(model, seed):
    """Parameters of which none is zero, heads and biases included."""
    params = jax.eval_shape(model.init, jax.random.key(seed))  # Their shapes are enough.
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(
        tree, [rng.normal(scale=0.5, size=x.shape).astype(np.float32) for x in leaves]
    )


def make_episode(rng, length, terminated):
    return {
        "observation": rng.normal(size=(length + 1, *OBSERVATION)),
        "action": rng.integers(0, NUM_ACTIONS, length),
        "reward": rng.normal(scale=2.0, size=length),
        "terminated": terminated,
    }


@pytest.fixture
def dataset():
    """Six episodes of lengths 3 to 8; the odd ones are truncated."""
    rng = np.random.default_rng(0)
    episodes = [make_episode(rng, 3 + i, terminated=i % 2 == 0) for i in range(6)]
    metadata = {
        "benchmark": "bsuite",
        "environment": "toy",
        "num_actions": NUM_ACTIONS,
        "noise": 0.0,
    }
    return datasets.from_episodes(episodes, metadata)
