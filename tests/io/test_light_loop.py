"""The light event loop: what asyncio's does, as far as a run needs it, and the upgrade to that."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from contextlib import closing

import pytest

from okanjo_conductor._io.light_loop import LightLoop


@pytest.fixture
def loop():
    with closing(LightLoop()) as made:
        yield made


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


@pytest.fixture(params=[False, True], ids=["light", "upgraded"])
def any_loop(request, loop):
    if request.param:
        loop.upgrade()
    return loop


def test_calls_come_in_order(any_loop):
    told = []
    for number in range(3):
        any_loop.call_soon(told.append, number)
    any_loop.call_soon(any_loop.stop)
    any_loop.run_forever()
    assert told == [0, 1, 2]


def test_a_call_that_asks_for_another_gets_it_in_the_next_turn(any_loop):
    told = []

    def first():
        any_loop.call_soon(told.append, "third")
        any_loop.call_soon(any_loop.stop)
        told.append("first")

    any_loop.call_soon(first)
    any_loop.call_soon(told.append, "second")
    any_loop.run_forever()
    assert told == ["first", "second", "third"]


def test_timers_come_when_they_are_due(any_loop):
    told = []
    now = any_loop.time()
    any_loop.call_later(0.03, any_loop.stop)
    any_loop.call_at(now + 0.02, told.append, "later")
    any_loop.call_at(now + 0.01, told.append, "sooner")
    any_loop.call_at(now - 1, told.append, "overdue")
    any_loop.run_forever()
    assert told == ["overdue", "sooner", "later"]
    assert any_loop.time() >= now + 0.02  # some loops count in whole milliseconds


def test_timers_of_the_same_time_come_in_order(loop):
    told = []
    for number in range(10):
        loop.call_at(1.0, told.append, number)
    loop.call_at(2.0, loop.stop)
    loop.run_forever()
    assert told == list(range(10))


def test_what_is_cancelled_does_not_come(any_loop):
    told = []
    for timer in (
        any_loop.call_soon(told.append, 1),
        any_loop.call_later(0, told.append, 2),
        any_loop.call_later(0.001, told.append, 3),
    ):
        timer.cancel()
    any_loop.call_later(0.005, any_loop.stop)
    any_loop.run_forever()
    assert told == []


def test_timers_that_were_cancelled_do_not_pile_up(loop):
    for _ in range(10_000):
        loop.call_later(1000, print).cancel()
    assert len(loop._timers) < 100


def test_calls_from_another_thread_wake_the_loop(any_loop):
    told = []

    def call():
        any_loop.call_soon_threadsafe(told.append, threading.get_ident())
        any_loop.call_soon_threadsafe(any_loop.stop)

    thread = threading.Timer(0.01, call)
    thread.start()
    any_loop.run_forever()
    thread.join()
    assert told == [thread.ident]


def test_many_calls_from_another_thread_all_come_in_order(any_loop):
    told = []

    def call():
        for number in range(100_000):
            any_loop.call_soon_threadsafe(told.append, number)
        any_loop.call_soon_threadsafe(any_loop.stop)

    thread = threading.Thread(target=call)
    thread.start()
    any_loop.run_forever()
    thread.join()
    assert told == list(range(100_000))


def test_a_closed_loop_says_so():
    loop = LightLoop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon_threadsafe(print)


def test_readers_are_told_as_long_as_there_is_something(any_loop, pair):
    ours, theirs = pair
    told = []

    def read(mark):
        told.append((mark, ours.recv(2)))
        if len(told) == 2:
            any_loop.stop()

    any_loop.add_reader(ours, read, "mark")
    theirs.send(b"abcd")
    any_loop.run_forever()
    assert told == [("mark", b"ab"), ("mark", b"cd")]
    any_loop.remove_reader(ours)
    any_loop.remove_reader(ours)


def test_writers_are_told_that_there_is_room(any_loop, pair):
    ours, _ = pair
    told = []

    def write():
        told.append(ours.send(b"x"))
        any_loop.remove_writer(ours)
        any_loop.stop()

    any_loop.add_writer(ours, write)
    any_loop.run_forever()
    assert told == [1]
    any_loop.remove_writer(ours)


def test_one_descriptor_may_have_both(any_loop, pair):
    ours, theirs = pair
    told = []
    any_loop.add_writer(ours.fileno(), told.append, "first writer")
    any_loop.add_writer(ours.fileno(), told.append, "writer")
    any_loop.add_reader(ours.fileno(), told.append, "first reader")
    any_loop.add_reader(ours.fileno(), told.append, "reader")
    theirs.send(b"x")
    any_loop.call_soon(any_loop.call_soon, any_loop.stop)
    any_loop.run_forever()
    assert set(told) == {"reader", "writer"}

    any_loop.remove_writer(ours.fileno())
    told.clear()
    any_loop.call_soon(any_loop.call_soon, any_loop.stop)
    any_loop.run_forever()
    assert set(told) == {"reader"}
    any_loop.remove_reader(ours.fileno())


def test_who_was_removed_in_this_turn_is_not_told(loop, pair):
    ours, theirs = pair
    told = []
    loop.add_reader(ours, told.append, "reader")
    theirs.send(b"x")
    loop.call_soon(loop.remove_reader, ours)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert told == []


def test_strangers_and_closed_descriptors_have_no_reader_to_remove(loop):
    stranger = socket.socket()
    loop.remove_reader(stranger)
    stranger.close()
    loop.remove_reader(stranger)
    loop.remove_writer(stranger)


def test_what_a_callback_raises_is_logged_and_the_loop_goes_on(any_loop, caplog):
    def fail():
        raise ValueError("of mine")

    any_loop.call_soon(fail)
    any_loop.call_soon(any_loop.stop)
    with caplog.at_level(logging.ERROR):
        any_loop.run_forever()
    (record,) = caplog.records
    assert "fail raised" in record.getMessage()
    assert "of mine" in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_comes_out_and_the_loop_can_go_on(kind, any_loop):
    told = []

    def interrupt():
        raise kind

    any_loop.call_soon(interrupt)
    any_loop.call_soon(told.append, 1)
    with pytest.raises(kind):
        any_loop.run_forever()
    any_loop.call_soon(any_loop.stop)
    any_loop.run_forever()
    assert told == [1]


def test_a_coroutine_takes_an_upgrade_and_nothing_is_lost(loop, pair):
    ours, theirs = pair
    told, was_read = [], asyncio.Event()

    async def work():
        told.append("begun")
        await was_read.wait()
        told.append("done")
        loop.call_soon_threadsafe(loop.stop)

    def upgrade():
        loop.call_soon(told.append, "asked before")
        loop.create_task(work())
        loop.call_soon(told.append, "asked after")

    def read():
        told.append(ours.recv(100))
        was_read.set()

    loop.add_reader(ours, read)
    loop.add_writer(theirs, print)
    cancelled = loop.call_at(loop.time() + 0.5, told.append, "cancelled")
    loop.call_at(loop.time() + 0.5, theirs.send, b"hello")
    loop.call_soon(upgrade)
    loop.call_soon(loop.remove_writer, theirs)
    loop.call_soon(cancelled.cancel)
    loop.run_forever()

    assert told == ["asked before", "begun", "asked after", b"hello", "done"]
    loop.remove_reader(ours)


def test_closing_cancels_what_asyncio_has_begun():
    told = []

    async def wait():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    loop = LightLoop()
    loop.create_task(wait())
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    loop.close()
    assert told == ["cancelled"]


def test_a_stop_before_the_upgrade_is_heard(loop):
    async def work():
        pass

    loop.call_soon(loop.stop)
    loop.call_soon(lambda: loop.create_task(work()) and None)
    loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_nothing_is_left_open(pair):
    def count():
        return len(os.listdir("/dev/fd"))  # noqa: PTH208 - as short as it gets

    before = count()
    loop = LightLoop()
    loop.add_reader(pair[0], print)
    loop.close()
    assert count() == before
