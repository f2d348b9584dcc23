"""Improvement operators: from a root state to a better policy, a value and action values.

An operator is any function

    (model, params, root, key, settings) -> Improvement

with `root` a `mctx.RootFnOutput` of N states: prior_logits [N, A], value [N], embedding
[N, S]. `settings` gives what the operator needs (`discount`, `num_simulations`, ...). A
function of your own is as good as these.

Of continuous actions an operator weighs K candidates that it draws; its root is a `Root`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import mctx

from unplugged.model.actions import draw
from unplugged.model.networks import MASKED, Model, Params
from unplugged.planning import candidates, trees
from unplugged.planning.candidates import Root


class Improvement(NamedTuple):
    """What an operator returns for N root states.

    Attributes:
      policy: improved policy, probabilities. An operator that samples may give weights that
        sum to 1 in the limit only; its method says so by `Method.sampled`. Shape [N, A].
      value: value of the root, in units of return. Shape [N].
      action_values: Q(s, a), in units of return. Shape [N, A].
    """

    policy: jax.Array
    value: jax.Array
    action_values: jax.Array

    @property
    def actions(self) -> None:
        """None: policy and action values are over all discrete actions."""


class SampledImprovement(NamedTuple):
    """What an operator over continuous actions returns for N root states, at K candidates.

    Attributes:
      policy: weights of the candidates. Shape [N, K].
      value: value of the root, in units of return. Shape [N].
      action_values: Q(s, a) of the candidates, in units of return. Shape [N, K].
      actions: the candidates. Shape [N, K, D].
    """

    policy: jax.Array
    value: jax.Array
    action_values: jax.Array
    actions: jax.Array


AnyImprovement = Improvement | SampledImprovement


class Operator(Protocol):
    """The signature of an improvement operator, see the module's docstring."""

    def __call__(
        self, model: Model, params: Params, root: Any, key: jax.Array, settings: Any
    ) -> AnyImprovement:
        """Improves on the prior at N root states."""
        ...


def root_of(model: Model, params: Params, state: jax.Array) -> Any:
    """Predictions at the states [N, S], as the root of an improvement operator.

    Returns:
      A `mctx.RootFnOutput`, or a `Root` of continuous actions.
    """
    policy_logits, value_logits = model.predict(params, state)
    kind = Root if model.actions.continuous else mctx.RootFnOutput
    return kind(
        prior_logits=policy_logits, value=model.support.scalar(value_logits), embedding=state
    )


def action_values(
    model: Model, params: Params, state: jax.Array, action: jax.Array, discount: float
) -> jax.Array:
    """q_g(s, a) = r_g + discount * v(s'_g), one step of the learned dynamics (ROSMO, eq. 7).

    Shapes broadcast as in `Model.dynamics`: states [..., S] and actions [...] to values [...].
    """
    reward_logits, next_state = model.dynamics(params, state, action)
    _, value_logits = model.predict(params, next_state)
    return model.support.scalar(reward_logits) + discount * model.support.scalar(value_logits)


def one_step(
    model: Model, params: Params, root: Any, key: jax.Array, settings: Any
) -> AnyImprovement:
    """One-step look-ahead: p ~ prior * exp(q_g - v) over all actions (ROSMO, eq. 6).

    The value is the network's own, which the value target bootstraps from (eq. 8). It is exact for
    discrete actions, and goes over candidates of continuous ones, see `candidates.offer`.
    """
    if model.actions.continuous:
        offered = candidates.offer(model, root, key, settings)
        q = action_values(
            model, params, root.embedding[:, None], offered.actions, settings.discount
        )
        policy = jax.nn.softmax(jnp.log(offered.prior) + q - root.value[:, None])
        return SampledImprovement(policy, root.value, q, offered.actions)
    del key
    actions = jnp.arange(model.num_actions)[None, :]
    q = action_values(model, params, root.embedding[:, None], actions, settings.discount)
    q = model.keep_to(root.embedding, q)
    policy = jax.nn.softmax(root.prior_logits + q - root.value[:, None])
    return Improvement(policy=policy, value=root.value, action_values=q)


def one_step_sampled(
    model: Model, params: Params, root: Any, key: jax.Array, settings: Any
) -> AnyImprovement:
    """One-step look-ahead at `num_samples` actions drawn from the prior (ROSMO, eq. 9 and 10).

    The policy holds the weights of log pi in eq. 9: exp(adv) / (N Z) summed over an action's
    samples, each sample's normaliser Z = (1 + sum of exp(adv) of the others) / N leaving
    itself out. They sum to 1 in the limit only. Actions that were not drawn have weight 0
    and take the root's value as their action value. A weight overflows where the advantage of one
    sample is above 88 and no other's is near it; the loss is not finite then. Of continuous actions
    the samples are the candidates, none of them injected.
    """
    samples = settings.num_samples
    if model.actions.continuous:
        actions = draw(candidates.space(model), key, root.prior_logits, samples)
    else:
        actions = jax.random.categorical(
            key, root.prior_logits[:, None], axis=-1, shape=(root.value.shape[0], samples)
        )
    q = action_values(model, params, root.embedding[:, None], actions, settings.discount)
    advantages = q - root.value[:, None]
    itself = jnp.eye(samples, dtype=bool)
    others = jnp.where(itself, -jnp.inf, advantages[:, None, :])
    normaliser = jnp.logaddexp(0.0, jax.nn.logsumexp(others, axis=-1))
    coefficients = jnp.exp(advantages - normaliser)  # N cancels in exp(adv) / (N Z).
    if model.actions.continuous:
        return SampledImprovement(coefficients, root.value, q, actions)
    one_hot = jax.nn.one_hot(actions, model.num_actions)
    drawn = one_hot.max(axis=1) > 0.0
    q_drawn = jnp.max(jnp.where(one_hot > 0.0, q[..., None], -jnp.inf), axis=1)
    return Improvement(
        policy=jnp.sum(coefficients[..., None] * one_hot, axis=1),
        value=root.value,
        action_values=jnp.where(drawn, q_drawn, root.value[:, None]),
    )


def _recurrent(model: Model, settings: Any) -> mctx.RecurrentFn:
    """One step of the learned model, as mctx wants it."""

    def step(params: Params, key: jax.Array, action: jax.Array, state: jax.Array) -> Any:
        del key
        reward_logits, next_state = model.dynamics(params, state, action)
        policy_logits, value_logits = model.predict(params, next_state)
        value = model.support.scalar(value_logits)
        output = mctx.RecurrentFnOutput(
            reward=model.support.scalar(reward_logits),
            discount=jnp.full_like(value, settings.discount),
            prior_logits=policy_logits,
            value=value,
        )
        return output, next_state

    return step


def _known(node: trees.Node) -> jax.Array:
    """Action values of a node, and its own value for actions that were not tried. Shape [N, A]."""
    return jnp.where(node.children_visits > 0, node.action_values, node.value)


def between_siblings(node: trees.Node) -> jax.Array:
    """Action values between the lowest and the highest of their node; not tried is the lowest.

    mctx's default, `qtransform_by_parent_and_siblings`.
    """
    tried, known = node.children_visits > 0, _known(node)
    low = jnp.minimum(node.value, jnp.min(known, axis=-1, keepdims=True))
    high = jnp.maximum(node.value, jnp.max(known, axis=-1, keepdims=True))
    return (jnp.where(tried, node.action_values, low) - low) / jnp.maximum(high - low, 1e-8)


def differences(node: trees.Node) -> jax.Array:
    """Action values less the lowest of their node, in units of return; not tried is the lowest.

    What `between_siblings` stretches to [0, 1] in each state.
    """
    tried = node.children_visits > 0
    low = jnp.minimum(node.value, jnp.min(_known(node), axis=-1, keepdims=True))
    return jnp.where(tried, node.action_values - low, 0.0)


def over_tree(node: trees.Node) -> jax.Array:
    """Action values between the lowest and the highest of the whole tree (MuZero, eq. 5).

    An action that was not tried takes the value of its node. The paper's pseudocode gives it the
    lowest: by that, of few simulations and candidates with a uniform prior hardly any would try a
    second one, see `docs/choices.md`.
    """
    low, high = jnp.minimum(node.value, node.low), jnp.maximum(node.value, node.high)
    return (_known(node) - low) / jnp.maximum(high - low, 1e-8)


def _qtransform(stretch: Callable[[trees.Node], jax.Array]) -> Callable[..., jax.Array]:
    """A stretch of action values as mctx wants it."""
    if stretch is between_siblings:
        return mctx.qtransform_by_parent_and_siblings
    return lambda tree, index: stretch(trees.node_of(tree, index))[0]


def search(
    model: Model,
    params: Params,
    root: Any,
    key: jax.Array,
    settings: Any,
    *,
    noise: bool = True,
    recurrent_fn: mctx.RecurrentFn | None = None,
    stretch: Callable[[trees.Node], jax.Array] = between_siblings,
) -> mctx.PolicyOutput:
    """Monte-Carlo tree search with pUCT in the learned model (ROSMO, Section 2.3).

    Args:
      model: the learned model.
      params: its parameters.
      root: N root states.
      key: randomness of the noise and of tie-breaking.
      settings: `num_simulations`, `search_depth` (None: not limited), `discount`, `ties` and
        `rescale_values`.
      noise: whether Dirichlet noise is mixed into the prior at the root, as for learning
        targets; off for acting.
      recurrent_fn: one step of the tree, as mctx wants it; None: of the model, over all discrete
        actions.
      stretch: how `rescale_values` stretches a node's action values.

    Returns:
      mctx's output: `action` [N] drawn from the visit distribution, `action_weights` [N, A],
      the visit distribution, and the `search_tree`.
    """
    options: dict[str, Any] = {"max_depth": settings.search_depth}
    if not noise:
        options["dirichlet_fraction"] = 0.0
    options |= _invalid(model, root)
    stretch = stretch if settings.rescale_values else differences
    step = _recurrent(model, settings) if recurrent_fn is None else recurrent_fn
    common = (params, key, root, step, settings.num_simulations)
    if settings.ties == "step":
        return mctx.muzero_policy(*common, qtransform=_qtransform(stretch), **options)
    return _search_with_ties_of_nodes(*common, stretch=stretch, **options)


def _invalid(model: Model, root: Any) -> dict[str, jax.Array]:
    """The searches' argument for actions that are not allowed at the root, if there can be some."""
    if model.actions.continuous or not model.actions.masked:  # type: ignore[union-attr]
        return {}
    return {"invalid_actions": ~model.allowed(root.embedding)}


def _search_with_ties_of_nodes(
    params: Params,
    key: jax.Array,
    root: mctx.RootFnOutput,
    recurrent_fn: mctx.RecurrentFn,
    num_simulations: int,
    *,
    max_depth: int | None,
    stretch: Callable[[trees.Node], jax.Array],
    dirichlet_fraction: float = 0.25,
    dirichlet_alpha: float = 0.3,
    pb_c_init: float = 1.25,
    pb_c_base: float = 19_652.0,
    invalid_actions: jax.Array | None = None,
) -> mctx.PolicyOutput:
    """`mctx.muzero_policy`, but each node has one random order of its actions, that breaks ties.

    mctx draws the order anew at each step down the tree, which takes time. Its noise of 1e-7 is
    also lost in the last bit of a float32 near 1, which favours the first actions.
    """
    ties_key, dirichlet_key, action_key = jax.random.split(key, 3)
    shape = root.prior_logits.shape
    prior = jax.nn.softmax(root.prior_logits)
    alpha = jnp.full(shape[-1], dirichlet_alpha)
    noise = jax.random.dirichlet(dirichlet_key, alpha, shape[:-1])
    prior = (1.0 - dirichlet_fraction) * prior + dirichlet_fraction * noise
    logits = jnp.log(jnp.maximum(prior, jnp.finfo(prior.dtype).tiny))
    if invalid_actions is not None:
        logits = jnp.where(invalid_actions, MASKED, logits)

    ties = 1e-5 * jax.random.uniform(ties_key, (shape[0], num_simulations + 1, shape[1]))

    def score(node: trees.Node) -> jax.Array:
        total = node.visits
        weight = jnp.sqrt(total) * (pb_c_init + jnp.log((total + pb_c_base + 1.0) / pb_c_base))
        return stretch(node) + weight * node.prior / (node.children_visits + 1.0) + node.ties

    tree = trees.search(
        params,
        key,  # Nothing is drawn from it: the model is deterministic.
        root=root.replace(prior_logits=logits),
        recurrent_fn=recurrent_fn,
        score=score,
        num_simulations=num_simulations,
        max_depth=max_depth,
        invalid_actions=invalid_actions,
        ties=ties,
    )
    weights = tree.summary().visit_probs
    action = jax.random.categorical(action_key, jnp.log(weights))
    return mctx.PolicyOutput(action=action, action_weights=weights, search_tree=tree)


def gumbel_search(
    model: Model,
    params: Params,
    root: Any,
    key: jax.Array,
    settings: Any,
    *,
    noise: bool = True,
) -> mctx.PolicyOutput:
    """Gumbel MuZero's search (Danihelka et al., 2022), made for few simulations.

    Sequential halving over Gumbel-sampled actions at the root. Arguments as for `search`;
    `noise` is the Gumbel noise.

    Returns:
      mctx's output: `action` [N], the best of the most visited, `action_weights` [N, A], the
      improved policy softmax(logits + sigma(completed Q)), and the `search_tree`.
    """
    return mctx.gumbel_muzero_policy(
        params,
        key,
        root,
        _recurrent(model, settings),
        settings.num_simulations,
        max_depth=settings.search_depth,
        gumbel_scale=1.0 if noise else 0.0,
        **_invalid(model, root),
    )


def _of_tree(output: mctx.PolicyOutput) -> Improvement:
    """A search's policy, root value and root Q; actions never visited take the root's value."""
    summary = output.search_tree.summary()
    visited = summary.visit_counts > 0
    q = jnp.where(visited, summary.qvalues, summary.value[:, None])
    return Improvement(policy=output.action_weights, value=summary.value, action_values=q)


def mcts(
    model: Model,
    params: Params,
    root: Any,
    key: jax.Array,
    settings: Any,
    *,
    noise: bool = True,
) -> AnyImprovement:
    """MuZero's operator: visit distribution, value and Q of the root (ROSMO, eq. 3 and 4).

    The root's value is mctx's, in whose mean the network's own value counts as one more visit:
    (v + N x eq. 3) / (N + 1) after N simulations. Of continuous actions it is `sampled_mcts`.
    """
    if model.actions.continuous:
        return sampled_mcts(model, params, root, key, settings, noise=noise)
    return _of_tree(search(model, params, root, key, settings, noise=noise))


def sampled_mcts(
    model: Model,
    params: Params,
    root: Root,
    key: jax.Array,
    settings: Any,
    *,
    noise: bool = True,
) -> SampledImprovement:
    """Sampled MuZero's operator: `mcts` over candidates (Hubert et al., 2021, Section 4).

    Where the root knows a recorded action, that is among them, and stands for Dirichlet noise
    (MuZero Unplugged, Section 6).
    """
    return _sampled(model, params, root, key, settings, noise=noise)[0]


def _sampled(
    model: Model, params: Params, root: Root, key: jax.Array, settings: Any, *, noise: bool
) -> tuple[SampledImprovement, candidates.Candidates]:
    """`sampled_mcts`, and the candidates that it weighed."""
    noise = noise and (root.action is None or not settings.injection)
    begin_key, search_key = jax.random.split(key)
    offered, start, step = candidates.begin(model, root, begin_key, settings)
    output = search(
        model, params, start, search_key, settings,
        noise=noise, recurrent_fn=step, stretch=over_tree,
    )  # fmt: skip
    return SampledImprovement(*_of_tree(output), actions=offered.actions), offered


def mcts_q(
    model: Model,
    params: Params,
    root: Any,
    key: jax.Array,
    settings: Any,
    *,
    noise: bool = True,
) -> AnyImprovement:
    """MZU-Q: p ~ prior * exp(Q / tau), Q of the search's root (ROSMO, Section 4.2 b).

    Of continuous actions the prior is that of the candidates, see `candidates.offer`.
    """
    searched: AnyImprovement
    if model.actions.continuous:
        searched, offered = _sampled(model, params, root, key, settings, noise=noise)
        prior = jnp.log(offered.prior)
    else:
        searched, prior = mcts(model, params, root, key, settings, noise=noise), root.prior_logits
    logits = prior + searched.action_values / settings.temperature
    return searched._replace(policy=jax.nn.softmax(logits))


def gumbel(model: Model, params: Params, root: Any, key: jax.Array, settings: Any) -> Improvement:
    """Gumbel MuZero's operator: its improved policy, value and Q of the root."""
    return _of_tree(gumbel_search(model, params, root, key, settings))
