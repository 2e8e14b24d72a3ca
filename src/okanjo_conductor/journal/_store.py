"""The file of a journal: what is in it, who may write to it, and what it says about jobs.

    jobs       every job that has its outcome, in the order of commits (`seq`)
    attempts   bad ends; of a job without an outcome they count against its budgets next time
    runs       every start of the program
    suspects   jobs that were executing when the whole machine went down
    sinks      what each sink has been given, noted with the outcomes themselves
    met        jobs of earlier runs that this run's source has given again
    meta       what must not change

It is SQLite's, in WAL mode: readers never wait. One thread of one process writes (`Writer`); that
process holds the lock from the moment the store is opened. Nothing here opens the database file but
through SQLite, whose locks would be lost when such a descriptor is closed.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from okanjo_conductor._io.machine import machine_id
from okanjo_conductor._plain import Frozen
from okanjo_conductor._types import JobState
from okanjo_conductor.errors import ConfigurationError, JournalChangedError, JournalError
from okanjo_conductor.journal._errors import OF_ATTEMPT, attempt_of, damaged, translated
from okanjo_conductor.journal._fingerprint import Fingerprint
from okanjo_conductor.journal._lock import Lock
from okanjo_conductor.journal._values import FILES, SPILL_OVER, Values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from okanjo_conductor._types import Attempt
    from okanjo_conductor.journal._entries import JournalEntry

APPLICATION: Final = 0x6F6B636A
"""`application_id` of a journal: "okcj"."""
FORMAT: Final = 1
"""`user_version` of a journal."""
_OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables."""
_CHECKED_UP_TO = 64 << 20
"""Bytes of a file that is read whole before it is used: a fraction of a second."""
_BUSY = 20_000
"""Milliseconds to wait for another connection that is just writing."""
_CHECKPOINT = 4000
"""Pages of WAL from which they are put into the database. The default of 1000 writes the pages of
an index of hashes four times as often."""
_RESERVE = 1 << 16
"""Bytes that are kept from others while a run goes on: enough to note why it could not."""
_SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
CREATE TABLE runs(
    id INTEGER PRIMARY KEY, started_at REAL NOT NULL, ended_at REAL, state TEXT NOT NULL,
    host TEXT NOT NULL, pid INTEGER NOT NULL, machine TEXT NOT NULL, argv TEXT NOT NULL,
    cwd TEXT NOT NULL, total INTEGER NOT NULL DEFAULT 0, skipped INTEGER NOT NULL DEFAULT 0,
    expected INTEGER, error TEXT NOT NULL DEFAULT '', report TEXT
) STRICT;
CREATE TABLE jobs(
    seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, state TEXT NOT NULL,
    kind TEXT, attempts INTEGER NOT NULL, worker_id INTEGER, slot INTEGER,
    nanoseconds INTEGER, finished_at REAL NOT NULL, run INTEGER NOT NULL, cause TEXT, value ANY,
    error_type TEXT, error TEXT, traceback TEXT, exception BLOB, place TEXT,
    payload_kind TEXT, payload ANY
) STRICT;
CREATE INDEX not_done ON jobs(state) WHERE state <> 'done';
CREATE INDEX spilled ON jobs(kind, value) WHERE kind IN ('json-file', 'pickle-file');
CREATE INDEX spilled_payloads ON jobs(payload_kind, payload)
    WHERE payload_kind IN ('json-file', 'pickle-file');
CREATE TABLE attempts(
    key TEXT NOT NULL, number INTEGER NOT NULL, run INTEGER NOT NULL, worker_id INTEGER NOT NULL,
    ordinal INTEGER, cause TEXT NOT NULL, seconds REAL, error_type TEXT NOT NULL,
    error TEXT NOT NULL, traceback TEXT NOT NULL, exception BLOB, PRIMARY KEY(key, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE suspects(
    key TEXT PRIMARY KEY, times INTEGER NOT NULL, run INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sinks(
    name TEXT PRIMARY KEY, position TEXT NOT NULL, seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE met(seq INTEGER PRIMARY KEY) STRICT;
"""


class RunStart(Frozen):
    """What a run says about itself when it begins."""

    argv: tuple[str, ...] = ()
    """The command that started the program; empty: this process's own."""
    cwd: str = ""
    """The folder it was started in; empty: the current one."""


def state_of_dead(host: str, machine: str) -> str:
    """Say what became of a run that did not note its end: "killed", or "down" with its machine.

    Args:
        host: where it was.
        machine: which life of that, as it said then.
    """
    is_here = host == os.uname().nodename
    return "down" if is_here and machine != machine_id() else "killed"


class Standing(Frozen):
    """What the journal knows of a job."""

    state: JobState | None
    """How it ended, or None if it has not."""
    run: int
    """The last run that met it: that of its outcome, or a later one whose source gave it again."""
    history: tuple[Attempt, ...]
    """Bad ends of a job that has no outcome yet."""
    suspicion: int
    """How many times the whole machine went down while it was executing."""
    key: str
    """The text of its key."""
    store: Store

    def entry(self) -> JournalEntry:
        """Return everything that is known of a job that has ended."""
        return self.store.entry(self.key)


class Store:
    """A journal that this process writes to.

    Args:
        path: the file; it is made if it is not there.
        durability: "normal": what is committed survives the death of the process; "full": a power
            cut as well.
        spill_over: bytes from which a value becomes a file of its own.

    Raises:
        JournalLockedError: another conductor is using it.
        JournalDamagedError: it is no journal, or a damaged one.
        JournalError: it cannot be opened or made.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: str = "normal",
        spill_over: int = SPILL_OVER,
    ) -> None:
        if durability not in ("normal", "full"):
            message = f'durability={durability!r}: "normal" or "full"'
            raise ConfigurationError(message)
        self.path = os.path.abspath(path)  # noqa: PTH100 - it may be a str
        self.is_durable = durability == "full"
        self.values = Values(f"{self.path}-values", spill_over, is_durable=self.is_durable)
        self.live = Path(f"{self.path}-live")
        """Where pages and hand-outs of this run are; it is there from `begin` to `end`."""
        self._reserve = self.live / "reserve"
        with AsJournalErrors(self.path, "opening it"):
            identify(self.path)
            self._lock = Lock(self.path)
        try:
            with AsJournalErrors(self.path, "opening it"):
                self._connection = self._opened()
        except BaseException:
            self._lock.release()
            raise
        try:
            with AsJournalErrors(self.path, "opening it"):
                self._look_around()
        except BaseException:
            self.close()
            raise

    def _look_around(self) -> None:
        rows = self._connection.execute("SELECT max(id) FROM runs").fetchone()
        self.run: int = (rows[0] or 0) + 1
        """The number of this run."""
        self._has_attempts = self._has_any("attempts")
        self._has_suspects = self._has_any("suspects")
        self.values_are_tidied = self._remove_orphans()

    def _opened(self) -> sqlite3.Connection:
        is_known = identify(self.path)
        if is_known:
            check_whole(self.path)
        connection = self.connect()
        try:
            if not is_known:
                _create(connection)
            return connection
        except BaseException:
            connection.close()
            raise

    def connect(self) -> sqlite3.Connection:
        """Make another connection, for one thread at a time."""
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=_BUSY / 1000
        )
        try:
            connection.execute(f"PRAGMA synchronous = {'FULL' if self.is_durable else 'NORMAL'}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
            _require_wal(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _has_any(self, table: str) -> bool:
        return bool(self._one(f"SELECT EXISTS(SELECT 1 FROM {table})"))  # noqa: S608 - our own names

    def _one(self, statement: str, *given: Any) -> Any:
        row = self._connection.execute(statement, given).fetchone()
        return None if row is None else row[0]

    # What must not change

    def check(self, fingerprint: Fingerprint, *, accept_changed: bool = False) -> None:
        """See that this is the program that the journal was begun with; note it if there is none.

        Raises:
            JournalChangedError: it is another one, and that is not accepted.
        """
        with AsJournalErrors(self.path, "reading its fingerprint"):
            known = self._one("SELECT value FROM meta WHERE name = 'fingerprint'")
            if known is not None and not accept_changed:
                told = Fingerprint.from_text(known).differences(fingerprint)
                if told:
                    raise JournalChangedError(self.path, told)
            if known != fingerprint.text:
                self._connection.execute(
                    "INSERT OR REPLACE INTO meta VALUES('fingerprint', ?)", (fingerprint.text,)
                )

    # A run

    def last_run(self) -> tuple[int, str, bool] | None:
        """Return number and state of the last run, and whether the machine is up since then.

        None: there was none.
        """
        row = self._connection.execute(
            "SELECT id, state, machine FROM runs ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2] == machine_id())

    def begin(self, info: RunStart | None = None) -> None:
        """Note that a run has begun. What a dead one has left must have been recovered before."""
        info = info or RunStart()
        with AsJournalErrors(self.path, "noting the start of the run"):
            self.live.mkdir(exist_ok=True)
            self._reserve.write_bytes(bytes(_RESERVE))
            with self.transaction():
                for run, host, machine in self._connection.execute(
                    "SELECT id, host, machine FROM runs WHERE state = 'live'"
                ).fetchall():
                    self._set_state(run, state_of_dead(host, machine))
                self._connection.execute("DELETE FROM met")
                self._connection.execute(
                    "INSERT INTO runs(id, started_at, state, host, pid, machine, argv, cwd) "
                    "VALUES(?, ?, 'live', ?, ?, ?, ?, ?)",
                    (
                        self.run,
                        time.time(),
                        os.uname().nodename,
                        os.getpid(),
                        machine_id(),
                        json.dumps(info.argv or sys.orig_argv),
                        info.cwd or os.getcwd(),  # noqa: PTH109 - a str is wanted
                    ),
                )

    def end(self, state: str, report: dict[str, Any] | None = None) -> None:
        """Note how a run has ended: "done" or "stopped"."""
        with AsJournalErrors(self.path, "noting the end of the run"):
            self._connection.execute(
                "UPDATE runs SET state = ?, ended_at = ?, report = ? WHERE id = ?",
                (state, time.time(), json.dumps(report or {}, default=str), self.run),
            )
            clear_folder(self.live)

    def break_off(self, error: str) -> None:
        """Note why a run could not go on, if that can be; what it has left stays for the next one.

        The disk may be full: what was kept from others for this is given free.
        """
        with suppress(sqlite3.Error, OSError):
            self._reserve.unlink()
            self._connection.execute(
                "UPDATE runs SET state = 'broken', ended_at = ?, error = ? WHERE id = ?",
                (time.time(), error, self.run),
            )

    def _set_state(self, run: int, state: str) -> None:
        self._connection.execute("UPDATE runs SET state = ? WHERE id = ?", (state, run))

    def close(self) -> None:
        """Close the file and free the lock."""
        with suppress(sqlite3.Error):
            self._connection.close()
        self._lock.release()

    def transaction(self, connection: sqlite3.Connection | None = None) -> Transaction:
        """Return a context in which everything is committed together, or nothing."""
        return Transaction(connection or self._connection)

    # What is known of jobs

    def standing(self, keys: Sequence[str]) -> dict[str, Standing]:
        """Return what is known of jobs, by the texts of their keys; unknown ones are missing."""
        asked = json.dumps(list(keys))
        with AsJournalErrors(self.path, "looking for jobs"):
            ended = self._connection.execute(
                "SELECT key, state, CASE WHEN seq IN (SELECT seq FROM met) THEN ? ELSE run END "
                "FROM jobs WHERE key IN (SELECT value FROM json_each(?))",
                (self.run, asked),
            ).fetchall()
            suspicions = self._suspicions(asked)
            found = {
                key: Standing(JobState(state), run, (), suspicions.get(key, 0), key, self)
                for key, state, run in ended
            }
            for key, (run, history) in self._histories(asked).items():
                if key not in found:
                    found[key] = Standing(
                        None, run, tuple(history), suspicions.get(key, 0), key, self
                    )
        for key, times in suspicions.items():
            if key not in found:
                found[key] = Standing(None, 0, (), times, key, self)
        return found

    def _suspicions(self, asked: str) -> dict[str, int]:
        if not self._has_suspects:
            return {}
        return dict(
            self._connection.execute(
                "SELECT key, times FROM suspects WHERE key IN (SELECT value FROM json_each(?))",
                (asked,),
            )
        )

    def _histories(self, asked: str) -> dict[str, tuple[int, list[Attempt]]]:
        """Return the last run, and the bad ends in order, of jobs that earlier runs have tried."""
        if not self._has_attempts:
            return {}
        rows = self._connection.execute(
            f"SELECT key, run, {OF_ATTEMPT} FROM attempts "  # noqa: S608 - our own names
            "WHERE key IN (SELECT value FROM json_each(?)) AND key NOT IN (SELECT key FROM jobs) "
            "ORDER BY key, number",
            (asked,),
        )
        found: dict[str, tuple[int, list[Attempt]]] = {}
        for key, run, *row in rows:
            history = found[key][1] if key in found else []
            history.append(attempt_of(tuple(row)))
            found[key] = run, history
        return found

    def entry(self, key: str) -> JournalEntry:
        """Return what is known of a job that has ended, by the text of its key."""
        from okanjo_conductor.journal._entries import Entries

        return Entries(self.path, self._connection, self.values).get(key)

    def note_suspicions(self) -> None:
        """Look again whether there are suspects: recovery has found some."""
        self._has_suspects = self._has_any("suspects")
        self._has_attempts = self._has_any("attempts")

    # Files of values

    def _remove_orphans(self) -> int:
        """Remove files of values that no job refers to: a conductor died before it could commit."""
        folder = Path(self.values.folder)
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
        if not names:
            return 0
        kinds = ", ".join(map(repr, FILES))
        rows = self._connection.execute(
            f"SELECT value FROM jobs WHERE kind IN ({kinds}) UNION ALL "  # noqa: S608 - ours
            f"SELECT payload FROM jobs WHERE payload_kind IN ({kinds})"
        )
        orphans = names.difference(name for (name,) in rows)
        for name in orphans:
            with suppress(OSError):
                (folder / name).unlink()
        return len(orphans)


class Transaction:
    """Everything is committed together, or nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        if kind is None:
            try:
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):  # SQLite may have done it by itself
            self._connection.execute("ROLLBACK")


class AsJournalErrors:
    """Raise errors of SQLite and the system as errors of the journal."""

    def __init__(self, path: str, doing: str) -> None:
        self._path = path
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, sqlite3.Error | OSError):
            raise translated(error, self._path, self._doing) from error


def identify(path: str) -> bool:
    """Return whether this is a journal, without writing to it; False: there is nothing yet.

    Raises:
        JournalError: it is something else, or of a newer format.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        message = (
            f"a journal needs SQLite 3.37 or newer, and this Python has {sqlite3.sqlite_version}: "
            "use a newer Python, or one that is linked with a newer SQLite"
        )
        raise JournalError(message)
    if not os.path.exists(path) or os.path.getsize(path) == 0:  # noqa: PTH110, PTH202 - a str
        return False
    with closing(read_only(path)) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application == 0 and version == 0 and tables == 0:
        return False  # its making was cut short
    if application != APPLICATION:
        message = (
            f"{path} is an SQLite database of another program, and was left as it is: "
            "give the journal another path"
        )
        raise JournalError(message)
    if version > FORMAT:
        message = (
            f"{path} was written by a newer okanjo_conductor (format {version}; this one "
            f"knows {FORMAT}): update the package, or give this run another journal"
        )
        raise JournalError(message)
    return True


def check_whole(path: str) -> None:
    """See that a journal is not damaged, as far as that takes no time.

    Raises:
        JournalDamagedError: it is.
    """
    if os.path.getsize(path) > _CHECKED_UP_TO:  # noqa: PTH202 - a str
        return
    with closing(read_only(path)) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise damaged(path, str(found))


def read_only(path: str) -> sqlite3.Connection:
    """Open a database that must be there, only to read from it."""
    from urllib.parse import quote

    return sqlite3.connect(
        f"file:{quote(path)}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=_BUSY / 1000,
    )


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables, all or none."""
    with Transaction(connection):
        for statement in _statements(_SCHEMA):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")


def _statements(script: str) -> Iterator[str]:
    return (statement for statement in map(str.strip, script.split(";\n")) if statement)


def clear_folder(folder: Path) -> None:
    """Remove a folder of files."""
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()


def _require_wal(connection: sqlite3.Connection, path: str) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode == "wal":
        return
    message = (
        f"{path}: its file system cannot do what a journal needs (memory shared between processes, "
        "for SQLite's WAL mode). Network file systems often cannot: put the journal on a local disk"
    )
    raise JournalError(message)
