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

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from okanjo_conductor._core.endings import cause_of
from okanjo_conductor._core.jobs import Job, Jobs
from okanjo_conductor._core.records import JobFailed, JobRetried, JobsDone
from okanjo_conductor._core.retry import UNCHARGED, final_state
from okanjo_conductor._plain import Frozen
from okanjo_conductor._types import Attempt, JobId, Ordinal, WorkerId
from okanjo_conductor._wire import failures, pickling
from okanjo_conductor.journal._errors import OF_ATTEMPT, attempt_of
from okanjo_conductor.journal._keys import safe_text_of
from okanjo_conductor.journal._remains import Remains
from okanjo_conductor.journal._store import AsJournalErrors, clear_folder
from okanjo_conductor.journal._writer import UNKNOWN, Rows

if TYPE_CHECKING:
    from okanjo_conductor._core.policy import Policy
    from okanjo_conductor._types import Key
    from okanjo_conductor.journal._remains import Log
    from okanjo_conductor.journal._store import Store

_NO_SLOT: Any = None
"""Which slot a worker was in is not noted."""


class Recovered(Frozen):
    """What was found."""

    outcomes: int = 0
    """Outcomes that had not been committed."""
    suspects: int = 0
    """Jobs that were executing when the machine went down."""


def recover(store: Store, policy: Policy) -> Recovered:
    """Commit what the last run has left, before the next one begins.

    Raises:
        JournalError: it cannot be read or committed.
    """
    with AsJournalErrors(store.path, "recovering what the last run has left"):
        last = store.last_run()
        found = Recovered()
        if last is not None and last[1] in ("live", "broken"):
            found = _Recovery(store, policy, *last).recover()
        clear_folder(store.live)
        return found


class _Recovery:
    def __init__(self, store: Store, policy: Policy, run: int, state: str, was_up: bool) -> None:  # noqa: FBT001 - a row
        self._store = store
        self._policy = policy
        self._run = run
        self._has_suspects = state == "live" and not was_up
        self._was_up = was_up

    def recover(self) -> Recovered:
        with self._store.transaction() as connection:
            self._connection = connection
            left = Remains(connection, self._store.live, self._run, was_up=self._was_up)
            if not left.logs:
                return Recovered()
            self._left = left
            self._rows = Rows(connection, self._store, self._run)
            # All values first: a job may have failed here and been done there.
            outcomes = sum([self._add_done(log) for log in left.logs])
            self._rows.finish()
            outcomes += sum([self._add_failed(log) for log in left.logs])
            self._rows.finish()
            suspects = self._add_suspects() if self._has_suspects else 0
        self._store.note_suspicions()
        return Recovered(outcomes, suspects)

    # Outcomes

    def _add_done(self, log: Log) -> int:
        found: list[tuple[Key, Any, int]] = []
        for ordinal, (nanoseconds, result) in log.results.items():
            if type(result) is tuple or self._left.has_outcome(log.keys[ordinal]):
                continue
            with suppress(Exception):  # what cannot be rebuilt here is executed again
                value = pickling.loads(result) if type(result) is bytes else result
                found.append((log.keys[ordinal], value, nanoseconds))
        if found:
            keys, values, nanoseconds_of = map(list, zip(*found, strict=True))
            self._add(_done(log.worker_id, keys, values, nanoseconds_of, self._histories(keys)))
        return len(found)

    def _add_failed(self, log: Log) -> int:
        outcomes = 0
        for ordinal, (nanoseconds, result) in log.results.items():
            key = log.keys[ordinal]
            if type(result) is not tuple or self._left.has_outcome(key):
                continue
            if self._left.has_ended(log.worker_id, ordinal):
                continue
            failure = failures.unpack(result[0])
            outcomes += self._judge(log, ordinal, key, nanoseconds / 1e9, failure)
        return outcomes

    def _judge(
        self, log: Log, ordinal: int, key: Key, seconds: float, failure: failures.Failure
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

    def _add_suspects(self) -> int:
        suspects = self._left.executing()
        for key in suspects:
            known = self._connection.execute(
                "SELECT times, run FROM suspects WHERE key = ?", (key,)
            ).fetchone()
            times, run = known or (0, None)
            if run != self._run:
                self._rows.suspect(key, times + 1)
        return len(suspects)


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
