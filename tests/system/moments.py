"""Named moments: how processes and threads wait for one another without sleeping."""

from __future__ import annotations

import os
import select
from pathlib import Path

DEADLINE = 30.0
"""Seconds after which a moment that has not come will not come. Only a broken test gets there."""


class Moment:
    """Something that happens once, seen by every process that knows its path.

    A named pipe: whoever makes it happen writes a byte, which nobody takes out. The test that made
    it holds it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def happen(self) -> None:
        """Let everybody who waits go on, now and later."""
        descriptor = os.open(self.path, os.O_RDWR)
        os.write(descriptor, b".")
        os.close(descriptor)

    def wait(self) -> None:
        """Wait until it has happened."""
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            if not select.select([descriptor], [], [], DEADLINE)[0]:
                message = f"{Path(self.path).name} has not come within {DEADLINE} s"
                raise TimeoutError(message)
        finally:
            os.close(descriptor)
