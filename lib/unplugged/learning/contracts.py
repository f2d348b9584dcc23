"""What functions of one's own must give: looked at when they are traced, and once on numbers.

Tracing shows arguments, shapes and types, and changes no program. Whether a policy is one shows on
numbers only, so that it is tried on a few states before a run begins (`try_out`).
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mctx
import numpy as np

from unplugged.learning.losses import Recorded
from unplugged.learning.method import Loss, Method
from unplugged.learning.settings import Settings
from unplugged.model.actions import Discrete
from unplugged.model.networks import Model, Params
from unplugged.planning import acting, candidates, improvement


class ContractError(ValueError):
    """A function of one's own takes, gives or does something else than it must."""


_TOLERANCE = 1e-3  # of a policy's sum


def name_of(function: Any) -> str:
    """What a function is called in messages."""
    return getattr(function, "__name__", None) or repr(function)


def call(kind: str, function: Callable[..., Any], /, **arguments: Any) -> Any:
    """Calls a function of one's own, all arguments by their place but those of an objective.

    Raises:
      ContractError: if it takes other arguments, or if one of one's own raises something.
    """
    by_name = ("model", "method", "settings", "mesh") if kind == "objective" else ()
    places = [value for name, value in arguments.items() if name not in by_name]
    names = {name: value for name, value in arguments.items() if name in by_name}
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # What is compiled may have none.
        signature = None
    try:
        if signature is not None:
            signature.bind(*places, **names)
    except TypeError as error:
        star = "*, " if names else ""
        wanted = ", ".join([x for x in arguments if x not in names] + [star + ", ".join(names)])
        raise ContractError(
            f"{kind} {name_of(function)}{signature} is called as "
            f"({wanted.removesuffix(', ')}): {error}"
        ) from None
    try:
        return function(*places, **names)
    except ContractError:
        raise
    except Exception as error:
        if not _own(function):
            raise
        raise ContractError(
            f"{kind} {name_of(function)} raised {type(error).__name__}{_line(function, error)}: "
            f"{str(error).strip().partition(chr(10))[0]}"
        ) from error


def _own(function: Any) -> bool:
    """Whether it is not one of the library's, which its tests look at."""
    return not (getattr(function, "__module__", None) or "").startswith("unplugged.")


def _line(function: Any, error: Exception) -> str:
    """Where in a function's file something was raised, as " (file.py, line 3)"."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [x.lineno for x in traceback.extract_tb(error.__traceback__) if x.filename == file]
    return f" ({Path(file).name}, line {lines[-1]})" if file and lines else ""


def _check_array(kind: str, function: Any, what: str, found: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(found, (jax.Array, np.ndarray)):
        raise ContractError(
            f"{kind} {name_of(function)}: {what} must be an array {list(shape)}, "
            f"got {type(found).__name__}"
        )
    if found.shape != shape or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ContractError(
            f"{kind} {name_of(function)}: {what} must be floating point of shape {list(shape)}, "
            f"got {found.dtype} of shape {list(found.shape)}"
        )


def improve(
    function: improvement.Operator,
    model: Model,
    params: Params,
    root: Any,
    key: jax.Array,
    settings: Any,
) -> improvement.AnyImprovement:
    """What an operator makes of N root states, its form checked.

    Raises:
      ContractError: if it takes other arguments or returns no `Improvement` of their shapes.
    """
    found = call(
        "operator", function, model=model, params=params, root=root, key=key, settings=settings
    )
    if not isinstance(found, improvement.AnyImprovement):
        raise ContractError(
            f"operator {name_of(function)} must return improvement.Improvement(policy, value, "
            f"action_values), got {type(found).__name__}"
        )
    states = len(root.value)
    if isinstance(model.actions, Discrete):
        number = model.actions.num_actions
        if found.actions is not None:
            raise ContractError(
                f"operator {name_of(function)} must give a policy over all {number} discrete "
                "actions, an improvement.Improvement"
            )
    else:
        number = np.shape(found.policy)[-1] if np.ndim(found.policy) else 0
        what = "actions, the candidates that its policy is over,"
        shape = (states, number, *model.actions.shape)
        if found.actions is None:
            raise ContractError(
                f"operator {name_of(function)} must return improvement.SampledImprovement, with "
                "the continuous actions that its policy is over"
            )
        _check_array("operator", function, what, found.actions, shape)
    for what, shape in (
        ("policy", (states, number)), ("value", (states,)), ("action_values", (states, number))
    ):  # fmt: skip
        _check_array("operator", function, what, getattr(found, what), shape)
    return found


def select(
    function: Callable[..., jax.Array],
    model: Model,
    params: Params,
    observation: jax.Array,
    key: jax.Array,
    settings: Any,
) -> Any:
    """A selector's probabilities [B, A], or its `acting.Choice`, its form checked.

    Raises:
      ContractError: if it takes other arguments or returns something else.
    """
    found = call(
        "selector", function, model=model, params=params, observation=observation, key=key,
        settings=settings,
    )  # fmt: skip
    states = observation.shape[0]
    if isinstance(model.actions, Discrete):
        shape: tuple[int, ...] = (states, model.actions.num_actions)
        _check_array("selector", function, "probabilities", found, shape)
        return found
    if not isinstance(found, acting.Choice):
        raise ContractError(
            f"selector {name_of(function)} must return acting.Choice(actions, probabilities) of "
            f"continuous actions, got {type(found).__name__}"
        )
    shape = (*np.shape(found.actions)[:2], *model.actions.shape)
    _check_array("selector", function, "actions", found.actions, shape)
    _check_array("selector", function, "probabilities", found.probabilities, shape[:2])
    return found


def advantage(
    function: Callable[..., jax.Array],
    model: Model,
    params: Params,
    roots: mctx.RootFnOutput,
    improved: improvement.AnyImprovement | None,
    recorded: Recorded,
    settings: Settings,
) -> jax.Array:
    """A regulariser's advantages of recorded actions [K + 1, B], their form checked.

    Raises:
      ContractError: if it takes other arguments or returns something else.
    """
    found = call(
        "regularizer", function, model=model, params=params, roots=roots, improved=improved,
        recorded=recorded, settings=settings,
    )  # fmt: skip
    _check_array("regularizer", function, "advantages", found, recorded.reward.shape)
    return found


def loss(function: Callable[..., Loss], **arguments: Any) -> Loss:
    """An objective's loss and its parts, their form checked.

    Raises:
      ContractError: if it takes other arguments or returns something else.
    """
    found = call("objective", function, **arguments)
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
        raise ContractError(
            f"objective {name_of(function)} must return (loss, parts), the parts by name, "
            f"got {type(found).__name__}"
        )
    for what, value in (("loss", found[0]), *found[1].items()):
        _check_array("objective", function, what, value, ())
    return found


# --- On numbers, before a run begins ------------------------------------------------------------


def _check_policy(what: str, policy: jax.Array, *, sampled: bool = False) -> None:
    rows = np.asarray(policy, np.float64)
    sums, least = rows.sum(axis=-1), rows.min()
    if not np.isfinite(rows).all():
        raise ContractError(f"{what} is not finite on states of this run")
    if least >= 0.0 and (sampled or np.abs(sums - 1.0).max() <= _TOLERANCE):
        return
    seen = f"rows sum to {sums.min():.4g} to {sums.max():.4g}, the least entry is {least:.4g}"
    advice = "return probabilities, such as jax.nn.softmax(logits)"
    if not sampled and least >= 0.0 and what.startswith("operator"):
        advice += (
            "; if it samples, and its weights sum to 1 in the limit only, say so by "
            "Method(..., sampled=True)"
        )
    raise ContractError(f"{what} is no distribution on states of this run: {seen}; {advice}")


def try_out(
    model: Model,
    method: Method,
    selector: str,
    settings: Settings,
    observe: Callable[[], jax.Array],
) -> None:
    """Tries an operator and a selector of one's own on a few states; the library's are not tried.

    The parameters, priors and values are random: an untrained network's are all alike, on which a
    policy without a normaliser looks like one.

    Args:
      model: the networks.
      method: the method, whose operator it is.
      selector: name of the selector that the run is evaluated with.
      settings: hyperparameters.
      observe: gives some of what the run sees, [B, ...]; called if something is tried.

    Raises:
      ContractError: if a policy is no distribution, or something is not finite; of an operator that
        samples (`Method.sampled`) the weights need not sum to 1.
    """
    act = acting.SELECTORS[selector]
    if not _own(act) and (method.operator is None or not _own(method.operator)):
        return
    observation, keys = observe(), jax.random.split(jax.random.key(0), 5)
    leaves, tree = jax.tree.flatten(model.init(keys[0]))
    noises = jax.random.split(keys[1], len(leaves))
    moved = [x + 0.1 * jax.random.normal(key, x.shape, x.dtype) for x, key in zip(leaves, noises)]
    params = jax.tree.unflatten(tree, moved)
    if _own(act):

        def probabilities(params: Params, observation: jax.Array) -> Any:
            return select(act, model, params, observation, keys[4], settings)

        found = jax.jit(probabilities)(params, observation)
        found = found.probabilities if isinstance(found, acting.Choice) else found
        _check_policy(f"selector {name_of(act)}: its answer", found)
    operator = method.operator
    if operator is not None and _own(operator):
        number = len(observation)

        def improved(params: Params, observation: jax.Array) -> improvement.AnyImprovement:
            kind = candidates.Root if model.actions.continuous else mctx.RootFnOutput
            root = kind(
                prior_logits=jax.random.normal(keys[2], [number, model.actions.num_parameters]),
                value=jax.random.normal(keys[3], [number]),
                embedding=model.represent(params, observation),
            )
            return improve(operator, model, params, root, keys[4], settings)

        better = jax.jit(improved)(params, observation)
        name = f"operator {name_of(operator)}"
        _check_policy(f"{name}: its policy", better.policy, sampled=method.sampled)
        for what in ("value", "action_values"):
            if not np.isfinite(getattr(better, what)).all():
                raise ContractError(f"{name}: {what} is not finite on states of this run")
