"""SIGINT and SIGTERM to the process of a conductor that blocks in ``run()``."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_EXIT_CODE = 128
"""Shells give this and the signal's number as the exit code of who was ended by it."""


class StopSignals:
    """Passes SIGINT and SIGTERM on while it is entered; afterwards they take their usual course.

    Only in the main thread, where alone Python lets signals be handled; elsewhere it does nothing.
    A signal that is ignored, as under ``nohup``, stays so.

    Args:
        steps: called in the main thread with the name of the signal: the first one for the first
            signal, the last one for every further one.
    """

    def __init__(self, *steps: Callable[[str], None]) -> None:
        self._steps = steps
        self._previous: dict[signal.Signals, Any] = {}
        self._received: list[signal.Signals] = []

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:
                self._previous[number] = handler
                signal.signal(number, self._on_signal)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._received and (kind is None or issubclass(kind, Exception)):
            self._pass_on(self._received[0])

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        received = signal.Signals(number)
        step = min(len(self._received), len(self._steps) - 1)
        self._received.append(received)
        self._steps[step](received.name)

    def _pass_on(self, number: signal.Signals) -> None:
        """Do what would have been done without us."""
        handler = self._previous[number]
        if callable(handler):
            handler(number, None)
        elif handler is signal.SIG_DFL:  # not by the signal itself: `finally` blocks must run
            raise SystemExit(_EXIT_CODE + number)
