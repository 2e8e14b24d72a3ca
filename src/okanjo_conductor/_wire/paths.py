"""How to write down which part of a value is meant: ``value['model'].layers[3].lock``.

Paths are Python expressions wherever that is possible. They are made of what users gave, and run
none of their code: keys that are not plain are named by their type.
"""

from __future__ import annotations

import reprlib
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from okanjo_conductor._wire.codec import ATOMS
from okanjo_conductor._wire.failures import qualified_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Spelling: TypeAlias = "Callable[[str, object], str]"
"""Makes the path of a part from the path of its owner and a key."""
_LONGEST = 200
"""Characters of a path that are shown."""
_PLAIN: Final = ATOMS | {bytes}


class Culprit(NamedTuple):
    """The part of a value that could not travel."""

    path: str
    """Where it is, or ``""`` if that could not be found out."""
    type_name: str
    """Qualified name of its type, or of the function that would rebuild it."""


class Named(str):
    """A key that is not at hand, only the name of its type."""

    __slots__ = ()


def item(path: str, key: object) -> str:
    """Spell what ``[key]`` gives."""
    return f"{path}[{_shown(key)}]"


def nth(path: str, index: object) -> str:
    """Spell the n-th of what iteration gives: an element of a set, or a key of a dict."""
    return f"list({path})[{index}]"


def attribute(path: str, name: object) -> str:
    """Spell an attribute."""
    if type(name) is str and name.isidentifier():
        return f"{path}.{name}"
    return item(f"{path}.__dict__", name)


_ITERATED: Final[list[tuple[Any, Spelling]]] = [
    (list, item),
    (tuple, item),
    (deque, item),
    (set, nth),
    (frozenset, nth),
]


def shortened(path: str) -> str:
    """Leave out the end of a path that nobody would read."""
    return path if len(path) <= _LONGEST else f"{path[:_LONGEST]}…"


def _shown(key: object) -> str:
    if type(key) in _PLAIN or (type(key) is tuple and all(type(k) in _PLAIN for k in key)):
        with suppress(ValueError):  # an int of more than 4300 digits
            return reprlib.repr(key)
    return f"<{key if type(key) is Named else qualified_name(type(key))}>"


def children(container: Any) -> Iterator[tuple[Spelling, Any, Any]]:
    """Yield the parts of a builtin container, or of a subclass of one: spelling, key and part."""
    if isinstance(container, dict):
        for index, (key, value) in enumerate(dict.items(container)):
            yield nth, index, key
            yield item, key, value
        return
    for kind, spell in _ITERATED:
        if isinstance(container, kind):
            for index, part in enumerate(kind.__iter__(container)):
                yield spell, index, part
