"""Rows of the journal as what users see: entries, which are decoded when they are looked at."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from okanjo_conductor._types import Cause, JobState, Outcome
from okanjo_conductor._wire.failures import said
from okanjo_conductor.errors import JournalError, SerialisationError
from okanjo_conductor.journal._errors import OF_ATTEMPT, Told, attempt_of, made_again, translated
from okanjo_conductor.journal._keys import key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from okanjo_conductor._types import Attempt, Key
    from okanjo_conductor.journal._values import Stored, Values

_COLUMNS = (
    "seq, key, state, kind, value, attempts, worker_id, slot, nanoseconds, finished_at, run, "
    "cause, error_type, error, traceback, exception, place, payload_kind, payload"
)
_AT_ONCE = 500
"""Rows that are read together: no reading goes on for long, so writers can tidy up the WAL."""


class JournalEntry:
    """What the journal knows of a job that has its outcome.

    Values, payloads and errors are decoded when they are asked for; one that cannot be raises an
    error then, and harms no other entry.
    """

    __slots__ = ("_entries", "_key", "_row")

    def __init__(self, row: tuple[Any, ...], entries: Entries) -> None:
        self._row = row
        self._entries = entries
        self._key: list[Key] = []

    def __repr__(self) -> str:
        return f"<JournalEntry {self._row[1]} {self.state}>"

    @property
    def seq(self) -> int:
        """Its number in the order of commits."""
        return self._row[0]  # type: ignore[no-any-return]  # the columns have types

    @property
    def key_text(self) -> str:
        """The text under which the journal knows its key."""
        return self._row[1]  # type: ignore[no-any-return]  # as above

    @property
    def key(self) -> Key:
        """What identifies the job."""
        if not self._key:
            self._key.append(key_of(self._row[1]))
        return self._key[0]

    @property
    def state(self) -> JobState:
        """How the job ended."""
        return JobState(self._row[2])

    @property
    def is_done(self) -> bool:
        """Whether there is a value."""
        return self.state is JobState.DONE

    @property
    def value(self) -> Any:
        """What the job returned, or None if it was not done.

        Raises:
            SerialisationError: it cannot be rebuilt here.
            JournalError: its file is missing.
        """
        return self._decoded("value", self._row[3], self._row[4])

    @property
    def cause(self) -> Cause | None:
        """Why the job was not done."""
        return None if self._row[11] is None else Cause(self._row[11])

    @property
    def error_type(self) -> str:
        """Qualified name of the type of the error, or ``""``."""
        return self._row[12] or ""

    @property
    def error(self) -> str:
        """The error's message, or ``""``."""
        return self._row[13] or ""

    @property
    def traceback(self) -> str:
        """The traceback as text, the worker's where there is one; or ``""``."""
        return self._row[14] or ""

    @property
    def exception(self) -> Exception | None:
        """The error itself, or a `RemoteError` where it cannot be rebuilt; None for a done job."""
        if self._row[12] is None:
            return None
        return made_again(Told(*self._row[12:16]))

    @property
    def place(self) -> str:
        """Innermost frame of the worker's traceback, ``file:line in function``, or ``""``."""
        return self._row[16] or ""

    @property
    def attempts(self) -> int:
        """How many times the job was executed."""
        return self._row[5]  # type: ignore[no-any-return]  # as above

    @property
    def history(self) -> tuple[Attempt, ...]:
        """The attempts that ended badly, oldest first."""
        return self._entries.history(self._row[1], self.attempts - self.is_done)

    @property
    def worker_id(self) -> int | None:
        """The worker of the last attempt, numbered within its run; None: no worker had the job."""
        return self._row[6]  # type: ignore[no-any-return]  # as above

    @property
    def slot(self) -> int | None:
        """That worker's slot."""
        return self._row[7]  # type: ignore[no-any-return]  # as above

    @property
    def seconds(self) -> float | None:
        """Duration of the last attempt, or None where its worker did not live to tell."""
        return None if self._row[8] is None else self._row[8] / 1e9

    @property
    def finished_at(self) -> float:
        """When the outcome was noted, in Unix seconds."""
        return self._row[9]  # type: ignore[no-any-return]  # as above

    @property
    def started_at(self) -> float | None:
        """When the last attempt began, in Unix seconds, to a few hundredths; None: not known."""
        return None if self.seconds is None else self.finished_at - self.seconds

    @property
    def run(self) -> int:
        """The number of the run that the outcome is of."""
        return self._row[10]  # type: ignore[no-any-return]  # as above

    @property
    def payload(self) -> Any:
        """The payload of a job that was not done; None for a done one: it is not kept.

        Raises:
            SerialisationError: it cannot be rebuilt here.
            JournalError: it is not known.
        """
        kind = self._row[17]
        if kind in _NO_PAYLOAD:
            message = f"the payload of job {self.key!r} is not in the journal: {_NO_PAYLOAD[kind]}"
            raise JournalError(message)
        return self._decoded("payload", kind, self._row[18])

    def as_outcome(self) -> Outcome:
        """Return it as the outcome that was delivered; a done job comes without its payload."""
        return Outcome(
            key=self.key,
            job=None if self._row[17] in _NO_PAYLOAD else self.payload,
            state=self.state,
            value=self.value,
            error=self.exception,
            cause=self.cause,
            attempts=self.attempts,
            history=self.history,
            worker_id=self.worker_id,
            slot=self.slot,
            seconds=self.seconds,
        )

    def _decoded(self, what: str, kind: str | None, stored: Stored) -> Any:
        try:
            return self._entries.values.decode(kind, stored)
        except (JournalError, KeyboardInterrupt):
            raise
        except BaseException as error:  # code of the user's is called to rebuild it
            message = (
                f"the {what} of job {self._row[1]} cannot be rebuilt: unpickling it raised "
                f"{said(error)}. Is the module that its class is in importable here, and unchanged?"
            )
            raise SerialisationError(message) from error


_NO_PAYLOAD = {
    "unknown": "its outcome was saved after the conductor had died, and only that",
    "lost": "it could not be pickled",
}


class Entries:
    """Reads entries through a connection.

    Raises (all methods):
        JournalError: it cannot be read.
    """

    def __init__(self, path: str, connection: sqlite3.Connection, values: Values) -> None:
        self._path = path
        self._connection = connection
        self.values = values

    def _all(self, statement: str, *given: Any) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, given).fetchall()
        except sqlite3.Error as error:
            raise translated(error, self._path, "reading it") from error

    def get(self, key: str) -> JournalEntry:
        """Return the entry of the job whose key has this text.

        Raises:
            KeyError: there is none.
        """
        rows = self._all(f"SELECT {_COLUMNS} FROM jobs WHERE key = ?", key)  # noqa: S608 - ours
        if not rows:
            raise KeyError(key)
        return JournalEntry(rows[0], self)

    def after(self, seq: int, state: JobState | None = None) -> Iterator[JournalEntry]:
        """Yield the entries after a `seq` in their order; also those that come meanwhile."""
        while True:
            some = self._some_after(seq, _AT_ONCE, state)
            yield from some
            if len(some) < _AT_ONCE:
                return
            seq = some[-1].seq

    def _some_after(self, seq: int, most: int, state: JobState | None) -> list[JournalEntry]:
        where = "" if state is None else "AND state = ?"
        given = (seq,) if state is None else (seq, state.value)
        rows = self._all(
            f"SELECT {_COLUMNS} FROM jobs WHERE seq > ? {where} ORDER BY seq LIMIT {most}",  # noqa: S608 - our own names
            *given,
        )
        return [JournalEntry(row, self) for row in rows]

    def outcomes_after(self, seq: int) -> Iterator[tuple[int, Outcome]]:
        """Yield outcomes after a `seq`, with theirs."""
        return ((entry.seq, entry.as_outcome()) for entry in self.after(seq))

    def some_outcomes_after(self, seq: int, most: int) -> list[tuple[int, Outcome]]:
        """Return at most so many of the outcomes after a `seq`, with theirs."""
        return [(entry.seq, entry.as_outcome()) for entry in self._some_after(seq, most, None)]

    def history(self, key: str, up_to: int) -> tuple[Attempt, ...]:
        """Return the bad ends of a job, up to the nth."""
        rows = self._all(
            f"SELECT {OF_ATTEMPT} FROM attempts "  # noqa: S608 - our own names
            "WHERE key = ? AND number <= ? ORDER BY number",
            key,
            up_to,
        )
        return tuple(map(attempt_of, rows))
