"""Simple functions of ``__main__``, sent by value without `cloudpickle`.

Most workers of scripts are such: they use modules, constants and other functions, and no more.
Both ends would need 25 ms to load cloudpickle for them, half of the time that a small run takes.
What is not simple, `pack` leaves to it.

Code travels as `marshal` writes it: both ends are the same interpreter.
"""

from __future__ import annotations

import builtins
import marshal
import sys
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

from okanjo_conductor._wire.codec import ATOMS

TYPE_CHECKING = False  # see _plain
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_MAIN = "__main__"
_CO_COROUTINE = 0x80
"""`inspect` has this too, but takes 10 ms to load."""
_IDENTITY = ("__name__", "__file__", "__package__")
"""Globals that say where a function is from."""


def pack(function: Any, is_importable: Callable[[Any], bool]) -> bytes | None:
    """Make the bytes of a function with all it needs; None if it is not simple."""
    if not _is_simple(function):
        return None
    packer = _Packer(function.__globals__, is_importable)
    try:
        packer.add(function)
    except _NotSimpleError:
        return None
    return marshal.dumps((packer.identity(), packer.functions, packer.globals))


def unpack(packed: bytes) -> FunctionType:
    """Make the function, in a namespace of its own."""
    identity, functions, entries = marshal.loads(packed)
    namespace = {**identity, "__builtins__": builtins}
    made = [_made(namespace, *parts) for parts in functions]
    for name, (kind, value, path) in entries.items():
        if kind == "function":
            namespace[name] = made[value]
        elif kind == "atom":
            namespace[name] = value
        else:
            __import__(value)
            found: Any = sys.modules[value]
            for part in path:
                if kind == "object":
                    found = getattr(found, part)
                else:
                    __import__(part)
            namespace[name] = found
    return made[0]


def is_async(function: Any) -> bool:
    """Whether calling this gives a coroutine."""
    while isinstance(function, partial):
        function = function.func
    if not hasattr(function, "__code__") and not isinstance(function, type):
        function = getattr(type(function), "__call__", None)  # noqa: B004 - its code is wanted
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & _CO_COROUTINE)


class _NotSimpleError(Exception):
    """Something is beyond this module."""


class _Packer:
    """Collects functions of one namespace, and what they use of it."""

    def __init__(self, namespace: dict[str, Any], is_importable: Callable[[Any], bool]) -> None:
        self._namespace = namespace
        self._is_importable = is_importable
        self._numbers: dict[int, int] = {}
        self.functions: list[tuple[Any, ...]] = []
        self.globals: dict[str, tuple[str, Any, tuple[str, ...]]] = {}

    def identity(self) -> dict[str, Any]:
        """Return the globals that say where the functions are from."""
        found = {name: self._namespace.get(name) for name in _IDENTITY}
        return {name: value for name, value in found.items() if type(value) is str}

    def add(self, function: FunctionType) -> int:
        """Take in a function; return its number."""
        number = self._numbers.get(id(function))
        if number is not None:
            return number
        if not _is_simple(function) or function.__globals__ is not self._namespace:
            raise _NotSimpleError
        number = self._numbers[id(function)] = len(self.functions)
        code = function.__code__
        parts = (function.__name__, function.__qualname__, function.__defaults__)
        self.functions.append((code, *parts, function.__kwdefaults__))
        names = set(_names_in(code))
        for name in names & self._namespace.keys():
            if name not in self.globals and name not in _IDENTITY:
                self.globals[name] = ("atom", None, ())  # until it is known
                self.globals[name] = self._entry(self._namespace[name], names)
        return number

    def _entry(self, value: Any, names: set[str]) -> tuple[str, Any, tuple[str, ...]]:
        if type(value) in ATOMS:
            return "atom", value, ()
        if type(value) is ModuleType:
            if sys.modules.get(value.__name__) is not value or value.__name__ == _MAIN:
                raise _NotSimpleError
            return "module", value.__name__, tuple(_submodules(value.__name__, names))
        if isinstance(value, FunctionType) and value.__module__ == _MAIN:
            return "function", self.add(value), ()
        is_named = isinstance(value, type | FunctionType | BuiltinFunctionType)
        if is_named and self._is_importable(value):
            return "object", value.__module__, tuple(value.__qualname__.split("."))
        raise _NotSimpleError


def _is_simple(function: Any) -> bool:
    """Whether a function has nothing but code and plain defaults."""
    return (
        type(function) is FunctionType
        and function.__module__ == _MAIN
        and function.__closure__ is None
        and not function.__dict__
        and not function.__annotations__
        and ATOMS.issuperset(map(type, function.__defaults__ or ()))
        and ATOMS.issuperset(map(type, (function.__kwdefaults__ or {}).values()))
    )


def _names_in(code: CodeType) -> Iterator[str]:
    """Yield the names that code may look up: globals, and attributes as well."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _submodules(package: str, names: set[str]) -> Iterator[str]:
    """Find the modules in a package that code may reach through it."""
    begin = package + "."
    for name in tuple(sys.modules):
        if name.startswith(begin) and names.issuperset(name[len(begin) :].split(".")):
            yield name


def _made(
    namespace: dict[str, Any],
    code: CodeType,
    name: str,
    qualname: str,
    defaults: tuple[Any, ...] | None,
    keyword_defaults: dict[str, Any] | None,
) -> FunctionType:
    function = FunctionType(code, namespace, name, defaults)
    function.__qualname__ = qualname
    function.__kwdefaults__ = keyword_defaults
    return function
