"""The hatch: where a worker asks one small question, and is answered before it could fall asleep.

A round trip over the job link takes two system calls and a wake-up on either side, which is several
times what question and answer take. So there is a place for both in the memory that a worker shares
with its conductor. While questions follow each other closely, the conductor *attends*: it looks
there again and again, and leaves the CPU to whoever wants it in between, as does who waits.

    worker                                conductor
    writes the question; ASKED = n
                                          finds n; writes the answer; ANSWERED = n
    finds n; reads the answer

Neither writes but when it is its turn, so nothing is read that is half written. A worker that gets
no answer soon asks over the job link instead, and leaves the hatch alone until ANSWERED says that
the conductor is done with the old question. So nobody relies on being attended to, and a question
must be one that may be answered twice.

**Order.** With the question come the numbers of messages and of outcomes that the worker has said
before it, and with the answer the number of messages that it must have heard before it. Either side
reads the job link up to there first. So what goes through the hatch overtakes nothing.
"""

from __future__ import annotations

import marshal
import os
import threading
from time import perf_counter

from okanjo_conductor._io import cells
from okanjo_conductor._io.cells import ANSWERED, ASKED, ATTENDED, HATCH
from okanjo_conductor._io.outcome_log import NEEDS_FENCE, fence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, TypeAlias

    Question: TypeAlias = tuple[int, int, str, Any]
    """Messages and outcomes said before it, the name of a lookup, and a key."""

    class Link(Protocol):
        """The conductor's end of the link beside the hatch."""

        sent: int
        """How many messages were sent, or are to be."""

        def catch_up(self, messages: int, outcomes: int) -> bool:
            """Pass on what the worker had said when it had said so much; return whether it is."""
            ...

        def send_news(self) -> None:
            """Send what the worker must be told before it is told anything else."""


_PATIENCE = 0.0002
"""Seconds that a worker waits at the hatch. An attentive conductor takes a twentieth of it, unless
it has to share its CPU."""
give_way = getattr(os, "sched_yield", None)
"""Lets other processes go first. None: the platform cannot, and nobody waits at a hatch."""


class Asker:
    """The worker's side. Each of its threads may ask; while one does, others are not answered."""

    def __init__(self, page: memoryview[int]) -> None:
        self._page = page
        self._place = cells.hatch_of(page)
        self._asking = threading.Lock()
        self._number = 0
        """Of the last question."""
        if self._place is not None and give_way is not None:
            page[HATCH] = 1

    def ask(self, question: Question) -> Any:
        """Ask, and wait for the answer; None if there is none soon.

        The question must be plain data; an answer is never None.
        """
        page, place = self._page, self._place
        if place is None or not page[ATTENDED] or page[ANSWERED] != self._number:
            return None
        if not self._asking.acquire(blocking=False):
            return None
        try:
            data = marshal.dumps(question)
            if len(data) > len(place):
                return None
            place[: len(data)] = data
            if NEEDS_FENCE:
                fence()
            self._number = number = self._number + 1
            page[ASKED] = number
            return marshal.loads(place) if self._is_answered(number) else None
        finally:
            self._asking.release()

    def _is_answered(self, number: int) -> bool:
        page, until = self._page, perf_counter() + _PATIENCE
        while page[ANSWERED] != number:
            give_way()  # type: ignore[misc]  # there is no hatch without it
            if not page[ATTENDED] or perf_counter() > until:
                return page[ANSWERED] == number
        if NEEDS_FENCE:
            fence()
        return True

    def close(self) -> None:
        """Ask no more: the worker has ended, or this is a process that a job has forked."""
        place, self._place = self._place, None
        if place is not None:
            place.release()


class Answerer:
    """The conductor's side.

    Args:
        link: what question and answer must not overtake.
    """

    def __init__(self, page: memoryview[int], link: Link) -> None:
        self._page = page
        self._place = cells.hatch_of(page)
        self._link = link
        self._answered = 0
        """The last question that was answered."""

    @property
    def is_used(self) -> bool:
        """Whether the worker would ask here."""
        return bool(self._page[HATCH])

    def attend(self, *, is_attentive: bool) -> None:
        """Let the worker ask here from now on, or no longer. It may have just done so."""
        if self._place is not None:
            self._page[ATTENDED] = is_attentive

    @property
    def is_asked(self) -> bool:
        """Whether there is a question without an answer."""
        return self._page[ASKED] != self._answered

    def question(self) -> tuple[str, Any] | None:
        """Return the question, a lookup's name and a key, once all that was said before is heard.

        None: that is not so yet, or never will be.
        """
        if NEEDS_FENCE:
            fence()
        question: Question = marshal.loads(self._place)  # type: ignore[arg-type]  # it has asked
        messages, outcomes, name, key = question
        return (name, key) if self._link.catch_up(messages, outcomes) else None

    def answer(self, answer: Any, otherwise: Any) -> None:
        """Answer the question.

        Args:
            answer: plain data.
            otherwise: a short answer, if the other one is too long.
        """
        place, link = self._place, self._link
        assert place is not None  # noqa: S101 - it has asked
        link.send_news()
        data = marshal.dumps((link.sent, answer))
        if len(data) > len(place):
            data = marshal.dumps((link.sent, otherwise))
        place[: len(data)] = data
        if NEEDS_FENCE:
            fence()
        self._answered = self._page[ASKED]
        self._page[ANSWERED] = self._answered

    def close(self) -> None:
        """Let go of the memory."""
        place, self._place = self._place, None
        if place is not None:
            place.release()
