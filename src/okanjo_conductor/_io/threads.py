"""Threads that call functions of the user's for the loop, which must not wait for them."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from okanjo_conductor._io.loops import call_soon

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._io.loops import Loop

    class Callers(Protocol):
        """Who calls functions of the user's on behalf of the loop."""

        def submit(
            self, call: Callable[[], Any], then: Callable[[BaseException | None, Any], None]
        ) -> None:
            """Have a function called, and pass on what it raised or returned: in the loop."""

        def close(self) -> None:
            """Begin nothing more."""


class Threads:
    """A few threads that call functions; they are started when needed, and end with the program.

    Functions are begun in the order in which they came; one thread calls one after another.

    Args:
        most: threads at once.
        name: theirs.
        loop: where what comes of the calls is passed on.
    """

    def __init__(self, most: int, name: str, loop: Loop) -> None:
        self._most = most
        self._name = name
        self._loop = loop
        self._work: deque[tuple[Callable[[], Any], Callable[[BaseException | None, Any], None]]]
        self._work = deque()
        self._changed = threading.Condition()
        self._count = 0
        self._idle = 0
        self._is_closed = False

    def submit(
        self, call: Callable[[], Any], then: Callable[[BaseException | None, Any], None]
    ) -> None:
        """Have a thread call a function and pass on, in the loop, what it raised or returned."""
        with self._changed:
            self._work.append((call, then))
            if self._idle >= len(self._work) or self._count >= self._most:
                self._changed.notify()
                return
            self._count += 1
        # A daemon: a function that never returns must not keep the program from ending.
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def close(self) -> None:
        """Start nothing more; let the threads go."""
        with self._changed:
            self._is_closed = True
            self._work.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._work and not self._is_closed:
                    self._changed.wait()
                self._idle -= 1
                if self._is_closed:
                    return
                call, then = self._work.popleft()
            error: BaseException | None = None
            value = None
            try:
                value = call()
            except BaseException as raised:  # SystemExit too: it is the function's, not ours
                error = raised
            call_soon(self._loop, then, error, value)


class Directly:
    """Calls functions at once, in the thread of the loop, where that waits for them anyway."""

    def submit(
        self, call: Callable[[], Any], then: Callable[[BaseException | None, Any], None]
    ) -> None:
        """Call a function and pass on what it raised or returned."""
        error: BaseException | None = None
        value = None
        try:
            value = call()
        except (Exception, SystemExit) as raised:
            error = raised
        then(error, value)

    def close(self) -> None:
        """Do nothing: nothing is waiting."""
