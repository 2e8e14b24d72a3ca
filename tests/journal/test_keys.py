"""Keys as text and back, and the keys of payloads that were given none."""

from __future__ import annotations

import datetime as dt
import enum
import os
import subprocess
import sys
import uuid
from collections import namedtuple
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PurePath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor.errors import JobKeyError
from okanjo_conductor.journal._keys import (
    default_key,
    default_keys,
    hash_of,
    key_of,
    safe_text_of,
    text_of,
    texts_of,
)

TEXT = st.text(st.characters())  # lone surrogates too
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    TEXT,
    st.binary(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.dates(),
    st.datetimes().map(lambda t: t.replace(fold=0)),
    st.datetimes(timezones=st.just(dt.UTC)).map(lambda t: t.replace(fold=0)),
    st.times().map(lambda t: t.replace(fold=0)),
    st.sampled_from([Path("a/b.png"), PurePath("c"), Path(os.fsdecode(b"\xff"))]),
)
KEYS = st.recursive(
    LEAVES,
    lambda parts: st.lists(parts, max_size=4).map(tuple) | st.frozensets(parts, max_size=4),
    max_leaves=8,
)
PAYLOADS = st.recursive(
    LEAVES,
    lambda parts: (
        st.lists(parts, max_size=4)
        | st.dictionaries(st.text(), parts, max_size=4)
        | st.sets(LEAVES, max_size=4)
    ),
    max_leaves=8,
)


def shape(value):
    """Return what tells a value from those that are merely equal to it: 1, 1.0 and True."""
    if isinstance(value, tuple | list):
        return type(value), [shape(part) for part in value]
    if isinstance(value, frozenset | set):
        return type(value), sorted(repr(shape(part)) for part in value)
    if isinstance(value, dict):
        return dict, sorted((repr(shape(k)), repr(shape(v))) for k, v in value.items())
    return type(value), repr(value)


@given(KEYS)
def test_a_key_comes_back_as_it_was(key):
    found = key_of(text_of(key))
    assert shape(found) == shape(key)


@given(KEYS, KEYS)
def test_keys_have_the_same_text_only_if_they_are_the_same(one, other):
    assert (text_of(one) == text_of(other)) == (shape(one) == shape(other))


@given(st.lists(KEYS) | st.lists(st.integers()) | st.lists(TEXT))
def test_many_keys_have_the_texts_that_each_has(keys):
    assert texts_of(keys) == [text_of(key) for key in keys]


def test_texts_can_be_read():
    assert text_of("Quito") == '"Quito"'
    assert text_of("Zürich\n") == '"Zürich\\n"'
    assert text_of((3, "a")) == '[3,"a"]'
    assert text_of(Path("in/a.png")) == '{"Path":"in/a.png"}'


@pytest.mark.parametrize("key", [float("nan"), object(), [1], type, 1 + 2j, (1, object())])
def test_what_cannot_be_a_key_is_refused_and_told_by_what_it_looks_like(key):
    with pytest.raises(JobKeyError, match="let job_key return one"):
        text_of(key)
    assert "repr" in safe_text_of(key)


def test_a_time_with_a_zone_is_no_key_because_it_would_come_back_as_another():
    import zoneinfo

    with pytest.raises(JobKeyError, match="turn it into UTC"):
        text_of(dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")))


@pytest.mark.parametrize(
    "text", ["", "{", '{"a":1,"b":2}', '{"UUID":"x"}', '{"Strange":1}', "NaN]"]
)
def test_the_text_of_no_key_is_refused(text):
    with pytest.raises(JobKeyError, match="the text of no key"):
        key_of(text)


# Payloads without a key


@pytest.mark.parametrize(
    "payload", [5, "Quito", ("a", 1), Path("a"), uuid.UUID(int=5), (("a",), -1)]
)
def test_a_short_plain_payload_is_its_own_key(payload):
    assert default_key(payload) is payload


@pytest.mark.parametrize(
    "payload", [True, 1.0, None, "x" * 201, 10**200, ("x",) * 90, [1], {"a": 1}, (1, True)]
)
def test_other_payloads_are_known_by_a_hash(payload):
    assert len(default_key(payload)) == 32
    assert default_key(payload) == hash_of(payload)


@given(PAYLOADS, PAYLOADS)
def test_payloads_have_the_same_hash_only_if_they_are_the_same(one, other):
    assert (hash_of(one) == hash_of(other)) == (shape(one) == shape(other))


@dataclass
class Point:
    x: int
    y: list


class Colour(enum.Enum):
    RED = 1


Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - the plain kind is what is tested
MANY = [
    {"b": 1, "a": [1, {"z", "y"}]},
    Point(1, [2]),
    Colour.RED,
    Pair(1, 2),
    np.arange(6).reshape(2, 3),
    np.float32(1.5),
    np.array(["a", None], dtype=object),
    Decimal("1.50"),
    dt.timedelta(seconds=3),
    frozenset([(1, "a"), (2, "b")]),
    bytearray(b"x"),
    range(3),
]


def test_hashes_of_all_kinds_differ():
    assert len({hash_of(payload) for payload in MANY}) == len(MANY)
    assert hash_of(np.arange(6)) != hash_of(np.arange(6).reshape(2, 3))
    assert hash_of(np.arange(6)) != hash_of(np.arange(6, dtype=np.int32))
    assert hash_of((1, 2)) != hash_of(Pair(1, 2))


def test_a_hash_does_not_depend_on_the_process():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from journal.test_keys import MANY; from okanjo_conductor.journal._keys import hash_of\n"
        "print([hash_of(p) for p in MANY])"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parents[1])],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert found == [str([hash_of(payload) for payload in MANY])] * 2


@pytest.mark.parametrize(
    "payload", [object(), [lambda: 0], {"f": open}, np.ma.masked_array([1, 2], [0, 1])]
)
def test_a_payload_without_a_canonical_form_needs_a_job_key(payload):
    with pytest.raises(JobKeyError, match="job_key"):
        default_key(payload)


def test_a_payload_that_contains_itself_needs_one_too():
    payload = []
    payload.append(payload)
    with pytest.raises(JobKeyError, match="contains itself"):
        default_key(payload)


@given(st.lists(PAYLOADS) | st.lists(st.integers()) | st.lists(st.text(max_size=300)))
def test_many_payloads_have_the_keys_that_each_has(payloads):
    assert shape(default_keys(payloads)) == shape([default_key(payload) for payload in payloads])


def test_limits_are_the_same_for_one_and_for_many():
    for payloads in ([10**200, -(10**200)], ["x" * 199, "\n" * 150], ["x" * 99], ["\x01" * 99]):
        assert default_keys(payloads) == [default_key(payload) for payload in payloads]
