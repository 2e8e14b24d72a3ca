"""What is printed while a view stands at the bottom of the terminal.

`sys.stdout`, `sys.stderr` and the handlers of `logging` that write to them are each given a
*stand-in*. What is written to it waits for the thread that draws, which puts it above the view; so
a job that prints never waits for the terminal, and order is kept. Lines that have not ended yet
are part of the view: who asks a question without a line end sees it.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

_MOST_WAITING = 5000
"""Writes that may wait; who writes more does the work of the thread that draws."""


class StandIn:
    """Takes what is written to a stream; is otherwise like it. Afterwards, it is that stream."""

    def __init__(self, stream: TextIO, outlet: Outlet) -> None:
        self._stream = stream
        self._outlet = outlet

    def write(self, text: str) -> int:
        """Have a text shown above the view."""
        if self._outlet.is_closed:
            return self._stream.write(text)
        self._outlet.put(self._stream, str(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Have texts shown above the view."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing while there is a view: it is drawn again soon."""
        if self._outlet.is_closed:
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Outlet:
    """Gathers what is written to the terminal.

    Args:
        on_full: called by a thread that writes when very much waits to be shown.
    """

    def __init__(self, on_full: Callable[[], None]) -> None:
        self._on_full = on_full
        self._waiting: deque[tuple[TextIO, str]] = deque()
        """Appending is all that other threads do, and handlers of signals: it takes no lock."""
        self._begun: dict[TextIO, str] = {}
        """By stream, a line that has not ended."""
        self._replaced: list[tuple[str, TextIO, StandIn]] = []
        self._handlers: list[tuple[logging.StreamHandler[Any], TextIO, StandIn]] = []
        self.is_closed = False

    def open(self, terminal: TextIO) -> None:
        """Stand in for the streams that write to this terminal."""
        stand_ins: dict[int, StandIn] = {}
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and _is_same(stream, terminal):
                stand_in = stand_ins.setdefault(id(stream), StandIn(stream, self))
                self._replaced.append((name, stream, stand_in))
                setattr(sys, name, stand_in)
        for handler in _stream_handlers():
            stream = handler.stream
            if (stand_in_or_none := stand_ins.get(id(stream))) is not None:
                self._handlers.append((handler, stream, stand_in_or_none))
                handler.setStream(stand_in_or_none)

    def put(self, stream: TextIO, text: str) -> None:
        """Have a text shown."""
        self._waiting.append((stream, text))
        if len(self._waiting) > _MOST_WAITING:
            self._on_full()

    def take(self) -> str:
        """Return the lines that have ended since the last time. Called by one thread at a time."""
        lines: list[str] = []
        for _ in range(len(self._waiting)):
            stream, text = self._waiting.popleft()
            begun = self._begun.pop(stream, "") + text
            ended, end, rest = begun.rpartition("\n")
            lines.append(ended + end)
            if rest:
                self._begun[stream] = rest
        return "".join(lines)

    @property
    def begun(self) -> list[str]:
        """Lines that have not ended yet."""
        return list(self._begun.values())

    def close(self) -> None:
        """Let the streams have what is left, and be themselves again."""
        for name, stream, stand_in in self._replaced:
            if getattr(sys, name) is stand_in:
                setattr(sys, name, stream)
        for handler, stream, stand_in in self._handlers:
            if cast("object", handler.stream) is stand_in:
                handler.setStream(stream)
        self.is_closed = True
        for stream, text in self._begun.items():
            self._waiting.appendleft((stream, text))
        self._begun.clear()
        with suppress(IndexError):  # that was all
            while True:
                stream, text = self._waiting.popleft()
                with suppress(OSError, ValueError):  # it is closed: nobody is listening
                    stream.write(text)
                    stream.flush()


def _is_same(stream: TextIO, terminal: TextIO) -> bool:
    with suppress(OSError, ValueError, AttributeError):
        return os.path.samestat(os.fstat(stream.fileno()), os.fstat(terminal.fileno()))
    return False


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    """Find the handlers of all loggers that write to a stream."""
    logging = sys.modules.get("logging")  # who has not loaded it has no handlers
    if logging is None:
        return
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler):
                yield handler
