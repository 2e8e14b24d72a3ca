"""What SQLite and the system say, told as errors of the journal; and errors of jobs, kept in it."""

from __future__ import annotations

import errno
import sqlite3
from typing import TYPE_CHECKING, Any

from okanjo_conductor._plain import Frozen
from okanjo_conductor._wire import failures
from okanjo_conductor.errors import (
    JournalDamagedError,
    JournalError,
    JournalFullError,
    RemoteError,
    RemoteTraceback,
)

if TYPE_CHECKING:
    from okanjo_conductor._types import Attempt

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY = 0xFF
"""The bits of an extended result code that are the plain one."""
_KEEP = (
    "Nothing was changed in it. Keep a copy of it, with the files beside it whose names begin "
    "alike; restore a backup, or give this run another journal"
)
_MAKE_ROOM = (
    "What was committed before is safe: make room, and start the same program again to go on"
)


def translated(error: BaseException, path: str, doing: str) -> JournalError:
    """Return the error of the journal that this error of SQLite's or the system's comes to."""
    if isinstance(error, JournalError):
        return error
    if isinstance(error, sqlite3.Error):
        return _from_sqlite(error, path, doing)
    if isinstance(error, OSError):
        if error.errno in _NO_ROOM:
            return _chained(JournalFullError(_full(path, doing, str(error))), error)
        message = f"{path}: {doing} failed: {error}"
        return _chained(JournalError(message), error)
    message = f"{path}: {doing} failed: {failures.said(error)}"
    return _chained(JournalError(message), error)


def _from_sqlite(error: sqlite3.Error, path: str, doing: str) -> JournalError:
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    if code == sqlite3.SQLITE_FULL:
        return _chained(JournalFullError(_full(path, doing, str(error))), error)
    if code in _DAMAGE or (not code and type(error) is sqlite3.DatabaseError):
        return _chained(damaged(path, str(error)), error)
    message = f"{path}: {doing} failed: SQLite says: {error}{_NEXT_MOVE.get(code, '')}"
    return _chained(JournalError(message), error)


_NEXT_MOVE = {
    sqlite3.SQLITE_CANTOPEN: ". Is its folder there, and may this user write to it?",
    sqlite3.SQLITE_READONLY: ". May this user write to it, and to its folder?",
    sqlite3.SQLITE_IOERR: (
        ". What was committed before is safe. Look after the disk; if it is a network file system, "
        "put the journal on a local one"
    ),
    sqlite3.SQLITE_PROTOCOL: ". If it is on a network file system, put it on a local one",
    sqlite3.SQLITE_BUSY: ". Another program keeps it locked: end that, and start this one again",
}


def damaged(path: str, what: str) -> JournalDamagedError:
    """Make the error of a file that cannot be read as a journal."""
    return JournalDamagedError(f"{path} is damaged, or no journal: {what}. {_KEEP}")


def _full(path: str, doing: str, what: str) -> str:
    return f"{path}: {doing} failed for want of room: {what}. {_MAKE_ROOM}"


def _chained(made: JournalError, cause: BaseException) -> JournalError:
    made.__cause__ = cause
    return made


# Errors of jobs


class Told(Frozen):
    """An exception as columns of a table."""

    error_type: str
    error: str
    traceback: str
    exception: bytes | None
    """Its pickle, if it has one."""


def told(error: BaseException) -> Told:
    """Take an exception apart, so that it can be read without Python and made again with it."""
    apart = failures.take_apart(error)
    cause = error.__cause__
    text = cause.text if isinstance(cause, RemoteTraceback) else apart.traceback
    name, message = apart.type_name, apart.message
    if isinstance(error, RemoteError):  # it stands in for one that stayed in its worker
        name, message = error.type_name, error.message
    return Told(_encodable(name), _encodable(message), _encodable(text), apart.pickled)


def _encodable(text: str) -> str:
    """Return a text that SQLite can store: messages may quote names of files that it could not."""
    return text.encode("utf-8", "backslashreplace").decode()


def made_again(columns: Told) -> Exception:
    """Make the exception again, or what stands in for it."""
    return failures.rebuild(
        failures.Failure(
            columns.error_type, columns.error, columns.traceback, "", columns.exception, ""
        )
    )


OF_ATTEMPT = "number, cause, worker_id, seconds, error_type, error, traceback, exception"
"""Columns of the journal's attempts that `attempt_of` takes."""


def attempt_of(row: tuple[Any, ...]) -> Attempt:
    """Make an attempt of its columns."""
    from okanjo_conductor._types import Attempt, Cause

    number, cause, worker_id, seconds, *columns = row
    return Attempt(number, Cause(cause), made_again(Told(*columns)), worker_id, seconds)
