"""The worker's end of its links: blocking, and safe to send on from any thread."""

from __future__ import annotations

import os
import select
import socket
import threading
from typing import TYPE_CHECKING

from okanjo_conductor._io import cells
from okanjo_conductor._wire.connection import Connection
from okanjo_conductor._wire.messages import Bell

if TYPE_CHECKING:
    from okanjo_conductor._wire.messages import AnyMessage

MAX_RECORD = select.PIPE_BUF
"""Bytes that a pipe takes whole or not at all."""


class WorkerLink:
    """Job link, result pipe and cells, as the worker sees them.

    Raises (all sending methods):
        OSError: the conductor is gone.
    """

    def __init__(self, job_link: int, results: int, page: int) -> None:
        self._socket = socket.socket(fileno=job_link)
        self._results = results
        self.cells = cells.map_page(page)
        os.close(page)
        self._connection = Connection()
        self._sending = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)
        self.outcomes = 0
        """How many records were written to the result pipe."""

    def send(self, message: AnyMessage) -> None:
        """Send one message, whole."""
        with self._sending:
            self._connection.send(message, self.outcomes)
            outbox = self._connection.outbox
            while outbox:
                outbox.sent(self._socket.sendmsg(outbox.views()))

    def write_outcome(self, record: bytes) -> None:
        """Write one outcome record of at most `MAX_RECORD` bytes."""
        try:
            os.write(self._results, record)
        except BlockingIOError:
            self.send(Bell())
            select.select([], [self._results], [])
            os.write(self._results, record)
        self.outcomes += 1

    def receive(self) -> list[AnyMessage]:
        """Return the messages that the next bytes complete, perhaps none. Blocks.

        Raises:
            EOFError: the conductor is gone.
        """
        return self._read(0)

    def receive_nowait(self) -> list[AnyMessage]:
        """Return the messages that have arrived, perhaps none.

        Raises:
            EOFError: the conductor is gone.
        """
        try:
            return self._read(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []

    def wait(self, seconds: float | None) -> None:
        """Block until there is something to receive, `wake` is called or the time is over."""
        timeout = None if seconds is None else max(0, int(seconds * 1000) + 1)
        for descriptor, _ in self._poll.poll(timeout):
            if descriptor == self._wake_read:
                os.read(self._wake_read, 4096)

    def wake(self) -> None:
        """End a `wait` of another thread, or the next one."""
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            return  # it has been woken often enough

    def cut(self, how: int) -> None:
        """Shut the job link, or half of it: for tests of what comes of that."""
        self._socket.shutdown(how)

    def abandon(self) -> None:
        """Close the links in a process that a job has forked: only the worker may speak."""
        self._socket.close()
        os.close(self._results)

    def _read(self, flags: int) -> list[AnyMessage]:
        count = self._socket.recv_into(self._connection.room(), 0, flags)
        if not count:
            raise EOFError
        return [message for _, message in self._connection.received(count)]
