"""Packets: what a conductor and an agent say to each other, so that nobody waits long for others.

An *entry* is a tuple of a verb and its arguments. What is said of one worker is a *lane*, by its
number; what an agent says of itself is lane 0. The entries of a lane arrive in the order in which
they were said, those of different lanes in any.

A *packet* is the pickle of a number and of *pieces*: lane, bytes, whether an entry ends there. It
holds no more of a lane than `PIECE`; so what is said of one worker is under way at once, however
large what was said of another is. Packets may arrive in any order: the number tells.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from okanjo_conductor._plain import Plain, fresh
from okanjo_conductor._wire import pickling

SELF = 0
"""The lane of what is no worker's. Workers are numbered from 1."""
PIECE = 1 << 20
"""Bytes of one lane in a packet, at most: 8 ms on a link of 1 Gbit/s."""


class _Lane(Plain):
    """What waits in one lane."""

    entries: deque[bytes] = fresh(factory=deque)
    sent: int = 0
    """Bytes of the first entry that are under way already."""
    size: int = 0
    """Bytes that wait."""


class Outbox:
    """What waits to be said. False where nothing does."""

    def __init__(self) -> None:
        self._lanes: dict[int, _Lane] = {}
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def put(self, lane: int, entry: tuple[Any, ...]) -> None:
        """Add an entry."""
        data = pickling.dumps(entry, 5)
        waiting = self._lanes.get(lane)
        if waiting is None:
            waiting = self._lanes[lane] = _Lane()
        waiting.entries.append(data)
        waiting.size += len(data)

    def size_of(self, lane: int) -> int:
        """Tell how many bytes wait in a lane."""
        waiting = self._lanes.get(lane)
        return 0 if waiting is None else waiting.size

    def clear(self) -> None:
        """Drop what waits: nobody needs it any more."""
        self._lanes.clear()

    def take(self) -> bytes:
        """Make a packet of the next pieces of all lanes."""
        pieces: list[tuple[int, bytes, bool]] = []
        for number, lane in tuple(self._lanes.items()):
            room = PIECE
            while room and lane.entries:
                entry, begin = lane.entries[0], lane.sent
                part = entry[begin : begin + room] if begin or len(entry) > room else entry
                is_end = begin + len(part) == len(entry)
                pieces.append((number, part, is_end))
                room -= len(part)
                lane.size -= len(part)
                lane.sent = 0 if is_end else begin + len(part)
                if is_end:
                    lane.entries.popleft()
            if not lane.entries:
                del self._lanes[number]
        packet = pickling.dumps((self._number, pieces), 5)
        self._number += 1
        return packet


class Inbox:
    """Makes entries of packets again."""

    def __init__(self) -> None:
        self._next = 0
        self._early: dict[int, list[tuple[int, bytes, bool]]] = {}
        self._begun: dict[int, list[bytes]] = {}
        """By lane, the pieces of an entry that has not ended."""

    def take(self, packet: bytes) -> list[tuple[Any, ...]]:
        """Return the entries that are whole, and due, now that this packet has come."""
        number, pieces = pickling.loads(packet)
        self._early[number] = pieces
        due: list[tuple[Any, ...]] = []
        while self._next in self._early:
            for piece in self._early.pop(self._next):
                due += self._join(*piece)
            self._next += 1
        return due

    def _join(self, lane: int, data: bytes, is_end: bool) -> list[tuple[Any, ...]]:  # noqa: FBT001 - as it travels
        begun = self._begun.pop(lane, None)
        if begun is not None:
            begun.append(data)
        if is_end:
            return [pickling.loads(data if begun is None else b"".join(begun))]
        self._begun[lane] = [data] if begun is None else begun
        return []
