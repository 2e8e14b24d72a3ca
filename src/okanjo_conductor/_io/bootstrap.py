"""The first words between a conductor and a process it started, before there is a worker.

    conductor → process                     process → conductor
    Boot       how to find the worker       Booted      it is loaded
    Start      be a worker, or fork one     BootFailed  it cannot be loaded
                                            Started     forked, with a pidfd
                                            ForkFailed  there will be no such worker
                                            Exited      a forked worker is gone

Each message is pickled, length-prefixed and may carry descriptors. Reads take exactly one message,
so descriptors always belong to the message they arrive with.
"""

from __future__ import annotations

import _socket as socket  # `socket` itself takes 3 ms to load, for things not needed here
import array
import os
import struct

from okanjo_conductor._plain import Frozen
from okanjo_conductor._wire import pickling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LENGTH = struct.Struct("<Q")
_MAX_DESCRIPTORS = 16


class Target(Frozen):
    """Where the worker comes from: one field is set, or none where it is at hand."""

    reference: tuple[str, str] | None = None
    """Module and qualified name."""
    function: bytes | None = None
    """A simple function of ``__main__``, packed."""
    pickled: bytes | None = None
    """A cloudpickle, for what other processes cannot import."""
    script: str | None = None
    """Path of a script that starts its own worker."""


class Boot(Frozen):
    """What a new process must know; comes with the dead man's read end."""

    target: Target
    sys_path: list[str]
    argv: list[str]


class Start(Frozen):
    """Become a worker, or fork one; comes with the worker's ends."""

    worker_id: int
    slot: int
    master_id: str
    forks: bool
    options: bytes
    """Pickled keyword arguments for the worker class."""
    log_level: int
    concurrency: int | None
    """How many jobs an async worker executes at a time; None: as it likes."""
    cpus: list[int] | None = None
    """Numbers of the CPUs that it may run on; None: all there are."""


class Booted(Frozen):
    """The worker's module is imported."""

    can_fork: bool
    """Whether no other thread runs in this process."""


class BootFailed(Frozen):
    """The worker could not be loaded."""

    detail: str


class Started(Frozen):
    """A worker was forked. Comes with its pidfd where there are pidfds."""

    worker_id: int
    pid: int


class ForkFailed(Frozen):
    """A worker could not be forked."""

    worker_id: int
    detail: str


class Exited(Frozen):
    """A forked worker is gone, with its process group, and was reaped."""

    worker_id: int
    status: int
    """As ``waitpid`` gives it."""


def send(sock: socket.socket, message: Any, descriptors: list[int] | None = None) -> None:
    """Write one message. Blocks until the peer has room for it."""
    data = pickling.dumps(message, 5)
    ancillary = []
    if descriptors:
        packed = array.array("i", descriptors)
        ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, packed))
    head = _LENGTH.pack(len(data))
    sock.sendmsg([head], ancillary)
    sock.sendall(data)


def receive(sock: socket.socket) -> tuple[Any, list[int]]:
    """Read one message. Blocks.

    Its descriptors are all there or, where this process may not open that many more, none.

    Raises:
        EOFError: the peer is gone.
    """
    descriptors = array.array("i")
    room = socket.CMSG_LEN(_MAX_DESCRIPTORS * descriptors.itemsize)
    data, ancillary, flags, _ = sock.recvmsg(_LENGTH.size, room)
    for _, _, packed in ancillary:
        descriptors.frombytes(packed[: len(packed) - len(packed) % descriptors.itemsize])
    if flags & socket.MSG_CTRUNC:
        for descriptor in descriptors:
            os.close(descriptor)
        del descriptors[:]
    head = data + _exactly(sock, _LENGTH.size - len(data))
    (length,) = _LENGTH.unpack(head)
    return pickling.loads(_exactly(sock, length)), descriptors.tolist()


def split(data: bytes) -> tuple[list[Any], bytes]:
    """Take the whole messages off the front of what was read; return them and the rest."""
    messages = []
    while len(data) >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(data)
        end = _LENGTH.size + length
        if len(data) < end:
            break
        messages.append(pickling.loads(data[_LENGTH.size : end]))
        data = data[end:]
    return messages, data


def _exactly(sock: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = sock.recv(min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
