"""Hand-outs, written down before they are made: which worker was sent which jobs, as what ordinals.

Only who finds the outcome log of a dead conductor's worker reads them, to learn whose outcomes it
holds. They are appended to files, one `os.write` for each frame, and belong to the kernel from then
on. A file that has grown large is followed by a second one, and goes when all in it is over.
"""

from __future__ import annotations

import os
import pickle
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HEAD = struct.Struct("<IQ")
"""Bytes of the keys, and the first ordinal; the keys follow, a pickled list."""
_LARGE = 1 << 22
"""Bytes in a file from which another one is begun."""


class _File:
    """One of the files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self.size = 0
        self.last = 0
        """The last ordinal in it."""

    def remove(self) -> None:
        self.close()
        with suppress(FileNotFoundError):
            self.path.unlink()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Notes:
    """The hand-outs of one worker.

    Raises (all methods that write):
        OSError: there is no room.
    """

    def __init__(self, folder: Path, worker_id: int) -> None:
        self._folder = folder
        self._worker_id = worker_id
        self._number = 0
        self._files: list[_File] = []
        """At most two, the older one first."""
        self._begin_file()

    @property
    def descriptors(self) -> list[int]:
        """Of the files there are."""
        return [file.descriptor for file in self._files]

    def write(self, first: int, last: int, keys: bytes) -> None:
        """Write down that these jobs are sent, as ordinals from `first` to `last`."""
        file = self._files[-1]
        record = _HEAD.pack(len(keys), first) + keys
        written = os.write(file.descriptor, record)
        if written < len(record):  # the disk is full, or becomes so with the rest
            os.write(file.descriptor, record[written:])
        file.size += len(record)
        file.last = last

    def turn(self, oldest: int | None) -> Callable[[], None] | None:
        """Begin another file if this one is large and everything in the one before it is over.

        Args:
            oldest: the first ordinal that the worker still holds; None: it holds nothing.

        Returns:
            What removes the older one, to be called when the last of it is committed.
        """
        if self._files[-1].size < _LARGE:
            return None
        if len(self._files) == 1:
            self._begin_file()
            return None
        if oldest is not None and oldest <= self._files[0].last:
            return None
        old = self._files.pop(0)
        self._begin_file()
        return old.remove

    def remove(self) -> None:
        """Remove the files: the worker is gone, and its outcomes are committed."""
        for file in self._files:
            file.remove()

    def close(self) -> None:
        """Leave the files as they are."""
        for file in self._files:
            file.close()

    def _begin_file(self) -> None:
        self._number += 1
        name = f"{self._worker_id}.{self._number}.handouts"
        self._files.append(_File(self._folder / name))


def read(folder: Path, worker_id: int) -> Iterator[tuple[int, list[Any]]]:
    """Yield the hand-outs of a worker, as first ordinal and keys; a torn one ends a file."""
    for path in folder.glob(f"{worker_id}.*.handouts"):
        data = path.read_bytes()
        at = 0
        while at + _HEAD.size <= len(data):
            size, first = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            if at + size > len(data):
                break
            yield first, pickle.loads(data[at : at + size])
            at += size
