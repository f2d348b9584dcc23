"""What a function of a notebook is: its code and all that it refers to, as text.

The text is the same in every process, so that a run of one's own operator, selector or network
goes on after a restart, and is another run once anything that it uses has changed.
"""

from __future__ import annotations

import contextlib
import dis
import enum
import functools
import hashlib
import inspect
import itertools
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

_PACKAGE = Path(__file__).parent
_WRAPPED = ("__wrapped__", "fun", "fwd", "bwd", "jvp", "fget", "fset", "__func__", "func")


class Described:
    """Values as text, one after another.

    Args:
      defines: whether the library defines "module.name".

    Attributes:
      roots: definitions of the library, "module.name", that the values refer to.
    """

    def __init__(self, defines: Callable[[str], bool]):
        self.roots: set[str] = set()
        self._defines = defines
        self._done: dict[int, tuple[Any, str]] = {}  # The value is held, or its id could recur.
        self._open: list[int] = []
        self._lowest = sys.maxsize  # the outermost open value that was referred back to

    def text(self, value: Any) -> str:
        """A value and all that it refers to.

        Raises:
          ValueError: if it cannot be told from another.
        """
        if value is None or type(value) in (bool, int, float, complex, str, bytes):
            return repr(value)
        if id(value) in self._done:
            return self._done[id(value)][1]
        if id(value) in self._open:
            at = self._open.index(id(value))
            self._lowest = min(self._lowest, at)
            return f"<the one {len(self._open) - at} up>"
        outer, self._lowest = self._lowest, sys.maxsize
        self._open.append(id(value))
        try:
            content = "\n".join(self._parts(value))
        finally:
            self._open.pop()
            inner, self._lowest = self._lowest, min(outer, self._lowest)
        found = hashlib.sha256(content.encode()).hexdigest()[:16]
        if inner >= len(self._open):  # Nothing around it has a part in its text.
            self._done[id(value)] = value, found
            self._lowest = outer
        return found

    def _parts(self, value: Any) -> Iterable[str]:
        kind = type(value)
        if isinstance(value, (np.generic, np.ndarray, jax.Array)):
            return _array(value)
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        if isinstance(value, enum.Enum):
            return [_name(kind), value.name, self.text(value.value)]
        if isinstance(value, Mapping):
            return [_name(kind), *(self.text(x) for item in value.items() for x in item)]
        if isinstance(value, (set, frozenset)):
            return [_name(kind), *sorted(map(self.text, value))]
        if isinstance(value, (list, tuple)):
            return [_name(kind), *map(self.text, value)]
        if isinstance(value, functools.partial):
            return ["partial", *map(self.text, (value.func, value.args, value.keywords))]
        if isinstance(value, types.MethodType):
            return ["method", *map(self.text, (value.__func__, value.__self__))]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        held = [name for name in _WRAPPED if hasattr(value, name)]
        if held and not _is_ones_own(kind):  # What jit, property and their like made of a function.
            return [_name(kind), *(self.text(getattr(value, name)) for name in held)]
        if inspect.isroutine(value):
            return [_name(value)]
        return self._object(value)

    def _object(self, value: Any) -> Iterable[str]:
        kind = type(value)
        if hasattr(value, "to_csv"):  # Of pandas, whose texts are cut.
            return [_name(kind), value.to_csv()]
        plain = kind.__repr__ is object.__repr__
        if not (plain or _is_ones_own(kind) or _in_library(kind)):
            text = repr(value)
            if " at 0x" not in text:
                return [_name(kind), text]
        slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
        content = {name: getattr(value, name) for name in slots if hasattr(value, name)}
        if not content and not hasattr(value, "__dict__"):
            raise ValueError(
                f"{value!r} has no value to know it by, so that a run of it is not resumable"
            )
        return [self.text(kind), self.text({**content, **getattr(value, "__dict__", {})})]

    def _function(self, function: types.FunctionType) -> Iterable[str]:
        name = _name(function)
        if _in_library(function) and self._is_root(function):
            return [name]
        cells = {}
        for free, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            with contextlib.suppress(ValueError):  # Not filled yet.
                cells[free] = cell.cell_contents
        if not (_is_ones_own(function) or _in_library(function)):
            return [name, *(self._loosely(x) for item in cells.items() for x in item)]
        return [
            name, _source(function), self.text(cells), self.text(function.__defaults__),
            self.text(function.__kwdefaults__), *self._referred(function),
        ]  # fmt: skip

    def _class(self, kind: type) -> Iterable[str]:
        if not (_is_ones_own(kind) or _in_library(kind)) or self._is_root(kind):
            return [_name(kind)]
        machinery = {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__"}
        content = {n: x for n, x in vars(kind).items() if n not in machinery}
        parts = [_name(kind), *map(self.text, kind.__bases__)]
        return [*parts, *(self._loosely(x) for item in content.items() for x in item)]

    def _loosely(self, value: Any) -> str:
        """A value's text; its kind alone if that is all there is to know."""
        try:
            return self.text(value)
        except ValueError:
            return _name(type(value))

    def _is_root(self, definition: Any) -> bool:
        name = f"{definition.__module__.rpartition('.')[2]}.{definition.__qualname__}"
        if not (_in_library(definition) and self._defines(name)):
            return False
        self.roots.add(name)
        return True

    def _referred(self, function: types.FunctionType) -> Iterable[str]:
        """The global values that a function refers to, itself and in what is defined within."""
        codes, loaded, names = [function.__code__], set(), set()
        for code in codes:
            names.update(part for name in code.co_names for part in name.split("."))
            steps = dis.get_instructions(code)
            loaded.update(x.argval for x in steps if x.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
            codes += [x for x in code.co_consts if isinstance(x, types.CodeType)]
        scope = function.__globals__
        values = {name: scope[name] for name in sorted(loaded) if name in scope}
        modules = set(names)
        parts = []
        for name, value in values.items():
            parts.append(f"{name} {self.text(value)}")
            if not isinstance(value, types.ModuleType):
                continue
            if value.__name__.startswith(f"{_PACKAGE.name}."):
                modules.add(value.__name__.rpartition(".")[2])  # It may go by another name here.
            elif _is_ones_own(value):
                used = [n for n in sorted(names) if hasattr(value, n)]
                parts += [f"{name}.{n} {self._loosely(getattr(value, n))}" for n in used]
        pairs = (".".join(pair) for pair in itertools.product(modules, names))
        self.roots.update(filter(self._defines, pairs))
        return parts


def _name(definition: Any) -> str:
    module = getattr(definition, "__module__", None)
    return f"{module}.{getattr(definition, '__qualname__', type(definition).__qualname__)}"


def _in_library(definition: Any) -> bool:
    return (getattr(definition, "__module__", None) or "").startswith(f"{_PACKAGE.name}.")


def _is_ones_own(definition: Any) -> bool:
    """Whether a function, class or module is neither the library's nor an installed package's."""
    named = definition.__name__ if isinstance(definition, types.ModuleType) else None
    name = named or getattr(definition, "__module__", None) or "builtins"
    if name == "__main__" or name not in sys.modules:
        return True
    file = getattr(sys.modules[name], "__file__", None)
    if file is None or name.split(".")[0] == _PACKAGE.name:
        return False
    installed = {sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")}
    return not any(Path(file).resolve().is_relative_to(Path(x).resolve()) for x in installed)


def _source(function: types.FunctionType) -> str:
    """A function's source; its bytecode where there is none, or several are on one line."""
    code = function.__code__
    with contextlib.suppress(OSError, TypeError):
        if code.co_name != "<lambda>":
            return inspect.getsource(code)
    constants = [x for x in code.co_consts if not isinstance(x, types.CodeType)]
    return repr((code.co_code, code.co_names, constants))


def _array(value: Any) -> Iterable[str]:
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.ascontiguousarray(value)
    if array.dtype.hasobject:
        return [repr(array.tolist())]
    return [str(array.dtype), str(array.shape), hashlib.sha256(array.data).hexdigest()]
