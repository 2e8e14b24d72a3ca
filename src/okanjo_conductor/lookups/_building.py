"""Building a table from pairs, of which there may be more than fit into memory.

make a locked directory beside the place ─► entries, in order ─► to the disk ─► mark ─► rename
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from okanjo_conductor.errors import TableError
from okanjo_conductor.lookups import _entries, _making, _place
from okanjo_conductor.lookups._large import LargeFile
from okanjo_conductor.lookups._mapped import load_lmdb, open_environment
from okanjo_conductor.lookups._runs import Runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from lmdb import Environment

    from okanjo_conductor.lookups._runs import Entry

_BATCH_ENTRIES = 500_000
_BATCH_BYTES = 1 << 26
"""Of entries that are in memory, and are sorted, at a time."""


def build(
    items: Iterable[tuple[Any, Any]] | Mapping[Any, Any], path: str | None, *, replace: bool
) -> tuple[str, int]:
    """Build a table; return its path, and the descriptor that holds its lock.

    Args:
        path: an absolute path; None for a temporary table.

    Raises:
        TableError: it cannot be built: something is in the way, or there is no room.
        Exception: whatever the source of the items raises.
    """
    load_lmdb()
    if path is None:
        parent, prefix = _making.temporary()
    else:
        _making.require_room(Path(path), replace=replace)
        parent, prefix = _making.beside(Path(path))
    try:
        _making.sweep(parent, prefix)
        made, directory = _making.make_directory(parent, prefix)
    except OSError as error:
        raise TableError(f"a lookup table cannot be built in {str(parent)!r}: {error}") from error
    try:
        _fill(made, directory, items, is_kept=path is not None)
        if path is None:
            return str(made), directory
        _making.put_in_place(made, Path(path), replace=replace)
        return path, directory
    except BaseException:
        os.close(directory)
        _making.remove(made)
        raise


def _fill(made: Path, directory: int, items: Any, *, is_kept: bool) -> None:
    lmdb = load_lmdb()
    _make_cells(directory)
    large = LargeFile(directory, is_writable=True)
    try:
        environment = open_environment(str(made))
        try:
            with closing(Runs(made)) as runs:
                _put_all(_Tree(environment), _entries_of(items, large), runs)
            if is_kept:
                environment.sync(True)
                large.sync()
        finally:
            environment.close()
    except lmdb.Error as error:
        raise TableError(f"the lookup table cannot be built in {str(made)!r}: {error}") from error
    finally:
        large.close()
    _making.complete(directory)


def _make_cells(directory: int) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(_place.CELLS, flags, 0o600, dir_fd=directory)
    try:
        os.ftruncate(descriptor, _place.CELLS_SIZE)
    finally:
        os.close(descriptor)


class _Tree:
    """The tree while it grows: in order it grows at its end, and each page is written once."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._top = b""
        """The highest key so far."""

    def put(self, batch: list[Entry]) -> None:
        """Put a sorted batch, without duplicates, into the tree."""
        is_above = batch[0][0] > self._top
        with self._environment.begin(write=True) as transaction:
            transaction.cursor().putmulti(batch, append=is_above)
        self._top = max(self._top, batch[-1][0])


def _put_all(tree: _Tree, entries: Iterator[Entry], runs: Runs) -> None:
    """Put entries into the tree, in order: as they come if they do, else sorted on the disk."""
    held: list[Entry] = []
    for batch in _batches(entries):
        if not runs and (not held or batch[0][0] > held[-1][0]):
            if held:
                tree.put(held)
            held = batch
        else:
            for run in filter(None, (held, batch)):
                runs.add(run)
            held = []
    if held:
        tree.put(held)
    for batch in _batches(runs.merged()):
        tree.put(batch)


def _batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Give entries in sorted batches. Of those with the same key the last one counts."""
    batch: dict[bytes, bytes] = {}
    size = 0
    for stored, record in entries:
        batch[stored] = record
        size += len(stored) + len(record)
        if len(batch) >= _BATCH_ENTRIES or size >= _BATCH_BYTES:
            yield sorted(batch.items())
            batch, size = {}, 0
    if batch:
        yield sorted(batch.items())


def _entries_of(items: Any, large: LargeFile) -> Iterator[Entry]:
    for key, value in _pairs(items):
        yield _entries.encode(key, value, large.append)


def _pairs(items: Any) -> Iterator[tuple[Any, Any]]:
    source = items.items() if isinstance(items, Mapping) else items
    for number, item in enumerate(source, 1):
        try:
            key, value = item
        except (TypeError, ValueError):
            message = f"item {number} for the lookup table is no pair of key and value: {item!r}"
            raise TableError(message) from None
        yield key, value
