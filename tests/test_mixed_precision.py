"""Layers in bfloat16; parameters, outputs, losses, targets and gradients in float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import NUM_ACTIONS, OBSERVATION, random_params
from unplugged import learner, losses, methods, settings, windows
from unplugged.model.actions import Discrete
from unplugged.runs.spec import model_of

IMAGE = (4, 4, 2)
SIZES = {
    "mlp": ((7, 5), (6, 9, 5), OBSERVATION),
    "mlp_resnet": ((7, 5), (6, 9, 5), OBSERVATION),
    "conv": ((4, 3), (4, 3), IMAGE),
    "conv_mlp": ((4, 5), (6, 5), IMAGE),
    "resnet": ((4, 4), (4,), IMAGE),
}
PRODUCTS = ("dot_general", "conv_general_dilated")


def products(jaxpr):
    """Types of the operands of all matrix products and convolutions, in order."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRODUCTS:
            [kind] = {x.aval.dtype.name for x in equation.invars}
            yield kind
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from products(inner)


def made(network, small, dtype="bfloat16"):
    representation, dynamics, shape = SIZES[network]
    of = dataclasses.replace(
        small, network=network, representation=representation, dynamics=dynamics,
        compute_dtype=dtype,
    )  # fmt: skip
    return model_of(of, shape, Discrete(NUM_ACTIONS)), shape


@pytest.mark.parametrize("network", SIZES)
def test_layers_compute_in_bfloat16_and_heads_in_float32(network, small):
    model, shape = made(network, small)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert {x.dtype.name for x in jax.tree.leaves(params)} == {"float32"}
    state = jax.eval_shape(model.represent, params, np.zeros([2, *shape], np.float32))
    calls = {
        "represent": (0, np.zeros([2, *shape], np.float32)),
        "dynamics": (1, state, np.zeros([2], np.int32)),
        "predict": (2, state),
    }
    for name, (heads, *arguments) in calls.items():
        found = jax.make_jaxpr(getattr(model, name))(params, *arguments)
        assert {x.dtype.name for x in found.out_avals} == {"float32"}
        kinds = list(products(found.jaxpr))
        assert kinds.count("float32") == heads and kinds.count("bfloat16") > 0, (name, kinds)


def test_float32_has_no_other_type(small):
    model, shape = made("resnet", small, "float32")
    params = jax.eval_shape(model.init, jax.random.key(0))
    found = jax.make_jaxpr(model.represent)(params, np.zeros([2, *shape], np.float32))
    assert "bf16" not in str(found)


def test_updates_keep_float32_and_gradients_are_near(model, small, dataset):
    rounded = dataclasses.replace(small, compute_dtype="bfloat16")
    method, data = methods.get("rosmo"), windows.store(dataset)
    batch = windows.sample(data, jax.random.key(1), 64, 5)
    gradients = []
    for of in (small, rounded):
        learn = learner.Learner(model_of(of, OBSERVATION, Discrete(NUM_ACTIONS)), method, of)
        params, target = random_params(model, 0), random_params(model, 1)
        found, parts = jax.jit(jax.grad(learn.loss, has_aux=True))(
            params, target, batch, jax.random.key(2)
        )
        assert {x.dtype.name for x in jax.tree.leaves((found, parts))} == {"float32"}
        gradients.append(np.concatenate([x.ravel() for x in jax.tree.leaves(found)]))
    exact, near = gradients
    off = np.linalg.norm(near - exact) / np.linalg.norm(exact)
    assert 0.0 < off < 0.02
    state, found = learn.run(learn.init(0), data, 2)
    numbers = jax.tree.leaves((state.params, state.target_params, state.opt_state, found))
    assert {x.dtype.name for x in numbers} == {"float32", "int32"}  # int32: the optimiser's count


def test_targets_are_float32(small):
    model, shape = made("resnet", small)
    params = random_params(model, 0)
    state = model.represent(params, np.ones([2, *shape], np.float32))
    states, rewards = losses.unroll(model, params, state, jnp.zeros([2, 2], int), 0.5)
    values = model.support.scalar(model.predict(params, states)[1])
    assert {x.dtype.name for x in (states, rewards, values)} == {"float32"}


def test_other_types_are_named():
    with pytest.raises(ValueError, match=r"compute_dtype.*float32.*bfloat16"):
        settings.BSUITE.override({"compute_dtype": "float16"})
