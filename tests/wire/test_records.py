"""The outcome log: any mixture of records, joined and taken apart."""

from __future__ import annotations

import math
import pickle
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from okanjo_conductor._wire import codec, failures, records
from okanjo_conductor.errors import ProtocolError

from .streams import texts

huge = st.integers(-(1 << 3000), 1 << 3000)
atoms = st.none() | st.booleans() | st.integers() | huge | st.floats() | texts
counters = st.integers(0, (1 << 63) - 1)
pickles = st.binary(max_size=100)

# A result as the worker gave it, and as the conductor's end must see it.
results = st.one_of(
    atoms.map(lambda value: (records.atom(value), value)),
    pickles.map(lambda blob: (records.pickled(blob), blob)),
    pickles.map(lambda packed: (records.failure(packed), (packed,))),
)
outcomes = st.lists(st.tuples(counters, counters, results), max_size=20)


def log_of(batch) -> bytes:
    return b"".join(records.head(ordinal, ns) + item for ordinal, ns, (item, _) in batch)


def same(a, b) -> bool:
    if type(a) is float and math.isnan(a):
        return type(b) is float and math.isnan(b)
    return type(a) is type(b) and a == b and str(a)[:1] == str(b)[:1]  # 0.0 is not -0.0


@pytest.fixture(autouse=True, scope="module")
def numbers_of_any_length():
    """Let huge integers be shown when a test fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.set_int_max_str_digits", None)
        yield


@given(outcomes, st.sampled_from([bytes, bytearray, memoryview]))
def test_any_mixture_of_outcomes_comes_back(batch, kind):
    ordinals, nanoseconds, values = records.unpack(kind(log_of(batch)))
    assert ordinals == [ordinal for ordinal, _, _ in batch]
    assert nanoseconds == [ns for _, ns, _ in batch]
    assert len(values) == len(batch)
    for value, (_, _, (_, expected)) in zip(values, batch, strict=True):
        assert same(value, expected)


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        255,
        1 << 16,
        1 << 31,
        -(1 << 31),
        1 << 63,
        1 << 2040,
        1 << 10_000,
        True,
        False,
        None,
        math.nan,
        math.inf,
        -math.inf,
        -0.0,
        5e-324,
        "",
        "é✓\U0001f600",
        "\ud800 alone",
        "\x00",
        "x" * 100_000,
    ],
    ids=lambda value: repr(value)[:20] if type(value) is not int else f"int{value.bit_length()}",
)
def test_an_atom_comes_back_with_its_exact_type(value):
    item = records.atom(value)
    for chunk in (records.head(1, 2) + item, (records.head(1, 2) + item) * 3):
        for result in records.unpack(chunk)[2]:
            assert same(result, value)
    assert same(codec.decode(records.atom_pickle(item)), value)


def test_an_empty_pipe_holds_no_outcomes():
    assert records.unpack(b"") == ([], [], [])


def test_the_sizes_told_are_those_of_the_parts():
    assert len(records.head(1, 1)) == records.HEAD_SIZE
    assert len(records.pickled(b"")) <= records.BYTES_HEAD_SIZE
    assert len(records.failure(b"")) <= records.BYTES_HEAD_SIZE


def test_a_failure_can_be_told_from_a_value():
    packed = failures.pack(failures.take_apart(ValueError("no")))
    blob = pickle.dumps([1])
    chunk = (
        records.head(1, 5) + records.failure(packed) + records.head(2, 6) + records.pickled(blob)
    )
    assert records.unpack(chunk) == ([1, 2], [5, 6], [(packed,), blob])


@settings(max_examples=40)
@given(outcomes, counters, st.integers(0, records.HEAD_SIZE - 1))
def test_a_log_that_ends_within_the_head_of_a_record_is_refused(batch, ordinal, size):
    chunk = log_of(batch) + records.head(ordinal, 1)[:size]
    if size == 0:
        records.unpack(chunk)
        return
    with pytest.raises(ProtocolError):
        records.unpack(chunk)


@settings(max_examples=40)
@given(outcomes, texts)
@example([], "abc")
@example([], "abcabc")
def test_a_log_that_ends_within_a_text_is_refused(batch, text):
    # The last two bytes of a text's item only number it; without them it is still whole.
    item = records.atom(text)
    for size in {len(item) - 1, len(item) - 3, 1}:
        with pytest.raises(ProtocolError):
            records.unpack(log_of(batch) + records.head(1, 1) + item[:size])


@settings(max_examples=40)
@given(outcomes, st.binary(min_size=1, max_size=100))
@example([], b"abc")
def test_a_log_that_ends_within_a_pickle_is_refused(batch, blob):
    with pytest.raises(ProtocolError):
        records.unpack(log_of(batch) + records.head(1, 1) + records.pickled(blob)[:-1])


@pytest.mark.parametrize(
    "chunk",
    [
        b"garbage",
        b"\xff",
        b".",
        b"N",
        b"NN",
        records.head(1, 2),
        records.atom("abc") + b".",
        records.pickled(b"abc") + b".",
        records.head(1, 2) + records.pickled(b"x") + b"\x00",
        b"cno_such_module\nname\n" * 3,
        b"Traceback (most recent call last):\n",
    ],
    ids=repr,
)
def test_what_is_no_log_is_refused(chunk):
    with pytest.raises(ProtocolError, match=f"{len(chunk)} bytes in an outcome log"):
        records.unpack(chunk)


@given(st.integers(-(1 << 63), (1 << 63) - 1), counters, counters)
def test_an_integer_makes_a_record_in_one_go(value, ordinal, nanoseconds):
    mark = records.LONG1_8
    record = records.INT_RECORD.pack(mark, ordinal, mark, nanoseconds, mark, value)
    assert records.unpack(record) == ([ordinal], [nanoseconds], [value])


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1])
def test_an_integer_of_more_bits_makes_none(value):
    with pytest.raises(struct.error):
        records.INT_RECORD.pack(b"", 1, b"", 1, b"", value)
