"""The conductor's end of a worker's links: things come out in the order in which they were done."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from okanjo_conductor._io import links
from okanjo_conductor._io.conductor_link import ConductorLink
from okanjo_conductor._io.worker_link import WorkerLink
from okanjo_conductor._wire import records
from okanjo_conductor._wire.messages import Bell, Bye, Invalidate, Jobs, LastWords, Ready, Stop
from okanjo_conductor.lookups.live import News


class Receiver:
    """Keeps what it is told, in order."""

    def __init__(self):
        self.told = []

    def on_message(self, worker_id, message):
        self.told.append(type(message).__name__)

    def on_outcomes(self, worker_id, ordinals, nanoseconds, results):
        assert len(ordinals) == len(nanoseconds) == len(results)
        self.told += ordinals


class Loop:
    """An event loop whose turns the test takes itself."""

    def __init__(self):
        self.readers = {}
        self.writers = {}

    def add_reader(self, descriptor, callback):
        self.readers[self._number(descriptor)] = callback

    def remove_reader(self, descriptor):
        return self.readers.pop(self._number(descriptor), None) is not None

    def add_writer(self, descriptor, callback):
        self.writers[self._number(descriptor)] = callback

    def remove_writer(self, descriptor):
        return self.writers.pop(self._number(descriptor), None) is not None

    @staticmethod
    def _number(descriptor):
        return descriptor if isinstance(descriptor, int) else descriptor.fileno()


class Linked:
    """Both ends of one worker's links, in one process."""

    def __init__(self, ours, theirs):
        self.loop = Loop()
        self.receiver = Receiver()
        self.job_link = ours.job_link
        self.ours = ConductorLink(1, ours, self.loop, self.receiver)
        self.outputs = theirs.stdout, theirs.stderr
        self.theirs = WorkerLink(theirs.job_link, theirs.cells, theirs.bell)

    def do(self, *ordinals):
        for ordinal in ordinals:
            self.theirs.log.write(records.head(ordinal, 10) + records.atom(ordinal))

    def read(self):
        self.loop.readers[self.job_link.fileno()]()

    @property
    def told(self):
        return self.receiver.told


@pytest.fixture
def linked():
    made = Linked(*links.make())
    yield made
    made.theirs._socket.close()
    for descriptor in (
        *made.outputs,
        made.theirs.black_box,
        made.theirs._bell,
        made.theirs._wake_read,
        made.theirs._wake_write,
    ):
        os.close(descriptor)
    made.theirs.log.ring.release()
    made.theirs.cells.release()
    if made.job_link.fileno() >= 0:
        made.ours.finish()


def test_outcomes_come_before_the_frame_that_follows_them(linked):
    linked.do(1, 2)
    linked.theirs.send(Bell())
    linked.read()

    assert linked.told == [1, 2, "Bell"]


def test_outcomes_written_after_a_frame_come_after_it(linked):
    linked.theirs.send(Ready())
    linked.do(1)
    linked.theirs.send(Bell())
    linked.do(2, 3)
    linked.theirs.send(Bye())
    linked.do(4)
    linked.read()
    assert linked.told == ["Ready", 1, "Bell", 2, 3, "Bye"]

    linked.ours.tick()
    assert linked.told == ["Ready", 1, "Bell", 2, 3, "Bye", 4]


def test_a_tick_finds_what_nobody_has_announced(linked):
    linked.do(1, 2, 3)
    linked.ours.tick()
    linked.ours.tick()

    assert linked.told == [1, 2, 3]
    assert not linked.loop.writers


def test_a_tick_keeps_the_order_of_frames_and_outcomes(linked):
    linked.do(1)
    linked.theirs.send(Bell())
    linked.do(2)
    linked.ours.tick()

    assert linked.told == [1, "Bell", 2]


def test_the_end_passes_on_everything_in_order_and_closes(linked):
    linked.do(1)
    linked.theirs.send(LastWords("why"))
    linked.do(2)
    linked.ours.finish()

    assert linked.told == [1, "LastWords", 2]
    assert not linked.loop.readers
    assert linked.job_link.fileno() == -1


def test_news_goes_ahead_of_whatever_is_said_next(linked):
    linked.ours.ahead = news = News()
    linked.ours.send(Stop())
    news.add("rates", ["x"])
    linked.ours.send(Jobs(1, [1], b"", []))
    linked.ours.send(Stop())
    news.add("rates", None)
    linked.ours.send(Stop())

    told = linked.theirs.receive()

    names = [type(message).__name__ for message in told]
    assert names == ["Stop", "Invalidate", "Jobs", "Stop", "Invalidate", "Stop"]
    assert [m.keys for m in told if isinstance(m, Invalidate)] == [["x"], None]


def test_a_message_to_a_dead_worker_is_dropped(linked):
    linked.theirs._socket.shutdown(2)
    linked.read()

    linked.ours.send(Bell())

    assert linked.job_link.fileno() not in linked.loop.readers
    assert not linked.loop.writers


def test_what_the_socket_has_no_room_for_is_sent_later(linked):
    text = LastWords("x" * 1_000_000)
    while not linked.loop.writers:
        linked.ours.send(text)
    linked.ours.send(Bye())

    (flush,) = linked.loop.writers.values()
    received = []
    while Bye() not in received:
        received += linked.theirs.receive_nowait()
        if linked.loop.writers:
            flush()

    assert set(map(type, received)) == {LastWords, Bye}
    assert not linked.loop.writers


def test_lines_of_output_are_never_torn(linked, capsys):
    stdout, stderr = linked.outputs
    read = dict(linked.loop.readers)
    read.pop(linked.job_link.fileno())

    for out, error in ((b"one\ntw", b"warn"), (b"o\nthr", b"ing\n"), (b"ee", b"")):
        os.write(stdout, out)
        os.write(stderr, error)
        for callback in read.values():
            callback()
    said = capsys.readouterr()
    assert (said.out, said.err) == ("one\ntwo\n", "warning\n")

    linked.ours.finish()
    assert capsys.readouterr().out == "three\n"


def test_a_real_loop_delivers_too():
    async def deliver():
        ours, theirs = links.make()
        told = asyncio.get_running_loop().create_future()

        class Once(Receiver):
            def on_message(self, worker_id, message):
                told.set_result((worker_id, message))

        link = ConductorLink(7, ours, asyncio.get_running_loop(), Once())
        worker = WorkerLink(theirs.job_link, theirs.cells, theirs.bell)
        worker.send(Ready())
        assert await asyncio.wait_for(told, 10) == (7, Ready())
        worker._socket.close()
        rest = (theirs.stdout, theirs.stderr, theirs.bell)
        for descriptor in (*rest, worker.black_box, worker._wake_read, worker._wake_write):
            os.close(descriptor)
        worker.log.ring.release()
        worker.cells.release()
        link.finish()

    before = len(list(Path("/proc/self/fd").iterdir()))
    asyncio.run(deliver())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
