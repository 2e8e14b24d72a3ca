"""Both ends of the link between a conductor and a worker that share one thread.

Each message is made into its frame and read from it again, as between processes: so nobody sees
objects of the other's, and what comes of a job does not depend on where it is executed. There is no
socket between, and no waiting: what the worker says, the conductor has heard when `send` returns,
and its answer lies ready. Only what another thread of a job says waits for the thread of the run;
but it goes ahead of what comes after it.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from okanjo_conductor._io import assignment, cells
from okanjo_conductor._io.conductor_link import ConductorLink
from okanjo_conductor._io.loops import call_soon
from okanjo_conductor._io.outcome_log import Writer
from okanjo_conductor._wire.connection import Connection
from okanjo_conductor._wire.messages import Bell, to_segments

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._io.conductor_link import Receiver
    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor._wire.messages import AnyMessage


class _Page:
    """The ends of a link that consists of a page of cells."""

    stdout = stderr = None

    def __init__(self, view: memoryview[int]) -> None:
        self.cells = view

    def close(self) -> None:
        """Let go of the page."""
        self.cells.release()


class InlineLink(ConductorLink):
    """The conductor's end.

    Args:
        wake: called when there is something for the worker to do.
    """

    def __init__(
        self,
        worker_id: int,
        page: int,
        loop: Loop,
        receiver: Receiver,
        wake: Callable[[], None],
    ) -> None:
        ends: Any = _Page(cells.map_page(page))
        super().__init__(worker_id, ends, loop, receiver)
        self.worker = InlineWorkerLink(page, self, loop)
        self._wake = wake
        self.said: deque[bytes] = deque()
        """Frames of the worker that were not read yet."""

    def send(self, message: AnyMessage) -> None:
        """Lay a message ready for the worker."""
        if not self._is_open:
            return
        if self.ahead:
            for first in self.ahead.take():
                self.worker.put(first)
        self.worker.put(message)
        self._wake()

    def tick(self) -> None:
        """Pass on what the worker has said."""
        self.hear()
        super().tick()

    def finish(self) -> None:
        """Pass on everything, and close."""
        self.hear()
        super().finish()

    def hear(self) -> None:
        """Handle what the worker has said, as the conductor."""
        with assignment.at_home(None):
            while self.said and self._is_open:
                frame = self.said.popleft()
                try:
                    for outcomes, message in _carried(frame, self._connection):
                        self._apply(outcomes)
                        self._receiver.on_message(self._worker_id, message)
                except (
                    Exception,
                    SystemExit,
                ) as error:  # not the fault of the job that has said it
                    self._loop.call_soon(_raise, error)

    def _begin_reading(self) -> None:
        """Do nothing: there is no socket."""

    def _read_job_link(self) -> bool:
        return False

    def _stop_reading(self) -> None:
        self._is_open = False

    def _ring(self) -> None:
        """Do nothing: a worker that is in a job cannot handle anything besides."""


class InlineWorkerLink:
    """The worker's end. It has what `WorkerLink` has, as far as that makes sense."""

    hatch = None

    def __init__(self, page: int, conductor: InlineLink, loop: Loop) -> None:
        self.cells = cells.map_page(page)
        self.log = Writer(self.cells, self._wait_for_room)
        self.black_box = page
        self.is_abandoned = False
        self._conductor = conductor
        self._loop = loop
        self._thread = threading.get_ident()
        self._connection = Connection()
        self._inbox: deque[AnyMessage] = deque()
        self._sending = threading.Lock()
        self._woken = threading.Event()

    def put(self, message: AnyMessage) -> None:
        """Lay a message ready."""
        frame = b"".join(to_segments(message, 0))
        self._inbox.extend(arrived for _, arrived in _carried(frame, self._connection))

    @property
    def has_news(self) -> bool:
        """Whether a message lies ready."""
        return bool(self._inbox)

    def send(self, message: AnyMessage) -> None:
        """Say something; from another thread than that of the run, it is heard later."""
        if self.is_abandoned:
            raise OSError(errno.EBADF, "only the worker can talk to the conductor")
        with self._sending:
            self._conductor.said.append(b"".join(to_segments(message, self.log.count)))
        if threading.get_ident() == self._thread:
            self._conductor.hear()
        else:
            call_soon(self._loop, self._conductor.hear)

    def _wait_for_room(self) -> None:
        self.send(Bell())

    def receive_nowait(self) -> list[AnyMessage]:
        """Return the messages that lie ready."""
        messages = list(self._inbox)
        self._inbox.clear()
        return messages

    def wait(self, seconds: float) -> bool:
        """Block until another thread calls `wake`, or the time is over."""
        self._woken.wait(seconds)
        self._woken.clear()
        return bool(self._inbox)

    def wake(self) -> None:
        """End a `wait`, or the next one."""
        self._woken.set()

    def cut(self, _how: int) -> None:
        """Say and hear no more: for tests of what comes of that."""
        self.retire()

    def retire(self) -> None:
        """Say no more: the worker has ended."""
        self.is_abandoned = True
        self.log.abandon()

    def abandon(self) -> None:
        """Say nothing in a process that a job has forked."""
        self._sending = threading.Lock()  # a thread that is not here may have held it
        self.retire()

    def close(self) -> None:
        """Let go of the page."""
        self.retire()
        self.log.close()
        self.cells.release()
        os.close(self.black_box)


def _carried(frame: bytes, connection: Connection) -> list[tuple[int, AnyMessage]]:
    """Let bytes arrive at a connection; return the messages that they complete."""
    messages: list[tuple[int, AnyMessage]] = []
    view = memoryview(frame)
    while view:
        room = connection.room()
        count = min(len(room), len(view))
        room[:count] = view[:count]
        view = view[count:]
        messages += connection.received(count)
    return messages


def _raise(error: BaseException) -> None:
    raise error
