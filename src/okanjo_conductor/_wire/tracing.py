"""What cannot be pickled: the path to it, found by pickling once more, slowly.

`pickle` says what it did not like, but not where that was. The pickler of the standard library
that is written in Python visits the same objects in the same order; `_Tracer` keeps the chain of
those it is inside of, and writes nothing. Where it stops is the culprit, and the chain is the way.

This runs after a failure only. It is bounded by the number of objects, not by time, and swallows
whatever the objects raise.
"""

from __future__ import annotations

import pickle
from contextlib import suppress
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final

from okanjo_conductor._wire.codec import ATOMS
from okanjo_conductor._wire.failures import qualified_name
from okanjo_conductor._wire.paths import Culprit, attribute, children, item, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from okanjo_conductor._wire.paths import Spelling

_ENOUGH = 500_000
"""Objects after which the search is given up: about two seconds."""
_LEGS = 10
"""The tracer needs more stack than pickle. Where it runs out of it, it starts again from there."""
_LOOK_AHEAD = 5
"""How many objects `pickle` may put between an object and a part of it. A function has 4: a state,
in it a dict, in it the globals it uses, in them the part."""
_DESCRIPTORS: Final = (MemberDescriptorType, GetSetDescriptorType)
_NO_PARTS: Final = frozenset({"__class__", "__dict__", "__weakref__"})


def unpicklable_part(
    value: Any, root: str, *, is_too_deep: bool = False, reducers: Any = None
) -> Culprit | None:
    """Find the innermost part of a value that cannot be pickled. Never raises.

    Args:
        root: what the path begins with, such as ``"value"``.
        is_too_deep: whether pickle ran out of stack; what is found is the way down, shortened.
        reducers: a pickler whose `reducer_override` and `dispatch_table` apply, as cloudpickle's.

    Returns:
        None if the value can be pickled after all, or has more objects than can be looked at.
    """
    try:
        chain = _trace(value, 1 if is_too_deep else _LEGS, reducers)
        return _culprit(chain, root) if chain else None
    except BaseException:
        return None


class _EnoughError(Exception):
    """The search takes too long."""


class _Step:
    """An object that is being pickled, and what its reduction gave."""

    __slots__ = ("arguments", "function", "obj", "state")

    def __init__(self, obj: Any) -> None:
        self.obj = obj
        self.function: Any = None
        self.arguments: Any = None
        self.state: Any = None


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


class _Tracer(pickle._Pickler):
    """Pickles into nothing, and knows where it is."""

    def __init__(self, reducers: Any) -> None:
        super().__init__(_Nowhere(), 5, buffer_callback=lambda _: None)
        self.chain: list[_Step] = []
        self._left = _ENOUGH
        if reducers is not None:
            self.reducer_override = reducers.reducer_override  # type: ignore[method-assign]
            self.dispatch_table = reducers.dispatch_table

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:  # noqa: FBT001, FBT002
        """Pickle one object; on failure the chain stays as it is."""
        if type(obj) in ATOMS:
            return
        self._left -= 1
        if not self._left:
            raise _EnoughError
        self.chain.append(_Step(obj))
        super().save(obj, save_persistent_id)  # type: ignore[misc]  # typeshed leaves it out
        self.chain.pop()

    def save_reduce(
        self, func: Any, args: Any, state: Any = None, *more: Any, obj: Any = None
    ) -> None:
        """Pickle what a reduction gave."""
        step = self.chain[-1]
        step.function, step.arguments, step.state = func, args, state
        super().save_reduce(func, args, state, *more, obj=obj)  # type: ignore[misc]  # as above


def _trace(value: Any, legs: int, reducers: Any) -> list[_Step]:
    """Return the chain of objects from a value to what cannot be pickled; empty: not found."""
    chain = [_Step(value)]
    for _ in range(legs):
        tracer = _Tracer(reducers)
        try:
            tracer.dump(chain.pop().obj)
        except RecursionError:
            chain += tracer.chain
        except _EnoughError:
            return []
        except BaseException:
            return chain + tracer.chain
        else:
            return []
    return chain


def _culprit(chain: list[_Step], path: str) -> Culprit:
    at = 0
    while at < len(chain) - 1:
        step, following = chain[at], chain[at + 1 : at + 1 + _LOOK_AHEAD]
        if following[0].obj is type(step.obj):
            break  # an object whose class cannot be found is the culprit itself
        ahead, path = _leap(step.obj, following, path) or (
            1,
            _reduced(step, following[0].obj, path),
        )
        at += ahead
    return Culprit(shortened(path), qualified_name(type(chain[at].obj)))


def _leap(obj: Any, following: list[_Step], path: str) -> tuple[int, str] | None:
    """Find which of the objects that follow is a part of `obj`: how far it is, and its path."""
    distances = {id(step.obj): n for n, step in reversed(list(enumerate(following, 1)))}
    for spell, key, part in _parts(obj):
        if (distance := distances.get(id(part))) is not None:
            return distance, spell(path, key)
    return None


def _reduced(step: _Step, part: Any, path: str) -> str:
    """Spell a part that exists only while its owner is pickled."""
    if part is step.state:
        return f"{path}.__getstate__()"
    if part is step.function:
        return f"{path}.__reduce__()[0]"
    if part is step.arguments:
        return f"{path}.__reduce__()[1]"
    name = getattr(step.function, "__name__", "")
    return f"{path}.__getnewargs__()" if name == "__newobj__" else f"{path}.__reduce__()"


def _parts(obj: Any) -> Iterator[tuple[Spelling, Any, Any]]:
    """Yield the parts of an object, without running code of its class: spelling, key and part."""
    yield from children(obj)
    with suppress(AttributeError):
        for name, part in object.__getattribute__(obj, "__dict__").items():
            yield attribute, name, part
    for kind in type(obj).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, _DESCRIPTORS) and name not in _NO_PARTS:
                with suppress(Exception):  # a slot may be empty
                    yield attribute, name, member.__get__(obj)
    if isinstance(obj, FunctionType):
        for name, part in obj.__globals__.items():
            yield _of_globals, name, part


def _of_globals(path: str, name: object) -> str:
    return item(f"{path}.__globals__", name)
