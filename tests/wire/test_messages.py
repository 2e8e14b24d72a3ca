"""Every message, there and back; and what is no message."""

from __future__ import annotations

import marshal
import struct
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from okanjo_conductor._wire.connection import Connection
from okanjo_conductor._wire.frames import MAX_BUFFERS, Frame
from okanjo_conductor._wire.messages import (
    KINDS,
    AnyMessage,
    Bye,
    Declined,
    Log,
    from_frame,
    to_segments,
)
from okanjo_conductor.errors import ProtocolError

from .streams import by_type, outcome_counts, receive, small_messages

ALL_TYPES = typing.get_args(AnyMessage)


def test_there_is_something_to_draw_for_every_type_of_message():
    assert set(by_type) == set(ALL_TYPES)


def test_no_two_types_share_a_kind():
    assert len({KINDS[kind] for kind in ALL_TYPES}) == len(ALL_TYPES)


@pytest.mark.parametrize("kind", ALL_TYPES, ids=lambda kind: kind.__name__)
@settings(max_examples=20)  # for each of many types
@given(data=st.data(), outcomes=outcome_counts)
def test_every_message_comes_back_as_it_was(kind, data, outcomes):
    message = data.draw(by_type[kind])
    stream = b"".join(to_segments(message, outcomes))
    assert receive(Connection(), stream, []) == [(outcomes, message)]


@given(st.integers(0, (1 << 32) - 1).filter(lambda n: n not in {KINDS[k] for k in ALL_TYPES}))
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(ProtocolError, match=f"no message has kind {kind}"):
        from_frame(Frame(kind, 0, marshal.dumps(()), [], 0))


@given(small_messages, st.data())
def test_a_body_cut_short_is_refused(message, data):
    [segment] = to_segments(message, 0)
    buffers, _, size = struct.unpack_from("<IQQ", segment, 4)
    body = segment[24 + 8 * buffers :][:size]
    cut = data.draw(st.integers(0, size - 1))
    with pytest.raises(ProtocolError, match=f"{type(message).__name__} cannot be read"):
        from_frame(Frame(KINDS[type(message)], 0, body[:cut], [], 0))


@pytest.mark.parametrize(
    "frame",
    [
        Frame(KINDS[Declined], 0, b"garbage", [], 0),
        Frame(KINDS[Declined], 0, marshal.dumps(5), [], 0),
        Frame(KINDS[Declined], 0, marshal.dumps((1,)), [], 0),
        Frame(KINDS[Declined], 0, marshal.dumps((1, 2, 3)), [], 0),
        Frame(KINDS[Declined], 0, marshal.dumps((1, 2)), [b"a value it has no place for"], 0),
        Frame(KINDS[Log], 0, marshal.dumps(()), [], 0),
        Frame(KINDS[Log], 0, marshal.dumps((1,)), [b"a value too many"], 0),
        Frame(KINDS[Bye], 0, b"", [], 0),
    ],
    ids=repr,
)
def test_a_body_that_is_no_such_message_is_refused(frame):
    with pytest.raises(ProtocolError, match="cannot be read"):
        from_frame(frame)


TOO_LONG = (1 << 48) + 1


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack("<IIQQ", 1, MAX_BUFFERS + 1, 0, 0),
        struct.pack("<IIQQ", 1, 0, 0, TOO_LONG),
        struct.pack("<IIQQQ", 1, 1, 0, 0, TOO_LONG),
        struct.pack("<IIQQQQ", 1, 2, 0, 5, 3, (1 << 64) - 1),
        b"Traceback (most recent call last):\n",
        b"\xff" * 24,
    ],
    ids=repr,
)
@pytest.mark.parametrize("sizes", [[], [1]], ids=["at once", "byte by byte"])
def test_a_header_that_is_none_is_refused(stream, sizes):
    with pytest.raises(ProtocolError, match="a frame of kind"):
        receive(Connection(), stream, sizes)
