"""Directories of tables: made, marked, put in place, removed.

What is made here has a name that says so, and is locked by its maker. What bears such a name and is
locked by nobody has been left by a dead process: an unfinished table, or a temporary one. `sweep`
removes those. It may take one that was made this instant and is not locked yet; its maker notices
and makes another.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path

from okanjo_conductor.errors import TableError
from okanjo_conductor.lookups import _place

_TEMPORARY = "okanjo-table-"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - names there are random, and made by mkdir


def make_directory(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a directory of a new name and lock it; return its path and its descriptor.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        path = parent / (prefix + secrets.token_hex(8))
        path.mkdir(0o700)
        try:
            descriptor = _place.open_directory(str(path))
        except FileNotFoundError:  # swept
            continue
        if _place.lock(descriptor) and _place.is_at(descriptor, str(path)):
            return path, descriptor
        os.close(descriptor)


def temporary() -> tuple[Path, str]:
    """Return where temporary tables are made, and what their names begin with."""
    is_usable = _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
    return (_SHARED_MEMORY if is_usable else Path(tempfile.gettempdir())), _TEMPORARY


def beside(path: Path) -> tuple[Path, str]:
    """Return where the table for this place is made, and what its name begins with."""
    return path.parent, f".{path.name}.building-"


def sweep(parent: Path, prefix: str) -> None:
    """Remove what processes that are dead have left of such directories."""
    pattern = re.compile(re.escape(prefix) + "[0-9a-f]{16}")
    for found in list(parent.iterdir()):
        if pattern.fullmatch(found.name):
            _remove_unowned(found)


def _remove_unowned(path: Path) -> None:
    try:
        descriptor = _place.open_directory(str(path))
    except OSError:  # another user's, or gone
        return
    try:
        if _place.lock(descriptor):
            remove(path)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a table. Who has it open keeps it."""
    shutil.rmtree(path, ignore_errors=True)


def complete(descriptor: int) -> None:
    """Mark what is in a directory as a whole table, once all of it is on the disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    mark = os.open(_place.MARK, flags, 0o600, dir_fd=descriptor)
    try:
        os.write(mark, _place.FORMAT)
        os.fsync(mark)
    finally:
        os.close(mark)
    os.fsync(descriptor)


def require_room(path: Path, *, replace: bool) -> None:
    """Refuse a place where something is that must not be replaced.

    Raises:
        TableError: it is.
    """
    if not path.exists() and not path.is_symlink():
        return
    try:
        directory = _place.open_directory(str(path))
    except OSError:
        raise TableError(
            f"{str(path)!r} exists and is no lookup table: choose another place"
        ) from None
    try:
        _require_replaceable(directory, path, replace=replace)
    finally:
        os.close(directory)


def put_in_place(made: Path, path: Path, *, replace: bool) -> None:
    """Rename a complete table to where it belongs.

    A table that is replaced is moved aside first: a process killed between the two steps leaves
    none at that place.

    Raises:
        TableError: something is there that must not be replaced.
    """
    require_room(path, replace=replace)
    parent, prefix = beside(path)
    aside = parent / (prefix + secrets.token_hex(8))
    if path.exists():
        path.rename(aside)
    made.rename(path)
    remove(aside)
    _sync_directory(parent)


def _require_replaceable(directory: int, path: Path, *, replace: bool) -> None:
    _place.require_complete(directory, str(path))
    if not replace:
        message = (
            f"there is a lookup table at {str(path)!r} already: open it with LookupTable(path), "
            "or build with replace=True"
        )
        raise TableError(message)
    if not _place.lock(directory):
        raise TableError(f"{str(path)!r} {_place.BUSY}")


def _sync_directory(path: Path) -> None:
    descriptor = _place.open_directory(str(path))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
