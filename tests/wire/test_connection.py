"""Any messages, cut anywhere, arrive whole and in order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from okanjo_conductor._plain import values_of
from okanjo_conductor._wire import frames
from okanjo_conductor._wire.codec import Encoded, decode
from okanjo_conductor._wire.connection import Connection
from okanjo_conductor._wire.messages import Bell, Define, LargeJob
from okanjo_conductor.errors import ProtocolError

from .streams import (
    large_messages,
    outcome_counts,
    receive,
    small_messages,
    stream_of,
)

small_batches = st.lists(st.tuples(outcome_counts, small_messages), max_size=8)
mixed_batches = st.lists(st.tuples(outcome_counts, small_messages | large_messages), max_size=6)


def stream_with(batch) -> bytes:
    sender = Connection()
    for outcomes, message in batch:
        sender.send(message, outcomes)
    return stream_of(sender)


@settings(max_examples=50)
@given(small_batches, st.lists(st.integers(1, 200), max_size=30))
def test_any_split_of_small_messages_decodes_to_the_same_messages(batch, sizes):
    assert receive(Connection(), stream_with(batch), sizes) == batch


@settings(max_examples=50)
@given(small_batches)
def test_messages_that_arrive_byte_by_byte_are_the_same(batch):
    assert receive(Connection(), stream_with(batch), [1]) == batch


@settings(max_examples=40)
@given(
    mixed_batches,
    st.lists(st.integers(1, 60) | st.integers(1, 100_000), max_size=30),
    st.integers(1000, 1 << 20),
)
def test_any_split_of_large_messages_decodes_to_the_same_messages(batch, sizes, size):
    assert receive(Connection(), stream_with(batch), [*sizes, size]) == batch


@settings(max_examples=50)
@given(small_batches, st.lists(st.integers(0, 300), max_size=30))
def test_partial_writes_of_any_sizes_give_the_same_bytes(batch, sizes):
    assert written_in_parts(batch, sizes) == stream_with(batch)


@settings(max_examples=40)
@given(mixed_batches, st.lists(st.integers(0, 150_000), max_size=30))
def test_partial_writes_of_large_messages_give_the_same_bytes(batch, sizes):
    assert written_in_parts(batch, sizes) == stream_with(batch)


def written_in_parts(batch, sizes) -> bytes:
    """Send a batch through an outbox that is emptied a part at a time, between the messages too."""
    sender, written, sizes = Connection(), bytearray(), iter(sizes)

    def write(size: int) -> None:
        offered = b"".join(sender.outbox.views())
        written.extend(offered[:size])
        sender.outbox.sent(min(size, len(offered)))

    for outcomes, message in batch:
        sender.send(message, outcomes)
        write(next(sizes, 0))
    for size in sizes:
        write(size)
    return bytes(written) + stream_of(sender)


@pytest.mark.parametrize("missing", [-1, 0, 1])
def test_a_frame_about_as_large_as_the_reader_arrives(missing):
    frame_size = len(Connection().room())
    overhead = len(stream_with([(0, Define("name", b""))]))
    batch = [(0, Define("name", b"x" * (frame_size - overhead - missing))), (7, Bell())]
    assert receive(Connection(), stream_with(batch), []) == batch


def test_large_buffers_arrive_in_memory_of_their_own():
    batch = [(0, LargeJob(1, b"", 1, Encoded(b"pickle", [b"a" * 70_000, b"", b"b" * 80_000])))]
    [(_, job)] = receive(Connection(), stream_with(batch), [])
    assert [type(buffer) for buffer in job.value.buffers] == [bytearray] * 3


def refuse_memory(monkeypatch, limit: int) -> None:
    """Let readers get no piece of memory beyond a size."""

    def make(content):
        if isinstance(content, int) and content > limit:
            raise MemoryError
        return bytearray(content)

    monkeypatch.setattr(frames, "bytearray", make, raising=False)


@pytest.mark.parametrize("size", [1, 1000, 65_535, 1 << 20])
def test_a_value_for_which_there_is_no_memory_is_all_that_is_lost(size, monkeypatch):
    large = LargeJob(2, b"key", 1, Encoded(b"pickle", [b"a" * 70_000, b"", b"b" * 800_000]))
    small = LargeJob(3, b"key", 1, Encoded(b"x" * 70_000, []))
    stream = stream_with([(1, Bell()), (2, large), (3, small), (4, Bell())])
    with monkeypatch.context() as patch:
        refuse_memory(patch, 100_000)
        received = receive(Connection(), stream, [size])

    assert [received[0], *received[2:]] == [(1, Bell()), (3, small), (4, Bell())]
    outcomes, lost = received[1]
    assert (outcomes, values_of(lost)[:3]) == (2, values_of(large)[:3])
    with pytest.raises(MemoryError, match="its 870006 bytes do not fit into the memory"):
        decode(lost.value)


def test_a_body_for_which_there_is_no_memory_is_refused(monkeypatch):
    stream = stream_with([(0, Define("name", b"x" * 200_000))])
    reader = Connection()
    refuse_memory(monkeypatch, 100_000)
    with pytest.raises(ProtocolError, match="no memory"):
        receive(reader, stream, [])


def test_one_write_never_gets_more_segments_than_the_kernel_takes():
    sender = Connection()
    for _ in range(1000):
        sender.send(Bell())
    assert len(sender.outbox.views()) == 256


def test_an_outbox_that_forgets_everything_is_empty():
    sender = Connection()
    sender.send(Bell())
    assert sender.outbox
    sender.outbox.clear()
    assert not sender.outbox
    assert sender.outbox.views() == []


def arrays_of(size, connection, count=1):
    """Receive frames with one large buffer each; return the buffers."""
    stream = b""
    sender = Connection()
    for number in range(count):
        sender.send(LargeJob(1, b"", [], Encoded(b"", [bytes([number]) * size])))
        stream += stream_of(sender)
    return [message.value.buffers[0] for _, message in receive(connection, stream, [1 << 20])]


def test_memory_that_nobody_holds_is_used_again():
    connection = Connection()
    (first,) = arrays_of(200_000, connection)
    place = id(first)
    del first
    (second,) = arrays_of(200_000, connection)
    assert id(second) == place
    assert second == bytes(200_000)


def test_memory_that_somebody_holds_is_not():
    connection = Connection()
    buffers = arrays_of(200_000, connection, 3)
    view = memoryview(buffers[0])[5:]
    buffers[0] = None
    (other,) = arrays_of(200_000, connection)
    assert view.obj is not other
    assert buffers[1] == b"\1" * 200_000
    assert buffers[2] == b"\2" * 200_000
    assert view == bytes(199_995)


def test_no_more_memory_is_kept_than_a_bound(monkeypatch):
    monkeypatch.setattr(frames._Pool, "_MOST", 500_000)
    connection = Connection()
    pool = connection._reader._pool
    arrays_of(200_000, connection)
    arrays_of(250_000, connection)
    assert pool._size == 450_000
    arrays_of(300_000, connection)
    assert pool._size == 300_000
    arrays_of(600_000, connection)
    assert pool._size == 0
