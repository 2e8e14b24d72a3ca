"""Sorting more entries than fit into memory: sorted runs are set aside on the disk and merged."""

from __future__ import annotations

import marshal
import tempfile
from heapq import merge
from itertools import islice
from operator import itemgetter

from okanjo_conductor.errors import TableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import TypeAlias

    Entry: TypeAlias = tuple[bytes, bytes]

_CHUNK = 128
"""Entries of each run that are in memory while runs are merged: there may be thousands of runs."""


class Runs:
    """Sorted runs of entries, in a file without a name that ends with its process.

    Args:
        directory: where there is room for all of them.

    """

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by `close`
        self._begins: list[int] = []

    def __len__(self) -> int:
        return len(self._begins)

    def add(self, entries: Iterable[Entry]) -> None:
        """Set a sorted run aside.

        Raises:
            TableError: there is no room.
        """
        self._begins.append(self._file.tell())
        left = iter(entries)
        try:
            while chunk := list(islice(left, _CHUNK)):
                marshal.dump(chunk, self._file)
            marshal.dump([], self._file)
        except OSError as error:
            raise TableError(f"entries of a lookup table cannot be sorted: {error}") from error

    def merged(self) -> Iterator[Entry]:
        """Give all entries in order; of the same key, those of earlier runs first."""
        return merge(*map(self._run, self._begins), key=itemgetter(0))

    def close(self) -> None:
        """Let them go."""
        self._file.close()

    def _run(self, position: int) -> Iterator[Entry]:
        while True:
            self._file.seek(position)
            chunk: list[Entry] = marshal.load(self._file)
            if not chunk:
                return
            position = self._file.tell()
            yield from chunk
