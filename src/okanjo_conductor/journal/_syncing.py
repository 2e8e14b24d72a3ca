"""Syncing: who executes what, on the disk, in case the machine itself goes down.

What processes write into files belongs to the kernel and survives them. To survive the kernel, it
must reach the disk: here once a second, which is often enough for a job that takes a machine down,
because that takes it longer. Of a page only the cells are needed, not the outcomes behind them.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PERIOD = 1.0
"""Seconds from one time to the next."""


class Syncing:
    """Brings pages and hand-outs of a run to the disk.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[str] = set()
        self._due = monotonic() + PERIOD

    def sync_if_due(self) -> None:
        """Do it if the last time was long ago."""
        if (now := monotonic()) >= self._due:
            self._due = now + PERIOD
            self.sync()

    def sync(self) -> None:
        """Return when everything is on the disk that was written before; or cannot be."""
        with suppress(OSError):  # the run is over, or has just removed a file
            names = set(os.listdir(self._folder))  # noqa: PTH208 - names are wanted
            for name in names:
                self._sync_file(name)
            if names - self._known:
                self._sync_folder()
            self._known = names

    def _sync_file(self, name: str) -> None:
        with suppress(OSError, ValueError), (self._folder / name).open("r+b") as file:
            if name.endswith(".page"):
                with mmap.mmap(file.fileno(), mmap.PAGESIZE) as cells:
                    cells.flush()
            else:
                os.fsync(file.fileno())

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
