"""The conductor's end of one worker's links, driven by an event loop.

Nothing here blocks. Outcome records are read from the result pipe when a frame says how many there
are, on a tick, and after the worker's death; so what the worker did comes out in the order in
which it did it.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from okanjo_conductor._io import cells, stacks
from okanjo_conductor._io.hatch import Answerer
from okanjo_conductor._io.outcome_log import Reader
from okanjo_conductor._wire import records
from okanjo_conductor._wire.connection import Connection
from okanjo_conductor._wire.messages import to_segments
from okanjo_conductor.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from okanjo_conductor._io.links import ConductorEnds
    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor._types import Ordinal
    from okanjo_conductor._wire.messages import AnyMessage

_LONGEST_LINE = 1 << 20
"""Bytes without a line end after which a worker's output is passed on all the same."""
_READS_AT_ONCE = 64
"""Reads of one descriptor per turn of the loop, so that one worker cannot starve the others."""
_RECALL = 0.02
"""Seconds until a recall is answered where there is no barrier: store buffers drain long before."""


if TYPE_CHECKING:  # making protocols takes a while, in every new process

    class Receiver(Protocol):
        """Who is told what a worker says."""

        def on_message(self, worker_id: int, message: AnyMessage) -> None:
            """The worker sent a message."""

        def on_outcomes(
            self, worker_id: int, ordinals: list[int], nanoseconds: list[int], results: list[Any]
        ) -> None:
            """The worker has written outcome records."""

        def on_garbage(self, worker_id: int, error: ProtocolError) -> None:
            """The worker's links carry what no worker sends; nothing more is read from it."""

    class Ahead(Protocol):
        """Messages that go ahead of the next one. False where there are none."""

        def __bool__(self) -> bool: ...

        def take(self) -> list[AnyMessage]:
            """Return them, once."""
            ...


class ConductorLink:
    """Job link, outcome log, cells and output of one worker, as the conductor sees them.

    Args:
        outputs: where its standard output and error go; by default, to those of this process.
    """

    round_trip = 0.0
    """Seconds that are worth a thought: none, on this machine."""

    def __init__(
        self,
        worker_id: int,
        ends: ConductorEnds,
        loop: Loop,
        receiver: Receiver,
        outputs: tuple[Output, Output] | None = None,
        *,
        keeps_outcomes: bool = False,
    ) -> None:
        self._worker_id = worker_id
        self._ends = ends
        self._loop = loop
        self._receiver = receiver
        self._log = Reader(ends.cells, keeps=keeps_outcomes)
        self.hatch = Answerer(ends.cells, self)
        """Where the worker asks what can be answered at once."""
        self.sent = 0
        """How many messages were sent, or are to be."""
        self._received = 0
        """How many messages were received."""
        self._connection = Connection()
        self._is_open = True
        self._is_closed = False
        """Whether cells and outcome log are out of reach, too."""
        self._is_writing = False
        self._owes_bell = False
        """A message is on its way that the worker must not let wait."""
        self.urgent: frozenset[str] = frozenset()
        """Commands that the worker handles during a job."""
        self._is_spoilt = False
        """Garbage was read: nothing that follows can be believed."""
        self._applied = 0
        """How many outcome records were passed on."""
        self._stash: tuple[list[int], list[int], list[Any]] = ([], [], [])
        """Records read before the frame that follows them."""
        self.definitions_sent = 0
        """How many objects of ``__main__`` the worker has."""
        self.ahead: Ahead | None = None
        """What the worker must be told before anything else, if it has to be told things."""
        self._box_read = 0
        """How much of the black box was taken."""
        self._keeps_outcomes = keeps_outcomes
        """Whether the worker may write over its outcomes only when it is told so."""
        if keeps_outcomes:
            ends.cells[cells.KEPT] = 1
        to_stdout, to_stderr = outputs or (Output("stdout"), Output("stderr"))
        self._output = to_stderr
        self._is_paused = False
        self._forwarders = [
            LineForwarder(loop, descriptor, output)
            for descriptor, output in ((ends.stdout, to_stdout), (ends.stderr, to_stderr))
            if descriptor is not None
        ]
        self._begin_reading()

    @property
    def cells(self) -> memoryview[int]:
        """The page in which the worker claims ordinals."""
        return self._ends.cells

    def last_started(self) -> Ordinal | None:
        """The ordinal that the worker has started last and not skipped, or None."""
        return cells.last_started(self._ends.cells)

    def last_skipped(self) -> tuple[Ordinal, Ordinal] | None:
        """The last run of ordinals that it has skipped: if it is dead, it may not have said so."""
        return cells.last_skipped(self._ends.cells)

    def running(self) -> Ordinal | None:
        """Whose code it is in, or None if it is in nobody's or does not say."""
        return cells.running(self._ends.cells)

    def recall(self, last: Ordinal, answer: Callable[[Ordinal], None]) -> None:
        """Take back what the worker has not started; answer with the last one it may execute."""
        if self._is_closed:
            return  # it is dead: its exit, which is about to be told, gives back everything
        page = self._ends.cells
        cells.revoke(page, last)
        barrier = cells.barrier_for(page)
        if barrier is None:
            self._loop.call_later(_RECALL, self._answer_recall, answer)
        else:
            barrier()
            self._answer_recall(answer)

    def _answer_recall(self, answer: Callable[[Ordinal], None]) -> None:
        if not self._is_closed:
            self.tick()  # what it has finished by now needs no thought
            answer(cells.last_kept(self._ends.cells))

    @property
    def settled(self) -> int | None:
        """Position in the outcome log before which everything was passed on.

        None: that is hard to say, or nothing is kept there.
        """
        return self._log.position if self._keeps_outcomes and not self._stash[0] else None

    @property
    def is_filling(self) -> bool:
        """Whether half of the outcome log waits to be freed; ask where it is `settled`."""
        return self._log.is_filling

    def free(self, position: int) -> None:
        """Let the worker write over outcomes before this position: they are kept elsewhere."""
        if not self._is_closed:
            self._log.free(position)

    def note_kept(self) -> None:
        """Let the worker go on after a large outcome: it is kept elsewhere."""
        if not self._is_closed:
            self._ends.cells[cells.KEPT] += 1

    @property
    def stderr(self) -> str:
        """The last lines that the worker wrote to its standard error."""
        return self._output.last_lines

    @property
    def box_size(self) -> int:
        """How much the worker has written about its threads by now."""
        return len(cells.black_box(self._ends.cells))

    def take_stack(self, begin: int | None = None, end: int | None = None) -> str:
        """Return what the worker has written about its threads, and take it.

        Args:
            begin: where in all that it has written; default: what was not taken before.
            end: up to where; default: the rest.
        """
        begin = self._box_read if begin is None else begin
        length = None if end is None else end - begin
        text = cells.black_box(self._ends.cells, begin)[:length]
        self._box_read = max(self._box_read, begin + len(text))
        return stacks.tidy(text)

    def send(self, message: AnyMessage) -> None:
        """Send a message as soon as the worker has room for it. To the dead, it is dropped."""
        if self._is_open:
            if self.ahead:
                self._queue_news()
            self.send_frame(to_segments(message, 0))

    def send_frame(self, segments: list[bytes | memoryview]) -> None:
        """Send a message that was made into a frame."""
        if self._is_open:
            self.sent += 1
            if len(segments) == 1 and not self._connection.outbox:
                segments = self._rest_of(segments[0])
            self._connection.outbox.append(segments)
            if self._connection.outbox and not self._is_writing:
                self._flush()
            elif self._owes_bell:
                self._ring()  # only who reads makes room

    def send_command(self, cmd: str, message: AnyMessage) -> None:
        """Send a message as `send`, and ring where the worker handles this command at once."""
        self.ring_for(cmd)
        self.send(message)

    def ring_for(self, cmd: str) -> None:
        """Ring with the next message, where the worker handles this command at once."""
        self._owes_bell |= cmd in self.urgent

    def note_urgent(self, commands: list[str]) -> None:
        """Take note of what the worker handles during a job; it may have some of it already."""
        self.urgent = frozenset(commands)
        if commands:
            self._ring()

    def pause(self) -> None:
        """Read no more for now: a worker that has much to say, or to print, waits then."""
        self._is_paused = True
        if self._is_open:
            self._loop.remove_reader(self._ends.job_link)
        for forwarder in self._forwarders:
            forwarder.pause()

    def resume(self) -> None:
        """Read on."""
        self._is_paused = False
        if self._is_open:
            self._begin_reading()
        for forwarder in self._forwarders:
            forwarder.resume()

    def tick(self) -> None:
        """Pass on outcomes that nobody has announced."""
        if not self._is_open or not (self._log.has_news or self._stash[0]):
            return
        with self._guard():
            self._read_records()
            total = self._applied + len(self._stash[0])
            while self._read_job_link():
                pass
            self._apply(total)

    def catch_up(self, messages: int, outcomes: int) -> bool:
        """Pass on what the worker has said until it had said so much; return whether that is done.

        Args:
            messages: how many in all.
            outcomes: likewise.
        """
        if self._received < messages:
            self._on_readable()
        with self._guard():
            self._apply(outcomes)
        return self._is_open and self._received >= messages

    def send_news(self) -> None:
        """Send what the worker must be told before it is told anything else."""
        if self.ahead and self._is_open:
            self._queue_news()
            if not self._is_writing:
                self._flush()

    def _queue_news(self) -> None:
        for first in self.ahead.take() if self.ahead else ():
            self.sent += 1
            self._connection.send(first)

    def finish(self) -> None:
        """Pass on everything the dead worker has said, and close.

        Does not wait for end-of-file: a process that the worker started may hold its ends.
        """
        with self._guard():
            while self._read_job_link():
                pass
            self._read_records()
            self._apply(self._applied + len(self._stash[0]))
        for forwarder in self._forwarders:
            forwarder.finish()
        self._stop_reading()
        self._is_closed = True
        self._log.close()
        self.hatch.close()
        self._ends.close()

    # Reading

    def _begin_reading(self) -> None:
        self._loop.add_reader(self._ends.job_link, self._on_readable)

    def _on_readable(self) -> None:
        try:
            for _ in range(_READS_AT_ONCE):
                if self._is_paused or not self._read_job_link():
                    return
        except ProtocolError as error:
            self._on_garbage(error)

    @contextmanager
    def _guard(self) -> Generator[None]:
        """Read no further once a job has scribbled into its worker's descriptors."""
        try:
            yield
        except ProtocolError as error:
            self._on_garbage(error)

    def _on_garbage(self, error: ProtocolError) -> None:
        self._is_spoilt = True
        self._stop_reading()
        self._receiver.on_garbage(self._worker_id, error)

    def _read_job_link(self) -> bool:
        """Read once; return whether there may be more."""
        if not self._is_open:
            return False
        room = self._connection.room()
        try:
            count = self._ends.job_link.recv_into(room)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            count = 0
        if not count:
            self._stop_reading()
            self._hang_up()
            return False
        is_full = count == len(room)
        for outcomes, message in self._connection.received(count):
            self._received += 1
            self._apply(outcomes)
            self._receiver.on_message(self._worker_id, message)
        return is_full

    def _stop_reading(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._ends.job_link)
            if self._is_writing:
                self._loop.remove_writer(self._ends.job_link)
            self._connection.outbox.clear()

    def _hang_up(self) -> None:
        """Close the other way too: a worker that lives on would wait for ever for jobs."""
        with suppress(OSError):
            self._ends.job_link.shutdown(socket.SHUT_RDWR)

    def _read_records(self) -> None:
        """Empty the outcome log into the stash."""
        if self._is_spoilt or not (data := self._log.read()):
            return
        columns = records.unpack(data)
        if self._stash[0]:
            for stashed, column in zip(self._stash, columns, strict=True):
                stashed.extend(column)
        else:
            self._stash = columns

    def _apply(self, upto: int) -> None:
        """Pass on outcome records until `upto` of them are."""
        missing = upto - self._applied
        if missing <= 0:
            return
        if len(self._stash[0]) < missing:
            self._read_records()
        columns = self._stash
        if len(columns[0]) <= missing:
            self._stash = ([], [], [])
        else:
            self._stash = tuple(column[missing:] for column in columns)  # type: ignore[assignment]
            columns = tuple(column[:missing] for column in columns)  # type: ignore[assignment]
        ordinals, nanoseconds, results = columns
        self._applied += len(ordinals)
        if ordinals:
            self._receiver.on_outcomes(self._worker_id, ordinals, nanoseconds, results)

    # Writing

    def _rest_of(self, segment: bytes | memoryview) -> list[bytes | memoryview]:
        """Write a segment at once; return what there was no room for."""
        try:
            sent = self._ends.job_link.send(segment)
        except OSError:  # no room; or the worker is gone, which `_flush` finds out as well
            return [segment]
        return [memoryview(segment)[sent:]] if sent < len(segment) else []

    def _flush(self) -> None:
        outbox = self._connection.outbox
        try:
            while outbox:
                outbox.sent(self._ends.job_link.sendmsg(outbox.views()))
        except BlockingIOError:
            if self._owes_bell:
                self._ring()
            if not self._is_writing:
                self._is_writing = True
                self._loop.add_writer(self._ends.job_link, self._flush)
            return
        except OSError:  # the worker is gone; its exit tells what that means
            outbox.clear()
        if self._owes_bell:
            self._owes_bell = False
            self._ring()
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._ends.job_link)

    def _ring(self) -> None:
        with suppress(OSError):  # the worker is gone, or has been rung for often enough
            os.write(self._ends.bell, b"\0")


class Output:
    """One of a worker's streams, as it comes out of this process's own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._passed_on = b""
        """The last of what was passed on."""

    @property
    def last_lines(self) -> str:
        """The last lines that were passed on."""
        lines = self._passed_on.decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-_LAST_LINES:])

    def write(self, data: bytes) -> None:
        """Pass whole lines on."""
        self._passed_on = (self._passed_on + data[-_LAST_BYTES:])[-_LAST_BYTES:]
        stream = getattr(sys, self._name)
        try:
            stream.write(data.decode("utf-8", "replace"))
            stream.flush()
        except (OSError, ValueError, AttributeError):
            return  # the user's own stream is closed, broken or None: nobody is listening


class LineForwarder:
    """Passes a worker's output on, line by line, untorn."""

    def __init__(self, loop: Loop, descriptor: int, output: Output) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._output = output
        self._begun = b""
        """A line that has not ended yet."""
        self.resume()

    def pause(self) -> None:
        """Read no more for now."""
        self._loop.remove_reader(self._descriptor)

    def resume(self) -> None:
        """Read on."""
        self._loop.add_reader(self._descriptor, self._on_readable)

    def finish(self) -> None:
        """Pass on what is left, and read no more. The caller closes the descriptor."""
        while self._read():
            pass
        if self._begun:
            self._output.write(self._begun + b"\n")
        self._loop.remove_reader(self._descriptor)

    def _on_readable(self) -> None:
        if self._read() is None:
            self._loop.remove_reader(self._descriptor)

    def _read(self) -> bool | None:
        """Read once; return whether there was something, or None at the end."""
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            return None
        lines, end, rest = (self._begun + data).rpartition(b"\n")
        self._begun = rest
        if end:
            self._output.write(lines + end)
        if len(rest) > _LONGEST_LINE:
            self._output.write(rest)
            self._begun = b""
        return True


_LAST_LINES, _LAST_BYTES = 20, 1 << 13
"""How much of a worker\'s output is kept for its obituary."""
