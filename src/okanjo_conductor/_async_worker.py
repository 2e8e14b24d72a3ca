"""AsyncConductorWorker: many jobs at a time in one process, on an event loop.

Also the worker that is made of an ``async def`` function. Loaded by async workers only.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cached_property, partial

from okanjo_conductor import _runtime
from okanjo_conductor._async_runtime import AsyncRuntime
from okanjo_conductor._basis import Basis, FunctionWorker
from okanjo_conductor._worker import ConductorWorker
from okanjo_conductor.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

CONCURRENCY = 100
"""As many connections as aiohttp and httpx open by default."""


class _Awaiting(Basis):
    """What waits in a `ConductorWorker`, awaited."""

    concurrency: int = CONCURRENCY
    """How many jobs are in flight at a time."""
    _is_async = True

    @cached_property
    def _waiters(self) -> ThreadPoolExecutor:
        """Threads that wait for lookups: as many as there may be jobs that do."""
        return ThreadPoolExecutor(self.concurrency, "lookups")

    def start(self) -> None:
        """Work until the conductor has no more jobs.

        Called for you, unless the script is run again in its worker processes (see `is_worker`).

        Raises:
            ConductorStateError: this process was not started by a conductor.
        """
        check_concurrency(self.concurrency)
        _runtime.start(self, AsyncRuntime)

    async def request(
        self, command_name: str, data: Any = None, *, timeout: float | None = None
    ) -> Any:
        """Send the conductor a message and await the data of its reply.

        Raises:
            TimeoutError: no reply came in `timeout` seconds.
            UnknownCommandError: the conductor does not handle this command.
            Exception: what its handler raised.
        """
        reply: Any = self._live.talk.ask(command_name, data, None)
        answer = await reply.result(timeout)
        return getattr(answer, "data", answer)

    async def lookup(self, name: str, key: Any, default: Any = None) -> Any:
        """Return one entry of a lookup, or `default` where there is none."""
        return await self._in_thread(super().lookup, name, key, default)

    async def lookup_many(  # type: ignore[override]
        self, name: str, keys: Iterable[Any]
    ) -> dict[Any, Any]:
        """Return the entries there are for these keys, in one round trip at most."""
        found: dict[Any, Any] = await self._in_thread(super().lookup_many, name, keys)
        return found

    async def set_lookup(self, name: str, key: Any, value: Any) -> None:  # type: ignore[override]
        """Set an entry of a lookup."""
        await self._in_thread(super().set_lookup, name, key, value)

    async def update_lookup(  # type: ignore[override]
        self, name: str, entries: Mapping[Any, Any]
    ) -> None:
        """Set many entries of a lookup in one round trip; nobody sees some of them only."""
        await self._in_thread(super().update_lookup, name, entries)

    async def increment(self, name: str, key: Any, by: Any = 1) -> Any:
        """Add to an entry of a lookup, which is 0 where there is none; return what it is then."""
        return await self._in_thread(super().increment, name, key, by)

    async def compare_and_set(  # type: ignore[override]
        self, name: str, key: Any, expected: Any, value: Any
    ) -> bool:
        """Set an entry of a lookup if it equals `expected`; say whether that was so."""
        return bool(await self._in_thread(super().compare_and_set, name, key, expected, value))

    async def shared(self, name: str) -> Any:
        """Return the NumPy array that is the lookup, as a read-only view: no copy is made."""
        return await self._in_thread(super().shared, name)

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call what waits in a thread of its own: the loop goes on, and reads what comes."""
        call = partial(copy_context().run, function, *args)
        return await asyncio.get_running_loop().run_in_executor(self._waiters, call)


class AsyncConductorWorker(_Awaiting, ConductorWorker):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Runs many jobs at a time in a process of its own. Subclass it and write `process_job`.

    ``async def process_job(self, job)``; `setup`, `teardown` and `on_master_message` may be
    ``async`` too. It is a `ConductorWorker` in all but this: what waits there is awaited here
    (`lookup`, `lookup_many`, `set_lookup`, `request`, and the reply of `send_request_to_master`),
    there is no callback style (`complete_job`, `get_next_job`), and messages are handled while jobs
    are in flight.

    A job that passes its time limit, or is cancelled, has its task cancelled. Only where that does
    not end it in half of ``timeout_grace``, because it blocks the event loop or goes on
    regardless, is the process ended; the other jobs in it are not charged. When the process dies
    with several jobs in flight, each of them is executed again, alone, and whoever kills its worker
    then is charged.

    Args:
        concurrency: how many jobs are in flight at a time; default: the class's, which is 100.
            ``Conductor(concurrency=…)`` goes before both.
        options: those of a `ConductorWorker`.
    """

    def __init__(self, *, concurrency: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        if concurrency is not None:
            self.concurrency = concurrency
        check_concurrency(self.concurrency)

    async def process_job(self, job: Any) -> Any:
        """Do the job; return its value, or raise."""
        raise NotImplementedError


class AsyncFunctionWorker(_Awaiting, FunctionWorker):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A worker made of an ``async def`` function from job to value."""


def check_concurrency(concurrency: Any) -> None:
    """Refuse what is no number of jobs."""
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
        message = f"concurrency={concurrency!r}: a whole number of jobs, from 1"
        raise ConfigurationError(message)
