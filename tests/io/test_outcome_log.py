"""The ring that a worker's outcomes lie in: whole records, in order, whatever becomes of it."""

from __future__ import annotations

import os
import random
import signal
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor._io import cells
from okanjo_conductor._io.outcome_log import Reader, Writer, fence


class NoRoomError(Exception):
    """There is no room, and nobody will make any."""


def no_room():
    raise NoRoomError


def memory(size=4096):
    """Memory of one worker in this process, with a ring of `size` minus 512 bytes."""
    return memoryview(bytearray(size)).cast("Q")


def record(number, size):
    """Bytes that tell their place and their length."""
    return struct.pack("<II", number, size) + bytes([number % 251]) * (size - 8)


def split(data):
    """Take records apart, and see that each is whole."""
    numbers = []
    while data:
        number, size = struct.unpack_from("<II", data)
        assert data[:size] == record(number, size)
        numbers.append(number)
        data = data[size:]
    return numbers


sizes = st.integers(8, 896)


@given(st.lists(st.one_of(sizes, st.none()), max_size=200))
def test_what_is_written_is_read_in_order(moves):
    """A number is a record of that size to write, None a read."""
    shared = memory()
    writer, reader = Writer(shared, no_room), Reader(shared)
    written, read = 0, []
    for size in moves:
        if size is None:
            read += split(reader.read())
            continue
        try:
            writer.write(record(written, size))
        except NoRoomError:
            read += split(reader.read())
            writer.write(record(written, size))
        written += 1
    read += split(reader.read())
    assert read == list(range(written))
    assert writer.count == written
    assert reader.read() == b""


@given(st.lists(sizes, min_size=1, max_size=40))
def test_a_record_that_fits_nowhere_overwrites_nothing(record_sizes):
    shared = memory()
    writer, reader = Writer(shared, no_room), Reader(shared)
    written = 0
    for size in record_sizes:
        try:
            writer.write(record(written, size))
        except NoRoomError:
            break
        written += 1
    assert split(reader.read()) == list(range(written))


def test_the_writer_waits_for_the_reader():
    shared = memory()
    reader = Reader(shared)
    read = []
    writer = Writer(shared, lambda: read.extend(split(reader.read())))
    for number in range(1000):
        writer.write(record(number, 100))
    read += split(reader.read())
    assert read == list(range(1000))


def test_a_process_that_was_forked_writes_nothing():
    writer = Writer(memory(), no_room)
    writer.abandon()
    with pytest.raises(OSError, match="not a fork"):
        writer.write(record(0, 8))


def test_a_fence_may_be_passed_any_time():
    fence()
    fence()


def test_a_small_file_has_a_small_ring_and_no_black_box(monkeypatch):
    real = os.ftruncate

    def truncate(descriptor, size):
        if size > 4096:
            raise OSError(27, "File too large")
        real(descriptor, size)

    monkeypatch.setattr(os, "ftruncate", truncate)
    descriptor = cells.make_page()
    page = cells.map_page(descriptor)
    os.close(descriptor)
    with cells.ring_of(page) as ring:
        assert len(ring) == 4096 - 512
    assert cells.black_box(page) == ""
    page.release()


def test_a_writer_that_is_killed_at_any_time_leaves_whole_records():
    """Several writers in a row, each killed while it writes as fast as it can."""
    chance = random.Random(7)
    for _ in range(20):
        descriptor = cells.make_page()
        page = cells.map_page(descriptor)
        pid = os.fork()
        if pid == 0:
            writer = Writer(page, lambda: None)
            for number in range(1 << 30):
                writer.write(record(number, 8 + number * 37 % 500))
        reader, read = Reader(page), []
        while len(read) < chance.randrange(1, 20_000):
            read += split(reader.read())
            time.sleep(0)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        read += split(reader.read())
        assert read == list(range(len(read)))
        reader.close()
        page.release()
        os.close(descriptor)


def test_what_is_read_stays_until_it_is_let_go_of():
    shared = memory()
    writer, reader = Writer(shared, no_room), Reader(shared, keeps=True)
    for number in range(4):
        writer.write(record(number, 800))
    assert split(reader.read()) == [0, 1, 2, 3]
    with pytest.raises(NoRoomError):
        writer.write(record(4, 800))

    assert split(Reader(shared).read()) == [0, 1, 2, 3]  # as who finds it after our death
    shared[cells.TAIL] = 0
    reader.free(reader.position)
    writer.write(record(4, 800))
    assert split(reader.read()) == [4]


def test_a_reader_begins_where_the_last_one_let_go():
    shared = memory()
    writer, first = Writer(shared, no_room), Reader(shared, keeps=True)
    writer.write(record(0, 100))
    first.read()
    first.free(first.position)
    writer.write(record(1, 100))
    first.read()

    assert split(Reader(shared).read()) == [1]
