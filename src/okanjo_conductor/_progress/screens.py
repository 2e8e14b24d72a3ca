"""Chooses what a run's progress is shown on."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Protocol

from okanjo_conductor._progress.plain import PlainLines

if TYPE_CHECKING:
    from typing import TextIO

    from okanjo_conductor._snapshot import Snapshot
    from okanjo_conductor._types import Report

    class Screen(Protocol):
        """Where progress is shown. Used by one thread."""

        @property
        def pause(self) -> float:
            """Seconds until the next snapshot is wanted."""
            ...

        def draw(self, snapshot: Snapshot) -> None:
            """Show a snapshot."""

        def finish(self, report: Report | None) -> None:
            """Show the end; None: the run has ended without a report."""

        def close(self) -> None:
            """Take no more of what is printed.

            Called last, whether the others have failed or not; or at any time by another thread,
            where this one does not come back from the terminal.
            """


def choose(stream: TextIO, interval: float | None) -> Screen:
    """Find the best screen for a stream.

    Args:
        interval: seconds between plain lines, if it comes to these; None: see `PlainLines`.
    """
    if is_notebook():
        return _bar(stream) or PlainLines(stream, interval)
    if stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        return _live(stream) or _bar(stream) or PlainLines(stream, interval)
    return PlainLines(stream, interval)


def _live(stream: TextIO) -> Screen | None:
    try:
        from okanjo_conductor._progress.live import LiveView
    except ImportError:
        return None
    return LiveView(stream)


def _bar(stream: TextIO) -> Screen | None:
    try:
        from okanjo_conductor._progress.bars import Bar
    except ImportError:
        return None
    return Bar(stream)


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"
