"""AsyncConductorWorker: many jobs at a time in one process, on an event loop.

Also the worker that is made of an ``async def`` function. Loaded by async workers only.
"""

from __future__ import annotations

from time import perf_counter

from okanjo_conductor import _runtime
from okanjo_conductor._async_runtime import AsyncRuntime
from okanjo_conductor._basis import Basis, FunctionWorker
from okanjo_conductor._types import check_concurrency
from okanjo_conductor._worker import ConductorWorker
from okanjo_conductor.lookups._client import NoEntry, joined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from okanjo_conductor.lookups._client import Source

CONCURRENCY = 100
"""As many connections as aiohttp and httpx open by default."""


class _Awaiting(Basis):
    """What waits in a `ConductorWorker`, awaited."""

    concurrency: int = CONCURRENCY
    """How many jobs are in flight at a time."""
    _is_async = True

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
        talk = self._live.talk
        reply: Any = talk.ask(command_name, data, None)
        try:
            answer = await reply.result(timeout)
        finally:
            talk.drop(reply.name)  # nobody else has it
        return getattr(answer, "data", answer)

    async def lookup(self, name: str, key: Any, default: Any = None) -> Any:
        """Return one entry of a lookup, or `default` where there is none."""
        source = await self._source(name)
        source.reads += 1
        if source.reading is not None:
            return source.reading.read(key, default)
        if not source.asks:
            try:
                return source[key]
            except NoEntry:
                return default
        there, wanted = source.split([key])
        if not wanted:
            return there.get(key, default)
        (found,) = await _waited(source, source.ask(wanted))
        return default if found is None else found[0]

    async def lookup_many(  # type: ignore[override]
        self, name: str, keys: Iterable[Any]
    ) -> dict[Any, Any]:
        """Return the entries there are for these keys, in one round trip at most."""
        source, wanted = await self._source(name), list(keys)
        source.reads += len(wanted)
        there, unknown = source.split(wanted)
        if not unknown:
            return there
        return joined(wanted, there, unknown, await _waited(source, source.ask(unknown)))

    async def set_lookup(self, name: str, key: Any, value: Any) -> None:  # type: ignore[override]
        """Set an entry of a lookup."""
        await self._change(name, "set", key, value)

    async def update_lookup(  # type: ignore[override]
        self, name: str, entries: Mapping[Any, Any]
    ) -> None:
        """Set many entries of a lookup in one round trip; nobody sees some of them only."""
        await self._change(name, "update", dict(entries))

    async def increment(self, name: str, key: Any, by: Any = 1) -> Any:
        """Add to an entry of a lookup, which is 0 where there is none; return what it is then."""
        return await self._change(name, "increment", key, by)

    async def compare_and_set(  # type: ignore[override]
        self, name: str, key: Any, expected: Any, value: Any
    ) -> bool:
        """Set an entry of a lookup if it equals `expected`; say whether that was so."""
        return bool(await self._change(name, "compare_and_set", key, expected, value))

    async def shared(self, name: str) -> Any:
        """Return the NumPy array that is the lookup, as a read-only view: no copy is made."""
        return (await self._source(name)).shared()

    async def _source(self, name: str) -> Source:
        source = self._lookups.get(name)
        if source is None:
            query: Any = self._lookups.opening(name)
            await query.wait()
            source = self._lookups[name]
        return source

    async def _change(self, name: str, verb: str, *args: Any) -> Any:
        source = await self._source(name)
        return await _waited(source, source.ask_change(verb, args))


async def _waited(source: Source, query: Any) -> Any:
    began = perf_counter()
    try:
        return await query.wait()
    finally:
        source.note_wait(began)


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
