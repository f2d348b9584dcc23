"""Reanalyse at any fraction: acting, sources mixed, and the learner between them."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unplugged import (
    bits,
    checkpoints,
    datasets,
    games,
    improvement,
    learner,
    losses,
    memory,
    methods,
    objectives,
    online,
    replay,
    runs,
    windows,
)
from unplugged.improvement import Improvement

pytestmark = pytest.mark.slow

SMALL = {
    "representation": [8, 8], "dynamics": [8, 8], "prediction": [8], "batch_size": 8,
    "unroll_steps": 2, "td_steps": 2, "num_simulations": 2, "warmup_updates": 5,
}  # fmt: skip
LENGTH = 5
CATCH = {"benchmark": "gymnax", "environment": "catch", "method": "mzu", "overrides": SMALL,
         "updates": 8, "eval_every": 4, "eval_episodes": 2, "round_updates": 2,
         "replay_capacity": 400}  # fmt: skip


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Random play of the compiled catch."""
    rng, found = np.random.default_rng(0), []
    game = games.make("gymnax", "catch")
    step = jax.jit(game.step)
    for i in range(12):
        state, observation = game.reset(jax.random.key(i))
        steps, over = {"observation": [observation], "action": [], "reward": []}, False
        while not over:
            action = int(rng.integers(3))
            state, seen = step(state, jnp.asarray(action), jax.random.key(0))
            steps["observation"].append(seen.observation)
            steps["action"].append(action)
            steps["reward"].append(float(seen.reward))
            over = bool(seen.last)
        found.append({**{k: np.asarray(v) for k, v in steps.items()}, "terminated": True})
    path = tmp_path_factory.mktemp("data") / "catch.npz"
    metadata = {"environment": "catch", "num_actions": 3, "noise": 0.0}
    datasets.save(datasets.from_episodes(found, metadata), path)
    return str(path)


def test_fraction_one_is_the_offline_learner_to_the_bit(recording):
    spec = online.OnlineSpec(
        dataset=recording, reanalyse_fraction=1.0, sources={"dataset": 1.0}, **CATCH
    )
    ours, data, dataset = spec.build()
    state, _ = ours.run(ours.init(0), data, 6)
    offline = learner.Learner(ours.model, methods.get("mzu"), spec.settings)
    wanted, _ = offline.run(offline.init(0), windows.store(dataset), 6)
    jax.tree.map(np.testing.assert_array_equal, state.params, wanted.params)
    jax.tree.map(np.testing.assert_array_equal, state.target_params, wanted.target_params)
    assert state.updates == 6


@pytest.mark.parametrize("fraction", [0.0, 0.75])
def test_environment_steps_shrink_as_the_fraction_grows(fraction):
    spec = online.OnlineSpec(reanalyse_fraction=fraction, **CATCH)
    ours, data, _ = spec.build()
    begin = ours.init(0)
    before = int(begin.actors.frames)
    ticks = int(begin.sources["recent"].count)
    state, parts = ours.run(begin, data, 8)
    acted = int(state.sources["recent"].count) - ticks
    # T steps for each first-hand window; those of final rows take no step.
    assert acted * ours.actors == 8 * LENGTH * round((1 - fraction) * 8)
    assert 0 < int(state.actors.frames) - before <= acted * ours.actors
    assert np.isfinite(parts["loss"]).all() and parts["loss"].shape == (8,)


def acted(ours, state):
    """What each actor did, from the ring's rows: its episodes as columns [rows, ...] of a tick."""
    recent = state.sources["recent"]
    count = int(recent.count)
    ticks = jax.tree.map(lambda x: np.asarray(x[:count]), recent.ticks)
    assert len(recent.ticks.action) >= count, "nothing was overwritten"
    for actor in range(ours.actors):
        column = jax.tree.map(lambda x: x[:, actor], ticks)  # noqa: B023
        ends = np.flatnonzero(column.is_last)
        for begin, end in zip([0, *(ends[:-1] + 1)], ends):
            yield jax.tree.map(lambda x: x[begin : end + 1], column)  # noqa: B023


def test_what_is_acted_is_what_the_game_does():
    spec = online.OnlineSpec(reanalyse_fraction=0.5, **{**CATCH, "replay_capacity": 4_000})
    ours, data, _ = spec.build()
    state, _ = ours.run(ours.init(0), data, 8)
    game = ours.game
    resets = [game.reset(jax.random.key(i)) for i in range(64)]
    beginnings = {np.asarray(seen).tobytes(): world for world, seen in resets}
    step, episodes = jax.jit(game.step), 0
    for of in acted(ours, state):
        seen = np.asarray(bits.unpack(jnp.asarray(of.observation), game.observation_shape))
        world = beginnings[seen[0].astype(np.float32).tobytes()]
        for t in range(len(of.action) - 1):
            world, after = step(world, jnp.asarray(of.action[t]), jax.random.key(0))
            np.testing.assert_array_equal(seen[t + 1], after.observation)
            assert of.reward[t] == after.reward and of.discount[t] == after.discount
            assert bool(after.last) == bool(of.is_last[t + 1])
        assert of.reward[-1] == 0.0 and of.discount[-1] == of.discount[-2] == 0.0
        episodes += 1
    assert episodes >= ours.actors


def test_acting_becomes_greedy_as_the_temperature_falls():
    spec = online.OnlineSpec(
        reanalyse_fraction=0.0, temperatures=[1.0, 1e-3], temperature_updates=4,
        **{**CATCH, "replay_capacity": 4_000, "overrides": {**SMALL, "num_simulations": 6}},
    )  # fmt: skip
    ours, data, _ = spec.build()

    def greedy(state, since):
        ticks = jax.tree.map(lambda x: np.asarray(x[since : int(state.sources["recent"].count)]),
                             state.sources["recent"].ticks)  # fmt: skip
        policy = ticks.improved.policy
        chosen = np.take_along_axis(policy, ticks.action[..., None], axis=-1)[..., 0]
        return (chosen == policy.max(axis=-1))[~ticks.is_last]

    state, _ = ours.run(ours.init(0), data, 4)
    before = int(state.sources["recent"].count)
    assert not greedy(state, 0).all()
    state, _ = ours.run(state, data, 4)
    assert int(state.sources["recent"].count) > before and greedy(state, before).all()


@pytest.mark.parametrize("method", ["mzu", "rosmo"])
def test_stored_windows_are_reanalysed_with_the_target_network(method):
    spec = online.OnlineSpec(reanalyse_fraction=0.5, **{**CATCH, "method": method})
    ours, data, _ = spec.build()
    state, parts = ours.run(ours.init(0), data, 4)
    assert np.isfinite(parts["loss"]).all()
    target = jax.tree.map(lambda x: x + 0.1, state.params)
    state = state._replace(learner=state.learner._replace(target_params=target))
    key = jax.random.key(3)
    batch = ours.draw(state, data, key)
    # The first half of the batch, by the operator itself.
    roots = improvement.root_of(
        ours.model, target, ours.model.represent(target, batch.observation[:, :4])
    )
    last = jax.random.split(key, len(ours.counts) + 2)[-1]
    wanted = objectives.improve(
        target, roots, last, ours.model, ours.learner.method, ours.learner.settings
    )
    steps = LENGTH if ours.learner.method.bootstrap == "operator" else SMALL["unroll_steps"] + 1
    assert batch.improved.value.shape == (steps, 8)
    np.testing.assert_allclose(batch.improved.policy[:, :4], wanted.policy, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch.improved.value[:, :4], wanted.value, rtol=1e-5, atol=1e-6)


def test_first_hand_windows_carry_the_acting_search():
    spec = online.OnlineSpec(reanalyse_fraction=0.5, **CATCH)
    ours, data, _ = spec.build()
    state, _ = ours.run(ours.init(0), data, 4)
    now = state.learner._replace(target_params=state.params)  # Before its time.
    state = state._replace(learner=now)
    batch = ours.draw(state, data, jax.random.key(3))
    assert batch.action.shape == (LENGTH, 8)
    stored = {float(x) for x in np.asarray(state.sources["recent"].ticks.improved.value).ravel()}
    first = np.asarray(batch.improved.value[0])
    assert all(float(x) in stored for x in first[4:])
    assert not all(float(x) in stored for x in first[:4])  # Made anew, with other noise.


def each(batch):
    """What tells one window of a batch from another."""
    parts = [np.asarray(x) for x in (batch.observation, batch.action, batch.reward, batch.real)]
    return [b"".join(part[:, i].tobytes() for part in parts) for i in range(len(parts[1][0]))]


def test_sources_mix(recording):
    weights = {"dataset": 2.0, "recent": 2.0, "demonstrations": 1.0, "best": 1.0}
    spec = online.OnlineSpec(
        dataset=recording, reanalyse_fraction=0.75, demonstrations=0.25, best_episodes=4,
        sources=weights, **CATCH,
    )  # fmt: skip
    ours, data, dataset = spec.build()
    assert dict(ours.counts) == {"recent": 2, "best": 1, "demonstrations": 1, "dataset": 2}
    assert list(ours.counts) == list(replay.SOURCES) and ours.first_hand == 2
    kept = datasets.best(dataset, 0.25)
    assert kept.num_episodes == 3 and data["demonstrations"].start.shape == (27,)
    assert data["dataset"].start.shape == (12 * 9,)
    state, parts = ours.run(ours.init(0), data, 4)
    assert np.isfinite(parts["loss"]).all()
    assert (
        spec.columns(state, ours, data)["sources"] == "best 1+dataset 2+demonstrations 1+recent 2"
    )
    key, draw = jax.random.key(5), jax.jit(ours.draw)
    recent = state.sources["recent"]
    held = {
        name: set(each(ours.sources[name].sample(of, data, key, 8_000)))
        for name, of in (("recent", recent), ("best", state.sources["best"]))
    } | {
        name: set(each(windows.at(store, store.start, LENGTH))) for name, store in data.items()
    }  # fmt: skip
    assert held["demonstrations"] < held["dataset"] and not held["best"] <= held["dataset"]
    of = ["recent"] * 2 + ["best", "demonstrations"] + ["dataset"] * 2 + ["recent"] * 2
    for one in jax.random.split(key, 30):
        batch = draw(state, data, one)
        assert all(window in held[name] for name, window in zip(of, each(batch)))


def test_until_an_episode_is_over_the_most_recent_stand_in_for_the_best():
    spec = online.OnlineSpec(
        reanalyse_fraction=0.75, sources={"best": 1.0}, best_episodes=4,
        **{**CATCH, "environment": "deep_sea_10"},
    )  # fmt: skip
    ours, data, _ = spec.build()
    key, draw = jax.random.key(5), jax.jit(ours.draw)
    first, *_ = jax.random.split(key, len(ours.counts) + 2)
    state = ours.init(0)
    assert ours.prefill == 10 and not ours.sources["best"].holds_any(state.sources["best"])
    wanted = ours.sources["recent"].sample(state.sources["recent"], data, first, 6)
    found = draw(state, data, key)
    assert each(found)[:6] == each(wanted)
    state = ours.act(state, key, 1)
    found = draw(state, data, key)
    best = ours.sources["best"].sample(state.sources["best"], data, first, 6)
    assert each(found)[:6] == each(best)


def test_rosmo_online_compares_stored_action_values_with_the_value_of_their_time():
    stored = Improvement(
        policy=jnp.full([1, 2], 0.5), value=jnp.zeros([1]), action_values=jnp.array([[0.3, -0.3]])
    )
    root = SimpleNamespace(value=jnp.full([1], 5.0))  # What the network says since.
    for action, advantage in ((0, 0.3), (1, -0.3)):
        found = losses.lookahead_advantage(
            None, None, root, stored, losses.Recorded(jnp.array([action]), None, None, None), None
        )
        np.testing.assert_allclose(found, [advantage], rtol=1e-6)


def test_an_online_run_resumes_to_the_same_bits(tmp_path):
    spec = online.OnlineSpec(
        reanalyse_fraction=0.5, sources={"recent": 1.0, "best": 1.0}, best_episodes=3,
        seeds=[0, 1], **CATCH,
    )  # fmt: skip
    whole = runs.train(spec, tmp_path / "whole")
    runs.train(dataclasses.replace(spec, updates=4), tmp_path / "cut")
    resumed = runs.train(spec, tmp_path / "cut")
    assert (
        len(whole) == 2 * 3 and (whole["frames"].groupby(whole["seed"]).diff().dropna() > 0).all()
    )
    columns = [c for c in whole.columns if c not in ("run", "seconds")]
    assert whole[columns].equals(resumed[columns])
    (_, _, a), (_, _, b) = (
        list(runs.saved_states(spec, tmp_path / name, *spec.build()[::2]))[-1]
        for name in ("whole", "cut")
    )
    a, b = map(checkpoints.raw_keys, (a, b))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert float(a.actors.best) == float(a.sources["best"].returns.max())
    assert whole["best_acted"].iloc[-1] == float(a.actors.best)


def test_online_runs_that_make_no_sense_are_refused(recording):
    def refused(match, **changes):
        with pytest.raises(ValueError, match=match):
            online.OnlineSpec(**{**CATCH, **changes}).build()

    refused("reanalyse_fraction", reanalyse_fraction=1.5)
    refused("unknown source 'recnt'.*recent", sources={"recnt": 1.0})
    refused("sources are empty", sources={"recent": 0.0})
    refused("no dataset is named", sources={"dataset": 1.0})
    refused("demonstrations has a weight, but no", sources={"recent": 1, "demonstrations": 1})
    refused("best has so little weight", sources={"recent": 1.0, "best": 0.01})
    refused("nothing is acted", reanalyse_fraction=1.0)
    with pytest.raises(ValueError, match="at least 10: 100 rows"):
        online.OnlineSpec(**{**CATCH, "replay_capacity": 99})  # Before anything is built.
    refused("multiple of round_updates", round_updates=3)
    refused(
        "no data at its start", benchmark="classic", environment="pendulum",
        overrides={"standardize": True},
    )  # fmt: skip
    refused("nothing is drawn from it", dataset=recording)
    refused("nothing is reanalysed", reanalyse_fraction=0.0, sources={"recent": 1, "best": 1})
    refused("sources must be a mapping", sources="best")
    refused(r"sources\['best'\] must lie in", sources={"best": float("inf")})
    refused("temperatures must be a list", temperatures=0.5)
    refused(r"temperatures\[0\] must lie in", temperatures=[2.0])
    refused("no improvement operator", method="bc")
    refused("was recorded in 'catch'", environment="deep_sea_4", dataset=recording,
            sources={"dataset": 1.0})  # fmt: skip
    refused("SIZE is a number", environment="deep_sea_x")


def test_a_replay_that_does_not_fit_is_refused_before_it_is_allocated(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "free", lambda: 10 * 2**30)
    with pytest.raises(MemoryError, match=r"10\.0 GiB can be had; lower replay_capacity"):
        online.OnlineSpec(**{**CATCH, "replay_capacity": 2**31 - 1}).build()
    monkeypatch.undo()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 8 kB\n")
    assert memory.free(tmp_path) == 8 * 1024
    groups = tmp_path / "sys/fs/cgroup"
    (groups / "memory").mkdir(parents=True)
    for name, text, free in (
        ("memory.max", "max", 8 * 1024),
        ("memory.max", "5000", 5000),
        ("memory/memory.limit_in_bytes", "4000", 4000),
    ):
        (groups / name).write_text(f"{text}\n")
        assert memory.free(tmp_path) == free
    # A job's own group, and those above it.
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/cgroup").write_text(
        "5:devices:/elsewhere\n4:cpu,memory:/old/job\n0::/slurm/job_7/step_0\n"
    )
    assert memory.free(tmp_path) == 4000
    for name, text, free in (
        ("slurm/job_7/memory.max", "3000", 3000),
        ("slurm/job_7/step_0/memory.max", "max", 3000),
        ("slurm/job_8/memory.max", "1", 3000),
        ("memory/old/memory.limit_in_bytes", "2000", 2000),
        ("memory/elsewhere/memory.limit_in_bytes", "1", 2000),
    ):
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{text}\n")
        assert memory.free(tmp_path) == free


def test_continuous_actions_are_acted_stored_and_reanalysed():
    spec = online.OnlineSpec(
        **CATCH | {"benchmark": "classic", "environment": "pendulum", "replay_capacity": 800,
                   "overrides": {**SMALL, "num_candidates": 3}},
        reanalyse_fraction=0.5, sources={"recent": 0.5, "best": 0.5}, best_episodes=2,
    )  # fmt: skip
    ours, data, _ = spec.build()
    start = ours.init(0)
    ticks = start.sources["recent"].ticks
    assert ticks.observation.dtype == np.float32 and ticks.action.dtype == np.float32
    played, candidates = ticks.action, ticks.improved.actions
    assert candidates.shape[-2:] == (3, 1)
    # What was played is one of the candidates; a compiler may work out the same number twice.
    assert (jnp.abs(candidates - played[..., None, :]).min(axis=-2) < 1e-6).all()
    state, parts = ours.run(start, data, 4)
    assert all(np.isfinite(x).all() for x in parts.values())
    batch = ours.draw(state, data, jax.random.key(0))
    assert batch.action.shape == (LENGTH, 8, 1) and batch.improved.actions.shape[-2:] == (3, 1)
    assert batch.observation.shape == (LENGTH, 8, 3)


def test_a_method_for_other_actions_does_not_act():
    spec = online.OnlineSpec(**CATCH | {"benchmark": "classic", "environment": "pendulum",
                                        "method": "rosmo"})  # fmt: skip
    with pytest.raises(ValueError, match="rosmo is not for the continuous actions of 1 dimension"):
        spec.build()
