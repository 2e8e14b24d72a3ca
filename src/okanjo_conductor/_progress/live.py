"""A view at the bottom of the terminal, drawn with rich: a bar, a line per worker, what went wrong.

The cursor stays visible, so a process that is killed leaves the terminal as it was.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.segment import Segment
from rich.style import Style

from okanjo_conductor._progress import layout
from okanjo_conductor._progress.plain import write_line
from okanjo_conductor._progress.streams import Outlet

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    from rich.console import ConsoleOptions

    from okanjo_conductor._snapshot import Snapshot
    from okanjo_conductor._types import Report

_PAUSE = 0.1
"""Seconds between two frames."""
_SHARE_OF_HEIGHT = 0.75
"""What is printed has the rest of the terminal."""
_STYLES = {
    "": Style(),
    "bad": Style(color="red"),
    "bar": Style(color="green"),
    "dim": Style(dim=True),
    "phase": Style(bold=True),
    "rest": Style(dim=True),
}


class _Console(Console):
    """Never hides the cursor: who is killed could not show it again."""

    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002, FBT001, FBT002 - rich's
        return False


class _Frame:
    """Lines, as rich renders them."""

    def __init__(self, lines: list[layout.Line]) -> None:
        self._lines = lines

    def __rich_console__(
        self,
        console: Console,
        options: ConsoleOptions,
    ) -> Iterable[Segment]:
        for line in self._lines:
            segments = [Segment(text, _STYLES[kind]) for text, kind in line]
            # It counts columns, of which some characters take two.
            yield from Segment.adjust_line_length(segments, options.max_width - 1, pad=False)
            yield Segment.line()


class _Printed:
    """What was printed, as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(
        self,
        console: Console,
        options: ConsoleOptions,
    ) -> Iterable[Segment]:
        yield Segment(self._text)


class LiveView:
    """Draws snapshots over each other."""

    pause = _PAUSE

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = _Console(file=stream, highlight=False)
        self._is_ascii = not self._console.encoding.startswith("utf")
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
        )
        self._lock = threading.Lock()
        """Held while somebody writes to the terminal."""
        self._snapshot: Snapshot | None = None
        self._outlet = Outlet(self._make_room)
        self._outlet.open(stream)

    def draw(self, snapshot: Snapshot) -> None:
        """Draw a frame, and above it what was printed since the last one."""
        with self._lock:
            self._snapshot = snapshot
            self._show()

    def finish(self, report: Report | None) -> None:
        """Take the view away; leave a line."""
        with self._lock:
            self._show()
            if self._live.is_started:
                self._live.stop()
            begun = self._outlet.begun
            self._outlet.close()
            if begun:
                self._write("\n")
            if report is not None:
                write_line(self._stream, layout.last_line(report))

    def close(self) -> None:
        """Let what is printed go its own way."""
        self._outlet.close()

    def _make_room(self) -> None:
        """Show what was printed, in the thread that prints too much."""
        if self._lock.acquire(blocking=False):  # else somebody is at it, this thread perhaps
            try:
                self._show()
            finally:
                self._lock.release()

    def _show(self) -> None:
        printed = self._outlet.take()
        console, live = self._console, self._live
        if self._snapshot is None:
            self._write(printed)
            return
        if not live.is_started:
            live.start()
        with console:  # what is within goes out in one piece
            if printed:
                console.print(_Printed(printed), soft_wrap=True, end="")
            live.update(_Frame(self._lines(self._snapshot)), refresh=True)

    def _lines(self, snapshot: Snapshot) -> list[layout.Line]:
        width, height = self._console.size
        begun: list[layout.Line] = [[(text, "")] for text in self._outlet.begun]
        rows = min(max(3, int(height * _SHARE_OF_HEIGHT)), height - 1) - len(begun)
        lines = layout.view(snapshot, width - 1, max(rows, 1), ascii_only=self._is_ascii)
        return begun + lines

    def _write(self, text: str) -> None:
        if text:
            self._stream.write(text)
            self._stream.flush()
