"""What cannot be unpickled: the path to it, and what would have rebuilt it.

Two passes, both with the unpickler of the standard library that is written in Python:

1. The *replay* loads the pickle once more and counts operations: the last one is the one that
   fails. It runs code of the user's, like the load that failed, and so happens once only.
2. The *sketch* loads it without running anything: what would call code becomes a `_Made`. The
   object that the failing operation is about is then looked for in the whole.

This runs after a failure only. It is bounded by the number of operations, not by time, and swallows
whatever the objects raise.
"""

from __future__ import annotations

import io
import pickle
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from okanjo_conductor._wire.codec import ATOMS, Encoded
from okanjo_conductor._wire.failures import qualified_name
from okanjo_conductor._wire.paths import Culprit, Named, attribute, children, item, nth, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from okanjo_conductor._wire.paths import Spelling

_ENOUGH = 500_000
"""Operations after which the search is given up: about a second."""


def unloadable_part(encoded: Encoded, root: str) -> Culprit | None:
    """Find the part of a value that cannot be unpickled. Never raises.

    Args:
        root: what the path begins with, such as ``"value"``.

    Returns:
        None if it can be unpickled after all, or is too large to be looked at.
    """
    try:
        failing = _failing_operation(encoded)
        if not failing:
            return None
        sketch = _Sketch(encoded, failing)
        whole = sketch.load()
        return Culprit(shortened(_path_to(sketch.found, whole, root)), _name(sketch.found))
    except BaseException:
        return None


class _EnoughError(Exception):
    """The search takes too long."""


class _Operations(dict[int, Any]):
    """A table of operations that counts how often it is asked for one.

    Args:
        watch: called before each operation with its number, from 1.
    """

    def __init__(self, table: Any, watch: Callable[[int], None]) -> None:
        super().__init__(table)
        self.count = 0
        self._watch = watch

    def __getitem__(self, opcode: int) -> Any:
        if self.count == _ENOUGH:
            raise _EnoughError
        self.count += 1
        self._watch(self.count)
        return super().__getitem__(opcode)


def _failing_operation(encoded: Encoded) -> int:
    """Return the number of the operation that fails, or 0."""
    replay = pickle._Unpickler(io.BytesIO(encoded.blob), buffers=encoded.buffers)
    operations = _Operations(replay.dispatch, lambda _: None)
    replay.dispatch = operations  # type: ignore[misc]  # this one only
    try:
        replay.load()
    except _EnoughError:
        return 0
    except BaseException:
        return operations.count
    return 0


class _Global:
    """What would be imported."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Made:
    """What would be made by calling something, and what it would be filled with."""

    def __init__(self, maker: Any, arguments: Any, spelling: str) -> None:
        self.maker = maker
        self.arguments = arguments
        self.spelling = spelling
        """What gives the arguments, as an expression after the object's path."""
        self.state: Any = None
        self.items: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []

    def append(self, part: Any) -> None:
        self.items.append(part)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.pairs.append((key, value))


class _Sketch(pickle._Unpickler):
    """Loads a pickle without running code, and keeps what one operation left on the stack."""

    stack: list[Any]

    def __init__(self, encoded: Encoded, operation: int) -> None:
        super().__init__(io.BytesIO(encoded.blob), buffers=encoded.buffers)
        self.found: Any = None
        self._after = operation + 1
        self.dispatch = _Operations(_SKETCHED, self._watch)  # type: ignore[misc]  # this one only

    def _watch(self, number: int) -> None:
        if number == self._after:
            self.found = self.stack[-1]

    def find_class(self, module: str, name: str) -> Any:
        """Import nothing."""
        return _Global(name if module == "builtins" else f"{module}.{name}")

    def _reduce(self) -> None:
        arguments, maker = self.stack.pop(), self.stack.pop()
        self.stack.append(_Made(maker, arguments, ".__reduce__()[1]"))

    def _make(self) -> None:
        arguments, maker = self.stack.pop(), self.stack.pop()
        self.stack.append(_Made(maker, arguments, ".__getnewargs__()"))

    def _make_with_names(self) -> None:
        named, arguments, maker = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(_Made(maker, (arguments, named), ".__getnewargs_ex__()"))

    def _build(self) -> None:
        state = self.stack.pop()
        self.stack[-1].state = state


_SKETCHED: Final = pickle._Unpickler.dispatch | {
    pickle.REDUCE[0]: _Sketch._reduce,
    pickle.NEWOBJ[0]: _Sketch._make,
    pickle.NEWOBJ_EX[0]: _Sketch._make_with_names,
    pickle.BUILD[0]: _Sketch._build,
}


def _path_to(target: Any, whole: Any, root: str) -> str:
    """Search a sketch, the nearest first; ``""``: it is not in there."""
    open_ends = deque([(whole, root)])
    seen: set[int] = set()
    while open_ends:
        found, path = open_ends.popleft()
        if found is target:
            return path
        if id(found) not in seen:
            seen.add(id(found))
            for spell, key, part in _parts(found):
                if type(part) not in ATOMS:
                    open_ends.append((part, spell(path, _plain(key))))
    return ""


def _plain(key: Any) -> Any:
    return Named(_name(key)) if isinstance(key, _Made | _Global) else key


def _parts(found: Any) -> Iterator[tuple[Spelling, Any, Any]]:
    if not isinstance(found, _Made):
        yield from children(found)
        return
    yield _same, None, found.maker
    yield _after, found.spelling, found.arguments
    yield from _parts_of_state(found.state)
    for index, part in enumerate(found.items):
        yield item, index, part
    for index, (key, value) in enumerate(found.pairs):
        yield nth, index, key
        yield item, key, value


def _parts_of_state(state: Any) -> Iterator[tuple[Spelling, Any, Any]]:
    halves: tuple[Any, ...] = (state,)
    if type(state) is tuple and len(state) == 2:  # noqa: PLR2004 - as with __slots__
        halves = state
    if all(half is None or type(half) is dict for half in halves):
        for half in halves:
            for name, part in (half or {}).items():
                yield attribute, name, part
    else:
        yield _after, ".__getstate__()", state


def _same(path: str, _key: object) -> str:
    return path


def _after(path: str, spelling: object) -> str:
    return f"{path}{spelling}"


def _name(found: Any) -> str:
    while isinstance(found, _Made):
        found = found.maker
    return found.name if isinstance(found, _Global) else qualified_name(type(found))
