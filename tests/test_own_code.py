"""Functions as a notebook would define them, told apart by all that they refer to."""

import dataclasses
import functools
import importlib
import linecache
import subprocess
import sys
import textwrap

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unplugged import fingerprint, losses


def one_s_own(source, name="f", **values):
    """What a notebook's cell would define, its source at hand."""
    source = textwrap.dedent(source)
    file = f"<cell {source} {sorted(values)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    scope = {"__name__": "__main__", **values}
    exec(compile(source, file, "exec"), scope)
    return scope[name]


def of(function):
    return fingerprint.of_functions({"part": function}, [], "")


def helper(scale):
    return one_s_own(f"def helper(x, y=0):\n    return {scale} * x\n", "helper")


def wrapped(scale):
    source = """
    import functools
    def scaled(f):
        @functools.wraps(f)
        def g(x):
            return scale * f(x)
        return g
    """
    return one_s_own(source, "scaled", scale=scale)(helper(1))


def made_class(body, scale, name="Op", **values):
    return one_s_own(body.replace("SCALE", str(scale)), name, **values)


CALLABLE = """
class Base:
    def __call__(self, x):
        return SCALE * x
class Op(Base):
    pass
"""
WITH_PROPERTY = """
class Op:
    @property
    def scale(self):
        return TAU
    def __call__(self, x):
        return self.scale * x
"""
DATA = """
import dataclasses
@dataclasses.dataclass(frozen=True)
class Op:
    scale: float = SCALE
    more: list = dataclasses.field(default_factory=list)
    def __call__(self, x):
        return self.scale * x
"""
NAMED = """
from typing import NamedTuple
import enum
class Kind(enum.Enum):
    A = SCALE
class Op(NamedTuple):
    kind: Kind = Kind.A
    def __call__(self, x):
        return self.kind.value * x
"""


def vjp(scale):
    f = jax.custom_vjp(helper(1))
    f.defvjp(helper(2), helper(scale))
    return f


def of_two(pick):
    a, b = helper(1), helper(2)
    return one_s_own("def f():\n    return a, b, pick\n", a=a, b=b, pick=(a, b)[pick - 1])


@pytest.mark.parametrize(
    "make",
    [
        lambda x: one_s_own("def f():\n    return TAU\n", TAU=x),
        lambda x: one_s_own("def f():\n    return [TAU for _ in range(2)]\n", TAU=x),
        lambda x: one_s_own("def f(tau=TAU):\n    return tau\n", TAU=x),
        lambda x: one_s_own("def f(*, tau=TAU):\n    return tau\n", TAU=x),
        lambda x: one_s_own("def f():\n    return helper(2)\n", helper=helper(x)),
        lambda x: one_s_own("def f():\n    return table['a']\n", table={"a": {x}}),
        lambda x: one_s_own("def f():\n    return w\n", w=np.arange(5_000) == 2_000 + x),
        lambda x: one_s_own("def f():\n    return k\n", k=jax.random.key(x)),
        lambda x: one_s_own(f"f, g = lambda: {x}, lambda: 0\n"),
        lambda x: functools.partial(helper(1), x),
        lambda x: functools.partial(print, helper(x)),
        lambda x: jax.jit(helper(x)),
        lambda x: jax.jit(functools.partial(jnp.clip, max=x)),
        lambda x: jax.grad(helper(1), argnums=x - 1),
        lambda x: jax.vmap(helper(1), in_axes=(0, [None, 0][x - 1])),
        lambda x: wrapped(x),
        lambda x: vjp(x),
        lambda x: of_two(x),
        lambda x: optax.exponential_decay(float(x), 1, 0.5),
        lambda x: one_s_own("def f():\n    return i\n", i=hk.initializers.VarianceScaling(x)),
        lambda x: made_class(CALLABLE, x)(),
        lambda x: made_class(CALLABLE, x)().__call__,
        lambda x: made_class(WITH_PROPERTY, x, TAU=x)(),
        lambda x: made_class(DATA, x)(),
        lambda x: made_class(DATA, 1)(scale=x),
        lambda x: made_class(NAMED, x)(),
        lambda x: one_s_own("def f():\n    return c\n", c=made_class(DATA, 1)(more=[x])),
    ],
)
def test_all_that_a_function_of_ones_own_refers_to_counts(make):
    codes = [of(make(x)) for x in (1, 2, 1)]
    assert codes[0] == codes[2] != codes[1]


def test_ones_own_modules_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    codes = set()
    for x in (1, 2):
        (tmp_path / f"mine{x}.py").write_text(f"def fn(x):\n    return {x} * x\n")
        mine = importlib.import_module(f"mine{x}")
        mine.__name__ = mine.fn.__module__ = "mine"
        codes.add(of(one_s_own("def f(x):\n    return mine.fn(x)\n", mine=mine)))
    assert len(codes) == 2


def test_an_attribute_is_no_global():
    source = "def f(x):\n    return x.value + TAU\n"
    assert of(one_s_own(source, TAU=1)) == of(one_s_own(source, TAU=1, value=iter([])))


def test_functions_that_call_each_other_are_known():
    scope = {"__name__": "__main__"}
    exec("def a(x):\n    return b(x)\ndef b(x):\n    return a(x) if x else 0\n", scope)
    assert len({of(scope["a"]), of(scope["b"])}) == 2 and of(scope["a"]) == of(scope["a"])


@pytest.mark.parametrize(
    "source, values",
    [
        ("def f(x):\n    return losses.heaviside(x)\n", {"losses": losses}),
        ("def f(x):\n    return other.heaviside(x)\n", {"other": losses}),
        ("def f(x):\n    return heaviside(x)\n", {"heaviside": losses.heaviside}),
        ("def f(x):\n    from unplugged.losses import heaviside\n    return heaviside(x)\n", {}),
        ("import unplugged\ndef f(x):\n    return unplugged.losses.heaviside(x)\n", {}),
    ],
)
def test_the_librarys_code_counts_where_ones_own_uses_it(source, values, monkeypatch):
    wanted = []
    monkeypatch.setattr(fingerprint, "of_library", lambda roots: wanted.extend(roots))
    of(one_s_own(source, **values))
    assert "losses.heaviside" in wanted and "losses.exponential" not in wanted


def test_what_cannot_be_told_apart_is_refused():
    function = one_s_own("def f():\n    return thing\n", thing=iter([]))
    with pytest.raises(ValueError, match=r"iterator object at 0x.*not resumable"):
        of(function)


def test_the_code_is_the_same_in_every_process():
    source = """
    import dataclasses, functools, jax, jax.numpy as jnp, logging, optax
    from unplugged import fingerprint, improvement
    LOG = logging.getLogger("mine")
    KEYS = {("a", 1), ("b", 2), ("c", 3)}
    @dataclasses.dataclass
    class Config:
        names: frozenset = frozenset("abcdef")
        scale: float = 2.0
        def __call__(self, x):
            return self.scale * x
    CONFIG, ADAM = Config(), optax.adam(1e-3)
    def operator(model, params, root, key, settings):
        LOG.debug("%s", KEYS)
        better = improvement.one_step(model, params, root, key, settings)
        return better._replace(policy=jax.nn.softmax(CONFIG(better.action_values)), value=ADAM)
    print(fingerprint.of_functions({"a": operator, "b": CONFIG, "c": jax.jit(operator)}, [], ""))
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    codes = {subprocess.run(command, capture_output=True, text=True).stdout for _ in range(2)}
    assert len(codes) == 1 and len(codes.pop().strip()) == 33


def test_a_dataclass_of_the_library_counts_by_its_values():
    @dataclasses.dataclass
    class Local:
        x: int = 1

    assert of(functools.partial(print, Local())) != of(functools.partial(print, Local(2)))
