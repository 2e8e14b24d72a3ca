"""The path to what cannot be pickled, whatever it sits in."""

from __future__ import annotations

import functools
import io
import pickle
import threading
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from types import FunctionType, SimpleNamespace

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor._wire import tracing
from okanjo_conductor._wire.byvalue import reducers
from okanjo_conductor._wire.tracing import unpicklable_part

from .parts import Box, DictOf, ListOf, OddError, Pair, SetOf, Slotted, placed, ways

LOCK = threading.Lock()


class Both(Slotted):
    """With slots and a dict."""

    def __init__(self, content, other):
        super().__init__(content)
        self.other = other


@dataclass(frozen=True)
class Data:
    name: str
    content: object


class Odd:
    def __reduce__(self):
        raise OddError


class Leaves:
    def __reduce__(self):
        raise SystemExit(3)


class LiesAboutItself:
    """Does everything wrong that a class can."""

    def __getattribute__(self, name):
        raise OddError

    def __reduce_ex__(self, protocol):
        raise OddError


class WithState:
    def __getstate__(self):
        return [1, {"a lock": threading.Lock()}]


class WithArguments:
    def __getnewargs__(self):
        return (Box(threading.Lock()),)


class WithNamedArguments:
    def __getnewargs_ex__(self):
        return (), {"content": threading.Lock()}


class Reduced:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return tuple(make() for make in self.reduced)


class ReducedToNonsense:
    def __reduce__(self):
        return 5


class HasItems:
    """A list in all but name."""

    def __reduce__(self):
        return HasItems, (), None, iter([1, threading.Lock()])


def local_instance():
    class Local:
        pass

    return Local()


def cycle():
    box = Box(None)
    box.content = [box, LOCK]
    return box


def closure():
    lock = threading.Lock()
    return lambda: lock


@pytest.mark.parametrize(
    ("value", "path", "type_name"),
    [
        (LOCK, "", "_thread.lock"),
        ([1, LOCK], "[1]", "_thread.lock"),
        ((1, "x", [LOCK]), "[2][0]", "_thread.lock"),
        ({"model": Box([1, 2, Box(LOCK)])}, "['model'].content[2].content", "_thread.lock"),
        ({1: 2, (3, 4): LOCK}, "[(3, 4)]", "_thread.lock"),
        ({b"k": LOCK}, "[b'k']", "_thread.lock"),
        ({1 << 40_000: LOCK}, "[<int>]", "_thread.lock"),
        ({"x" * 99: LOCK}, "['xxxxxxxxxxxx...xxxxxxxxxxxxx']", "_thread.lock"),
        (Slotted(LOCK), ".content", "_thread.lock"),
        (Both(1, LOCK), ".other", "_thread.lock"),
        (Both(LOCK, 1), ".content", "_thread.lock"),
        (Data("n", LOCK), ".content", "_thread.lock"),
        (SimpleNamespace(**{"no name": LOCK}), ".__dict__['no name']", "_thread.lock"),
        (Pair(1, LOCK), "[1]", "_thread.lock"),
        (ListOf([1, LOCK]), "[1]", "_thread.lock"),
        (DictOf(a=LOCK), "['a']", "_thread.lock"),
        (OrderedDict(a=1, b=LOCK), "['b']", "_thread.lock"),
        (defaultdict(list, x=[LOCK]), "['x'][0]", "_thread.lock"),
        (defaultdict(closure(), x=[1]), ".default_factory", "function"),
        (deque([1, LOCK]), "[1]", "_thread.lock"),
        (ValueError(1, LOCK), ".args[1]", "_thread.lock"),
        (functools.partial(max, 1, key=LOCK), ".keywords['key']", "_thread.lock"),
        (Box(LOCK).method, ".__self__.content", "_thread.lock"),
        (lambda: 0, "", "function"),
        ([local_instance()], "[0]", f"{__name__}.local_instance.<locals>.Local"),
        (Leaves(), "", f"{__name__}.Leaves"),
        ([1, Odd()], "[1]", f"{__name__}.Odd"),
        (Box(ReducedToNonsense()), ".content", f"{__name__}.ReducedToNonsense"),
        (WithState(), ".__getstate__()[1]['a lock']", "_thread.lock"),
        (WithArguments(), ".__getnewargs__()[0].content", "_thread.lock"),
        (WithNamedArguments(), ".__reduce__()['content']", "_thread.lock"),
        (Reduced(closure, tuple), ".__reduce__()[0]", "function"),
        (
            Reduced(lambda: print, lambda: (1, [threading.Lock()])),
            ".__reduce__()[1][1][0]",
            "_thread.lock",
        ),
        ({(Data("n", 1),): LOCK}, "[<tuple>]", "_thread.lock"),
        (HasItems(), ".__reduce__()", "_thread.lock"),
        (cycle(), ".content[1]", "_thread.lock"),
        (pickle.PickleBuffer(memoryview(b"abcd")[::2]), "", "pickle.PickleBuffer"),
    ],
)
def test_the_part_that_cannot_be_pickled_is_found(value, path, type_name):
    assert unpicklable_part(value, "value") == (f"value{path}", type_name)


def test_elements_of_sets_and_keys_have_no_key_of_their_own():
    bad = Box(LOCK)
    assert unpicklable_part({1: 2, bad: 3}, "value").path == "list(value)[1].content"
    for kind in (set, frozenset):
        assert unpicklable_part(kind([bad]), "value").path == "list(value)[0].content"
    assert unpicklable_part(SetOf([bad]), "value").path == "list(value)[0].content"


def test_functions_by_value_lead_to_what_they_hold():
    found = functools.partial(unpicklable_part, root="value", reducers=reducers())
    assert found(closure()) == ("value.__closure__[0].cell_contents", "_thread.lock")
    function = cloudpickle.loads(cloudpickle.dumps(lambda: HELD))
    function.__globals__["HELD"] = Box(LOCK)
    assert found([function]).path == "value[0].__globals__['HELD'].content"
    assert found([local_instance(), lambda: 0]) is None
    assert found(Box(LOCK)).path == "value.content"


HELD = None


def test_a_reduction_of_functions_may_give_anything():
    def reduce(obj):
        return (print, (threading.Lock(),)) if type(obj) is FunctionType else NotImplemented

    by_value = SimpleNamespace(reducer_override=reduce, dispatch_table={})
    found = unpicklable_part([reduce], "value", reducers=by_value)
    assert found.path == "value[0].__reduce__()[1][0]"


@pytest.mark.parametrize(
    "value", [1, "text", None, [1, (2, {"x": {3.5}})], Box(b"x"), cycle, bytes]
)
def test_what_can_be_pickled_has_no_such_part(value):
    assert unpicklable_part(value, "value") is None


def test_a_value_of_too_many_objects_is_not_searched_to_the_end(monkeypatch):
    monkeypatch.setattr(tracing, "_ENOUGH", 100)
    assert unpicklable_part([[] for _ in range(97)] + [LOCK], "value").path == "value[97]"
    assert unpicklable_part([[] for _ in range(98)] + [LOCK], "value") is None
    assert unpicklable_part([*range(1000), LOCK], "value").path == "value[1000]"


def nested(depth, innermost):
    for _ in range(depth):
        innermost = [innermost]
    return innermost


def test_what_lies_deeper_than_the_stack_of_the_search_is_found():
    found = unpicklable_part(nested(900, LOCK), "value")
    assert found.type_name == "_thread.lock"
    assert found.path.startswith("value[0][0]")
    assert found.path.endswith("[0]…")
    assert len(found.path) == 201


@pytest.mark.parametrize("is_too_deep", [True, False])
def test_what_is_too_deep_shows_the_way_down(is_too_deep):
    value = {"shallow": [1], "deep": nested(100_000, None)}
    found = unpicklable_part(value, "value", is_too_deep=is_too_deep)
    assert found.type_name == "list"
    assert found.path.startswith("value['deep'][0][0]")


def test_nothing_that_objects_do_gets_out():
    assert unpicklable_part(LiesAboutItself(), "value") == ("value", f"{__name__}.LiesAboutItself")
    assert unpicklable_part([1, LiesAboutItself()], "value").path == "value[1]"
    liar = Reduced(lambda: LiesAboutItself, lambda: (threading.Lock(),))
    assert unpicklable_part([liar], "value").path == "value[0].__reduce__()[1][0]"
    assert unpicklable_part(HidesItsParts(), "value") is None


class HidesItsParts:
    """Cannot be looked into."""

    @property
    def __class__(self):
        raise OddError

    def __reduce__(self):
        return Box, (threading.Lock(),)


keys = st.text(max_size=3) | st.integers() | st.tuples(st.integers())


@given(ways(keys))
def test_a_path_leads_to_the_part(steps):
    value = LOCK
    for step in steps:
        value = placed(step, value)
    path, type_name = unpicklable_part(value, "value")
    assert type_name == "_thread.lock"
    if "…" not in path and "..." not in path:
        assert eval(path, {"value": value}) is LOCK


def test_the_tracer_needs_no_callback_of_its_own_to_pass_large_buffers():
    value = [pickle.PickleBuffer(bytes(1 << 20)), io.BytesIO(b"x"), LOCK]
    assert unpicklable_part(value, "value").path == "value[2]"
