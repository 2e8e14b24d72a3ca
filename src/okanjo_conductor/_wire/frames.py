"""Frames: how messages are cut out of a byte stream.

    ┌──────┬─────────┬──────────┬─────────────┬───────────────┬──────┬─────────┬───
    │ kind │ buffers │ outcomes │ body length │ buffer length │ body │ buffer  │ …
    │ u32  │ u32     │ u64      │ u64         │ u64 each      │      │         │
    └──────┴─────────┴──────────┴─────────────┴───────────────┴──────┴─────────┴───

`outcomes` is how many outcome records the sender had written to its result pipe when it sent the
frame: the receiver applies that many before it looks at the frame, which keeps program order
between the two channels. Conductors send 0.

Little-endian. A frame larger than the reader's buffer is received into memory of its own, each
out-of-band buffer into its own ``bytearray``, so that an array arrives without another copy.
Buffers for which there is no memory are read and dropped: that costs a value, not the stream.
"""

from __future__ import annotations

import struct
from collections import deque
from sys import getrefcount

from okanjo_conductor._plain import Row
from okanjo_conductor.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER = struct.Struct("<IIQQ")
_ROOM = 1 << 16
MAX_BUFFERS = 1024
"""Out-of-band buffers per frame; a codec leaves further ones in-band."""
_MAX_LENGTH = 1 << 48
"""Anything longer is no length but garbage."""
_JOIN_LIMIT = 1 << 13
"""Segments shorter than this are copied together: cheaper than another iovec entry."""
_IOV_LIMIT = 256


class Frame(Row):
    """One received frame."""

    kind: int
    outcomes: int
    body: bytes | bytearray
    buffers: list[bytes | bytearray]
    dropped: int
    """Bytes of buffers for which there was no memory; then there are no buffers."""


def pack(
    kind: int, outcomes: int, body: bytes, buffers: Sequence[bytes | bytearray | memoryview] = ()
) -> list[bytes | memoryview]:
    """Make the segments of one frame, to be written one after another."""
    if not buffers:
        return [_HEADER.pack(kind, 0, outcomes, len(body)) + body]
    sizes = [memoryview(b).nbytes for b in buffers]
    head = _HEADER.pack(kind, len(sizes), outcomes, len(body))
    head += struct.pack(f"<{len(sizes)}Q", *sizes)
    segments: list[bytes | memoryview] = [head + body]
    for buffer, size in zip(buffers, sizes, strict=True):
        if size < _JOIN_LIMIT and isinstance(segments[-1], bytes):
            segments[-1] += bytes(buffer)
        elif size:
            segments.append(memoryview(buffer).cast("B"))
    return segments


class _Pool:
    """Memory for out-of-band buffers, used again when nobody holds what was made of it.

    Fresh memory costs more than what is copied into it: the kernel clears it page by page. Arrays
    of one size come in rows, so it is kept by size.
    """

    _MOST = 1 << 25
    """Bytes that are kept at most."""

    def __init__(self) -> None:
        self._kept: dict[int, list[bytearray]] = {}
        self._size = 0

    def take(self, size: int) -> bytearray:
        """Find a buffer of exactly that size, or make one."""
        kept = self._kept.get(size, ())
        for index in range(len(kept)):
            if getrefcount(kept[index]) == _UNUSED:
                return kept[index]
        made = bytearray(size)
        if self._size + size > self._MOST:
            self._kept.clear()
            self._size = 0
        if size <= self._MOST:
            self._kept.setdefault(size, []).append(made)
            self._size += size
        return made


def _count_unused() -> int:
    kept = [bytearray(1)]
    return getrefcount(kept[0])


_UNUSED = _count_unused()
"""References that are counted for a buffer which only the pool holds."""


class FrameReader:
    """Cuts frames out of a byte stream that arrives in any pieces.

    The caller fills `room()` and reports how much with `received()`::

        n = sock.recv_into(reader.room())
        for frame in reader.received(n): ...
    """

    def __init__(self) -> None:
        self._view = memoryview(bytearray(_ROOM))
        self._filled = 0
        self._large: _LargeFrame | None = None
        self._pool = _Pool()

    def room(self) -> memoryview:
        """Where the next bytes of the stream belong. Never empty."""
        return self._large.room() if self._large else self._view[self._filled :]

    def received(self, count: int) -> list[Frame]:
        """Take note of `count` bytes written into `room()`; return the frames now complete."""
        if self._large is not None:
            self._large.advance(count)
            if not self._large.is_complete:
                return []
            frame, self._large = self._large.frame(), None
            return [frame]
        self._filled += count
        frames: list[Frame] = []
        start = 0
        while (end := self._take(start, frames)) is not None:
            start = end
        if start:
            rest = self._filled - start
            self._view[:rest] = bytes(self._view[start : self._filled])
            self._filled = rest
        return frames

    def _take(self, start: int, frames: list[Frame]) -> int | None:
        """Take one frame at `start`; return where it ends, or None if it is not whole."""
        view, filled = self._view, self._filled
        if filled - start < _HEADER.size:
            return None
        kind: int
        outcomes: int
        length: int
        buffer_count: int
        kind, buffer_count, outcomes, length = _HEADER.unpack_from(view, start)
        if buffer_count > MAX_BUFFERS or length > _MAX_LENGTH:
            message = f"a frame of kind {kind} claims {buffer_count} buffers and {length} bytes"
            raise ProtocolError(message)
        at = start + _HEADER.size + 8 * buffer_count
        if filled < at:
            return None
        sizes: tuple[int, ...] = ()
        if buffer_count:
            sizes = struct.unpack_from(f"<{buffer_count}Q", view, start + _HEADER.size)
        end: int = at + length + sum(sizes)
        if end > filled:
            if end - start > _MAX_LENGTH:
                message = f"a frame of kind {kind} claims {end - start} bytes"
                raise ProtocolError(message)
            if end - start > _ROOM:
                self._large = _large_frame(kind, outcomes, length, sizes, self._pool)
                self._large.copy_in(view[at:filled])
                return filled
            return None
        body = bytes(view[at : at + length])
        buffers: list[bytes | bytearray] = []
        at += length
        for size in sizes:
            buffers.append(bytearray(view[at : at + size]))
            at += size
        frames.append(Frame._make((kind, outcomes, body, buffers, 0)))
        return end


class _LargeFrame:
    """A frame under construction that does not fit into the reader's buffer."""

    def __init__(
        self, kind: int, outcomes: int, length: int, sizes: tuple[int, ...], pool: _Pool
    ) -> None:
        self._kind = kind
        self._outcomes = outcomes
        self._segments = [bytearray(length)]
        self._dropped = self._to_drop = 0
        self._sink = memoryview(b"")
        try:
            self._segments += [pool.take(size) for size in sizes]
        except MemoryError:
            self._dropped = self._to_drop = sum(sizes)
            self._sink = memoryview(bytearray(_ROOM))
        self._open = deque(memoryview(s) for s in self._segments if s)

    @property
    def is_complete(self) -> bool:
        return not self._open and not self._to_drop

    def room(self) -> memoryview:
        return self._open[0] if self._open else self._sink[: self._to_drop]

    def advance(self, count: int) -> None:
        if not self._open:
            self._to_drop -= count
            return
        rest = self._open[0][count:]
        if rest:
            self._open[0] = rest
        else:
            self._open.popleft()

    def copy_in(self, data: memoryview) -> None:
        while data:
            room = self.room()
            part = data[: len(room)]
            room[: len(part)] = part
            self.advance(len(part))
            data = data[len(part) :]

    def frame(self) -> Frame:
        body, *buffers = self._segments
        return Frame(self._kind, self._outcomes, body, list(buffers), self._dropped)


def _large_frame(
    kind: int, outcomes: int, length: int, sizes: tuple[int, ...], pool: _Pool
) -> _LargeFrame:
    try:
        return _LargeFrame(kind, outcomes, length, sizes, pool)
    except MemoryError:
        message = f"a frame of kind {kind} has a body of {length} bytes: there is no memory for it"
        raise ProtocolError(message) from None


class Outbox:
    """Segments that wait to be written to a stream that takes what it can."""

    def __init__(self) -> None:
        self._segments: deque[memoryview] = deque()

    def __bool__(self) -> bool:
        return bool(self._segments)

    def append(self, segments: list[bytes | memoryview]) -> None:
        """Queue the segments of one frame."""
        self._segments.extend(map(memoryview, segments))

    def views(self) -> list[memoryview]:
        """Return what to write next, in order, at most as much as one ``sendmsg`` may take."""
        return [self._segments[i] for i in range(min(len(self._segments), _IOV_LIMIT))]

    def sent(self, count: int) -> None:
        """Take note that the first `count` bytes are written."""
        while count:
            first = self._segments[0]
            if count < len(first):
                self._segments[0] = first[count:]
                return
            count -= len(first)
            self._segments.popleft()

    def clear(self) -> None:
        """Forget everything: the peer is gone."""
        self._segments.clear()
