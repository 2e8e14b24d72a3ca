"""`LookupTable`: reference data in a memory-mapped file, one copy for all processes of a machine.

- `_keys`, `_values`, `_entries`: entries as bytes;
- `_large`: the file for what is large;
- `_place`: the directory of a table;
- `_mapped`: the table in one process: snapshots, forks, writes;
- `_building`, `_runs`, `_making`: how one comes to be.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import ItemsView, Mapping, MutableMapping, ValuesView

from okanjo_conductor.errors import ConductorStateError, TableError
from okanjo_conductor.lookups import _entries, _keys, _mapped, _values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Self

    from okanjo_conductor.lookups._keys import Key

__all__ = ["LookupTable"]

_MISSING = object()
_SURELY_PLAIN = (_keys.PLAIN - 1) // 4
"""Characters up to which a str is stored as it is, whatever they are."""


class LookupTable(MutableMapping["Key", "Any"]):
    """A table of keys and values in a memory-mapped file, which any number of processes read.

    It behaves like a `dict`, but for this: keys are str, bytes, int and tuples of these, and come
    in order (bytes, str, tuples, int, each in their own order); what is read is a copy, so changing
    it does not change the table; but NumPy arrays are read without copying, and are read-only. Such
    an array, or a `view`, never changes and never dangles, whatever becomes of the table.

    Of large values that are overwritten or deleted, the place is used again only when the table is
    built anew.

    There is one writer at a time: the process that built the table, else the first that writes.
    What it writes is seen by every read, in any process, that begins after the write has returned.
    A pickled copy, such as the one a worker gets, stands for the same table and only reads.

    A process that is killed never damages a table. If the machine stops while a table is written to
    (not: after it was closed), it is refused from then on, and must be built anew.

    Args:
        path: where a complete table lies.

    Raises:
        TableError: there is none, or it cannot be read.
        ConfigurationError: LMDB is not installed; the extra ``lookups`` brings it.
    """

    _path: str
    _is_closed: bool
    _is_copy: bool
    _identity: tuple[int, int] | None
    """Of a copy: device and inode of the table it stands for."""
    _reading: _Reading | None
    """What each thread reads with, once the table is open."""
    _finish: Callable[[], object]
    """Closes it, once; also when it is collected, and at the end of the process."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._begin(_absolute(path))
        self._attach()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> LookupTable:
        """Open a table: the same as ``LookupTable(path)``."""
        return cls(path)

    @classmethod
    def build(
        cls,
        items: Mapping[Any, Any] | Iterable[tuple[Any, Any]],
        path: str | os.PathLike[str] | None = None,
        *,
        replace: bool = False,
    ) -> LookupTable:
        """Build a table and open it.

        A process that is killed while it builds leaves no table, and nothing that the next build
        does not remove.

        Args:
            items: a mapping, or pairs in any order and of any number; they need not fit into
                memory. Where a key comes twice, the later value counts. Sorted pairs are fastest.
            path: where the table will lie; its directory must exist. None: a temporary table, in
                shared memory, gone when it is closed or its process ends; if that is killed, the
                next temporary table that is built removes it.
            replace: take the place of a table that is there. Who has that one open keeps it.

        Raises:
            TableError: something is in the way, there is no room, or an item is no pair.
            TableKeyError: a key is no str, bytes, int or tuple of these.
            ConfigurationError: LMDB is not installed; the extra ``lookups`` brings it.
            Exception: whatever the source of the items, or pickling a value, raises.
        """
        from okanjo_conductor.lookups import _building  # not needed to read

        place = None if path is None else _absolute(path)
        made, lock = _building.build(items, place, replace=replace)
        table = cls.__new__(cls)
        table._begin(made)
        table._attach(lock=lock, is_temporary=path is None)
        return table

    def __reduce__(self) -> tuple[Any, ...]:
        mapped = self._opened().mapped
        return _copy_of, (self._path, mapped.key)

    # Reading

    def __getitem__(self, key: Key) -> Any:
        value = (self._reading or self._opened()).read(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def get(self, key: Key, default: Any = None) -> Any:
        """Return the value of a key, or the default where there is none.

        Raises:
            TableKeyError: it is no str, bytes, int or tuple of these.
        """
        return (self._reading or self._opened()).read(key, default)

    def __contains__(self, key: object) -> bool:
        reading = self._reading or self._opened()
        return _find(reading.mapped, reading.snapshot, key) is not None

    def get_many(self, keys: Iterable[Key]) -> dict[Key, Any]:
        """Return the entries there are for these keys."""
        read = (self._reading or self._opened()).read
        found = {key: read(key, _MISSING) for key in keys}
        return {key: value for key, value in found.items() if value is not _MISSING}

    def view(self, key: Key) -> memoryview:
        """Return a read-only view of a value that is `bytes`: without copying it where it is large.

        Raises:
            KeyError: there is no such key.
            TypeError: its value is not `bytes`.
        """
        reading = self._opened()
        record = _find(reading.mapped, reading.snapshot, key)
        if record is None:
            raise KeyError(key)
        resolved = _values.resolve(record, reading.mapped.view)
        if resolved[0] != _values.BYTES:
            message = f"the value of {key!r} is not bytes: read it with table[key]"
            raise TypeError(message)
        return memoryview(resolved)[1:]

    def reader(self) -> Callable[..., Any]:
        """Return a function of a key and a default, which is the fastest way to read.

        It is for the thread that asked for it, and keeps the table open.
        """
        read, _ = _make_reader(self._opened().mapped)
        read.table = self  # type: ignore[attr-defined]  # holds it
        return read

    def __len__(self) -> int:
        return self._opened().mapped.count()

    def __iter__(self) -> Iterator[Key]:
        for stored, record in self._opened().mapped.scan():
            yield _entries.key_of(stored, record)

    def items(self) -> ItemsView[Key, Any]:
        """Return a view of the entries. Each iteration sees them as they are when it begins."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """Return a view of the values, in the order of their keys."""
        return _Values(self)

    def prefix(self, prefix: str | bytes | tuple[Any, ...]) -> Iterator[tuple[Key, Any]]:
        """Iterate over the entries whose keys begin with this, in order.

        A str finds keys that are str, bytes those that are bytes; a tuple finds the tuples whose
        first parts are these.

        Raises:
            TableKeyError: it is no str, bytes or tuple of what keys may hold.
        """
        wanted = _keys.encode_prefix(prefix)
        return self._scan(wanted)

    def _scan(self, wanted: bytes) -> Iterator[tuple[Key, Any]]:
        mapped = self._opened().mapped
        start = wanted[: _keys.KEPT]
        for stored, record in mapped.scan(start):
            if not stored.startswith(start):
                return
            encoded = _entries.encoded_key(stored, record)
            if _entries.has_prefix(encoded, wanted):
                yield _keys.decode(encoded), _entries.value_of(record, mapped.view)

    def release(self) -> None:
        """Let the writer use again what this process has been reading; the next read begins anew.

        For a process that will not read for a while: until it does, or calls this, what was
        overwritten since its last read keeps its place in the file.
        """
        self._opened().mapped.release()

    # Writing

    def __setitem__(self, key: Key, value: Any) -> None:
        self.update({key: value})

    def update(self, *args: Any, **more: Any) -> None:
        """Set entries, as `dict.update`: all in one step, so that readers see all of them or none.

        Raises:
            ConductorStateError: this is a copy that only reads.
            TableError: another process writes to the table, or there is no room.
            TableKeyError: a key is no str, bytes, int or tuple of these.
            Exception: whatever pickling a value raises; nothing is set then.
        """
        entries: dict[Any, Any] = dict(*args, **more)
        mapped = self._writable()

        def put(transaction: Any) -> None:
            transaction.cursor().putmulti(
                [_entries.encode(key, value, mapped.append_large) for key, value in entries.items()]
            )

        mapped.commit(put)

    def __delitem__(self, key: Key) -> None:
        stored = _keys.stored(_keys.encode(key))
        if not self._writable().commit(lambda transaction: transaction.delete(stored)):
            raise KeyError(key)

    def clear(self) -> None:
        """Remove all entries, in one step."""
        self._writable().clear()

    def forget_dead_readers(self) -> int:
        """Free what readers that died kept from being used again; return how many that were.

        The writer does it by itself now and then. Call it when a process was seen to die.
        """
        return self._opened().mapped.forget_dead_readers()

    # Opening and closing

    @property
    def path(self) -> str:
        """Where the table lies."""
        return self._path

    def close(self) -> None:
        """Close the table: what was written to it reaches the disk, a temporary one is removed.

        Arrays and views that were read from it stay what they are.
        """
        self._is_closed = True
        self._reading = None
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self):,} entries"
        return f"<LookupTable {self._path!r}, {state}>"

    def _begin(self, path: str) -> None:
        self._path = path
        self._is_closed = False
        self._is_copy = False
        self._identity = None
        self._reading = None
        self._finish = _nothing

    def _attach(self, *, lock: int | None = None, is_temporary: bool = False) -> _Reading:
        mapped = self._map(lock)
        removal = self._path if is_temporary else None
        self._finish = weakref.finalize(self, _finish, mapped, removal, os.getpid())
        self._reading = reading = _Reading(mapped)
        return reading

    def _map(self, lock: int | None) -> _mapped.Mapped:
        """Attach to the table, or to what is here of one that lies on another machine."""
        meant = self._identity
        if meant is None:
            return _mapped.attach(self._path, lock)
        here = _mapped.copy_of(meant)
        try:
            mapped = _mapped.attach(self._path)
        except TableError:
            if here is None:
                raise
            return _mapped.attach(here)
        if mapped.key == meant:
            return mapped
        mapped.detach(is_kept=True)
        if here is None:
            raise TableError(f"the lookup table at {self._path!r} was replaced by another one")
        return _mapped.attach(here)

    def _opened(self) -> _Reading:
        if self._is_closed:
            raise TableError(f"the lookup table at {self._path!r} is closed: open it again")
        return self._reading or self._attach()

    def _writable(self) -> _mapped.Mapped:
        if self._is_copy:
            message = (
                "this lookup table came from another process and only reads: "
                "a worker writes through its conductor, with set_lookup(name, key, value)"
            )
            raise ConductorStateError(message)
        return self._opened().mapped


class _Items(ItemsView["Key", "Any"]):
    _mapping: LookupTable

    def __iter__(self) -> Iterator[tuple[Key, Any]]:
        mapped = self._mapping._opened().mapped
        for stored, record in mapped.scan():
            yield _entries.key_of(stored, record), _entries.value_of(record, mapped.view)


class _Values(ValuesView["Any"]):
    _mapping: LookupTable

    def __iter__(self) -> Iterator[Any]:
        mapped = self._mapping._opened().mapped
        for _, record in mapped.scan():
            yield _entries.value_of(record, mapped.view)


class _Reading(threading.local):
    """What a table is read with: for each thread its own."""

    def __init__(self, mapped: _mapped.Mapped) -> None:
        self.mapped = mapped
        self.read, self.snapshot = _make_reader(mapped)


def _make_reader(mapped: _mapped.Mapped) -> tuple[Callable[..., Any], _mapped.Snapshot]:
    """Make the function that reads an entry: one look at memory, one search, one decoding."""
    renew, view = mapped.renew, mapped.view
    snapshot = mapped.snapshot()

    def read(key: Any, default: Any = None) -> Any:
        if mapped.cells[0] != snapshot.seen:
            renew(snapshot)
        if key.__class__ is not str:
            return _look_up(mapped, snapshot, key, default)
        try:
            record = snapshot.get(b"\x02" + key.encode())
        except Exception:  # a long or odd key, or another thread closed the table: it finds out
            return _look_up(mapped, snapshot, key, default)
        if record is None:
            is_short = len(key) <= _SURELY_PLAIN
            return default if is_short else _look_up(mapped, snapshot, key, default)
        if record[0] == _values.STR:
            return record[1:].decode()
        if record[0] == _values.LONG_KEY:  # a hash of another key that looks like this one
            return _look_up(mapped, snapshot, key, default)
        return _values.decode(_values.resolve(record, view))

    return read, snapshot


def _look_up(mapped: _mapped.Mapped, snapshot: _mapped.Snapshot, key: object, default: Any) -> Any:
    record = _find(mapped, snapshot, key)
    if record is None:
        return default
    return _values.decode(_values.resolve(record, mapped.view))


def _find(mapped: _mapped.Mapped, snapshot: _mapped.Snapshot, key: object) -> bytes | None:
    """Return the record of a key, without the key, or None."""
    found = mapped.get(snapshot, _keys.stored(_keys.encode(key)))
    return None if found is None else _values.part_key(found)[1]


def _copy_of(path: str, identity: tuple[int, int]) -> LookupTable:
    """Make a copy of a table of another process. It is opened when it is used."""
    table = LookupTable.__new__(LookupTable)
    table._begin(path)
    table._is_copy, table._identity = True, identity
    return table


def _finish(mapped: _mapped.Mapped, temporary: str | None, pid: int) -> None:
    """Close a table; only who built a temporary one removes it, not its forks."""
    mapped.detach(is_kept=temporary is None)
    if temporary is not None and os.getpid() == pid:
        from pathlib import Path

        from okanjo_conductor.lookups import _making

        _making.remove(Path(temporary))


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(os.fspath(path))  # noqa: PTH100 - `pathlib` takes 3 ms to load


def _nothing() -> None:
    pass
