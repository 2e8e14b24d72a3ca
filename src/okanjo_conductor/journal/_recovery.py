"""Recovery: what a dead conductor has left beside its journal.

Its workers wrote their outcomes into files; what it had not committed is still in these *logs*, and
the *hand-outs* say whose outcomes they are. They are committed now, in one transaction, and only
then the files are removed: if this is cut short, it is done again, and finds what it has committed.

A log may hold what was committed already, because it is written over some time after that. So an
outcome is left out whose job has one of that run; and a bad end that led to another attempt, if the
same ordinal of the same worker is known to have ended.

When the machine itself went down with the conductor, the logs are not believed: nobody knows which
parts of them have reached the disk. But the jobs that were executing are *suspects*.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from okanjo_conductor._core.endings import cause_of
from okanjo_conductor._core.jobs import Job, Jobs
from okanjo_conductor._core.records import JobFailed, JobRetried, JobsDone
from okanjo_conductor._core.retry import UNCHARGED, final_state
from okanjo_conductor._io import cells
from okanjo_conductor._io.loggers import log
from okanjo_conductor._io.outcome_log import Reader
from okanjo_conductor._plain import Frozen
from okanjo_conductor._types import Attempt, JobId, Ordinal, WorkerId
from okanjo_conductor._wire import failures, pickling, records
from okanjo_conductor.errors import ProtocolError
from okanjo_conductor.journal import _handouts as handouts
from okanjo_conductor.journal._errors import OF_ATTEMPT, attempt_of
from okanjo_conductor.journal._keys import safe_text_of
from okanjo_conductor.journal._store import AsJournalErrors, clear_folder
from okanjo_conductor.journal._writer import UNKNOWN, Rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from okanjo_conductor._core.policy import Policy
    from okanjo_conductor._types import Key
    from okanjo_conductor.journal._store import Store

_NO_SLOT: Any = None
"""Which slot a worker was in is not noted."""


class Recovered(Frozen):
    """What was found."""

    outcomes: int = 0
    """Outcomes that had not been committed."""
    suspects: int = 0
    """Jobs that were executing when the machine went down."""


class _Log(Frozen):
    """What one worker has left: outcomes by ordinal, and what it was doing."""

    worker_id: WorkerId
    keys: dict[int, Key]
    """Of all ordinals that it was handed, as far as they are still noted."""
    results: dict[int, tuple[int, Any]]
    """Nanoseconds and result by ordinal, in the order in which they were written."""
    started: int
    """The last ordinal that it has started."""
    is_parallel: bool
    """Whether it may have been executing others, too."""


def recover(store: Store, policy: Policy) -> Recovered:
    """Commit what the last run has left, before the next one begins.

    Raises:
        JournalError: it cannot be read or committed.
    """
    with AsJournalErrors(store.path, "recovering what the last run has left"):
        last = store.last_run()
        found = Recovered()
        if last is not None and last[1] == "live":
            found = _Recovery(store, policy, run=last[0], was_up=last[2]).recover()
        clear_folder(store.live)
        return found


class _Recovery:
    def __init__(self, store: Store, policy: Policy, *, run: int, was_up: bool) -> None:
        self._store = store
        self._policy = policy
        self._run = run
        self._was_up = was_up

    def recover(self) -> Recovered:
        logs = [_log_of(self._store.live, i, self._was_up) for i in _workers_in(self._store.live)]
        if not logs:
            return Recovered()
        with self._store.transaction() as connection:
            self._connection = connection
            self._rows = Rows(connection, self._store, self._run)
            # All values first: a job may have failed here and been done there.
            outcomes = sum([self._add_done(log) for log in logs])
            self._rows.finish()
            outcomes += sum([self._add_failed(log) for log in logs])
            self._rows.finish()
            suspects = 0 if self._was_up else self._add_suspects(logs)
        self._store.note_suspicions()
        return Recovered(outcomes, suspects)

    # Outcomes

    def _add_done(self, log: _Log) -> int:
        found: list[tuple[Key, Any, int]] = []
        for ordinal, (nanoseconds, result) in log.results.items():
            if type(result) is tuple or self._has_outcome(log.keys[ordinal]):
                continue
            with suppress(Exception):  # what cannot be rebuilt here is executed again
                value = pickling.loads(result) if type(result) is bytes else result
                found.append((log.keys[ordinal], value, nanoseconds))
        if found:
            keys, values, nanoseconds_of = map(list, zip(*found, strict=True))
            self._add(_done(log.worker_id, keys, values, nanoseconds_of, self._histories(keys)))
        return len(found)

    def _add_failed(self, log: _Log) -> int:
        outcomes = 0
        for ordinal, (nanoseconds, result) in log.results.items():
            key = log.keys[ordinal]
            if type(result) is not tuple or self._has_outcome(key):
                continue
            if self._has_ended(log.worker_id, ordinal):
                continue
            failure = failures.unpack(result[0])
            outcomes += self._judge(log, ordinal, key, nanoseconds / 1e9, failure)
        return outcomes

    def _judge(
        self, log: _Log, ordinal: int, key: Key, seconds: float, failure: failures.Failure
    ) -> int:
        """Add a bad end, as the core would have: it is the last one, or there will be another."""
        error = failures.rebuild(failure)
        cause = cause_of(error)
        if cause in UNCHARGED:
            return 0
        past = self._history(safe_text_of(key))
        attempt = Attempt(len(past) + 1, cause, error, log.worker_id, seconds)
        history = (*past, attempt)
        job = Job(JobId(0), key, None, UNKNOWN)
        state = final_state(self._policy.retry, history)
        if state is None:
            self._add(JobRetried(job=job, attempt=attempt, ordinal=Ordinal(ordinal)))
            return 0
        self._add(
            JobFailed(
                worker_id=log.worker_id,
                slot=_NO_SLOT,
                job=job,
                state=state,
                cause=cause,
                error=error,
                place=failure.place,
                history=history,
            )
        )
        return 1

    def _add(self, record: JobsDone | JobFailed | JobRetried) -> None:
        self._rows.add([record], time.time())

    def _has_outcome(self, key: Key) -> bool:
        """Whether the run that is recovered has noted an outcome of this job."""
        return self._is_there(
            "SELECT 1 FROM jobs WHERE key = ? AND run = ?", safe_text_of(key), self._run
        )

    def _has_ended(self, worker_id: int, ordinal: int) -> bool:
        """Whether it has noted that this execution was followed by another one."""
        return self._is_there(
            "SELECT 1 FROM attempts WHERE run = ? AND worker_id = ? AND ordinal = ?",
            self._run,
            worker_id,
            ordinal,
        )

    def _is_there(self, statement: str, *given: Any) -> bool:
        return self._connection.execute(statement, given).fetchone() is not None

    def _histories(self, keys: list[Key]) -> dict[JobId, tuple[Attempt, ...]]:
        found = ((JobId(i), self._history(safe_text_of(key))) for i, key in enumerate(keys))
        return {job_id: history for job_id, history in found if history}

    def _history(self, key: str) -> tuple[Attempt, ...]:
        """Return earlier bad ends; those of an outcome that was asked for anew do not count."""
        rows = self._connection.execute(
            f"SELECT {OF_ATTEMPT} FROM attempts WHERE key = ? "  # noqa: S608 - our own names
            "AND (run = ? OR key NOT IN (SELECT key FROM jobs)) ORDER BY number",
            (key, self._run),
        )
        return tuple(map(attempt_of, rows))

    # Suspects

    def _add_suspects(self, logs: list[_Log]) -> int:
        suspects = {key for log in logs for key in self._executing(log)}
        for key in suspects:
            known = self._connection.execute(
                "SELECT times, run FROM suspects WHERE key = ?", (key,)
            ).fetchone()
            times, run = known or (0, None)
            if run != self._run:
                self._rows.suspect(key, times + 1)
        return len(suspects)

    def _executing(self, log: _Log) -> Iterator[str]:
        """Yield the keys that a worker may have been executing, as texts.

        What it has started last need not have reached the disk: then it is the next one that has
        no outcome. A parallel worker may execute whatever has none up to there.
        """
        unfinished = [
            (ordinal, safe_text_of(key))
            for ordinal, key in sorted(log.keys.items())
            if not (self._has_outcome(key) or self._has_ended(log.worker_id, ordinal))
        ]
        if log.is_parallel:
            yield from (key for ordinal, key in unfinished if ordinal <= log.started)
        elif log.started:
            yield from [key for ordinal, key in unfinished if ordinal >= log.started][:1]


def _done(
    worker_id: WorkerId,
    keys: list[Key],
    values: list[Any],
    nanoseconds: list[int],
    histories: dict[JobId, tuple[Attempt, ...]],
) -> JobsDone:
    return JobsDone(
        worker_id=worker_id,
        slot=_NO_SLOT,
        jobs=Jobs(
            [JobId(i) for i in range(len(keys))], keys, [None] * len(keys), [None] * len(keys)
        ),
        values=values,
        nanoseconds=nanoseconds,
        histories=histories,
    )


# What lies in the folder


def _workers_in(folder: Path) -> list[WorkerId]:
    if not folder.is_dir():
        return []
    heads = {path.name.split(".", 1)[0] for path in folder.iterdir()}
    return [WorkerId(number) for number in sorted(int(head) for head in heads if head.isdigit())]


def _log_of(folder: Path, worker_id: WorkerId, was_up: bool) -> _Log:  # noqa: FBT001 - of a constructor
    keys: dict[int, Key] = {}
    with suppress(Exception):  # a key's class may raise anything; who goes down may leave anything
        for first, some in handouts.read(folder, worker_id):
            keys.update(enumerate(some, first))
    page = _mapped(folder / f"{worker_id}.page")
    if page is None:
        return _Log(worker_id, keys, {}, 0, is_parallel=False)
    with page:
        results = _results_in(page, worker_id) if was_up else {}
        known = {ordinal: result for ordinal, result in results.items() if ordinal in keys}
        if len(known) < len(results):
            log().warning(
                "%d outcomes of worker %d of the last run cannot be saved: nothing says whose they "
                "are. These jobs are executed again",
                len(results) - len(known),
                worker_id,
            )
        started = cells.last_started(page) or 0
        return _Log(worker_id, keys, known, started, is_parallel=page[cells.PARALLEL] > 1)


def _mapped(path: Path) -> memoryview[int] | None:
    """Map a page; None: there is none, or only a part of it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_size < cells.SIZE:
            return None
        return cells.map_page(descriptor)
    finally:
        os.close(descriptor)


def _results_in(page: memoryview[int], worker_id: int) -> dict[int, tuple[int, Any]]:
    reader = Reader(page, keeps=True)
    try:
        if not 0 <= page[cells.HEAD] - page[cells.TAIL] <= cells.SIZE:
            return {}
        ordinals, nanoseconds, results = records.unpack(reader.read())
    except ProtocolError as error:
        log().warning(
            "outcomes of worker %d of the last run cannot be read, these jobs are executed "
            "again: %s",
            worker_id,
            error,
        )
        return {}
    finally:
        reader.close()
    return dict(zip(ordinals, zip(nanoseconds, results, strict=True), strict=True))
