"""Attending to workers that look up one entry after another; see `_io.hatch`.

It begins when such questions come thick and fast over the job links, and ends when none has come
for a moment: who asks now and then is answered over the job link, and costs nobody a CPU. The loop
has its turns meanwhile, so jobs, messages and timers wait for a part of a millisecond at most.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from okanjo_conductor._io.hatch import give_way
from okanjo_conductor._wire.messages import UNSEEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._io.hatch import Answerer
    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor.clusters._base import Link

_DENSE = 0.00015
"""Seconds between two questions, on average, below which the next one is worth waiting for. One
worker that does nothing else asks every 100 µs over its job link."""
_WEIGHT = 0.25
"""Of the last gap in that average: ten questions of that kind begin it, a single pair does not."""
_QUIET = 0.0001
"""Seconds without a question after which no other is waited for: some ten times what one takes."""
_STINT = 0.0005
"""Seconds until the loop has its turn."""


class Attention:
    """Looks at the hatches of workers that ask a lot, and answers.

    Args:
        look: finds an entry: ``(value,)`` of plain data, None where there is none, or `UNSEEN`.
    """

    def __init__(
        self, loop: Loop, links: dict[int, Link], look: Callable[[str, Any], tuple[Any, ...] | None]
    ) -> None:
        self._loop = loop
        self._links = links
        self._look = look
        self._attended: dict[int, Answerer] = {}
        """By worker, the hatches that are looked at."""
        self._asked_at = 0.0
        """When the last question came, whatever way it took."""
        self._gap = 10 * _DENSE
        """The average time from one question to the next that came over a job link."""

    def note(self, worker_id: int) -> None:
        """Take note that a worker has asked for one entry over its job link."""
        now = monotonic()
        gap, self._asked_at = min(now - self._asked_at, 10 * _DENSE), now
        self._gap += _WEIGHT * (gap - self._gap)
        if self._gap > _DENSE or worker_id in self._attended:
            return
        hatch = self._links[worker_id].hatch
        if hatch is None or not hatch.is_used:
            return
        if not self._attended:
            self._loop.call_soon(self._attend)
        self._attended[worker_id] = hatch
        hatch.attend(is_attentive=True)

    def forget(self, worker_id: int) -> None:
        """Let go of a worker that is gone."""
        self._attended.pop(worker_id, None)

    def close(self) -> None:
        """Attend to nobody any more."""
        for hatch in self._attended.values():
            hatch.attend(is_attentive=False)
        self._attended.clear()

    def _attend(self) -> None:
        """Answer for a while, and again after the loop's turn; or stop if it is quiet."""
        now = monotonic()
        until = now + _STINT
        while self._attended and now < until:
            if self._answer_all():
                self._asked_at = monotonic()
            elif now - self._asked_at > _QUIET:
                self.close()
                return
            give_way()  # type: ignore[misc]  # who cannot has no hatch
            now = monotonic()
        if self._attended:
            self._loop.call_soon(self._attend)

    def _answer_all(self) -> bool:
        """Answer who has asked; return whether anybody has."""
        count = 0
        for hatch in tuple(self._attended.values()):
            if hatch.is_asked:
                count += self._answer(hatch)
        return count > 0

    def _answer(self, hatch: Answerer) -> bool:
        question = hatch.question()
        if question is None:
            return False
        hatch.answer(self._look(*question), otherwise=UNSEEN)
        return True
