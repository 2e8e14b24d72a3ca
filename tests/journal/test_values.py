"""Values come back as they were given, or are refused."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor.errors import JournalError, SerialisationError
from okanjo_conductor.journal._values import Values, json_of

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters()))
VALUES = st.recursive(
    SCALARS | st.binary(),
    lambda parts: (
        st.lists(parts, max_size=4)
        | st.tuples(parts, parts)
        | st.dictionaries(st.text(st.characters()) | st.integers(), parts, max_size=4)
    ),
    max_leaves=10,
)


class Text(str):
    __slots__ = ()


class Number(int):
    pass


def shape(value):
    if isinstance(value, tuple | list):
        return type(value), [shape(part) for part in value]
    if isinstance(value, dict):
        return dict, [(shape(key), shape(part)) for key, part in value.items()]
    return type(value), hex(value) if type(value) is int else repr(value)


@pytest.fixture
def values(tmp_path):
    return Values(str(tmp_path / "values"), 10_000)


@given(VALUES)
def test_a_value_comes_back_as_it_was(value):
    values = Values("/nowhere", 1 << 60)
    assert shape(values.decode(*values.encode(value))) == shape(value)


@given(VALUES)
def test_a_value_comes_back_from_a_file_as_well(tmp_path_factory, value):
    values = Values(str(tmp_path_factory.getbasetemp() / "spilled"), 0)
    kind, stored = values.encode(value)
    assert shape(values.decode(kind, stored)) == shape(value)


@given(st.lists(SCALARS) | st.lists(st.integers()) | st.lists(st.floats()) | st.lists(st.text()))
def test_a_column_is_plain_only_if_each_value_is(column):
    values = Values("/nowhere", 1 << 60)
    if values.are_plain(column):
        assert [values.encode(value) for value in column] == [(None, value) for value in column]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (5, None),
        (1 << 63, "json"),
        (-(1 << 63), None),
        pytest.param(10**5000, "pickle", id="an int of 5000 digits"),
        (True, "json"),
        ("text", None),
        ("\ud800", "pickle"),
        (math.nan, "pickle"),
        (math.inf, None),
        ([1, "a", None, {"b": [2.5, False]}], "json"),
        ([math.inf], "pickle"),
        ({1: 2}, "pickle"),
        ((1, 2), "pickle"),
        ([(1, 2)], "pickle"),
        (Text("a"), "pickle"),
        ([Number(1)], "pickle"),
        ({Text("a"): 1}, "pickle"),
        (b"bytes", "pickle"),
        (np.float64(1.5), "pickle"),
    ],
)
def test_json_is_for_what_json_keeps(values, value, kind):
    assert values.encode(value)[0] == kind
    found = values.decode(*values.encode(value))
    assert shape(found) == shape(value)


def test_a_circle_is_pickled(values):
    circle = []
    circle.append(circle)
    kind, stored = values.encode(circle)
    assert kind == "pickle"
    found = values.decode(kind, stored)
    assert found[0] is found


def test_what_is_nested_too_deep_for_json_does_not_go_as_json():
    deep = []
    for _ in range(5000):
        deep = [deep]
    assert json_of(deep) is None


def test_a_large_value_goes_to_a_file(values, tmp_path):
    large = list(range(10_000))
    kind, name = values.encode(large)
    assert kind == "json-file"
    assert (tmp_path / "values" / name).stat().st_size > 10_000
    assert values.decode(kind, name) == large
    kind, name = values.encode(b"x" * 10_001)
    assert kind == "pickle-file"
    assert values.decode(kind, name) == b"x" * 10_001
    assert values.encode("x" * 10_001)[0] == "json-file"
    assert not list((tmp_path / "values").glob("*.new"))


def test_a_missing_file_is_named(values, tmp_path):
    kind, name = values.encode(list(range(10_000)))
    (tmp_path / "values" / name).unlink()
    with pytest.raises(JournalError, match=f"(?s){name}.*move and copy them with it"):
        values.decode(kind, name)


def test_what_cannot_be_pickled_is_refused(values):
    with pytest.raises(SerialisationError, match="pickling it raised"):
        values.encode(lambda: 0)


def test_what_only_the_script_defines_is_refused_with_advice():
    script = """
    from okanjo_conductor.errors import SerialisationError
    from okanjo_conductor.journal._values import Values
    class Point: pass
    values = Values("/nowhere")
    try:
        values.encode([Point()])
    except SerialisationError as error:
        print(error)
    print(values.encode(["__main__", 1j])[0])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert "it needs Point of the script itself" in done.stdout
    assert "Move it into a module" in done.stdout
    assert done.stdout.endswith("\npickle\n"), "a text that only looks like a reference is none"
