"""The writer: a thread that commits what has become of jobs, many together, and says so.

    run's thread            this thread                               run's thread
    write(records)  ──►  BEGIN · rows · sinks · COMMIT  ──►  on_commit(records)

It takes all there is, so the busier the run, the more goes into one commit; after an idle time it
commits at once. A commit costs 0.3 ms of a CPU however little is in it: so while outcomes come in
some number, and nobody is held up, one waits for more of them. What `on_commit` is given is what
was committed: a value that the journal cannot keep has become a failure of its job by then.

Rows are inserted many by one statement. The interpreter lets other threads run whenever SQLite
works, and takes 5 ms to come back to this one while the run computes: with a statement for each
row, that would be 200 rows a second.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import deque
from contextlib import suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from okanjo_conductor._core.records import JobFailed, JobRetried, JobsDone
from okanjo_conductor._io.loops import call_soon
from okanjo_conductor._plain import Frozen
from okanjo_conductor._types import Attempt, Cause, JobState
from okanjo_conductor.errors import SerialisationError
from okanjo_conductor.journal._errors import told, translated
from okanjo_conductor.journal._feeding import Feeding
from okanjo_conductor.journal._keys import safe_text_of, texts_of
from okanjo_conductor.journal._syncing import PERIOD, Syncing
from okanjo_conductor.journal._values import json_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from okanjo_conductor._core.jobs import Job
    from okanjo_conductor._core.records import Record
    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor.errors import ConductorError
    from okanjo_conductor.journal._store import Store
    from okanjo_conductor.journal._values import Stored, Values
    from okanjo_conductor.sinks import Sink

_SOON = 0.01
"""Seconds from the end of a commit to the next one at least, while there is more to commit all the
time."""
_LATER = 0.05
"""The same where it is worth while to wait: with a commit every 10 ms, jobs of 1 ms paid 3 % of
their time for it, now 1 %."""
_FEW, _MANY = 4, 500
"""Outcomes for which waiting is worth while. Fewer may be all that somebody has asked for, who will
go on when he has them; of more, each costs no less than in a small commit."""
_DONE_COLUMNS = "key, kind, value, attempts, worker_id, slot, nanoseconds, finished_at"
_WIDTH = 8
_CHUNKS = (256, 32, 4, 1)
"""Rows of one statement. A few sizes, so that SQLite need not compile each anew."""


def _insert_done(rows: int) -> str:
    places = ",".join(["(?,?,?,?,?,?,?,?)"] * rows)
    columns = ",".join(f"column{number}" for number in range(1, _WIDTH + 1))
    return (
        f"INSERT OR REPLACE INTO jobs(run, state, {_DONE_COLUMNS}) "  # noqa: S608 - our own names
        f"SELECT ?, 'done', {columns} FROM (VALUES {places})"
    )


_INSERT_DONE = {rows: _insert_done(rows) for rows in _CHUNKS}
_INSERT_FAILED = """
INSERT OR REPLACE INTO jobs(
    run, key, state, attempts, worker_id, slot, nanoseconds, finished_at, cause, error_type, error,
    traceback, exception, place, payload_kind, payload
) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_ATTEMPT = """
INSERT OR REPLACE INTO attempts(
    key, number, run, worker_id, ordinal, cause, seconds, error_type, error, traceback, exception
) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class Writer:
    """Commits records, and tells.

    Made, and called, in the thread of the run; all callbacks come there as well, in order.

    Args:
        store: the journal; its run has begun.
        loop: where callbacks go.
        sinks: what is given the outcomes too, in the same transactions.
        on_commit: called with batches of records as `write` was given them, once they are
        committed. on_error: called once, with why nothing can be committed any more. on_met: called
        with keys that `meet` was given, once that is committed.

    Raises:
        SinkError: a sink cannot be opened.
        JournalError: the journal cannot be.
    """

    def __init__(
        self,
        store: Store,
        loop: Loop,
        sinks: Sequence[Sink],
        *,
        on_commit: Callable[[list[list[Record]]], None],
        on_error: Callable[[ConductorError], None],
        on_met: Callable[[list[str]], None] | None = None,
    ) -> None:
        self._loop = loop
        self._on_commit = on_commit
        self._on_error = on_error
        self._on_met = on_met
        self._path = store.path
        self._connection = store.connect()
        try:
            self._feeding = Feeding(store, self._connection, sinks)
        except BaseException:
            self._connection.close()
            raise
        self._rows = Rows(self._connection, store)
        self._syncing = Syncing(store.live)
        self._changed = threading.Condition()
        self._work = Work()
        self._is_idle = False
        """The thread waits for work."""
        self._is_hurried = False
        """Somebody waits for the next commit."""
        self._is_closing = False
        self._error: ConductorError | None = None
        self.backlog = 0
        """How many records were given to `write` and are not committed."""
        self._thread = threading.Thread(
            target=self._run, name="okanjo-conductor-journal", daemon=True
        )
        self._thread.start()

    def write(self, records: list[Record]) -> None:
        """Have these committed."""
        with self._changed:
            self.backlog += len(records)
            work = self._work
            work.batches.append((time.time(), records))
            were_many, work.rows = work.has_many, work.rows + sum(map(_rows_of, records))
            self._wake(waits=work.has_many and not were_many)

    def hurry(self) -> None:
        """Commit at once: a worker is held up until then, or will be soon."""
        with self._changed:
            self._is_hurried = True
            self._changed.notify()

    def meet(self, keys: list[str]) -> None:
        """Note that this run's source has given jobs that have their outcome from an earlier run.

        Args:
            keys: texts of keys.
        """
        with self._changed:
            self._work.met.append(keys)
            self._wake()

    def suspect(self, key: str, times: int) -> None:
        """Note how many times the whole machine went down while a job was executing."""
        with self._changed:
            self._work.suspects.append((key, times))
            self._wake()

    def _wake(self, *, waits: bool = False) -> None:
        """Wake the thread if it waits for work; until its next turn, it is better left asleep.

        Args:
            waits: whether that turn should come earlier than it would.
        """
        if self._is_idle or waits:
            self._is_idle = False
            self._changed.notify()

    def note_intake(self, intake: Intake) -> None:
        """Have it noted, at the next commit or in idle time, what is known of the source."""
        with self._changed:
            self._work.intake = intake

    def flush(self, then: Callable[[], Any]) -> None:
        """Call a function when everything that was given before is committed, or cannot be."""
        with self._changed:  # a Condition's lock can be taken again by who holds it
            self._work.then.append(then)
            self.hurry()

    def close(self, then: Callable[[], Any]) -> None:
        """Commit what there is, close the sinks, and call a function when that is done."""
        with self._changed:
            self._is_closing = True
            self.flush(then)

    # In the thread

    def _run(self) -> None:
        self._attempt(self._feeding.catch_up)
        last = -_LATER
        is_over = False
        while not is_over:
            work, is_over = self._next(last)
            self._syncing.sync_if_due()
            if self._error is None and (work.is_due or work.intake):
                self._attempt(lambda work=work: self._commit(work))  # type: ignore[misc]
            if is_over:
                self._finish()
            for then in work.then:
                call_soon(self._loop, then)
            if work.is_due:
                last = time.monotonic()

    def _next(self, last: float) -> tuple[Work, bool]:
        """Wait for work, not for ever; return all there is, and whether it is the last.

        Args:
            last: when the last commit ended.
        """
        with self._changed:
            if not self._work.is_due:
                self._is_idle = True
                self._changed.wait(PERIOD)
                self._is_idle = False
            if not (self._work.is_due or self._work.intake):
                return Work(), False
            while not self._is_hurried and (rest := last + self._work.pause - time.monotonic()) > 0:
                self._changed.wait(rest)
            work, self._work = self._work, Work()
            self._is_hurried = False
            return work, self._is_closing

    def _attempt(self, step: Callable[[], None]) -> None:
        from okanjo_conductor.errors import SinkError

        try:
            step()
        except BaseException as error:  # nothing must end this thread without a word
            known = error if isinstance(error, SinkError) else None
            self._error = known or translated(error, self._path, "committing to it")
            self._feeding.rewind()
            call_soon(self._loop, self._on_error, self._error)

    def _commit(self, work: Work) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            batches = [self._rows.add(batch, when) for when, batch in work.batches]
            self._rows.finish(work)
            self._feeding.give(chain.from_iterable(batches))
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite may have done it by itself
                connection.execute("ROLLBACK")
            raise
        self._feeding.note_committed()
        with self._changed:
            self.backlog -= sum(len(batch) for _, batch in work.batches)
        if batches:
            call_soon(self._loop, self._on_commit, batches)
        if work.met and self._on_met is not None:
            call_soon(self._loop, self._on_met, list(chain.from_iterable(work.met)))

    def _finish(self) -> None:
        if self._error is None:
            self._attempt(self._feeding.close)
        with suppress(sqlite3.Error):
            self._connection.close()


class Intake(Frozen):
    """What is known of the source of jobs."""

    total: int
    """Jobs that it has given so far."""
    skipped: int
    """Those of them that are not executed, because they have been."""
    expected: int | None
    """Jobs that it will have given at its end; None: only the source knows."""


class Work:
    """What is to be committed next."""

    __slots__ = ("batches", "intake", "met", "rows", "suspects", "then")

    def __init__(self) -> None:
        self.batches: list[tuple[float, list[Record]]] = []
        """Records with the time at which they came."""
        self.rows = 0
        """How many jobs they are of."""
        self.met: list[list[str]] = []
        self.suspects: list[tuple[str, int]] = []
        self.intake: Intake | None = None
        self.then: list[Callable[[], Any]] = []
        """To be called after that."""

    @property
    def is_due(self) -> bool:
        """Whether there is something that should not wait."""
        return bool(self.batches or self.met or self.suspects or self.then)

    @property
    def has_many(self) -> bool:
        """Whether there is so much that more would not make it cheaper."""
        return self.rows >= _MANY

    @property
    def pause(self) -> float:
        """Seconds that should have passed since the last commit."""
        return _SOON if self.has_many or self.rows <= _FEW else _LATER


class Rows:
    """Puts records into the tables, within a transaction.

    Args:
        connection: in which the transaction is.
        store: the journal.
        run: the run that they are noted under; None: the store's.
    """

    def __init__(
        self, connection: sqlite3.Connection, store: Store, run: int | None = None
    ) -> None:
        self._connection = connection
        self._values = store.values
        self._run = store.run if run is None else run
        self._done: deque[list[Any]] = deque()
        """Rows of done jobs that are not inserted yet, as the columns of `_DONE_COLUMNS`."""
        (self._has_suspects,) = connection.execute(
            "SELECT EXISTS(SELECT 1 FROM suspects)"
        ).fetchone()

    def add(self, records: list[Record], when: float) -> list[Record]:
        """Add records; return what they have become: a value may be refused."""
        added: list[Record] = []
        for record in records:
            if isinstance(record, JobsDone):
                added.extend(self._add_done(record, when))
            elif isinstance(record, JobFailed):
                self._add_failed(record, when)
                added.append(record)
            else:
                self._add_retried(record)
                added.append(record)
        return added

    def finish(self, work: Work | None = None) -> None:
        """Insert what is still to be, before the transaction ends."""
        self._insert_done()
        if work is not None:
            self._add_notes(work)

    # Jobs with values

    def _add_done(self, record: JobsDone, when: float) -> Iterator[Record]:
        kinds, stored, refused = _encoded(record.values, self._values)
        if refused:
            yield from self._add_partly(record, refused, when)
            return
        attempts: list[int] | repeat[int] = repeat(1)
        keys = texts_of(record.jobs.keys)
        if record.histories:
            attempts = [len(record.histories.get(i, ())) + 1 for i in record.jobs.ids]
            self._add_histories(record, keys)
        if self._has_suspects:
            self._connection.executemany("DELETE FROM suspects WHERE key = ?", zip(keys))
        columns = (keys, kinds, stored, attempts, repeat(record.worker_id), repeat(record.slot))
        self._done.append(
            list(chain.from_iterable(zip(*columns, record.nanoseconds, repeat(when), strict=False)))
        )
        yield record

    def _add_partly(
        self, record: JobsDone, refused: dict[int, SerialisationError], when: float
    ) -> Iterator[Record]:
        """Add what can be kept as done, and the others as failed."""
        for part in split(record, refused):
            if isinstance(part, JobsDone):
                yield from self._add_done(part, when)
            else:
                self._add_failed(part, when)
                yield part

    def _add_histories(self, record: JobsDone, keys: Sequence[str]) -> None:
        places = {job_id: index for index, job_id in enumerate(record.jobs.ids)}
        for job_id, history in record.histories.items():
            self._replace_history(keys[places[job_id]], history)

    def _insert_done(self) -> None:
        flat = list(chain.from_iterable(self._done))
        self._done.clear()
        begin = 0
        for rows in _CHUNKS:
            size = rows * _WIDTH
            while len(flat) - begin >= size:
                given = [self._run, *flat[begin : begin + size]]
                self._connection.execute(_INSERT_DONE[rows], given)
                begin += size

    # Jobs without

    def _add_failed(self, record: JobFailed, when: float) -> None:
        self._insert_done()  # outcomes are numbered in their order
        key = safe_text_of(record.job.key)
        last = record.history[-1] if record.history else None
        seconds = last.seconds if last else None
        error = told(record.error)
        payload_kind, payload = self._payload_of(record.job)
        self._connection.execute(
            _INSERT_FAILED,
            (
                self._run,
                key,
                record.state.value,
                len(record.history),
                record.worker_id,
                record.slot,
                None if seconds is None else round(seconds * 1e9),
                when,
                record.cause.value,
                error.error_type,
                error.error,
                error.traceback,
                error.exception,
                record.place,
                payload_kind,
                payload,
            ),
        )
        self._replace_history(key, record.history)
        if self._has_suspects:  # who asks for another execution will have it: alone, once
            self._connection.execute("UPDATE suspects SET times = 1 WHERE key = ?", (key,))

    def _payload_of(self, job: Job) -> tuple[str | None, Stored]:
        """Keep the payload, as it was when the job was accepted."""
        if job.wire is UNKNOWN:
            return "unknown", None
        if type(job.wire) is bytes and json_of(job.payload) is None:
            return "pickle", job.wire
        try:
            return self._values.encode(job.payload)
        except SerialisationError:
            return "lost", None

    def _replace_history(self, key: str, history: Sequence[Attempt]) -> None:
        self._connection.execute("DELETE FROM attempts WHERE key = ?", (key,))
        for attempt in history:
            self._insert_attempt(key, attempt, None)

    def _add_retried(self, record: JobRetried) -> None:
        key, attempt = safe_text_of(record.job.key), record.attempt
        self._connection.execute(
            "DELETE FROM attempts WHERE key = ? AND number >= ?", (key, attempt.number)
        )
        self._insert_attempt(key, attempt, getattr(record, "ordinal", None))

    def _insert_attempt(self, key: str, attempt: Attempt, ordinal: int | None) -> None:
        error = told(attempt.error)
        self._connection.execute(
            _INSERT_ATTEMPT,
            (
                key,
                attempt.number,
                self._run,
                attempt.worker_id,
                ordinal,
                attempt.cause.value,
                attempt.seconds,
                error.error_type,
                error.error,
                error.traceback,
                error.exception,
            ),
        )

    # Notes

    def _add_notes(self, work: Work) -> None:
        for keys in work.met:
            self._connection.execute(
                "INSERT OR IGNORE INTO met SELECT seq FROM jobs "
                "WHERE key IN (SELECT value FROM json_each(?))",
                (json.dumps(keys),),
            )
        for key, times in work.suspects:
            self.suspect(key, times)
        if work.intake is not None:
            self._connection.execute(
                "UPDATE runs SET total = ?, skipped = ?, expected = ? WHERE id = ?",
                (work.intake.total, work.intake.skipped, work.intake.expected, self._run),
            )

    def suspect(self, key: str, times: int) -> None:
        """Note a suspect of this run."""
        self._connection.execute(
            "INSERT OR REPLACE INTO suspects VALUES(?, ?, ?)", (key, times, self._run)
        )
        self._has_suspects = True


def _rows_of(record: Record) -> int:
    return len(record.jobs) if isinstance(record, JobsDone) else 1


UNKNOWN: object = object()
"""The `wire` of a job whose payload is not known: it was recovered."""


def _encoded(
    values: Sequence[Any], to: Values
) -> tuple[Sequence[str | None] | repeat[None], Sequence[Any], dict[int, SerialisationError]]:
    """Return the columns of kinds and of what is stored, and why some cannot be, by index."""
    if to.are_plain(values):
        return repeat(None), values, {}
    kinds: list[str | None] = []
    stored: list[Any] = []
    refused: dict[int, SerialisationError] = {}
    for index, value in enumerate(values):
        try:
            kind, data = to.encode(value)
        except SerialisationError as error:
            refused[index] = error
        else:
            kinds.append(kind)
            stored.append(data)
    return kinds, stored, refused


def split(
    record: JobsDone, refused: dict[int, SerialisationError]
) -> Iterator[JobsDone | JobFailed]:
    """Cut a record so that jobs whose values are refused have failed, all in their order."""
    begin = 0
    for index in [*sorted(refused), len(record.values)]:
        if begin < index:
            yield record._replace(
                jobs=record.jobs.cut(begin, index),
                values=record.values[begin:index],
                nanoseconds=record.nanoseconds[begin:index],
                histories={
                    i: record.histories[i]
                    for i in record.jobs.ids[begin:index]
                    if i in record.histories
                },
            )
        if index in refused:
            yield _failed(record, index, refused[index])
        begin = index + 1


def _failed(record: JobsDone, index: int, error: SerialisationError) -> JobFailed:
    job = record.jobs[index]
    past = record.histories.get(job.id, ())
    seconds = record.nanoseconds[index] / 1e9
    cause = Cause.UNSERIALISABLE
    attempt = Attempt(len(past) + 1, cause, error, record.worker_id, seconds)
    return JobFailed(
        worker_id=record.worker_id,
        slot=record.slot,
        job=job,
        state=JobState.FAILED,
        cause=cause,
        error=error,
        place="",
        history=(*past, attempt),
    )
