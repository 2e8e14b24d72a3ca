"""The path to what cannot be unpickled, found without running it more than once again."""

from __future__ import annotations

import functools
import sys
from collections import OrderedDict, deque
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor._wire import sketching
from okanjo_conductor._wire.codec import OUT_OF_BAND, Encoded, encode
from okanjo_conductor._wire.sketching import unloadable_part

from .parts import Box, DictOf, ListOf, OddError, Pair, SetOf, Slotted, placed, ways

FAIL = f"{__name__}.fail"
loads = []
"""What was loaded, in order."""


def fail(error=ValueError):
    loads.append("fail")
    raise error


class Fails:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return fail, self.arguments


class FailsToBeFilled(Box):
    def __setstate__(self, state):
        raise SystemExit(3)


class FailsToBeMade:
    def __new__(cls, *arguments):
        if arguments:
            raise OddError
        return super().__new__(cls)

    def __getnewargs__(self):
        return (1, Box())


class WithNamedArguments:
    def __new__(cls, content=None):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"content": Fails()}


class WithState:
    def __getstate__(self):
        return [1, Fails()]

    def __setstate__(self, state):
        raise AssertionError


class Deep:
    """Rebuilt by something that is itself rebuilt."""

    def __reduce__(self):
        return functools.partial(fail), ()


class HashedByContent(Box):
    """In a cycle its hash is asked for before it is filled."""

    def __hash__(self):
        return self.content

    def __eq__(self, other):
        return self is other


class WithItems:
    """Has no `extend`, only what its part of a pickle needs."""

    def __reduce__(self):
        return WithItems, (), None, iter([1, Fails()]), iter([("k", 1)])


def cycle():
    made = HashedByContent()
    made.others = {made}
    return made


@pytest.mark.parametrize(
    ("value", "path", "type_name"),
    [
        (Fails(), "", FAIL),
        ([1, Fails()], "[1]", FAIL),
        (("accept", Fails()), "[1]", FAIL),
        (({"a": [Box(Fails(SystemExit))]}, 1), "[0]['a'][0].content", FAIL),
        (Slotted(Fails(OddError)), ".content", FAIL),
        (FailsToBeFilled(), "", f"{__name__}.FailsToBeFilled"),
        ([FailsToBeFilled(Box())], "[0]", f"{__name__}.FailsToBeFilled"),
        ((FailsToBeMade(), 1), "[0]", f"{__name__}.FailsToBeMade"),
        ({Fails(): 1}, "", None),
        ({"x": 1, Pair(1, 2): Fails()}, f"[<{Pair.__module__}.Pair>]", FAIL),
        ({(1, 2): Fails()}, "[(1, 2)]", FAIL),
        ({len: Fails()}, "[<len>]", FAIL),
        (Pair(1, Fails()), ".__getnewargs__()[1]", FAIL),
        (WithNamedArguments(), ".__getnewargs_ex__()[1]['content']", FAIL),
        (WithState(), ".__getstate__()[1]", FAIL),
        (ListOf([1, Fails()]), "[1]", FAIL),
        (ListOf([Fails()]), "[0]", FAIL),
        (DictOf(a=1, b=Fails()), "['b']", FAIL),
        (OrderedDict(b=Fails()), "['b']", FAIL),
        (deque([1, Fails()]), "[1]", FAIL),
        (WithItems(), "[1]", FAIL),
        (functools.partial(max, Fails()), ".__getstate__()[1][0]", FAIL),
        (ValueError(Fails()), ".__reduce__()[1][0]", FAIL),
        ([1, Deep()], "[1]", "functools.partial"),
        (cycle(), ".others", "set"),
        ([*range(3000), [Box(n) for n in range(300)], Box(Fails())], "[3001].content", FAIL),
        ([bytes(OUT_OF_BAND), [Fails()]], "[1][0]", FAIL),
    ],
)
def test_the_part_that_cannot_be_unpickled_is_found(value, path, type_name):
    path, type_name = (f"value{path}", type_name) if type_name else ("list(value)[0]", FAIL)
    assert unloadable_part(encode(value), "value") == (path, type_name)


@pytest.mark.parametrize("kind", [set, frozenset, SetOf])
def test_elements_of_sets_have_no_key(kind):
    found = unloadable_part(encode([kind([Box(Fails())])]), "value")
    place = "value[0].__reduce__()[1][0]" if kind is SetOf else "list(value[0])[0]"
    assert found.path == f"{place}{'[0]' if kind is SetOf else ''}.content"


def test_what_cannot_be_imported_is_named(monkeypatch):
    module = ModuleType("soon_gone")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.Gone = type("Gone", (), {"__module__": module.__name__})
    instance, kind = encode([1, module.Gone()]), encode({"class": module.Gone})
    del module.Gone

    assert unloadable_part(instance, "value") == ("value[1]", "soon_gone.Gone")
    assert unloadable_part(kind, "value") == ("value['class']", "soon_gone.Gone")


def test_buffers_beside_the_pickle_do_not_matter():
    np = pytest.importorskip("numpy")
    encoded = encode([np.zeros(OUT_OF_BAND), Fails()])
    assert encoded.buffers
    assert unloadable_part(encoded, "value") == ("value[1]", FAIL)


def test_code_of_the_users_runs_once_more_and_not_again():
    encoded = encode([Fails()])
    loads.clear()
    unloadable_part(encoded, "value")
    assert loads == ["fail"]


@pytest.mark.parametrize("value", [1, [1, {2}], Box(), Pair(1, 2), cycle])
def test_what_can_be_unpickled_has_no_such_part(value):
    assert unloadable_part(encode(value), "value") is None


@given(st.binary(max_size=60))
def test_bytes_that_are_no_pickle_are_survived(noise):
    unloadable_part(Encoded(noise, []), "value")


@pytest.mark.parametrize("cut", [0, 1, 10, -1, -10])
def test_a_pickle_that_is_cut_off_is_survived(cut):
    blob = encode({"x": [Box(), 1, 2, 3]}).blob
    assert unloadable_part(Encoded(blob[:cut], []), "value") is None


def test_a_pickle_of_too_many_operations_is_not_searched_to_the_end(monkeypatch):
    encoded = encode([*range(100), Fails()])
    assert unloadable_part(encoded, "value").path == "value[100]"
    monkeypatch.setattr(sketching, "_ENOUGH", 100)
    assert unloadable_part(encoded, "value") is None


keys = st.text(max_size=3) | st.integers()


@given(ways(keys))
def test_a_path_leads_to_the_part(steps):
    value = bad = Fails()
    for step in steps:
        value = placed(step, value)
    path, type_name = unloadable_part(encode(value), "value")
    assert type_name == FAIL
    if "…" not in path and "..." not in path:
        assert eval(path, {"value": value}) is bad
