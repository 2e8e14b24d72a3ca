"""A line now and then: for files, pipes, the logs of build servers, and terminals that are dumb."""

from __future__ import annotations

from typing import TYPE_CHECKING

from okanjo_conductor._progress import layout

if TYPE_CHECKING:
    from typing import TextIO

    from okanjo_conductor._snapshot import Snapshot
    from okanjo_conductor._types import Report

_PAUSES = (3.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Seconds before the first line, the second, …; the last one counts for all that follow."""


class PlainLines:
    """Writes a line per interval, and one at the end.

    Args:
        interval: seconds between lines; None: few at first, then ever more, up to a minute.
    """

    def __init__(self, stream: TextIO, interval: float | None = None) -> None:
        self._stream = stream
        self._pauses = _PAUSES if interval is None else (interval,)
        self._lines = 0

    @property
    def pause(self) -> float:
        """Seconds until the next line."""
        return self._pauses[min(self._lines, len(self._pauses) - 1)]

    def draw(self, snapshot: Snapshot) -> None:
        """Write a line."""
        self._lines += 1
        self._write(layout.plain_line(snapshot))

    def finish(self, report: Report | None) -> None:
        """Write the last line."""
        if report is not None:
            self._write(layout.last_line(report))

    def close(self) -> None:
        """There is nothing to restore."""

    def _write(self, line: str) -> None:
        write_line(self._stream, line)


def write_line(stream: TextIO, line: str) -> None:
    """Write a line, whatever the stream can encode."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
    stream.flush()
