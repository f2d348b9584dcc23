"""What `test_parallel` does in processes of their own: python on_devices.py NAME JSON.

Devices are counted when a process begins.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from unplugged import datasets, feeding, frame_stores, frames, methods, parallel, runs, windows
from unplugged.learner import Learner, optimizer
from unplugged.model.actions import Discrete
from unplugged.runs.spec import model_of
from unplugged.settings import Settings

SMALL = {
    "representation": (8, 8), "dynamics": (8, 8), "prediction": (8,), "batch_size": 8,
    "unroll_steps": 2, "td_steps": 2, "warmup_updates": 2, "num_simulations": 4,
}  # fmt: skip


def near(a, b, scale=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=scale), a, b)


def by_hand(one, state, data, shares):
    """An update of a single device, from the mean of some shares' gradients.

    In a share past an end are its actions of the whole batch's; its operator has a key of its own.
    """
    sample_key, key = jax.random.split(jax.random.fold_in(state.key, state.updates))
    batch = windows.sample(data, sample_key, one.settings.batch_size, 5)
    size = one.settings.batch_size // shares

    def of_share(i):
        mine = slice(i * size, (i + 1) * size)

        class Actions(Discrete):
            def uniform(self, key, shape):
                return super().uniform(key, (shape[0], shape[1] * shares))[:, mine]

        def operator(model, params, root, key, settings):
            key = jax.random.fold_in(key, i)
            return one.method.operator(model, params, root, key, settings)

        actions = Actions(one.model.num_actions)
        alone = dataclasses.replace(
            one,
            model=dataclasses.replace(one.model, actions=actions),
            method=dataclasses.replace(one.method, operator=operator),
        )
        some = jax.tree.map(lambda x: x[:, mine], batch)
        gradient = jax.jit(jax.grad(alone.loss, has_aux=True))
        return gradient(state.params, state.target_params, some, key)[0]

    found = [of_share(i) for i in range(shares)]
    mean = jax.tree.map(lambda *x: sum(x) / shares, *found)
    changes, _ = optimizer(one.settings).update(mean, state.opt_state, state.params)
    return jax.tree.map(lambda x, y: x + y, state.params, changes)


def updates(dataset):
    """Updates on 2 and 4 devices are those of one; only sums over devices are sent."""
    loaded, settings = datasets.load(dataset), Settings(**SMALL)
    data = windows.store(loaded)
    model = model_of(settings, loaded.observation_shape, loaded.actions)

    def divided(one, number, state, count):
        many = dataclasses.replace(one, mesh=parallel.mesh(8, number))
        state, placed = feeding.placed(many, state), feeding.placed(many, data)
        compiled = many.run.lower(state, placed, count).compile()
        text = compiled.as_text()
        assert " all-reduce(" in text
        for other in ("all-gather", "all-to-all", "collective-permute"):
            assert other not in text
        state, losses = compiled(state, placed)
        assert {len(x.sharding.device_set) for x in jax.tree.leaves(state)} == {number}
        return parallel.local(state), losses

    one = Learner(model, methods.get("rosmo"), settings)  # It unrolls at random past an end.
    state, losses = one.run(one.init(3), data, 6)
    for number in (2, 4):
        found, too = divided(one, number, one.init(3), 6)
        near(losses, too)
        near(state._replace(key=0), found._replace(key=0))
        assert (jax.random.key_data(state.key) == jax.random.key_data(found.key)).all()

    one = Learner(model, methods.get("mzu"), settings)  # Each device draws its searches' noise.
    begin = one.init(3)._replace(updates=jax.numpy.int32(7))
    found, _ = divided(one, 2, jax.tree.map(jax.numpy.copy, begin), 1)
    near(by_hand(one, begin, data, 2), found.params)


def fed(recording):
    """The host feeds each device its share of the windows."""
    opened = frames.load(recording)
    settings = Settings(**{**SMALL, "network": "conv", "representation": (4,), "dynamics": (4,)})
    model = model_of(settings, opened.observation_shape, opened.actions)
    one = Learner(model, methods.get("bc"), settings)
    host, number = frame_stores.host(opened), 4
    state, losses = one.run(one.init(0), frame_stores.store(opened), 4)
    many = dataclasses.replace(one, mesh=parallel.mesh(8, number))
    begin, placed = feeding.placed(many, one.init(0)), feeding.placed(many, host)
    asked = []

    class Watched(frame_stores.Host):
        def gather(self, start, length):
            asked.append(len(start))
            return super().gather(start, length)

    placed = Watched(**{x.name: getattr(placed, x.name) for x in dataclasses.fields(placed)})
    found, too = feeding.compiled(many, begin, placed, 4)(begin, placed)
    near(losses, too)
    near(state.params, parallel.local(found.params))
    assert asked == [4 * 8 // number] * number


def train(folder, dataset, updates):
    """A run, in one process or in one of several."""
    parallel.connect()
    spec = runs.Spec(
        dataset=dataset, environment="catch", method="bc", overrides=SMALL, updates=updates,
        eval_every=2, eval_episodes=1,
    )  # fmt: skip
    rows = runs.train(spec, folder)
    print(json.dumps({"updates": rows["update"].tolist(), "loss": rows["loss"].iloc[-1]}))


if __name__ == "__main__":
    _, name, arguments = sys.argv
    globals()[name](**json.loads(arguments))
