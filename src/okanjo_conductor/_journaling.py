"""Journaling: what a run does for its journal.

It stands in two places. At the intake it asks the journal about every job: what is done already is
skipped, what is known comes with its past. Between the core and the user it has every record
committed before anybody sees it; the outcome logs of workers are files meanwhile, and are written
over only when what they hold is committed. So a conductor that is killed loses nothing that was
finished: the next one finds it in the journal or in a log.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from okanjo_conductor._core.outcomes import size_of
from okanjo_conductor._core.records import JobRetried, JobsDone
from okanjo_conductor._plain import Plain, fresh
from okanjo_conductor._types import JobState, WorkerId
from okanjo_conductor._wire.failures import said
from okanjo_conductor._wire.messages import Jobs
from okanjo_conductor.errors import DuplicateKeyError, MachineCrashError
from okanjo_conductor.journal._errors import translated
from okanjo_conductor.journal._handouts import Notes
from okanjo_conductor.journal._keys import text_of, texts_of
from okanjo_conductor.journal._writer import Intake, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from okanjo_conductor._core.records import Record
    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor._types import Attempt, Key, Report
    from okanjo_conductor._wire.messages import LargeJob
    from okanjo_conductor.clusters._base import Link
    from okanjo_conductor.errors import ConductorError
    from okanjo_conductor.journal._store import Standing, Store

MOST_SUSPICIONS = 3
"""A job that was being executed when the machine went down so often is not executed again."""
_MOST_WAITING = 20_000
"""Records' outcomes that may wait to be committed before no further job is read."""
_FINAL = frozenset({JobState.DONE, JobState.FAILED, JobState.QUARANTINED})
"""States of jobs that a resumed run does not execute unless it is asked to."""


class JournalPlan(Plain):
    """A journal that is open, and what is to be done with it."""

    store: Store
    sinks: list[Any]
    duplicates: str
    """``"error"``, ``"skip"`` or ``"number"``."""
    reruns: Callable[[Standing], bool]
    """Whether a job that has its outcome from an earlier run is executed again."""
    recovered: int = 0
    """Outcomes found in the logs of dead workers."""


class Admission(Plain):
    """Which of some jobs are to be executed: the same columns, without those that are not."""

    payloads: list[Any]
    keys: list[Key]
    limits: list[float | None] | None
    histories: dict[int, tuple[Attempt, ...]] = fresh(factory=dict)
    """By index, attempts of earlier runs."""
    loners: set[int] = fresh(factory=set)
    """Indices of jobs that are to be executed alone."""
    condemned: list[tuple[Key, Any, Exception]] = fresh(factory=list)
    """Key and payload of jobs that are not to be executed ever again, and why."""


class Journaling:
    """The journal's part in one run.

    Args:
        oldest_held: finds the first ordinal of a worker that has not ended, or None.
        skip: counts jobs that are not executed.
        unread: counts the jobs that are still to be admitted; None: only the source knows.
        deliver: tells users of records that are committed.
        pause: told whether there is more to commit than there should be.
        fail: told when nothing can be committed any more.
    """

    def __init__(
        self,
        plan: JournalPlan,
        loop: Loop,
        links: dict[int, Link],
        *,
        oldest_held: Callable[[WorkerId], int | None],
        skip: Callable[[int], None],
        unread: Callable[[], int | None],
        deliver: Callable[[list[Record]], None],
        pause: Callable[[bool], None],
        fail: Callable[[ConductorError], None],
    ) -> None:
        self._plan = plan
        self._store = plan.store
        self._links = links
        self._oldest_held = oldest_held
        self._count_skipped = skip
        self._unread = unread
        self._deliver = deliver
        self._pause = pause
        self._fail = fail
        self._writer = Writer(
            plan.store,
            loop,
            plan.sinks,
            on_commit=self._on_commit,
            on_met=self._on_met,
            on_error=self._on_error,
        )
        self._open: set[str] = set()
        """Keys of this run of which the store does not know yet that they were met."""
        self._numbers: dict[str, int] = {}
        """By key that was met more than once, how often."""
        self._total = 0
        """How many jobs the source has given."""
        self._skipped = 0
        """Those of them that are not executed."""
        self._written = 0
        """How many lists of records were passed to the writer."""
        self._committed = 0
        self._waiting = 0
        """Outcomes in them that are not committed."""
        self._is_pausing = False
        self._touched: set[int] = set()
        """Workers whose outcomes were read since the last `mark`."""
        self._large: list[int] = []
        """Workers whose large outcomes came since then, once for each of them."""
        self._gone: list[int] = []
        """Workers that have ended since then."""
        self._marks: deque[tuple[int, Callable[[], None]]] = deque()
        """What may be done when so many lists are committed."""
        self._notes: dict[int, Notes] = {}
        self.error: ConductorError | None = None

    # At the intake

    def admit(
        self, payloads: list[Any], keys: Sequence[Key], limits: Sequence[float | None] | None
    ) -> Admission:
        """Find out which of these jobs are to be executed.

        Raises:
            DuplicateKeyError: two jobs have the same key, and duplicates are errors.
            JournalError: a key is none that a journal can hold, or it cannot be read.
        """
        texts = texts_of(keys, is_strict=True)
        self._total += len(texts)
        known = self._store.standing(texts)
        are_new = len(set(texts)) == len(texts) and self._open.isdisjoint(texts)
        if are_new and not known:
            self._open.update(texts)
            self._note_intake()
            return Admission(payloads, list(keys), None if limits is None else list(limits))
        made = Admission([], [], None if limits is None else [])
        met: list[str] = []
        for index, (key, text) in enumerate(zip(keys, texts, strict=True)):
            limit = None if limits is None else limits[index]
            self._judge(made, met, payloads[index], key, text, limit, known.get(text))
        if met:
            self._writer.meet(met)
        self._note_intake()
        return made

    def _note_intake(self) -> None:
        unread = self._unread()
        expected = None if unread is None else self._total + unread
        self._writer.note_intake(Intake(self._total, self._skipped, expected))

    def _skip(self) -> None:
        self._skipped += 1
        self._count_skipped(1)

    def _judge(
        self,
        made: Admission,
        met: list[str],
        payload: Any,
        key: Key,
        text: str,
        limit: float | None,
        standing: Standing | None,
    ) -> None:
        """Add a job to those that are to be executed, or to those that are not."""
        if self._was_met(text, standing):
            if self._plan.duplicates == "error":
                raise DuplicateKeyError(key)
            if self._plan.duplicates == "skip":
                self._skip()
                return
            key, text, standing = self._numbered(key, text)
        self._open.add(text)
        if standing is not None and standing.state in _FINAL and not self._plan.reruns(standing):
            self._skip()
            met.append(text)
            return
        if standing is not None and standing.suspicion >= MOST_SUSPICIONS:
            made.condemned.append((key, payload, MachineCrashError(standing.suspicion)))
            return
        if standing is not None:
            index = len(made.keys)
            if standing.state is None and standing.history:
                made.histories[index] = standing.history
            if standing.suspicion:
                made.loners.add(index)
        made.payloads.append(payload)
        made.keys.append(key)
        if made.limits is not None:
            made.limits.append(limit)

    def _was_met(self, text: str, standing: Standing | None) -> bool:
        """Whether this run has had a job of that key."""
        return text in self._open or (standing is not None and standing.run == self._store.run)

    def _numbered(self, key: Key, text: str) -> tuple[Key, str, Standing | None]:
        """Find the next key for a job whose own is taken."""
        while True:
            number = self._numbers[text] = self._numbers.get(text, 1) + 1
            numbered = f"{key}#{number}"
            its_text = text_of(numbered)
            standing = self._store.standing([its_text]).get(its_text)
            if not self._was_met(its_text, standing):
                return numbered, its_text, standing

    def _on_met(self, texts: list[str]) -> None:
        self._open.difference_update(texts)

    # Workers

    def page_path(self, worker_id: int) -> str:
        """Where a worker's cells and outcome log are kept."""
        return str(self._store.live / f"{worker_id}.page")

    def note_hand_out(self, worker_id: int, message: Jobs | LargeJob) -> None:
        """Write down which jobs a worker is about to be sent."""
        if isinstance(message, Jobs):
            first, count, keys = message.first, len(message.wires), message.keys
        else:
            first, count, keys = message.ordinal, 1, message.key
        try:
            notes = self._notes.get(worker_id)
            if notes is None:
                notes = self._notes[worker_id] = Notes(self._store.live, worker_id)
            notes.write(first, first + count - 1, keys)
            remove = notes.turn(self._oldest_held(WorkerId(worker_id)))
        except OSError as error:
            self._on_error(translated(error, self._store.path, "writing down what is handed out"))
            return
        if remove is not None:
            self._when_committed(remove)

    def note_outcomes(self, worker_id: int) -> None:
        """Take note that outcomes of a worker were read from its log."""
        self._touched.add(worker_id)

    def note_large_outcome(self, worker_id: int) -> None:
        """Take note that a worker has sent an outcome, and waits until it is committed."""
        self._large.append(worker_id)

    def note_exit(self, worker_id: int) -> None:
        """Take note that a worker is gone, and its last outcomes were read."""
        self._gone.append(worker_id)

    # Records

    @property
    def is_at_work(self) -> bool:
        """Whether there are records of which nobody was told."""
        return self._waiting > 0

    def write(self, records: list[Record]) -> None:
        """Have records committed, and then delivered."""
        if self.error is not None:
            return  # nobody may see them; those that lie in a log are found there next time
        self._written += 1
        self._waiting += sum(map(_outcomes_in, records))
        self._note_intake()  # by now the source may have ended
        self._writer.write(records)
        if self._waiting > _MOST_WAITING and not self._is_pausing:
            self._is_pausing = True
            self._pause(True)

    def mark(self, *, is_idle: bool) -> None:
        """Take note that everything that was read by now is written.

        Args:
            is_idle: whether no worker has a job: what comes next may depend on what is not told.
        """
        if is_idle and self._waiting:
            self._writer.hurry()
        for worker_id in self._touched:
            link = self._links.get(worker_id)
            position = None if link is None else link.settled
            if link is not None and position is not None:
                self._when_committed(partial(link.free, position))
                if link.is_filling:
                    self._writer.hurry()
        self._touched.clear()
        for worker_id in self._large:
            if link := self._links.get(worker_id):
                self._when_committed(link.note_kept)
                self._writer.hurry()
        self._large.clear()
        for worker_id in self._gone:
            self._when_committed(partial(self.remove_files_of, worker_id))
        self._gone.clear()

    def _when_committed(self, action: Callable[[], None]) -> None:
        if self.error is None:
            self._marks.append((self._written, action))
            self._act()

    def _act(self) -> None:
        while self._marks and self._marks[0][0] <= self._committed:
            self._marks.popleft()[1]()

    def _on_commit(self, lists: list[list[Record]]) -> None:
        self._committed += len(lists)
        for records in lists:
            self._waiting -= sum(map(_outcomes_in, records))
            for record in records:
                if isinstance(record, JobsDone):
                    self._open.difference_update(texts_of(record.jobs.keys))
                elif not isinstance(record, JobRetried):
                    self._open.discard(text_of(record.job.key))
            self._deliver(records)
        self._act()
        if self._is_pausing and self._waiting <= _MOST_WAITING // 2:
            self._is_pausing = False
            self._pause(False)

    def _on_error(self, error: ConductorError) -> None:
        self.error = error
        self._marks.clear()
        self._waiting = 0
        self._fail(error)

    def remove_files_of(self, worker_id: int) -> None:
        """Remove what was kept of a worker in case this process dies."""
        notes = self._notes.pop(worker_id, None)
        if notes is not None:
            notes.remove()
        with suppress(FileNotFoundError):
            os.unlink(self.page_path(worker_id))  # noqa: PTH108 - as everywhere in the path of a run

    def conclude(self, report: Report, broken: BaseException | None) -> None:
        """Write down how the run went, and let go of the journal.

        Args:
            broken: why the run could not do its own work; what it knew of outcomes is left for the
                next one to find.

        Raises:
            JournalError: that cannot be written down.
        """
        report.recovered = self._plan.recovered
        try:
            if broken is not None:
                self._store.break_off(said(broken))
                return
            is_over = not (report.stopped or report.unstarted)
            self._store.end("done" if is_over else "stopped", report.as_dict())
        finally:
            self._store.close()

    def close(self, then: Callable[[], None]) -> None:
        """Commit what there is, and call `then`: nothing more is delivered after that."""
        self.mark(is_idle=True)

        def conclude() -> None:
            for notes in self._notes.values():
                notes.close()
            then()

        self._writer.close(conclude)


def _outcomes_in(record: Record) -> int:
    return 0 if isinstance(record, JobRetried) else size_of(record)
