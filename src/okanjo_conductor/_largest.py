"""The largest of very many: a list of fixed length that costs a comparison to keep."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from okanjo_conductor._types import Key

_LENGTH = 10
WORTH_WEIGHING = 1024
"""Bytes: smaller payloads and values are no big ones, however small the others are."""


class Largest:
    """Keeps the jobs with the largest figures: bytes, or nanoseconds.

    Args:
        floor: what is not larger is not worth keeping. Ask `floor` before `note`.
    """

    def __init__(self, floor: int = 0) -> None:
        self.floor = floor
        self._heap: list[tuple[int, int, Key]] = []

    def note(self, figure: int, number: int, key: Key) -> None:
        """Keep a job's figure if it is among the largest.

        Args:
            number: unique among the jobs; the key need not be, nor can every key be compared.
        """
        if figure <= self.floor:
            return
        if len(self._heap) < _LENGTH:
            heapq.heappush(self._heap, (figure, number, key))
        else:
            heapq.heapreplace(self._heap, (figure, number, key))
        if len(self._heap) == _LENGTH:
            self.floor = self._heap[0][0]

    def listed(self) -> list[tuple[int, Key]]:
        """Return figures and keys, largest first."""
        return [(figure, key) for figure, _, key in sorted(self._heap, reverse=True)]
