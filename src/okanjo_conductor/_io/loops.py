"""Reaching an event loop from any thread."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any


def call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any) -> None:
    """Have a function called in the loop's thread; a loop that is closed has no use for it."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return
