import dataclasses

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

from conftest import compiled, random_params
from unplugged.learning import losses
from unplugged.model import transforms
from unplugged.model.actions import Discrete, Factored, Normal, draw
from unplugged.model.networks import Model
from unplugged.planning import acting, candidates, improvement
from unplugged.runs.spec import model_of

PARAMETERS = jnp.array([[0.2, 0.5]])  # of a normal policy in one dimension


def bandit(quality):
    """A model of one state, where an action brings `quality` of it and the episode goes on at 0."""
    support = transforms.Atoms(2, spacing=2.0)  # -1 and 1: logits say any scalar between

    def logits(x):
        return jnp.stack([jnp.log((1.0 - x) / 2.0), jnp.log((1.0 + x) / 2.0)], axis=-1)

    def dynamics(params, state, action):
        reward = quality(jnp.clip(action[..., 0], -1.0, 1.0))
        return logits(reward), jnp.broadcast_to(state, (*reward.shape, 1))

    def predict(params, state):
        shape = state.shape[:-1]
        return jnp.broadcast_to(PARAMETERS[0], (*shape, 2)), logits(jnp.zeros(shape))

    return Model(
        init=lambda key: {}, represent=lambda params, x: x, dynamics=dynamics, predict=predict,
        actions=Normal(1), support=support,
    )  # fmt: skip


def root(number, action=None, recorded=None):
    return candidates.Root(
        jnp.tile(PARAMETERS, [number, 1]), jnp.zeros(number), jnp.zeros([number, 1]), action,
        recorded,
    )  # fmt: skip


def quality(action):
    return 0.9 * jnp.cos(2.0 * action)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_recorded_action_is_injected_just_where_there_is_one(small, share):
    settings = dataclasses.replace(small, num_candidates=5, injection=share)
    model = bandit(quality)
    done, known = jnp.array([[0.7], [-0.7]]), jnp.array([True, False])
    offered = candidates.offer(model, root(2, done, known), jax.random.key(0), settings)
    rest = (1.0 - share) / 4
    np.testing.assert_allclose(offered.prior, [[rest] * 4 + [share], [0.2] * 5], rtol=1e-6)
    plain = candidates.offer(model, root(2), jax.random.key(0), settings)
    np.testing.assert_array_equal(offered.actions[0, -1], done[0])
    np.testing.assert_array_equal(offered.actions[0, :-1], plain.actions[0, :-1])
    np.testing.assert_array_equal(offered.actions[1], plain.actions[1])
    np.testing.assert_allclose(plain.prior, 0.2)


def test_with_an_injection_of_0_nothing_is_injected(small):
    settings = dataclasses.replace(small, num_candidates=5, injection=0.0)
    known = root(1, jnp.array([[0.7]]), jnp.array([True]))
    offered = candidates.offer(bandit(quality), known, jax.random.key(0), settings)
    plain = candidates.offer(bandit(quality), root(1), jax.random.key(0), settings)
    np.testing.assert_array_equal(offered.actions, plain.actions)
    np.testing.assert_allclose(offered.prior, 0.2)


def test_the_search_tries_the_candidates_of_its_root(small):
    settings = dataclasses.replace(small, num_candidates=6, num_simulations=12, discount=1.0)
    model = bandit(quality)
    found = improvement.mcts(
        model, {}, root(3), jax.random.key(1), dataclasses.replace(settings, search_depth=1)
    )
    assert found.actions.shape == (3, 6, 1)
    np.testing.assert_allclose(found.policy.sum(axis=-1), 1.0, rtol=1e-6)
    wanted = quality(jnp.clip(found.actions[..., 0], -1.0, 1.0))
    visited = found.policy > 0
    np.testing.assert_allclose(found.action_values[visited], wanted[visited], atol=1e-5)


def test_the_search_compares_its_candidates(small, monkeypatch):
    settings = dataclasses.replace(small, num_candidates=8, ties="node")

    def searched(simulations):
        return jax.jit(lambda: improvement.mcts(
            bandit(lambda a: 0.1 * jnp.cos(2.0 * a)), {}, root(300), jax.random.key(0),
            dataclasses.replace(settings, num_simulations=simulations), noise=False,
        ))()  # fmt: skip

    def tried(found):
        return (np.asarray(found.policy) > 0).sum(axis=1).mean()

    assert tried(searched(16)) > 7.5
    with monkeypatch.context() as patch:
        patch.setattr(improvement, "over_tree", improvement.between_siblings)
        assert tried(searched(16)) < 2.0  # As `docs/choices.md` says.
    found = searched(32)
    wanted = np.cos(2.0 * np.clip(found.actions[..., 0], -1.0, 1.0))
    assert (found.policy.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.4
    better = (found.policy * wanted).sum(axis=1).mean() - wanted.mean()
    assert better > 0.4 * (wanted.max(axis=1).mean() - wanted.mean())


def test_a_recorded_action_stands_for_noise(small):
    """With it there is no noise at the root; without injection there is."""
    settings = dataclasses.replace(small, num_candidates=5, num_simulations=1, ties="node")
    done = root(300, jnp.full([300, 1], 0.7), jnp.ones(300, bool))

    def tried(share):
        found = improvement.mcts(
            bandit(quality), {}, done, jax.random.key(0),
            dataclasses.replace(settings, injection=share),
        )  # fmt: skip
        return set(np.asarray(found.policy.argmax(axis=1)).tolist())

    assert tried(0.25) == {4} and tried(0.0) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("space", [Normal(2), Factored(2, 5)])
def test_a_tree_is_the_one_of_its_candidates(small, space):
    """Each node's value and reward are those of the action that its seed and place give."""
    settings = dataclasses.replace(small, num_candidates=3, num_simulations=16, ties="node")
    model = compiled(model_of(settings, (2,), space))
    params = random_params(model, 0)
    state = model.represent(params, jnp.array([[0.3, -1.0], [1.0, 0.2]]))
    begin = improvement.root_of(model, params, state)
    offered, start, step = candidates.begin(model, begin, jax.random.key(0), settings)
    tree = improvement.search(
        model, params, start, jax.random.key(1), settings, recurrent_fn=step
    ).search_tree
    nodes = tree.embeddings
    for i in range(2):
        depths = []
        for node in range(1, 17):
            parent, place = int(tree.parents[i, node]), int(tree.action_from_parent[i, node])
            if parent == 0:
                action = offered.actions[i, place]
            else:
                key = jax.random.wrap_key_data(nodes.seed[i, parent])
                uniform = jax.random.uniform(jax.random.fold_in(key, place), [2])
                action = space.sample(nodes.parameters[i, parent], uniform)
            logits, following = model.dynamics(params, nodes.state[i, parent], action)
            np.testing.assert_allclose(nodes.state[i, node], following, rtol=1e-4, atol=1e-5)
            reward = tree.children_rewards[i, parent, place]
            np.testing.assert_allclose(reward, model.support.scalar(logits), rtol=1e-4, atol=1e-5)
            depths.append(parent > 0)
        assert any(depths)  # Candidates below the root were tried as well.


@pytest.mark.parametrize("ties", ["node", "step"])
def test_each_node_has_candidates_of_its_own(small, ties):
    """Equal policies everywhere: still no two nodes, of one tree or of two, draw the same."""
    settings = dataclasses.replace(small, num_candidates=3, num_simulations=16, ties=ties)
    _, start, step = candidates.begin(bandit(quality), root(2), jax.random.key(0), settings)
    nodes = improvement.search(
        bandit(quality), {}, start, jax.random.key(1), settings, recurrent_fn=step
    ).search_tree.embeddings
    seeds = np.asarray(nodes.seed).reshape(-1, 2)
    assert len(np.unique(seeds, axis=0)) == 2 * 17
    uniform = [
        float(jax.random.uniform(jax.random.fold_in(jax.random.wrap_key_data(seed), place), [1])[0])
        for seed in seeds
        for place in range(3)
    ]
    assert len(set(uniform)) == 2 * 17 * 3


def test_mzu_q_keeps_to_the_prior_where_values_say_nothing(small):
    settings = dataclasses.replace(
        small, num_candidates=5, num_simulations=8, injection=0.25, temperature=1e9
    )
    known = root(2, jnp.array([[0.7], [-0.7]]), jnp.array([True, False]))
    found = improvement.mcts_q(bandit(quality), {}, known, jax.random.key(0), settings)
    rest = 0.75 / 4
    np.testing.assert_allclose(found.policy, [[rest] * 4 + [0.25], [0.2] * 5], rtol=1e-5)


def exact(power=1.0):
    """E over the policy of exp(q) / E exp(q) * a, by quadrature."""
    grid = np.linspace(-8.0, 8.0, 40_001)[:, None]
    density = np.exp(np.asarray(Normal(1).log_prob(PARAMETERS[0], jnp.asarray(grid))))
    weight = density * np.exp(power * np.asarray(quality(np.clip(grid[:, 0], -1.0, 1.0))))
    return np.trapezoid(weight * grid[:, 0], grid[:, 0]) / np.trapezoid(weight, grid[:, 0])


@pytest.mark.parametrize("operator", [improvement.one_step, improvement.one_step_sampled])
def test_sampled_operators_approach_the_exact_one(small, operator):
    errors = []
    for number in (4, 32, 256):
        settings = dataclasses.replace(
            small, num_candidates=number, num_samples=number, injection=0.0
        )
        found = operator(bandit(quality), {}, root(256), jax.random.key(0), settings)
        means = jnp.sum(found.policy * found.actions[..., 0], axis=-1)
        errors.append(float(jnp.sqrt(jnp.mean((means - exact()) ** 2))))
    assert errors[0] > 2.0 * errors[1] > 4.0 * errors[2] and errors[2] < 0.06


def test_with_uniform_weights_the_expected_gradient_is_0():
    space, number = Normal(1), 8
    drawn = draw(space, jax.random.key(0), jnp.tile(PARAMETERS, [20_000, 1]), number)
    target = improvement.SampledImprovement(
        jnp.full([20_000, number], 1.0 / number), jnp.zeros(20_000), None, drawn
    )

    def loss(parameters):
        return losses.policy_cross_entropy(space, target, jnp.tile(parameters, [20_000, 1]))

    rows = jax.jacfwd(loss)(PARAMETERS)[:, 0]
    error = rows.std(axis=0) / np.sqrt(len(rows))
    assert (np.abs(rows.mean(axis=0)) < 4 * error).all() and (error < 0.01).all()


def test_absorbing_states_have_uniform_candidates(small):
    actions = jnp.zeros([1, 2, 4, 1])
    improved = improvement.SampledImprovement(
        jnp.full([1, 2, 4], jnp.array([0.7, 0.1, 0.1, 0.1])), jnp.zeros([1, 2]), None, actions
    )

    class Steps:
        absorbing = jnp.array([[False, True]])

    target = losses.policy_target(Normal(1), improved, Steps, jax.random.key(0))
    np.testing.assert_array_equal(target.policy[0, 0], improved.policy[0, 0])
    np.testing.assert_array_equal(target.actions[0, 0], 0.0)
    np.testing.assert_allclose(target.policy[0, 1], 0.25)
    assert len(np.unique(target.actions[0, 1])) == 4


@pytest.mark.parametrize("name", acting.OF_CONTINUOUS)
def test_selectors_choose_among_continuous_actions(small, name):
    settings = dataclasses.replace(small, num_candidates=4)
    model = compiled(model_of(settings, (2,), Normal(2)))
    params = random_params(model, 0)
    observation = jnp.array([[0.3, -1.0], [1.0, 0.2], [0.0, 0.0]])
    choice = acting.SELECTORS[name](model, params, observation, jax.random.key(0), settings)
    count = 1 if name in ("policy", "greedy") else 4
    assert choice.actions.shape == (3, count, 2) and choice.probabilities.shape == (3, count)
    np.testing.assert_allclose(choice.probabilities.sum(axis=-1), 1.0, rtol=1e-5)


def test_of_discrete_actions_nothing_is_drawn(small):
    model = model_of(small, (2,), Discrete(3))
    with pytest.raises(TypeError, match="candidates are drawn from continuous actions"):
        candidates.space(model)
    with pytest.raises(TypeError, match="no number of continuous actions"):
        _ = model_of(small, (2,), Normal(2)).num_actions
    state = model.represent(model.init(jax.random.key(0)), jnp.zeros([1, 2]))
    root_of = improvement.root_of(model, model.init(jax.random.key(0)), state)
    assert isinstance(root_of, mctx.RootFnOutput)
