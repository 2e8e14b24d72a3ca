"""One table as this process sees it: the map, its readers, its writer.

A process maps a table once, however many objects stand for it (`attach` counts them): LMDB's
locks belong to the process, and a second opening would lose those of the first.

**Reading.** A `Snapshot` is a read transaction of one thread. It sees the table as it was when the
transaction began, and keeps those pages from being used again. So it is renewed when VERSION, a
cell in shared memory that the writer counts up after each commit, is another one than before: a
look at memory per read, no message and no lock. A read that begins after a commit has been counted
sees it. VERSION is loaded before the new transaction begins, so that a commit between the two is
noticed by the next read. An idle snapshot keeps old pages, and the file grows meanwhile: `release`
lets go.

**Writing** is for whoever has the lock of the table's directory; see `_place`.

**Forks.** LMDB must not be used across a fork, nor must a child end what the parent has begun:
both share the table of readers. A hook in the child therefore drops every snapshot without ending
it, and the next read maps the table anew. Where something of the parent's still stands in the
child, an iteration under way or another thread's read, the table cannot be used there, and says
so.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
import weakref

from okanjo_conductor.errors import ConfigurationError, TableError
from okanjo_conductor.lookups import _place
from okanjo_conductor.lookups._large import LargeFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType
    from typing import Any, Final, TypeVar

    from lmdb import Environment, Transaction

    _T = TypeVar("_T")

_NEVER: Final = -1
"""No version: of a snapshot that is to be renewed."""
_CLOSED: Final = (_NEVER - 1,)
_MAX_READERS = 4096
"""Snapshots of all processes; 64 bytes each in LMDB's lock file."""
_MAP_SIZE = 1 << 40
"""Bytes of addresses to reserve. They cost nothing, and the map need not be moved as it grows."""
_FORGET_EVERY = 1.0
"""Seconds between looks for dead readers while there are writes; a look takes microseconds."""

_mapped: dict[tuple[int, int], Mapped] = {}
"""By device and inode of the directory."""
_guard = threading.RLock()  # a table may be collected, and so closed, while it is held
_inherited: list[object] = []
"""What of the parent's this process must neither use nor end."""


class Snapshot:
    """What one thread reads from. Changed by `Mapped.renew`."""

    __slots__ = ("seen", "get", "__weakref__")

    seen: int
    """VERSION of when it was begun, or before."""
    get: Callable[[bytes], bytes | None]

    def __init__(self) -> None:
        self.drop()

    def drop(self) -> None:
        """End the transaction, unless somebody is just using it; the next read begins one."""
        self.seen = _NEVER
        self.get = _dropped


class _DroppedError(Exception):
    """The transaction was ended since its version was looked at."""


def _dropped(_key: bytes) -> bytes | None:
    raise _DroppedError


def load_lmdb() -> ModuleType:
    """Load LMDB.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        message = (
            "lookup tables need the package lmdb: install okanjo-conductor[lookups], "
            f"which brings it ({error})"
        )
        raise ConfigurationError(message) from error
    return lmdb


def open_environment(path: str, **options: Any) -> Environment:
    """Open LMDB on a directory, with as many addresses as there may be.

    Raises:
        lmdb.Error: it cannot be opened.
    """
    lmdb = load_lmdb()
    size = _MAP_SIZE
    while True:
        try:
            return lmdb.open(  # type: ignore[no-any-return]  # a module loaded late
                path,
                map_size=size,
                create=False,
                sync=False,
                readahead=False,
                max_readers=_MAX_READERS,
                **options,
            )
        except lmdb.MemoryError:  # `ulimit -v`
            size //= 2
            if size < mmap.PAGESIZE:
                raise


COPIES = "OKANJO_CONDUCTOR_TABLES"
"""Environment variable that tells of copies, of tables that lie on another machine."""


def name_of(key: tuple[int, int]) -> str:
    """Name a table by its device and inode."""
    return f"{key[0]}-{key[1]}"


def copy_of(key: tuple[int, int]) -> str | None:
    """Find the path of this machine's copy of a table, if there is one."""
    told = os.environ.get(COPIES, "").split(os.pathsep)
    copies = dict(pair.split("=", 1) for pair in told if pair)
    return copies.get(name_of(key))


def attach(path: str, directory: int | None = None) -> Mapped:
    """Return this process's view of a table, shared by all who attach to it here.

    Args:
        directory: a descriptor of its directory, such as the one that holds the lock. It is owned
            from here on.

    Raises:
        TableError: there is no complete table.
        ConfigurationError: LMDB is not installed.
    """
    load_lmdb()
    if directory is None:
        directory = _open_directory(path)
    status = os.fstat(directory)
    key = status.st_dev, status.st_ino
    with _guard:
        known = _mapped.get(key)
        if known is None:
            known = _mapped[key] = Mapped(path, directory, key)  # takes the descriptor
        else:
            os.close(directory)
        known.users += 1
        return known


def _open_directory(path: str) -> int:
    try:
        return _place.open_directory(path)
    except (FileNotFoundError, NotADirectoryError):
        raise TableError(f"there is no lookup table at {path!r}: build one") from None
    except OSError as error:
        raise TableError(f"the lookup table at {path!r} cannot be opened: {error}") from error


class Mapped:
    """The table at one place, in this process.

    Args:
        directory: a descriptor of its directory, owned from here on.

    Raises:
        TableError: it is not complete, or cannot be read.
    """

    def __init__(self, path: str, directory: int, key: tuple[int, int]) -> None:
        self.path = path
        self.users = 0
        """Objects that stand for it; changed under `_guard`."""
        self.generation = 0
        """Forks between the process that made this object and this one."""
        self.key = key
        self._directory: int | None = directory
        self._environment: Environment | None = None
        self._large: LargeFile | None = None
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        self._writer_map: mmap.mmap | None = None
        """The cells, writable: the lock of the directory is ours."""
        self._is_usable = True
        self._lock = threading.RLock()
        """For all of the above, and for writing."""
        self._forgot = 0.0
        try:
            _place.require_complete(directory, path)
            cells = _words(_map_cells(directory, is_writable=False))
            _require_whole(cells, path)
            self._environment = self._open()
        except BaseException:
            os.close(directory)
            raise
        self.cells: Sequence[int] = cells
        """The cells, read-only."""

    # Reading

    def copy_tree(self, folder: str) -> None:
        """Write the tree, as it is now, into a folder."""
        with self._lock:
            assert self._environment is not None  # noqa: S101 - it is attached
            self._environment.copy(folder, compact=True)

    def snapshot(self) -> Snapshot:
        """Make a snapshot, for one thread."""
        made = Snapshot()
        self._snapshots.add(made)
        return made

    def renew(self, snapshot: Snapshot) -> None:
        """Let a snapshot see the table as it is now.

        Raises:
            TableError: the table is closed, or cannot be read here.
        """
        with self._lock:
            seen = self.cells[_place.VERSION]
            snapshot.drop()  # at once, so that the slot of the old transaction is free
            snapshot.get = self.begin().get
            snapshot.seen = seen

    def get(self, snapshot: Snapshot, stored: bytes) -> bytes | None:
        """Return the record under a key, as it is now, or None.

        Raises:
            TableError: as `renew`.
        """
        lmdb = load_lmdb()
        while True:
            if self.cells[_place.VERSION] != snapshot.seen:
                self.renew(snapshot)
            try:
                return snapshot.get(stored)
            except _DroppedError:
                snapshot.seen = _NEVER  # also where it was dropped in the midst of a renewal
            except lmdb.Error as error:
                if snapshot.seen != _NEVER:  # else the table was closed, and renewing says so
                    raise TableError(self._unreadable(error)) from error

    def begin(self) -> Transaction[bytes]:
        """Begin to read. The transaction must not be ended, only dropped: see the module.

        Raises:
            TableError: as `renew`.
        """
        lmdb = load_lmdb()
        environment = self._opened()
        try:
            try:
                return environment.begin()
            except lmdb.ReadersFullError:
                environment.reader_check()
                return environment.begin()
        except lmdb.ReadersFullError:
            message = (
                f"the lookup table at {self.path!r} has {_MAX_READERS} readers, which is the most "
                "there can be: each thread that reads it counts as one"
            )
            raise TableError(message) from None
        except lmdb.Error as error:
            raise TableError(self._unreadable(error)) from error

    def scan(self, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Read entries in order, as they are now, from the first that is not below `start`.

        Raises:
            TableError: as `renew`, or this process is not the one that began.
        """
        generation = self.generation
        cursor = self.begin().cursor()
        if not cursor.set_range(start):
            return
        for entry in cursor.iternext():
            if self.generation != generation:
                raise TableError(
                    f"this iteration over the lookup table at {self.path!r} was begun before this "
                    "process was forked: begin another one"
                )
            yield entry

    def count(self) -> int:
        """Count the entries."""
        return self.begin().stat()["entries"]

    def view(self, offset: int, size: int) -> memoryview:
        """Return a view of a large record, which is good for as long as it is held."""
        large = self._large
        if large is None:
            with self._lock:
                if self._large is None:
                    self._large = LargeFile(self._opened_directory(), is_writable=False)
                large = self._large
        return large.view(offset, size)

    def release(self) -> None:
        """End what snapshots keep from being used again."""
        for snapshot in list(self._snapshots):
            snapshot.drop()

    # Writing

    def become_writer(self) -> None:
        """Take the lock of the table, if it is not ours already.

        Raises:
            TableError: another has it, or the table cannot be written to.
        """
        with self._lock:
            if self._writer_map is not None:
                return
            directory = self._opened_directory()
            if not _place.lock(directory):
                raise TableError(f"the lookup table at {self.path!r} {_place.BUSY}")
            try:
                mapped = _map_cells(directory, is_writable=True)
                large = LargeFile(directory, is_writable=True)
            except OSError as error:
                raise TableError(f"{self.path!r} cannot be written to: {error}") from error
            if self._large is not None:
                self._large.close()
            self._large = large
            cells = _words(mapped)
            cells[_place.BOOT] = _place.boot()
            cells[_place.DIRTY] = 1
            mapped.flush()
            self._writer_map = mapped

    def append_large(self, parts: list[bytes | memoryview]) -> tuple[int, int]:
        """Write a large record. Only for who has become the writer."""
        with self._lock:
            if self._large is None or self._writer_map is None:
                raise TableError(self._why_unusable())
            return self._large.append(parts)

    def commit(self, change: Callable[[Transaction[bytes]], _T]) -> _T:
        """Let a function change the entries; all of it is seen by readers, or nothing.

        Raises:
            TableError: as `become_writer`, or there is no room.
        """
        lmdb = load_lmdb()
        with self._lock:
            self.become_writer()
            try:
                self._forget_now_and_then()
                with self._opened().begin(write=True) as transaction:
                    result = change(transaction)
            except lmdb.Error as error:
                raise TableError(f"{self.path!r} cannot be written to: {error}") from error
            self._count_version()
            return result

    def _count_version(self) -> None:
        if self._writer_map is not None:
            _words(self._writer_map)[_place.VERSION] += 1

    def clear(self) -> None:
        """Remove all entries. What is large keeps its place in the file.

        Raises:
            TableError: as `commit`.
        """
        environment = self._opened()
        self.commit(lambda txn: txn.drop(environment.open_db(txn=txn), delete=False))

    def forget_dead_readers(self) -> int:
        """Free what processes that are dead kept from being used again; return how many did."""
        with self._lock:
            self._forgot = time.monotonic()
            return self._opened().reader_check()

    def _forget_now_and_then(self) -> None:
        if time.monotonic() - self._forgot > _FORGET_EVERY:
            self.forget_dead_readers()

    # Opening and closing

    def detach(self, *, is_kept: bool) -> None:
        """Close the table here if nobody else is attached.

        Args:
            is_kept: the table stays, so what was written must reach the disk.
        """
        with _guard:
            self.users -= 1
            if self.users:
                return
            if _mapped.get(self.key) is self:
                del _mapped[self.key]
        with self._lock:  # not within the guard: who holds this may want that, to close a table
            self._close(is_kept=is_kept)

    def _close(self, *, is_kept: bool) -> None:
        self._is_usable = False
        self.cells = _CLOSED  # lets go of the map, and no snapshot has seen that version
        self.release()
        if self._writer_map is not None and is_kept:
            self._sync(self._writer_map)
        self._writer_map = None
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        self._close_files()

    def _sync(self, writer_map: mmap.mmap) -> None:
        if self._environment is not None:
            self._environment.sync(True)
        if self._large is not None:
            self._large.sync()
        _words(writer_map)[_place.DIRTY] = 0
        writer_map.flush()

    def _close_files(self) -> None:
        if self._large is not None:
            self._large.close()
            self._large = None
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    def forget_parent(self) -> None:
        """Let go of what belongs to the parent, in a child that was just forked."""
        self.generation += 1
        self._lock = threading.RLock()
        self._writer_map = None
        self._close_files()
        for snapshot in list(self._snapshots):
            snapshot.drop()
        environment, self._environment = self._environment, None
        if environment is None:
            return
        left = weakref.ref(environment)
        del environment  # closes it, unless a transaction that is left still holds it
        if left() is not None:
            _inherited.append(left())
            self._is_usable = False

    def _opened(self) -> Environment:
        environment = self._environment
        if environment is None:
            with self._lock:
                if self._environment is None:
                    self._environment = self._open()
                environment = self._environment
        return environment

    def _open(self) -> Environment:
        if not self._is_usable:
            raise TableError(self._why_unusable())
        directory = self._opened_directory()
        lmdb = load_lmdb()
        is_writable = os.access(self.path, os.W_OK)
        try:
            opened = open_environment(self.path, readonly=not is_writable)
        except (lmdb.Error, OSError) as error:
            raise TableError(self._unreadable(error)) from error
        if not _place.is_at(directory, self.path):
            opened.close()
            raise TableError(f"the lookup table at {self.path!r} was replaced: open it again")
        return opened

    def _opened_directory(self) -> int:
        if self._directory is None:
            if not self._is_usable:
                raise TableError(self._why_unusable())
            directory = _open_directory(self.path)
            status = os.fstat(directory)
            if (status.st_dev, status.st_ino) != self.key:
                os.close(directory)
                raise TableError(f"the lookup table at {self.path!r} was replaced: open it again")
            self._directory = directory
        return self._directory

    def _unreadable(self, error: BaseException) -> str:
        return f"the lookup table at {self.path!r} cannot be read: {error}"

    def _why_unusable(self) -> str:
        if self.users < 1:
            return f"the lookup table at {self.path!r} is closed: open it again"
        return (
            f"the lookup table at {self.path!r} cannot be used in this process: when that was "
            "forked, another thread was reading it, or an iteration over it was under way"
        )


def _map_cells(directory: int, *, is_writable: bool) -> mmap.mmap:
    flags = (os.O_RDWR if is_writable else os.O_RDONLY) | os.O_CLOEXEC
    descriptor = os.open(_place.CELLS, flags, dir_fd=directory)
    access = mmap.ACCESS_WRITE if is_writable else mmap.ACCESS_READ
    try:
        return mmap.mmap(descriptor, _place.CELLS_SIZE, access=access)
    finally:
        os.close(descriptor)


def _words(mapped: mmap.mmap) -> memoryview[int]:
    return memoryview(mapped).cast("Q")


def _require_whole(cells: memoryview[int], path: str) -> None:
    if cells[_place.DIRTY] and cells[_place.BOOT] != _place.boot():
        message = (
            f"the machine stopped while the lookup table at {path!r} was written to, and it may be "
            "damaged: build it anew"
        )
        raise TableError(message)


def _after_fork_in_child() -> None:
    global _guard  # noqa: PLW0603 - another thread may have held it
    _guard = threading.RLock()
    for mapped in list(_mapped.values()):
        mapped.forget_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
