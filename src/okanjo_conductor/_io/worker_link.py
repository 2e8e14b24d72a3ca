"""The worker's end of its links: blocking, and safe to send on from any thread."""

from __future__ import annotations

import _socket as socket  # as in `bootstrap`
import errno
import os
import select
import threading
from contextlib import suppress
from time import sleep

from okanjo_conductor._io import cells
from okanjo_conductor._io.descriptors import move_up
from okanjo_conductor._io.hatch import Asker
from okanjo_conductor._io.outcome_log import Writer
from okanjo_conductor._wire.connection import Connection
from okanjo_conductor._wire.messages import Bell, to_segments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._wire.messages import AnyMessage

_NO_ROOM = 0.0005
"""Seconds between looks at an outcome log that is full."""


class WorkerLink:
    """Job link, outcome log and cells, as the worker sees them.

    Raises (all sending methods):
        OSError: the conductor is gone.
    """

    def __init__(self, job_link: int, page: int, bell: int) -> None:
        self._socket = socket.socket(fileno=job_link)
        self._socket.settimeout(None)  # whatever socket.setdefaulttimeout() was told
        self.cells = cells.map_page(page)
        self.log = Writer(self.cells, self._wait_for_room)
        self.black_box = page
        """Descriptor to write about this process's threads to."""
        self._bell = bell
        self._bell_inode = os.fstat(bell).st_ino
        self.hatch: Asker | None = None
        """Where to ask what can be answered at once; None: there is none, or not yet."""
        self.sent = 0
        """How many messages were sent."""
        self._connection = Connection()
        self._sending = threading.Lock()
        self._wake_read, self._wake_write = map(move_up, os.pipe())
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)
        self.is_abandoned = False
        """Whether this is not the worker any more, or a process that a job has forked."""
        self.on_abandoned: Callable[[], None] = lambda: None
        """Called in such a process."""
        self._users = 1
        """Threads that need the descriptors."""
        self._users_change = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to receive."""
        return self._socket.fileno()

    def send(self, message: AnyMessage) -> None:
        """Send one message, whole."""
        if self.is_abandoned:
            text = "only the worker can talk to the conductor, not a process that a job has forked"
            raise OSError(errno.EBADF, text)
        with self._sending:
            segments = to_segments(message, self.log.count)
            outbox = self._connection.outbox
            if len(segments) == 1 and not outbox:
                sent = self._socket.send(segments[0])
                if sent == len(segments[0]):
                    self.sent += 1
                    return
                segments[0] = memoryview(segments[0])[sent:]
            outbox.append(segments)
            while outbox:
                outbox.sent(self._socket.sendmsg(outbox.views()))
            self.sent += 1

    def _wait_for_room(self) -> None:
        """Have the conductor read the outcome log."""
        self.send(Bell())
        sleep(_NO_ROOM)

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

    def receive_all(self) -> list[AnyMessage]:
        """Return every message that has arrived, however many reads that takes.

        Raises:
            EOFError: the conductor is gone.
        """
        messages: list[AnyMessage] = []
        with suppress(BlockingIOError):
            while True:
                messages += self._read(socket.MSG_DONTWAIT)
        return messages

    def await_bell(self) -> None:
        """Block until the conductor rings: a message has arrived that must not wait.

        Raises:
            EOFError: the conductor is gone, or a job has closed the bell.
        """
        rung = b""
        with suppress(OSError):
            rung = os.read(self._bell, 4096) if self._has_bell() else b""
        if not rung:
            raise EOFError

    def _has_bell(self) -> bool:
        """Whether this descriptor is the bell: a job may have closed it, and opened another."""
        with suppress(OSError):
            return os.fstat(self._bell).st_ino == self._bell_inode
        return False

    def wait(self, seconds: float) -> bool:
        """Block until there is something to receive, `wake` is called or the time is over.

        Returns:
            Whether there is something to receive.
        """
        is_here = False
        for descriptor, _ in self._poll.poll(max(0, int(seconds * 1000) + 1)):
            if descriptor == self._wake_read:
                os.read(self._wake_read, 4096)
            else:
                is_here = True
        return is_here

    def open_hatch(self) -> None:
        """Let the worker ask at the hatch, if the memory has one."""
        self.hatch = Asker(self.cells)

    def wake(self) -> None:
        """End a `wait` of another thread, or the next one."""
        with self._users_change, suppress(BlockingIOError):  # it has been woken often enough
            if self._users:
                os.write(self._wake_write, b"\0")

    def cut(self, how: int) -> None:
        """Shut the job link, or half of it: for tests of what comes of that."""
        self._socket.shutdown(how)

    def retire(self) -> None:
        """Say no more: the worker has ended, but not its process."""
        self.is_abandoned = True
        self.log.abandon()
        with suppress(OSError):
            self.cut(socket.SHUT_RDWR)
        self.wake()

    def share(self) -> None:
        """Take note of one more thread that needs the descriptors until it calls `close`."""
        with self._users_change:
            self._users += 1

    def close(self) -> None:
        """Let go of descriptors and memory, once nobody else needs them."""
        with self._users_change:
            self._users -= 1
            if self._users:
                return
        self.is_abandoned = True
        self._socket.close()
        self._close_hatch()
        self.log.close()
        self.cells.release()
        for descriptor in (self._bell, self.black_box, self._wake_read, self._wake_write):
            with suppress(OSError):  # a job may have closed it
                os.close(descriptor)

    def abandon(self) -> None:
        """Close the links in a process that a job has forked: only the worker may speak."""
        self.is_abandoned = True
        with suppress(OSError):  # the job may have closed it
            self._socket.close()
        if self._has_bell():
            os.close(self._bell)
        self.log.abandon()
        self._close_hatch()
        # A thread that is not here may have held them.
        self._sending, self._users_change = threading.Lock(), threading.Lock()
        self.on_abandoned()

    def _close_hatch(self) -> None:
        if self.hatch is not None:
            self.hatch.close()

    def _read(self, flags: int) -> list[AnyMessage]:
        count = self._socket.recv_into(self._connection.room(), 0, flags)
        if not count:
            raise EOFError
        return [message for _, message in self._connection.received(count)]
