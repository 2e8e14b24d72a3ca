"""The thread that draws.

It asks the run for a snapshot, draws it, and waits: so long that drawing takes no more than a
fiftieth of the time, because it takes it from the thread of the run. What goes wrong here ends the
view, and nothing else.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, TextIO

from okanjo_conductor._io.loggers import log
from okanjo_conductor._progress import screens
from okanjo_conductor._progress.plain import PlainLines

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._progress.screens import Screen
    from okanjo_conductor._snapshot import Snapshot
    from okanjo_conductor._types import Report

_SHORT = 0.25
"""Seconds: a run that is over by then has but its last line, and need not load what draws."""
_COST = 50
"""Times what a frame takes is the least to wait for the next one."""
_LONGEST_PAUSE = 2.0
_PATIENCE = 2.0
"""Seconds that the end of a run waits for the last frame: a terminal may be stopped."""


class View:
    """Shows the progress of one run, in a thread of its own.

    Args:
        look: makes a snapshot; called in that thread.
        interval: seconds between plain lines; None: by default.
    """

    def __init__(self, look: Callable[[], Snapshot], interval: float | None) -> None:
        self._look = look
        self._interval = interval
        self._stream: TextIO | None = sys.stderr
        self._is_over = threading.Event()
        self._report: Report | None = None
        self._screen: Screen | None = None
        self._thread = threading.Thread(
            target=self._run, name="okanjo-conductor-progress", daemon=True
        )
        self._thread.start()

    def close(self, report: Report | None) -> None:
        """Show the end, and wait until that is done, unless it takes too long."""
        self._report = report
        self._is_over.set()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive() and self._screen is not None:
            self._screen.close()  # what the program prints from now on must not wait for that

    def _run(self) -> None:
        stream = self._stream
        if stream is None:  # as under pythonw: there is nothing to show it on
            return
        try:
            if self._is_over.wait(_SHORT):
                PlainLines(stream).finish(self._report)
            else:
                self._show_on(screens.choose(stream, self._interval))
        except (OSError, ValueError):
            return  # the stream is closed, or its reader gone: nobody is looking
        except Exception:
            log().exception("the progress of the run cannot be shown")

    def _show_on(self, screen: Screen) -> None:
        self._screen = screen
        try:
            pause = max(screen.pause - _SHORT, 0.0)
            while not self._is_over.wait(pause):
                began = time.thread_time()
                screen.draw(self._look())
                cost = time.thread_time() - began
                pause = max(screen.pause, min(_COST * cost, _LONGEST_PAUSE))
            screen.finish(self._report)
        finally:
            screen.close()
