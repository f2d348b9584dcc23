"""Several devices for one batch, of one process or of several hosts.

Each device has the parameters and the data. All draw the same windows as a single one would, each
computes the gradient of its share, and they learn from the mean: one sum over devices an update,
and nothing else is sent. The actions that a model imagines past an end are those of a single one,
too. What else a method draws at random, such as a search's noise, each device draws by itself. What
a run is does not depend on the number of devices.

Several processes do the same, each with its own devices, and only the first writes results.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unplugged.common import checks

DEVICES = "UNPLUGGED_DEVICES"  # in the environment: how many, or "all"
# In the environment of each of several processes, beside JAX_COORDINATOR_ADDRESS, "HOST:PORT".
NUM_PROCESSES, PROCESS_ID = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_BATCH = "batch"
_BY_BATCH = PartitionSpec(None, _BATCH)  # of arrays [updates, B, ...]


def connect() -> None:
    """Joins the processes that train together, if the environment says that there are several.

    They are named by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or are the
    tasks of a SLURM step. To be called before anything else of JAX.

    Raises:
      ValueError: if one of the variables is missing.
    """
    if jax.distributed.is_initialized():
        return
    if address := os.environ.get("JAX_COORDINATOR_ADDRESS"):
        if missing := [name for name in (NUM_PROCESSES, PROCESS_ID) if name not in os.environ]:
            raise ValueError(f"JAX_COORDINATOR_ADDRESS is set: set {' and '.join(missing)} as well")
        jax.distributed.initialize(
            address, int(os.environ[NUM_PROCESSES]), int(os.environ[PROCESS_ID])
        )
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        # A task that is alone on its node has all of the node's GPUs, and JAX would give it one.
        alone = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1"
        count = int(os.environ.get("SLURM_GPUS_ON_NODE") or 0)
        mine = list(range(count)) if alone and count else None  # None leaves it to JAX.
        jax.distributed.initialize(local_device_ids=mine)


def several() -> bool:
    """Whether several processes train together."""
    return jax.process_count() > 1


def mesh(batch_size: int, devices: int | str | None = None) -> Mesh | None:
    """The devices that divide a batch; None for a single one, of which nothing is said.

    Args:
      batch_size: windows of a batch.
      devices: how many, of all hosts together, or "all"; None: what the environment says
        (`DEVICES`), else one, or with several processes all.

    Raises:
      ValueError: if there are fewer devices, they do not divide the batch, or some of several
        processes would have none.
    """
    wanted = devices or os.environ.get(DEVICES) or ("all" if several() else 1)
    there = jax.devices()
    if isinstance(wanted, str):
        if wanted != "all" and not wanted.isdecimal():
            raise ValueError(f'{DEVICES} must be a number or "all", got {wanted!r}')
        wanted = len(there) if wanted == "all" else int(wanted)
    checks.within("devices", wanted, 1, integer=True)
    if wanted > len(there):
        raise ValueError(
            f"{wanted} devices are wanted, and there are {len(there)} "
            f"({there[0].platform}): ask for at most that"
        )
    if several() and wanted != len(there):
        raise ValueError(
            f"{jax.process_count()} processes train together on all of their {len(there)} devices, "
            f'not on {wanted}: ask for "all"'
        )
    if batch_size % wanted:
        best = max(n for n in range(1, wanted + 1) if batch_size % n == 0)
        raise ValueError(
            f"batch_size {batch_size} cannot be divided among {wanted} devices: ask for {best}, "
            f"or set batch_size to {batch_size - batch_size % wanted or wanted}"
        )
    return None if wanted == 1 else Mesh(np.array(there[:wanted]), (_BATCH,))


def replicated(tree: Any, mesh: Mesh | None) -> Any:
    """The arrays on every device of a mesh, those of this process given."""
    if mesh is None:
        return tree
    whole = NamedSharding(mesh, PartitionSpec())
    mine = [x for x in mesh.devices.flat if x in jax.local_devices()]

    def put(x: Any) -> jax.Array:
        if isinstance(x, jax.Array) and x.sharding == whole:
            return x
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(x)))
        copies = [jax.device_put(x, device) for device in mine]
        return jax.make_array_from_single_device_arrays(np.shape(x), whole, copies)

    return jax.tree.map(put, tree)


def local(tree: Any) -> Any:
    """This process's own copy of what is on every device of a mesh, on its first device."""

    def take(x: Any) -> Any:
        if not isinstance(x, jax.Array) or len(x.sharding.device_set) == 1:
            return x
        return x.addressable_data(0)

    return jax.tree.map(take, tree)


def over(mesh: Mesh | None, run: Callable[..., Any], *, fed: bool = False) -> Callable[..., Any]:
    """The function (state, data, ...) -> outputs on every device at once.

    Within it are `share`, `own` and `mean`. All devices give the same outputs.

    Args:
      mesh: the devices; None: the function stays as it is.
      run: its arguments are on every device, see `replicated`.
      fed: whether the last argument is an array of `fed` instead, of which each has its share.
    """
    if mesh is None:
        return run

    def everywhere(*arguments: Any) -> Any:
        of = [PartitionSpec()] * len(arguments)
        if fed:
            of[-1] = _BY_BATCH
        return jax.shard_map(
            run, mesh=mesh, in_specs=tuple(of), out_specs=PartitionSpec(), check_vma=False
        )(*arguments)

    return everywhere


def share(x: jax.Array, mesh: Mesh | None, axis: int = 0) -> jax.Array:
    """This device's part of what belongs to a batch of B, [..., B, ...] with B at that axis."""
    if mesh is None:
        return x
    size = x.shape[axis] // mesh.size
    return jax.lax.dynamic_slice_in_dim(x, size * jax.lax.axis_index(_BATCH), size, axis)


def own(key: jax.Array, mesh: Mesh | None) -> jax.Array:
    """A random key of this device."""
    return key if mesh is None else jax.random.fold_in(key, jax.lax.axis_index(_BATCH))


def mean(tree: Any, mesh: Mesh | None) -> Any:
    """Means over all devices."""
    return tree if mesh is None else jax.lax.pmean(tree, _BATCH)


def fed(shape: tuple[int, ...], part: Callable[[Any], np.ndarray], mesh: Mesh | None) -> jax.Array:
    """An array [updates, B, ...] of which each host makes the parts of its own devices.

    Args:
      shape: of the whole array.
      part: slices of its axes -> that part of it.
      mesh: the devices; None: one has it all.
    """
    if mesh is None:
        return jax.device_put(part(tuple(slice(0, size) for size in shape)))
    return jax.make_array_from_callback(shape, NamedSharding(mesh, _BY_BATCH), part)


@contextlib.contextmanager
def own_folder(folder: str | os.PathLike[str]) -> Iterator[str | os.PathLike[str]]:
    """The folder in the first of several processes; elsewhere one that is removed in the end."""
    if jax.process_index() == 0:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def of_first(value: Any) -> Any:
    """What JSON can hold, as the first of several processes has it."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    sent = np.resize(text, size)  # Others' content does not matter.
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes())


def arrays_of_first(tree: Any) -> Any:
    """Arrays, no random keys among them, as the first of several processes has them."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)
