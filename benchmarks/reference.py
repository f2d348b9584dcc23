"""The reference loop: offline MuZero as published implementations train it.

The loss is of one slice of a trajectory and mapped over the batch by `jax.vmap`; each Python
step samples a batch with NumPy, without replacement, and calls one jitted update. For rosmo
and mzu the loss and the networks are written anew here (ROSMO, Algorithm 2), as the
mathematics of the fused learner; `check_equal` proves it. For other methods it is the fused
learner's own loss.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import mctx
import numpy as np
import optax

import workload
from unplugged import datasets, learner, losses, methods, transforms, windows
from unplugged.settings import Settings

Params = Any


WRITTEN = ("rosmo", "mzu")  # methods whose loss is written anew here


class Slice(NamedTuple):
    """T = K + n + 1 steps of one trajectory, or of a batch of them along a first axis.

    Attributes:
      observation: [T, ...] float32.
      action: [T] int32.
      reward: [T] float32.
      discount: [T] float32, 0 at and after a true end.
      real: [T] bool, whether an action was recorded.
      known: [T] bool, whether the state is known.
    """

    observation: Any
    action: Any
    reward: Any
    discount: Any
    real: Any
    known: Any


@dataclasses.dataclass(frozen=True)
class Networks:
    """h, g and f for one observation, state and action, in plain layers."""

    represent: hk.Transformed
    dynamics: hk.Transformed
    predict: hk.Transformed
    observation_shape: tuple[int, ...]
    num_actions: int
    support: transforms.Support

    def init(self, key: jax.Array) -> Params:
        """Parameters of the three."""
        keys = jax.random.split(key, 3)
        observation = jnp.zeros(self.observation_shape)
        h = self.represent.init(keys[0], observation)
        state = self.represent.apply(h, observation)
        g = self.dynamics.init(keys[1], state, jnp.zeros([], jnp.int32))
        return {"h": h, "g": g, "f": self.predict.init(keys[2], state)}


def networks_of(name: str, settings: Settings) -> Networks:
    """Networks for a dataset of `workload.FORMS`."""
    num_actions = workload.NUM_ACTIONS
    kind = {"mlp": _perceptrons, "conv": _convolutions}[settings.network]

    def head(trunk: jax.Array, size: int, name: str) -> jax.Array:
        return hk.Linear(size, w_init=jnp.zeros, name=name)(trunk)

    represent, transition, flat = kind(settings)

    def trunk(state: jax.Array) -> jax.Array:
        return hk.nets.MLP(settings.prediction, activate_final=True, name="trunk")(flat(state))

    def dynamics(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        next_state = transition(state, jax.nn.one_hot(action, num_actions))
        return head(trunk(next_state), settings.num_bins, "reward"), next_state

    def predict(state: jax.Array) -> tuple[jax.Array, jax.Array]:
        shared = trunk(state)
        return head(shared, num_actions, "policy"), head(shared, settings.num_bins, "value")

    return Networks(
        *(hk.without_apply_rng(hk.transform(fn)) for fn in (represent, dynamics, predict)),
        observation_shape=workload.FORMS[name].observation_shape,
        num_actions=num_actions,
        support=transforms.Support(settings.num_bins),
    )


def _perceptrons(settings: Settings) -> tuple[Callable[..., jax.Array], ...]:
    """h, the states' part of g, and how a head sees a state."""

    def represent(observation: jax.Array) -> jax.Array:
        return hk.nets.MLP(settings.representation, name="mlp")(observation.ravel())

    def transition(state: jax.Array, one_hot: jax.Array) -> jax.Array:
        return hk.nets.MLP(settings.dynamics, name="mlp")(jnp.concatenate([state, one_hot]))

    return represent, transition, lambda state: state


def _convolutions(settings: Settings) -> tuple[Callable[..., jax.Array], ...]:
    """The same for images: states [5, 5, channels], the action as planes of its own."""

    def chain(x: jax.Array, channels: Sequence[int], stride: int) -> jax.Array:
        for i, size in enumerate(channels):
            x = jax.nn.relu(x) if i else x
            x = hk.Conv2D(size, 3, stride=1 if i else stride, name=f"conv_{i}")(x)
        return x

    def represent(observation: jax.Array) -> jax.Array:
        return chain(observation, settings.representation, 2)

    def transition(state: jax.Array, one_hot: jax.Array) -> jax.Array:
        planes = jnp.broadcast_to(one_hot, (*state.shape[:-1], len(one_hot)))
        both = jnp.concatenate([jax.nn.relu(state), planes], axis=-1)
        return state + chain(both, settings.dynamics, 1)

    return represent, transition, lambda state: jax.nn.relu(state).ravel()


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss of one slice for rosmo or mzu."""

    networks: Networks
    method: str
    settings: Settings

    def dynamics(self, params: Params, state: jax.Array, action: jax.Array) -> Any:
        """Reward logits and next state. Shapes [bins], [S]."""
        return self.networks.dynamics.apply(params["g"], state, action)

    def predict(self, params: Params, state: jax.Array) -> Any:
        """Policy and value logits. Shapes [A], [bins]."""
        return self.networks.predict.apply(params["f"], state)

    def q_value(self, params: Params, state: jax.Array, action: jax.Array) -> jax.Array:
        """Reward and discounted value after one step of the dynamics."""
        scalar = self.networks.support.scalar
        reward_logits, next_state = self.dynamics(params, state, action)
        _, value_logits = self.predict(params, next_state)
        return scalar(reward_logits) + self.settings.discount * scalar(value_logits)

    def look_ahead(
        self, params: Params, state: jax.Array, prior: jax.Array, value: jax.Array
    ) -> jax.Array:
        """Improved policy of one state, each action on its own (ROSMO, eq. 6)."""
        actions = jnp.arange(self.networks.num_actions)
        q = jax.vmap(lambda action: self.q_value(params, state, action))(actions)
        return jax.nn.softmax(prior + q - value)

    def search(
        self, params: Params, states: jax.Array, priors: jax.Array, values: jax.Array, key: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Visit distributions and values of a slice's states by tree search."""
        scalar = self.networks.support.scalar

        def recurrent(params: Params, _: Any, actions: jax.Array, states: jax.Array) -> Any:
            reward_logits, next_states = jax.vmap(functools.partial(self.dynamics, params))(
                states, actions
            )
            prior, value_logits = jax.vmap(functools.partial(self.predict, params))(next_states)
            value = scalar(value_logits)
            output = mctx.RecurrentFnOutput(
                reward=scalar(reward_logits),
                discount=jnp.full_like(value, self.settings.discount),
                prior_logits=prior,
                value=value,
            )
            return output, next_states

        root = mctx.RootFnOutput(prior_logits=priors, value=values, embedding=states)
        output = mctx.muzero_policy(
            params,
            key,
            root,
            recurrent,
            self.settings.num_simulations,
            max_depth=self.settings.search_depth,
        )
        return output.action_weights, output.search_tree.summary().value

    def targets(self, params: Params, slice_: Slice, key: jax.Array) -> tuple[jax.Array, ...]:
        """Policy [K + 1, A], value [K + 1] and filter [K + 1] of the behaviour regulariser."""
        settings, now = self.settings, self.settings.unroll_steps + 1
        states = jax.vmap(functools.partial(self.networks.represent.apply, params["h"]))(
            slice_.observation
        )
        priors, value_logits = jax.vmap(functools.partial(self.predict, params))(states)
        values = self.networks.support.scalar(value_logits)
        if self.method == "mzu":
            policy, bootstrap = self.search(params, states, priors, values, key)
            policy, keep = policy[:now], jnp.zeros([now])
        else:
            policy = jax.vmap(functools.partial(self.look_ahead, params))(
                states[:now], priors[:now], values[:now]
            )
            q = jax.vmap(functools.partial(self.q_value, params))(states[:now], slice_.action[:now])
            keep = slice_.real[:now] & (q - values[:now] > 0.0)
            bootstrap = values
        discount = jnp.where(slice_.real, settings.discount * slice_.discount, slice_.discount)
        returns = bootstrap[settings.td_steps :]
        for i in reversed(range(settings.td_steps)):
            returns = slice_.reward[i : i + now] + discount[i : i + now] * returns
        absorbing = (~slice_.real & (slice_.discount == 0.0))[:now]
        uniform = jnp.full_like(policy, 1.0 / self.networks.num_actions)
        policy = jnp.where(absorbing[:, None], uniform, policy)
        return policy, jnp.where(absorbing, 0.0, returns), keep

    def of_slice(
        self,
        params: Params,
        target_params: Params,
        slice_: Slice,
        random_actions: jax.Array,
        key: jax.Array,
    ) -> jax.Array:
        """Loss of one slice; `random_actions` [K + 1] stand in where none was recorded."""
        settings, two_hot = self.settings, self.networks.support.two_hot
        steps = settings.unroll_steps
        actions = jnp.where(slice_.real[: steps + 1], slice_.action[: steps + 1], random_actions)
        state = self.networks.represent.apply(params["h"], slice_.observation[0])
        states, reward_logits = [state], []
        for k in range(steps):
            scaled = losses.scale_gradient(states[-1], settings.gradient_scale)
            logits, state = self.dynamics(params, scaled, actions[k])
            states.append(state)
            reward_logits.append(logits)
        policy_logits, value_logits = jax.vmap(functools.partial(self.predict, params))(
            jnp.stack(states)
        )
        policy, value, keep = jax.lax.stop_gradient(self.targets(target_params, slice_, key))
        known = slice_.known[: steps + 1]
        absorbing = ~slice_.real & (slice_.discount == 0.0)
        reward_known = (slice_.real | absorbing)[:steps]
        log_policy = jax.nn.log_softmax(policy_logits)
        log_value = jax.nn.log_softmax(value_logits)
        log_reward = jax.nn.log_softmax(jnp.stack(reward_logits))
        policy_loss = -jnp.mean(known * jnp.sum(policy * log_policy, axis=-1))
        value_loss = -jnp.mean(known * jnp.sum(two_hot(value) * log_value, axis=-1))
        reward_loss = -jnp.mean(
            reward_known * jnp.sum(two_hot(slice_.reward[:steps]) * log_reward, axis=-1)
        )
        chosen = jnp.take_along_axis(log_policy, slice_.action[: steps + 1, None], axis=1)[:, 0]
        total = settings.policy_weight * policy_loss + settings.value_weight * value_loss
        total += settings.reward_weight * reward_loss
        return total - settings.behavior_weight * jnp.mean(keep * chosen)

    def of_batch(
        self,
        params: Params,
        target_params: Params,
        batch: Slice,
        random_actions: jax.Array,
        key: jax.Array,
    ) -> jax.Array:
        """Mean loss of a batch [B, T, ...]."""
        keys = jax.random.split(key, batch.action.shape[0])
        in_axes = (None, None, 0, 0, 0)
        return jnp.mean(
            jax.vmap(self.of_slice, in_axes)(params, target_params, batch, random_actions, keys)
        )


@dataclasses.dataclass(frozen=True)
class Mapped:
    """The fused learner's loss of any method, one slice at a time."""

    networks: Any
    learner: learner.Learner

    @property
    def settings(self) -> Settings:
        """Hyperparameters."""
        return self.learner.settings

    def of_batch(
        self,
        params: Params,
        target_params: Params,
        batch: Slice,
        random_actions: jax.Array,
        key: jax.Array,
    ) -> jax.Array:
        """Mean loss of a batch [B, T, ...]; the loss draws its own random actions."""
        del random_actions

        def of_slice(slice_: Slice, key: jax.Array) -> jax.Array:
            alone = windows.Windows(*(x[:, None] for x in slice_))
            return self.learner.loss(params, target_params, alone, key)[0]

        keys = jax.random.split(key, batch.action.shape[0])
        return jnp.mean(jax.vmap(of_slice)(batch, keys))


def loss_of(method: str, name: str, settings: Settings) -> Loss | Mapped:
    """The loss of a method on a dataset of `workload.FORMS`."""
    if method in WRITTEN:
        return Loss(networks_of(name, settings), method, settings)
    fused = workload.learner(method, name, settings)
    return Mapped(fused.model, fused)


class Sampler:
    """Batches by NumPy from arrays in memory."""

    def __init__(self, dataset: datasets.Dataset, length: int):
        last = np.flatnonzero(dataset.is_last)
        self._data = dataset
        self._starts = np.flatnonzero(~dataset.is_last)
        self._end = np.repeat(last, np.diff(last, prepend=-1))
        self._steps = np.arange(length)

    def __call__(self, batch_size: int) -> Slice:
        """A batch [B, T, ...] of different starts."""
        start = self._starts[np.random.choice(len(self._starts), batch_size, replace=False)]
        end = self._end[start][:, None]
        wanted = start[:, None] + self._steps
        index = np.minimum(wanted, end)
        discount = self._data.discount[index]
        observation = self._data.observation[index]
        shape = self._data.metadata.get("packed_shape")
        if shape:
            bits = np.unpackbits(observation, axis=-1, count=math.prod(shape))
            observation = bits.reshape(*index.shape, *shape).astype(np.float32)
        return Slice(
            observation=observation,
            action=self._data.action[index],
            reward=self._data.reward[index],
            discount=discount,
            real=wanted < end,
            known=(wanted <= end) | (discount == 0.0),
        )


class State(NamedTuple):
    """Parameters, target parameters, optimiser state, random key and count of updates."""

    params: Params
    target_params: Params
    opt_state: optax.OptState
    key: jax.Array
    updates: jax.Array


def make_update(loss: Loss | Mapped) -> Callable[[State, Slice], tuple[State, jax.Array]]:
    """One jitted gradient step: (state, batch) -> (state, loss)."""
    settings = loss.settings
    optimizer = learner.optimizer(settings)

    def update(state: State, batch: Slice) -> tuple[State, jax.Array]:
        key, action_key, loss_key = jax.random.split(state.key, 3)
        shape = (batch.action.shape[0], settings.unroll_steps + 1)
        random_actions = jax.random.randint(action_key, shape, 0, loss.networks.num_actions)
        value, gradients = jax.value_and_grad(loss.of_batch)(
            state.params, state.target_params, batch, random_actions, loss_key
        )
        changes, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        updates = state.updates + 1
        target_params = optax.periodic_update(
            params, state.target_params, updates, settings.target_interval
        )
        return State(params, target_params, opt_state, key, updates), value

    return jax.jit(update, donate_argnums=0)


class Loop:
    """The training loop of one method on one dataset of `workload.FORMS`."""

    def __init__(self, method: str, name: str):
        settings = workload.FORMS[name].settings
        loss = loss_of(method, name, settings)
        self._batch_size = settings.batch_size
        self._sampler = Sampler(
            workload.dataset(name), sum(methods.get(method).window(settings)) + 1
        )
        self._update = make_update(loss)
        params = jax.jit(loss.networks.init)(jax.random.key(0))
        self.state = State(
            params=params,
            target_params=jax.tree.map(jnp.copy, params),
            opt_state=learner.optimizer(settings).init(params),
            key=jax.random.key(1),
            updates=jnp.zeros([], jnp.int32),
        )

    def run(self, updates: int) -> None:
        """Does some updates; returns when they are done."""
        for _ in range(updates):
            self.state, loss = self._update(self.state, self._sampler(self._batch_size))
        jax.block_until_ready(loss)


def convert(params: Params) -> Params:
    """Parameters (or gradients) of the library's networks in the layout of `networks_of`."""

    def linear(layer: dict[str, jax.Array]) -> dict[str, jax.Array]:
        # The library stores a narrowing layer output first, and never a widening one.
        w, b = layer["w"], layer["b"]
        return {"w": w if w.shape[1] == len(b) and w.shape[0] <= len(b) else w.T, "b": b}

    def chain(layers: Params, source: str, target: str, first: int = 0) -> Params:
        found = sorted(name for name in layers if name.startswith(source + "_"))
        return {
            f"{target}/~/linear_{first + i}": linear(layers[f"{source}_{i}"])
            for i in range(len(found))
        }

    def images(layers: Params, source: str, first: int = 0) -> Params:
        found = sorted(name for name in layers if name.startswith(source + "_"))
        return {f"conv_{first + i}": layers[name] for i, name in enumerate(found)}

    h, g, f = params["representation"], params["dynamics"], params["prediction"]
    state_w, action_w = g["state"]["w"], g["action"]["w"]
    if state_w.ndim == 4:
        first = {"w": jnp.concatenate([state_w, action_w], axis=2), "b": g["state"]["b"]}
        of_h = images(h, "representation")
        of_g = {"conv_0": first, **images(g, "dynamics", first=1)}
    else:
        state_w = linear(g["state"])["w"]
        action_w = action_w if action_w.shape[1] == state_w.shape[1] else action_w.T
        first = {"w": jnp.concatenate([state_w, action_w]), "b": g["state"]["b"]}
        of_h = chain(h, "representation", "mlp")
        of_g = {"mlp/~/linear_0": first, **chain(g, "dynamics", "mlp", first=1)}
    return {
        "h": of_h,
        "g": {
            **of_g,
            **chain(g, "reward_trunk", "trunk"),
            "reward": linear(g["reward"]),
        },
        "f": {
            **chain(f, "trunk", "trunk"),
            "policy": linear(f["policy"]),
            "value": linear(f["value"]),
        },
    }


def _randomised(params: Params, key: jax.Array) -> Params:
    """Parameters, the zero heads included, moved by random numbers."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten([x + 0.05 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)])


def check_equal(
    names: Sequence[str] = WRITTEN, *, data: str = "catch", tolerance: float = 1e-5
) -> dict[str, float]:
    """Compares the reference with the fused learner on the same windows, ends included.

    rosmo: loss and every gradient, on the same random actions. mzu: the loss on average over
    keys, as the search's noise is drawn in another order.

    Args:
      names: methods to check.
      data: which of `workload.FORMS`.
      tolerance: largest difference allowed in rosmo's loss and gradients.

    Returns:
      The largest differences found, by what they are of.

    Raises:
      AssertionError: if they are not equal.
    """
    settings = workload.FORMS[data].settings.override({"batch_size": 64, "num_simulations": 4})
    model, store = workload.model(data, settings), windows.store(workload.dataset(data))
    keys = jax.random.split(jax.random.key(0), 4)
    randomised = jax.jit(_randomised)
    params = randomised(jax.jit(model.init)(keys[0]), keys[1])
    target_params = randomised(params, keys[2])
    length = settings.unroll_steps + settings.td_steps + 1
    draw = jax.jit(windows.sample, static_argnums=(2, 3))
    drawn = draw(store, keys[3], settings.batch_size, length)
    batch = Slice(*(jnp.swapaxes(x, 0, 1) for x in drawn if x is not None))
    nets = networks_of(data, settings)
    theirs = convert(params), convert(target_params)
    assert jax.tree.structure(theirs[0]) == jax.tree.structure(jax.eval_shape(nets.init, keys[0]))

    def both(method: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        ours = learner.Learner(model, methods.get(method), settings).loss
        reference = Loss(nets, method, settings).of_batch
        fused = jax.jit(jax.value_and_grad(lambda p, key: ours(p, target_params, drawn, key)[0]))

        def run(p: Params, key: jax.Array) -> jax.Array:
            # The learner's own random actions, time first there.
            action_key, improve_key = jax.random.split(key)
            shape = (settings.unroll_steps + 1, settings.batch_size)
            actions = jax.random.randint(action_key, shape, 0, nets.num_actions)
            return reference(p, theirs[1], batch, actions.T, improve_key)

        return fused, jax.jit(jax.value_and_grad(run))

    found = {}
    if "rosmo" in names:
        fused, reference = both("rosmo")
        (a, grad_a), (b, grad_b) = fused(params, keys[0]), reference(theirs[0], keys[0])
        found["rosmo loss"] = abs(float(a) - float(b))
        differences = jax.tree.map(lambda x, y: jnp.max(jnp.abs(x - y)), convert(grad_a), grad_b)
        found["rosmo gradient"] = float(max(jax.tree.leaves(differences)))
    if "mzu" in names:
        fused, reference = both("mzu")
        many = jax.random.split(keys[1], 30)
        a, b = (
            np.mean([float(fn(p, key)[0]) for key in many])
            for fn, p in ((fused, params), (reference, theirs[0]))
        )
        found["mzu mean loss, relative"] = float(abs(a - b) / abs(a))
    limits = {"rosmo loss": tolerance, "rosmo gradient": tolerance}
    for what, difference in found.items():
        assert difference <= limits.get(what, 1e-3), f"{what} differs by {difference:.3g}"
    return found


if __name__ == "__main__":
    for data in workload.REFERENCED:
        print(data, check_equal(data=data))
