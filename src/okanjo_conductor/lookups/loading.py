"""Entries that are made when they are asked for: each once, however many workers want it.

    missing ──► flight ──► made in the conductor: in a thread, or as a task ──► landed: all who
                  │        or in a worker, by the one who asked                  wait are answered
                  │            │
                  │            └── it died or gave up: the next who waits makes it
                  └── others who ask wait for the same flight

A request that asked for several entries is answered when the last of them is there, with what the
mapping holds at that moment: what was changed meanwhile is told as it is then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from okanjo_conductor._wire.functions import is_async

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterator

    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor._io.threads import Callers
    from okanjo_conductor.lookups._kinds import Loading


class Waiter:
    """A request for entries, some of which are being made."""

    def __init__(self, worker_id: int, request: int, keys: list[Any]) -> None:
        self.worker_id = worker_id
        self.request = request
        self.keys = keys
        self.missing: set[Any] = set()
        """Keys whose flights have not landed."""
        self.landed: dict[Any, Any] = {}
        """What was made; the mapping may have dropped it by the time of the answer."""
        self.is_answered = False


class Flight:
    """One entry that is being made."""

    def __init__(self, number: int, key: Any, first: Waiter) -> None:
        self.number = number
        self.key = key
        self.waiters = [first]
        """In the order in which they came; the first is who makes it, if workers do."""


class Loads:
    """The flights of one lookup.

    Args:
        threads: call the function, where it is a plain one.
        numbers: for flights; those of all lookups have different ones.
        tell_to_load: has a worker make the entries of these flights, for this request of its.
        answer: answers a request, as an error or with what there is now.
    """

    def __init__(
        self,
        loading: Loading,
        loop: Loop,
        threads: Callers,
        numbers: Iterator[int],
        *,
        tell_to_load: Callable[[Waiter, list[Flight]], None],
        answer: Callable[[Waiter, BaseException | None], None],
    ) -> None:
        self._loading = loading
        self._loop = loop
        self._tell_to_load = tell_to_load
        self._answer = answer
        self._numbers = numbers
        self._by_key: dict[Any, Flight] = {}
        self._by_number: dict[int, Flight] = {}
        self._threads = threads
        self._tasks: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        """Wait for nothing any more."""
        self._by_key.clear()
        self._by_number.clear()
        self._threads.close()
        for task in self._tasks:
            task.cancel()

    def wait(self, waiter: Waiter, missing: list[Any]) -> None:
        """Answer a request when the entries of these keys, all different, have been made."""
        new = []
        waiter.missing.update(missing)
        for key in missing:
            flight = self._by_key.get(key)
            if flight is not None:
                flight.waiters.append(waiter)
                continue
            flight = Flight(next(self._numbers), key, waiter)
            self._by_key[key] = self._by_number[flight.number] = flight
            new.append(flight)
        if new and self._loading.in_worker:
            self._tell_to_load(waiter, new)
        else:
            for flight in new:
                self._make(flight)

    def on_loaded(
        self, worker_id: int, number: int, error: BaseException | None, value: Any
    ) -> None:
        """A worker has made an entry, or could not. Of who was told to no longer, it is ignored."""
        flight = self._by_number.get(number)
        if flight is not None and flight.waiters[0].worker_id == worker_id:
            self._land(flight, error, value)

    def drop(self, is_meant: Callable[[Waiter], bool]) -> None:
        """Forget requests that nobody waits for any more; what they were to make, others make."""
        for flight in tuple(self._by_number.values()):
            first = flight.waiters[0]
            left = [w for w in flight.waiters if not (is_meant(w) or w.is_answered)]
            if first.is_answered and not is_meant(first):
                left.insert(0, first)  # it was told to make the entry, and will
            if not self._loading.in_worker:
                flight.waiters = left or [first]  # it goes on, for whoever asks next
            elif not left:
                self._take_out(flight)
            else:
                flight.waiters = left
                if left[0] is not first:
                    self._tell_to_load(left[0], [flight])

    # In the conductor

    def _make(self, flight: Flight) -> None:
        function = self._loading.function
        if is_async(function):
            self._await(flight, lambda: function(flight.key))
        else:
            self._threads.submit(
                lambda: function(flight.key),
                lambda error, value: self._made(flight, error, value),
            )

    def _made(self, flight: Flight, error: BaseException | None, value: Any) -> None:
        if error is None and hasattr(value, "__await__"):
            self._await(flight, lambda: value)
        elif flight.number in self._by_number:
            self._land(flight, error, value)

    def _await(self, flight: Flight, make: Callable[[], Awaitable[Any]]) -> None:
        task = self._loop.create_task(self._awaited(flight, make))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _awaited(self, flight: Flight, make: Callable[[], Awaitable[Any]]) -> None:
        try:
            value = await make()
        except Exception as error:
            self._made(flight, error, None)
        else:
            self._made(flight, None, value)

    # The end of a flight

    def _take_out(self, flight: Flight) -> None:
        del self._by_key[flight.key], self._by_number[flight.number]

    def _land(self, flight: Flight, error: BaseException | None, value: Any) -> None:
        self._take_out(flight)
        if error is None:
            try:
                # Somebody may have set it meanwhile: that is newer than what was made of old facts.
                value = self._loading.data.setdefault(flight.key, value)
            except Exception as refused:
                error = refused
        for waiter in flight.waiters:
            waiter.missing.discard(flight.key)
            waiter.landed[flight.key] = value
            if not waiter.is_answered and (error is not None or not waiter.missing):
                waiter.is_answered = True
                self._answer(waiter, error)
