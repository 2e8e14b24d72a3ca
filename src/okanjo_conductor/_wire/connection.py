"""One end of a job link, without the socket: bytes in, messages out, and back.

The same class serves the worker and the conductor; only who may send what differs.
"""

from __future__ import annotations

from okanjo_conductor._wire.frames import FrameReader, Outbox
from okanjo_conductor._wire.messages import AnyMessage, from_frame, to_segments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Connection:
    """Turns a byte stream into messages and messages into a byte stream."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self.outbox = Outbox()
        """What is to be written next. The owner of the socket empties it."""

    def room(self) -> memoryview:
        """Where the next received bytes belong."""
        return self._reader.room()

    def received(self, count: int) -> Iterator[tuple[int, AnyMessage]]:
        """Take note of `count` bytes in `room()`.

        Yields:
            Each message now complete, with the number of outcome records that its sender had
            written before it.
        """
        for frame in self._reader.received(count):
            yield frame.outcomes, from_frame(frame)

    def send(self, message: AnyMessage, outcomes: int = 0) -> None:
        """Queue a message; `outcomes` is how many outcome records were written before it."""
        self.outbox.append(to_segments(message, outcomes))
