"""Values with a part somewhere in them."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st


class Pair(NamedTuple):
    left: object
    right: object


class OddError(BaseException):
    """No `Exception`."""


class Box:
    def __init__(self, content=1):
        self.content = content

    def method(self):
        pass


class Slotted:
    __slots__ = ("content", "empty")

    def __init__(self, content):
        self.content = content


class ListOf(list):
    pass


class DictOf(dict):
    pass


class SetOf(set):
    pass


def ways(keys):
    """Draw ways into a value: kinds of container, keys, and how much stands before."""
    return st.lists(st.tuples(st.sampled_from("[({ox"), keys, st.integers(0, 3)), max_size=12)


def placed(way, inner):
    """Put a value into another."""
    kind, key, before = way
    filler = list(range(before))
    match kind:
        case "[":
            return [*filler, inner]
        case "(":
            return (*filler, inner, "after")
        case "{":
            return {"before": 1, key: inner}
        case "o":
            return Box(inner)
        case _:
            return Slotted(inner)
