"""An event loop that is there at once: asyncio takes longer to load than most small runs last.

It knows no coroutines. When one turns up, the loop is *upgraded*: asyncio is loaded, and a loop of
it takes over the readers, writers, timers and calls, and runs the rest. From outside nothing
changes; whoever holds this object goes on using it.

As in asyncio, a callback that raises is logged and the loop goes on; ``KeyboardInterrupt`` and
``SystemExit`` come out of `run_forever`, which may then be called again.
"""

from __future__ import annotations

import _socket as socket  # as in `launching`
import heapq
import selectors
from collections import deque
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from okanjo_conductor._io.loggers import log
from okanjo_conductor._io.loops import new_asyncio_loop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from okanjo_conductor._io.loops import Timer

_EVENTS = _READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_FEW_TIMERS = 64
"""Below that many, those that were cancelled are not looked for."""


class Handle:
    """A call to come."""

    __slots__ = ("_args", "_callback", "is_cancelled")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._callback = callback
        self._args = args
        self.is_cancelled = False

    def cancel(self) -> None:
        """Let it not come."""
        self.is_cancelled = True

    def run(self) -> None:
        """Make the call, unless it was cancelled."""
        if self.is_cancelled:
            return
        try:
            self._callback(*self._args)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            name = getattr(self._callback, "__qualname__", repr(self._callback))
            log().exception("%s raised", name)


class LightLoop:
    """Readers, writers, timers and calls from other threads, in one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._ready: deque[Handle] = deque()
        self._outside: deque[Handle] = deque()
        """Calls that other threads and signal handlers have asked for."""
        self._timers: list[tuple[float, int, Handle]] = []
        self._numbers = count()
        """They keep timers of the same time in order."""
        self._prune_at = _FEW_TIMERS
        self._is_stopping = False
        self._is_closed = False
        self._heavy: asyncio.AbstractEventLoop | None = None
        """Runs everything after an upgrade."""
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self.add_reader(self._woken, self._on_woken)

    time = staticmethod(monotonic)
    """The clock, which is asyncio's too."""

    # Calls

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call a function in the next turn."""
        handle = Handle(callback, args)
        self._put(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call a function after so many seconds."""
        return self.call_at(monotonic() + delay, callback, *args)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call a function at that time of the loop's clock."""
        handle = Handle(callback, args)
        if self._heavy is not None:
            return self._heavy.call_at(when, handle.run)
        if len(self._timers) >= self._prune_at:
            self._prune()
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> Timer:
        """Have a function called in the loop's thread. Also for handlers of signals.

        Raises:
            RuntimeError: the loop is closed.
        """
        if self._is_closed:
            message = "the loop is closed"
            raise RuntimeError(message)
        handle = Handle(callback, args)
        self._outside.append(handle)
        with suppress(OSError):  # it is full: woken often enough; or it has just been closed
            self._waker.send(b"\0")
        return handle

    def _put(self, handle: Handle) -> None:
        if self._heavy is None:
            self._ready.append(handle)
        else:
            self._heavy.call_soon(handle.run)

    def _on_woken(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        for _ in range(len(self._outside)):
            self._put(self._outside.popleft())

    def _prune(self) -> None:
        self._timers = [entry for entry in self._timers if not entry[2].is_cancelled]
        heapq.heapify(self._timers)
        self._prune_at = max(_FEW_TIMERS, 2 * len(self._timers))

    # Descriptors

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        """Call a function whenever there is something to read."""
        handle = Handle(callback, args)
        if self._heavy is not None:
            self._heavy.add_reader(fd, handle.run)
        else:
            self._watch(fd, _READ, handle)

    def add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        """Call a function whenever there is room to write."""
        handle = Handle(callback, args)
        if self._heavy is not None:
            self._heavy.add_writer(fd, handle.run)
        else:
            self._watch(fd, _WRITE, handle)

    def remove_reader(self, fd: Any) -> None:
        """Call it no more."""
        if self._heavy is not None:
            self._heavy.remove_reader(fd)
        else:
            self._watch(fd, _READ, None)

    def remove_writer(self, fd: Any) -> None:
        """Call it no more."""
        if self._heavy is not None:
            self._heavy.remove_writer(fd)
        else:
            self._watch(fd, _WRITE, None)

    def _watch(self, fd: Any, event: int, handle: Handle | None) -> None:
        """Make this the call for an event of a descriptor; None: there is none any more."""
        try:
            handles: dict[int, Handle] = self._selector.get_key(fd).data
        except (KeyError, ValueError):  # unknown, or closed
            if handle is not None:
                self._selector.register(fd, event, {event: handle})
            return
        before = handles.pop(event, None)
        if before is not None:
            before.cancel()
        elif handle is None:
            return
        if handle is not None:
            handles[event] = handle
        if handles:
            self._selector.modify(fd, sum(handles), handles)
        else:
            self._selector.unregister(fd)

    # Life

    def run_forever(self) -> None:
        """Run until `stop` is called."""
        self._is_stopping = False
        while self._heavy is None and not self._is_stopping:
            self._turn()
        if self._heavy is not None and not self._is_stopping:
            self._heavy.run_forever()

    def stop(self) -> None:
        """Let `run_forever` return after this turn."""
        self._is_stopping = True
        if self._heavy is not None:
            self._heavy.stop()

    def close(self) -> None:
        """Let go of everything; of what asyncio has begun as well."""
        self._is_closed = True
        self.remove_reader(self._woken)
        self._waker.close()
        self._woken.close()
        if self._heavy is None:
            self._selector.close()
            return
        import asyncio

        heavy = self._heavy
        with asyncio.Runner(loop_factory=lambda: heavy):
            pass  # leaving it cancels tasks, ends async generators and closes the loop

    def _turn(self) -> None:
        ready = self._ready
        for key, mask in self._selector.select(self._patience()):
            ready += [key.data[event] for event in _EVENTS if mask & event and event in key.data]
        timers, now = self._timers, monotonic()
        while timers and timers[0][0] <= now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            ready.popleft().run()
            if self._heavy is not None:
                return

    def _patience(self) -> float | None:
        """Seconds that may be waited for descriptors; None: for ever."""
        if self._ready:
            return 0.0
        timers = self._timers
        while timers and timers[0][2].is_cancelled:
            heapq.heappop(timers)
        return max(0.0, timers[0][0] - monotonic()) if timers else None

    # Upgrade

    def create_task(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine, which takes an upgrade."""
        return self.upgrade().create_task(coro)

    def upgrade(self) -> asyncio.AbstractEventLoop:
        """Have a loop of asyncio's run the rest; return it."""
        if self._heavy is not None:
            return self._heavy
        heavy = new_asyncio_loop()
        for key in tuple(self._selector.get_map().values()):
            for event, handle in key.data.items():
                add = heavy.add_reader if event == _READ else heavy.add_writer
                add(key.fileobj, handle.run)
        for when, _, handle in sorted(self._timers, key=lambda entry: entry[:2]):
            heavy.call_at(when, handle.run)
        for handle in self._ready:
            heavy.call_soon(handle.run)
        self._heavy = heavy
        self._timers.clear()
        self._ready.clear()
        self._selector.close()
        return heavy
