"""The lock of a journal: one conductor at a time, and the kernel lets go of it when that one dies.

It is a file of its own. SQLite's own locks would be lost as soon as anything in this process closed
another descriptor of the database.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from okanjo_conductor.errors import JournalLockedError

if TYPE_CHECKING:
    from collections.abc import Callable

_TRIALS = 10
_PAUSE = 0.02
"""Seconds between trials: a reader who asks whether a run goes on holds the lock for a moment."""
_LONGEST_NOTE = 4096
_TIME = "%Y-%m-%d %H:%M:%S"


class Lock:
    """Held from the moment it is made until `release`, or the end of this process.

    Raises:
        JournalLockedError: another conductor has it.
        OSError: its file cannot be made.
    """

    def __init__(self, journal: str) -> None:
        self._path = f"{journal}-lock"
        self._descriptor: int | None = _acquired(journal, self._path)
        _held.add(self)
        note = {"pid": os.getpid(), "host": os.uname().nodename, "since": time.strftime(_TIME)}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(note).encode(), 0)

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108 - no pathlib needed
            self.forget()

    def forget(self) -> None:
        """Close it without letting go: in a process that was forked off."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _acquired(journal: str, path: str) -> int:
    for _ in range(_TRIALS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            time.sleep(_PAUSE)
            continue
        except OSError:
            os.close(descriptor)
            raise
        if _is_file(descriptor, path):
            return descriptor
        os.close(descriptor)  # its last holder has just removed it
    raise _locked(journal, path)


def _is_file(descriptor: int, path: str) -> bool:
    """Whether the file that is open is the one that has this name."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116 - as above
    return False


def _locked(journal: str, path: str) -> JournalLockedError:
    note = holder(path)
    return JournalLockedError(
        journal, note.get("pid"), str(note.get("host", "")), str(note.get("since", ""))
    )


def holder(path: str) -> dict[str, Any]:
    """Read who says to hold the lock in this file."""
    with suppress(OSError, ValueError), open(path, "rb") as file:  # noqa: PTH123 - as above
        note = json.loads(file.read(_LONGEST_NOTE))
        if isinstance(note, dict):
            return note
    return {}


def is_held(journal: str) -> bool:
    """Whether a conductor is using this journal."""
    try:
        descriptor = os.open(f"{journal}-lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


_held: weakref.WeakSet[Lock] = weakref.WeakSet()
"""Those of this process. A child that is forked off has copies, and would keep them beyond its
end."""


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


_at_fork: Callable[..., None] = os.register_at_fork
_at_fork(after_in_child=_forget_all)
