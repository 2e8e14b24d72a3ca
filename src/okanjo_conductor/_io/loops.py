"""Event loops: what a run needs of one, reaching one from any thread, and asyncio's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    # Making protocols takes a while, in every new process.
    class Timer(Protocol):
        """A call to come."""

        def cancel(self) -> None:
            """Let it not come."""

    class Loop(Protocol):
        """What a run needs of an event loop: a small part of asyncio's, with the same meaning."""

        def time(self) -> float:
            """Return the time of the loop's clock."""
            ...

        def call_soon(self, callback: Callable[..., Any], *args: Any) -> Timer:
            """Call a function in the next turn."""
            ...

        def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
            """Call a function after so many seconds."""
            ...

        def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
            """Call a function at that time of the loop's clock."""
            ...

        def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> Any:
            """Have a function called in the loop's thread.

            Raises:
                RuntimeError: the loop is closed.
            """

        def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
            """Call a function whenever there is something to read."""

        def remove_reader(self, fd: Any) -> Any:
            """Call it no more."""

        def add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
            """Call a function whenever there is room to write."""

        def remove_writer(self, fd: Any) -> Any:
            """Call it no more."""

        def create_task(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
            """Run a coroutine."""
            ...


def call_soon(loop: Loop, function: Callable[..., Any], *args: Any) -> None:
    """Have a function called in the loop's thread; a loop that is closed has no use for it."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return


def is_asyncio_loaded() -> bool:
    """Whether it would cost nothing to use asyncio, and code of the user's may count on it."""
    return "asyncio" in sys.modules


def is_loop_running() -> bool:
    """Whether this thread is within a loop of asyncio's, which must not be run by another one."""
    asyncio: Any = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def new_asyncio_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop of asyncio's: uvloop's, where that is installed."""
    try:
        import uvloop
    except ImportError:
        import asyncio

        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run_coroutine(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a loop of its own; in a thread of its own where this one has a loop."""
    import asyncio

    if asyncio._get_running_loop() is None:
        with asyncio.Runner(loop_factory=new_asyncio_loop) as runner:
            return runner.run(main)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "okanjo-conductor") as executor:
        return executor.submit(run_coroutine, main).result()
