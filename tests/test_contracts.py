"""What functions of one's own must give, and what they are told if they do not."""

import dataclasses
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from unplugged import acting, contracts, improvement, losses, methods

ROOT = Path(__file__).parents[1]
NUMBER, ACTIONS = 5, 3


def good(model, params, root, key, settings):
    q = jnp.zeros_like(root.prior_logits)
    return improvement.Improvement(jax.nn.softmax(root.prior_logits), root.value, q)


def logits(model, params, root, key, settings):
    return good(model, params, root, key, settings)._replace(policy=root.prior_logits)


def without_a_normaliser(model, params, root, key, settings):
    """Right only where q - v = 0, as an untrained network says."""
    found = improvement.one_step(model, params, root, key, settings)
    weight = jnp.exp(found.action_values - root.value[:, None])
    return found._replace(policy=jax.nn.softmax(root.prior_logits) * weight)


def not_finite(model, params, root, key, settings):
    return good(model, params, root, key, settings)._replace(value=root.value / 0.0)


def not_finite_policy(model, params, root, key, settings):
    found = good(model, params, root, key, settings)
    return found._replace(policy=found.policy + jnp.nan)


def four_arguments(model, params, root, settings):
    return good(model, params, root, None, settings)


def no_improvement(model, params, root, key, settings):
    return root.prior_logits, root.value


def a_row_too_few(model, params, root, key, settings):
    return jax.tree.map(lambda x: x[1:], good(model, params, root, key, settings))


def value_of_every_action(model, params, root, key, settings):
    return good(model, params, root, key, settings)._replace(value=root.prior_logits)


def whole_numbers(model, params, root, key, settings):
    found = good(model, params, root, key, settings)
    return found._replace(policy=(found.policy > 0.5).astype(int))


def a_list(model, params, root, key, settings):
    return good(model, params, root, key, settings)._replace(policy=[[0.5, 0.5]])


def raises(model, params, root, key, settings):
    return root.no_such_field


def traced(operator, model, small):
    """As a training program traces it, nothing computed."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    state = jax.ShapeDtypeStruct((NUMBER, model_size(model)), jnp.float32)
    return jax.eval_shape(
        lambda params, state: contracts.improve(
            operator, model, params, improvement.root_of(model, params, state),
            jax.random.key(0), small,
        ),
        params, state,
    )  # fmt: skip


def model_size(model):
    seen = jnp.zeros([1, 2, 2])
    return model.represent(model.init(jax.random.key(0)), seen).shape[-1]


@pytest.mark.parametrize(
    "operator, message",
    [
        (four_arguments, r"four_arguments\(model, params, root, settings\) is called as "
                         r"\(model, params, root, key, settings\): too many"),
        (no_improvement, r"no_improvement must return improvement\.Improvement\(policy, value, "
                         r"action_values\), got tuple"),
        (a_row_too_few, r"a_row_too_few: policy must be floating point of shape \[5, 3\], "
                        r"got float32 of shape \[4, 3\]"),
        (value_of_every_action, r"value must be floating point of shape \[5\], got .* \[5, 3\]"),
        (whole_numbers, r"policy must be floating point of shape \[5, 3\], got int32"),
        (raises, r"raises raised AttributeError \(test_contracts.py, line \d+\): '\w+' object"),
        (a_list, r"policy must be an array \[5, 3\], got list"),
    ],
)  # fmt: skip
def test_a_wrong_operator_is_named_when_it_is_traced(model, small, operator, message):
    with pytest.raises(ValueError, match=f"^operator .*{message}"):
        traced(operator, model, small)


def test_a_good_operator_is_the_same_program(model, small):
    found = traced(good, model, small)
    assert found.policy.shape == (NUMBER, ACTIONS)
    params, state = model.init(jax.random.key(0)), jnp.ones([NUMBER, model_size(model)])

    def alone(params, state):
        root = improvement.root_of(model, params, state)
        return good(model, params, root, jax.random.key(0), small)

    def checked(params, state):
        root = improvement.root_of(model, params, state)
        return contracts.improve(good, model, params, root, jax.random.key(0), small)

    texts = [jax.jit(f).lower(params, state).as_text() for f in (alone, checked)]
    assert texts[1].replace("jit_checked", "jit_alone") == texts[0]


def method(operator, **more):
    return methods.Method(summary="mine", operator=operator, selector="policy", **more)


def tried(model, small, of, selector="policy"):
    contracts.try_out(model, of, selector, small, lambda: jnp.ones([NUMBER, 2, 2]))


@pytest.mark.parametrize(
    "operator, message",
    [
        (logits, "logits: its policy is no distribution on states of this run: rows sum to .*, "
                 r"the least entry is -.*; return probabilities, such as jax\.nn\.softmax"),
        (without_a_normaliser, r"its policy is no distribution.*say so by Method\(.*sampled="),
        (not_finite, "not_finite: value is not finite on states of this run"),
        (not_finite_policy, "its policy is not finite on states of this run"),
    ],
)  # fmt: skip
def test_what_is_no_policy_is_refused_on_numbers(model, small, operator, message):
    with pytest.raises(ValueError, match=f"^operator .*{message}"):
        tried(model, small, method(operator))


def test_advice_is_followed(model, small):
    def softmax_of_them(*arguments):
        found = logits(*arguments)
        return found._replace(policy=jax.nn.softmax(found.policy))

    tried(model, small, method(softmax_of_them))
    tried(model, small, method(without_a_normaliser, sampled=True))
    with pytest.raises(ValueError, match="the least entry is -"):  # Weights are never negative.
        tried(model, small, method(logits, sampled=True))


@pytest.mark.slow
def test_every_method_of_the_library_keeps_the_contract(model, small, monkeypatch):
    monkeypatch.setattr(contracts, "_own", lambda function: True)
    seen = set()
    for of in methods.METHODS.values():
        if of.imagines or of.critic == "implicit":  # They need parameters of their own.
            continue
        if (of.operator, of.selector) not in seen and of.selector not in ("search", "gumbel"):
            seen.add((of.operator, of.selector))
            tried(model, small, of, of.selector)
    assert [name for name, of in methods.METHODS.items() if of.sampled] == ["rosmo_sampled"]
    with pytest.raises(ValueError, match="one_step_sampled: its policy is no distribution"):
        unsaid = dataclasses.replace(methods.METHODS["rosmo_sampled"], sampled=False)
        tried(model, small, unsaid)


def test_a_selector_of_ones_own_is_tried_too(model, small, monkeypatch):
    def answers(change):
        def mine(model, params, observation, key, settings):
            return change(acting.policy(model, params, observation, key, settings))

        return mine

    for change, message in (
        (jnp.log, "selector mine: its answer is no distribution"),
        (lambda x: 2 * x, "selector mine: its answer is no distribution.*rows sum to 2 to 2"),
        (lambda x: x[:, :-1], r"probabilities must be floating point of shape \[5, 3\]"),
    ):
        monkeypatch.setitem(acting.SELECTORS, "mine", answers(change))
        with pytest.raises(ValueError, match=message):
            tried(model, small, methods.METHODS["bc"], "mine")
    monkeypatch.setitem(acting.SELECTORS, "mine", answers(lambda x: x))
    tried(model, small, methods.METHODS["bc"], "mine")


def test_a_wrong_objective_or_regulariser_is_named():
    given = dict(params=0, target_params=0, windows=0, key=0, model=0, method=0, settings=0)

    def objective(params, target_params, windows, key, *, model, method, settings):
        return jnp.zeros([4]), {}

    with pytest.raises(ValueError, match=r"objective: loss must be floating .* \[\], got .* \[4\]"):
        contracts.loss(objective, **given)
    with pytest.raises(ValueError, match=r"objective <lambda>\(params\) is called as \(params, .*"):
        contracts.loss(lambda params: 0.0, **given)
    with pytest.raises(ValueError, match=r"must return \(loss, parts\)"):
        contracts.loss(lambda *a, **b: jnp.zeros([]), **given)
    with pytest.raises(ValueError, match=r"advantages must be floating .* \[2, 4\], got .* \[4\]"):
        recorded = losses.Recorded(jnp.zeros([2, 4], int), jnp.zeros([2, 4]), None, None)
        contracts.advantage(lambda *a: jnp.zeros([4]), None, None, None, None, recorded, None)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"operator": "one_step"}, "operator must be a function, got 'one_step'"),
        ({"objective": 3}, "objective must be a function, got 3"),
        ({"weighting": None}, "weighting must be a function, got None"),
        ({"bootstrap": "operater"}, "unknown bootstrap 'operater': did you mean 'operator'"),
    ],
)
def test_a_wrong_method_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        methods.Method(**{"summary": "", "operator": good, "selector": "policy", **change})


MINE = '''
import jax
from unplugged import improvement, methods


def bolder(model, params, root, key, settings):
    """Advantages counted twice."""
    found = improvement.one_step(model, params, root, key, settings)
    return found._replace(policy=jax.nn.softmax(2.0 * found.action_values))


own = methods.Method(summary="mine", operator=bolder, selector="improved")
number = 3
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with modules of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [x for x in sys.path if x != ""])
    before = set(sys.modules)
    (tmp_path / "mine_here.py").write_text(MINE)
    (tmp_path / "broken_here.py").write_text("import nothing_of_the_kind\n")
    (tmp_path / "typo_here.py").write_text("def f(:\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.endswith("_here"):
            del sys.modules[name]


def test_a_method_is_found_in_a_file_of_ones_own(here):
    own, found = methods.get("mine_here:own"), methods.get("mine_here:bolder")
    assert own is sys.modules["mine_here"].own
    assert found.operator is own.operator and found.summary == "Advantages counted twice"
    assert (found.selector, found.bootstrap, found.regularizer) == ("policy", "network", None)


@pytest.mark.parametrize(
    "name, message",
    [
        ("mine_her:own", "there is no module 'mine_her' in .* or on PYTHONPATH; did you mean "
                         "'mine_here'"),
        ("mine_here.py:own", "there is no module 'mine_here.py' in .*; did you mean 'mine_here'"),
        ("mine_here:bold", "mine_here has no 'bold': did you mean 'bolder'.? Valid: bolder, own"),
        ("mine_here:number", "number must be a Method or an operator, a function, got int"),
        ("broken_here:f", "broken_here cannot be imported: ModuleNotFoundError: No module named"),
        ("typo_here:f", "typo_here cannot be imported: SyntaxError"),
    ],
)  # fmt: skip
def test_a_method_that_is_not_there_is_named(here, name, message):
    with pytest.raises(ValueError, match=re.escape(f"method {name!r}: ") + f"({message})"):
        methods.get(name)


def test_the_documented_file_is_a_module_of_methods(here):
    text = (ROOT / "docs" / "extending.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    code = [next(x for x in blocks if start in x) for start in ("def bolder", "# my_methods.py")]
    (here / "my_methods_here.py").write_text("".join(code))
    name = re.search(r"-p method my_methods:(\w+)", text)[1]
    found, alone = methods.get(f"my_methods_here:{name}"), methods.get("my_methods_here:bolder")
    assert found.operator is alone.operator and found.regularizer and not alone.regularizer


def test_a_name_of_another_form_is_refused():
    for name in (":own", "mine:", "a/b:own", "mine:own:too", "mine: own"):
        with pytest.raises(ValueError, match=f"method '{name}' must be module:name, such as"):
            methods.get(name)


def test_own_names_are_told_from_rows_of_the_table(monkeypatch):
    assert methods.is_own("a:b") and not methods.is_own("rosmo")
    monkeypatch.setitem(methods.METHODS, "a:b", methods.METHODS["bc"])
    assert not methods.is_own("a:b") and methods.get("a:b") is methods.METHODS["bc"]
