"""Reading a journal, from any program, also while its run goes on: nothing is locked, or changed.

It is opened read-only. Every call sees what was committed when it was made, and long listings are
read a few hundred at a time, so that the writer can tidy up behind itself.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from okanjo_conductor._plain import Frozen
from okanjo_conductor._types import JobState
from okanjo_conductor.errors import JobKeyError, JournalError, UnknownJobError
from okanjo_conductor.journal import _lock as lock
from okanjo_conductor.journal._entries import Entries
from okanjo_conductor.journal._errors import OF_ATTEMPT, attempt_of
from okanjo_conductor.journal._keys import key_of, text_of
from okanjo_conductor.journal._remains import Remains
from okanjo_conductor.journal._store import AsJournalErrors, identify, read_only, state_of_dead
from okanjo_conductor.journal._values import Values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from okanjo_conductor._types import Attempt, Key
    from okanjo_conductor.journal._entries import JournalEntry

_NEAR = 3
"""Keys that are named where one is not found."""
_LOOKED_AT = 10_000
"""Keys among which near ones are looked for."""
_RECENT, _RECENTLY, _ENOUGH = 10_000, 10.0, 30
"""The rate of a run is that of its last outcomes: so many at most, of so many seconds; but of at
least some."""


class RunInfo(Frozen):
    """One start of the program."""

    id: int
    """Its number, from 1."""
    state: str
    """``"live"``, ``"done"`` (all jobs have their outcome), ``"stopped"`` (it was ended before),
    ``"broken"`` (it could not go on, see `error`), ``"killed"``, or ``"down"`` (the machine went
    down, with it or later)."""
    started_at: float
    """Unix seconds."""
    ended_at: float | None
    """Unix seconds; None: it goes on, or was killed."""
    last_outcome_at: float | None
    """Unix seconds; None: it has none."""
    host: str
    pid: int
    argv: tuple[str, ...]
    """The command it was started with."""
    cwd: str
    """The folder it was started in."""
    total: int
    """Jobs that its source had given when this was noted last, those that were skipped included."""
    skipped: int
    """Those of them that it did not execute, because earlier runs have done that."""
    expected: int | None
    """Jobs that its source gives in all; None: only the source knows."""
    counts: dict[str, int]
    """Its outcomes by state."""
    error: str
    """Why it could not go on; empty where it could."""
    report: dict[str, Any]
    """What `Report` said at its end; empty before."""

    @property
    def finished(self) -> int:
        """Its outcomes."""
        return sum(self.counts.values())


class Suspect(Frozen):
    """A job that was executing when the whole machine went down."""

    key: Key
    times: int
    """How often."""


class JournalReader:
    """A journal, to look into; `open_journal` makes one. Use it in one thread at a time.

    Args:
        path: the journal.

    Raises:
        JournalError: it is not there, is none, or is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100 - it may be a str
        with AsJournalErrors(self.path, "opening it"):
            if not identify(self.path):
                message = f"there is no journal at {self.path}"
                raise JournalError(message)
            self._connection = read_only(self.path)
        self._entries = Entries(self.path, self._connection, Values(f"{self.path}-values"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<JournalReader {self.path}>"

    def close(self) -> None:
        """Close the file. Entries stay readable, but for their histories."""
        self._connection.close()

    @property
    def is_live(self) -> bool:
        """Whether a conductor is using the journal."""
        return lock.is_held(self.path)

    # Jobs

    def __len__(self) -> int:
        """Return the number of jobs that have their outcome."""
        return int(self._all("SELECT count(*) FROM jobs")[0][0])

    def __contains__(self, key: object) -> bool:
        """Whether a job has its outcome."""
        return key == key and bool(  # noqa: PLR0124 - NaN
            self._all("SELECT 1 FROM jobs WHERE key = ?", _text_of(key))
        )

    def counts(self) -> dict[str, int]:
        """Return the number of jobs by final state; a state that no job is in is missing."""
        others = dict(
            self._all("SELECT state, count(*) FROM jobs WHERE state <> 'done' GROUP BY state")
        )
        done = len(self) - sum(others.values())
        counts = {JobState.DONE.value: done, **others}
        return {state: count for state, count in counts.items() if count}

    def outcomes(self, state: JobState | str | None = None) -> Iterator[JournalEntry]:
        """Yield jobs that have their outcome, in the order in which they were noted.

        Args:
            state: only those that ended so.
        """
        return self._entries.after(0, None if state is None else JobState(state))

    def __iter__(self) -> Iterator[JournalEntry]:
        """Yield jobs that have their outcome, in the order in which they were noted."""
        return self.outcomes()

    def get(self, key: Key) -> JournalEntry:
        """Return what is known of a job.

        Raises:
            UnknownJobError: it has no outcome; the error names keys that look alike.
        """
        try:
            return self._entries.get(_text_of(key))
        except KeyError:
            raise UnknownJobError(key, self._near(key)) from None

    def find(self, words: str) -> JournalEntry:
        """Return a job by its key as somebody would type it: as a str, or as the key's text.

        Raises:
            UnknownJobError: none is meant by that.
        """
        for text in (text_of(words), words):
            if self._all("SELECT 1 FROM jobs WHERE key = ?", text):
                return self._entries.get(text)
        raise UnknownJobError(words, self._near(words))

    def value(self, key: Key) -> Any:
        """Return the value of a job.

        Raises:
            UnknownJobError: it has no outcome.
            JournalError: it has no value: it was not done.
            SerialisationError: it cannot be rebuilt here.
        """
        entry = self.get(key)
        if not entry.is_done:
            message = f"job {key!r} has no value: it is {entry.state} ({entry.error_type})"
            raise JournalError(message)
        return entry.value

    def unfinished(self) -> Iterator[tuple[Key, tuple[Attempt, ...]]]:
        """Yield jobs that have no outcome yet but ended badly before, with these ends."""
        rows = self._all(
            f"SELECT key, {OF_ATTEMPT} FROM attempts "  # noqa: S608 - our own names
            "WHERE key NOT IN (SELECT key FROM jobs) ORDER BY key, number"
        )
        found: dict[str, list[Attempt]] = {}
        for key, *row in rows:
            found.setdefault(key, []).append(attempt_of(tuple(row)))
        return ((key_of(key), tuple(history)) for key, history in found.items())

    def suspects(self) -> list[Suspect]:
        """Return the jobs that were executing when the machine went down, most often first."""
        times = Counter(dict(self._all("SELECT key, times FROM suspects ORDER BY key")))
        times.update(self._new_suspects())
        return [Suspect(key_of(key), count) for key, count in times.most_common()]

    def _new_suspects(self) -> set[str]:
        """Find those of whom the run that comes next will take note, by the texts of their keys."""
        rows = self._all("SELECT id, state, host, machine FROM runs ORDER BY id DESC LIMIT 1")
        for run, state, host, machine in rows:
            if state == "live" and not self.is_live and state_of_dead(host, machine) == "down":
                with AsJournalErrors(self.path, "reading what the last run has left"):
                    folder = Path(f"{self.path}-live")
                    return Remains(self._connection, folder, run, was_up=False).executing()
        return set()

    def _near(self, key: Key) -> tuple[Key, ...]:
        import difflib

        asked = str(key)
        texts = {
            str(key_of(text)): text
            for (text,) in self._all(f"SELECT key FROM jobs LIMIT {_LOOKED_AT}")  # noqa: S608
        }
        return tuple(key_of(texts[name]) for name in difflib.get_close_matches(asked, texts, _NEAR))

    # Runs

    def runs(self) -> list[RunInfo]:
        """Return all runs, the first one first."""
        is_live = self.is_live
        counts: dict[int, dict[str, int]] = {}
        last: dict[int, float] = {}
        for run, state, count, at in self._all(
            "SELECT run, state, count(*), max(finished_at) FROM jobs GROUP BY run, state"
        ):
            counts.setdefault(run, {})[state] = count
            last[run] = max(at, last.get(run, at))
        rows = self._all(
            "SELECT id, state, started_at, ended_at, host, machine, pid, argv, cwd, total, "
            "skipped, expected, error, report FROM runs ORDER BY id"
        )
        return [
            _run_info(row, counts.get(row[0], {}), last.get(row[0]), is_live=is_live)
            for row in rows
        ]

    def rate(self) -> float | None:
        """Return the outcomes per second of the run that goes on, those of the last few seconds.

        None: no run goes on, or it has no outcome yet.
        """
        if not self.is_live:
            return None
        (began,) = self._all("SELECT id, started_at FROM runs ORDER BY id DESC LIMIT 1")
        rows = self._all(
            "SELECT finished_at FROM jobs WHERE run = ? ORDER BY seq DESC LIMIT ?",
            began[0],
            _RECENT,
        )
        return rate_of([at for (at,) in rows], time.time(), began[1])

    @property
    def program(self) -> tuple[str, ...]:
        """The command that the last run was started with."""
        rows = self._all("SELECT argv FROM runs ORDER BY id DESC LIMIT 1")
        return tuple(json.loads(rows[0][0])) if rows else ()

    def _all(self, statement: str, *given: Any) -> list[tuple[Any, ...]]:
        with AsJournalErrors(self.path, "reading it"):
            return self._connection.execute(statement, given).fetchall()


def rate_of(ends: list[float], now: float, began: float) -> float | None:
    """Return ends per second, by those of the last few seconds, or by some more if these are few.

    Args:
        ends: times at which something ended, the last one first.
    """
    count = max(sum(1 for at in ends if now - at <= _RECENTLY), min(_ENOUGH, len(ends)))
    since = ends[count] if count < len(ends) else began
    return count / (now - since) if count and now > since else None


def _run_info(
    row: tuple[Any, ...], counts: dict[str, int], last: float | None, *, is_live: bool
) -> RunInfo:
    run, state, started_at, ended_at, host, machine, pid, argv, cwd, *known, report = row
    total, skipped, expected, error = known
    return RunInfo(
        id=run,
        state=state_of_dead(host, machine) if state == "live" and not is_live else state,
        started_at=started_at,
        ended_at=ended_at,
        last_outcome_at=last,
        host=host,
        pid=pid,
        argv=tuple(json.loads(argv)),
        cwd=cwd,
        total=total,
        skipped=skipped,
        expected=expected,
        counts=counts,
        error=error,
        report=json.loads(report or "{}"),
    )


def _text_of(key: Any) -> str:
    try:
        return text_of(key)
    except JobKeyError:
        return ""  # of no key


def open_journal(path: str | os.PathLike[str]) -> JournalReader:
    """Open a journal to look into it, also while its run goes on. Use it in a ``with`` statement.

    Raises:
        JournalError: it is not there, is none, or is damaged.
    """
    return JournalReader(path)
