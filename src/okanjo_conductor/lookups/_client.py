"""Lookups as a worker sees them: what it can read without asking, and what it asks the conductor.

A `Source` stands for one lookup. The conductor says at its first use what kind it is. `source[key]`
is the hot path: a hit in a `Cached` one is nothing but a look into a dict.

Order is everything. What is kept here was put here while the conductor's answer was handled, by the
thread that reads the link, and the conductor says what has changed before it says anything else; so
no entry that is kept outlives the news that it has changed. Whoever waits for an answer may be
another thread, and must not put anything here itself.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from itertools import islice
from time import perf_counter

from okanjo_conductor._io import assignment
from okanjo_conductor._types import LOOKUP_COUNTERS
from okanjo_conductor._wire import failures
from okanjo_conductor._wire.byvalue import encode_by_value
from okanjo_conductor._wire.codec import decode
from okanjo_conductor._wire.messages import PLAIN, UNSEEN, ChangeLookup, Loaded, LookUp, OpenLookup
from okanjo_conductor.errors import ConductorStateError, JobTimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from okanjo_conductor._wire.messages import AnyMessage, Load
    from okanjo_conductor.lookups.table import LookupTable

    class Query(Protocol):
        """An answer to come."""

        def result(self, timeout: float | None = None) -> Any:
            """Wait for it."""

    class Talker(Protocol):
        """The conversation with the conductor."""

        def query(
            self,
            take: Callable[[Any], None] | None = None,
            load: Callable[[Load], None] | None = None,
        ) -> tuple[int, Query]:
            """Expect an answer; `take` is given it in the order in which messages arrive."""
            ...

        def glance(self, name: str, key: Any) -> tuple[Any, ...] | None:
            """Ask for an entry where that takes no message; `UNSEEN` if it has to be asked for."""
            ...

        def send(self, message: AnyMessage) -> None:
            """Send a message."""


_SWEPT = 0.25
"""The share of a full cache that goes at once, the oldest first."""


class NoEntry(Exception):  # noqa: N818 - no error: it never leaves this package
    """The lookup has no such entry. No `KeyError`, which a user's code may raise."""


class Sources(dict[str, "Source"]):
    """The lookups that this worker has used, by name; others are opened when asked for."""

    def __init__(self, talker: Callable[[], Talker]) -> None:
        super().__init__()
        self._talker = talker

    def __missing__(self, name: str) -> Source:
        self.opening(name).result()
        return self[name]

    def opening(self, name: str) -> Query:
        """Ask what kind of lookup it is; when the answer is here, so is its source."""
        talk = self._talker()

        def open_it(how: tuple[Any, ...]) -> None:
            self.setdefault(name, _KINDS[how[0]](name, talk, *how[1:]))

        number, query = talk.query(open_it)
        talk.send(OpenLookup(number, name))
        return query

    def forget(self, name: str, keys: list[Any] | None) -> None:
        """Let go of entries that have changed; None: of all."""
        source = self.get(name)
        if source is not None:
            source.forget(keys)

    def counters(self) -> dict[str, float]:
        """Say what was read and asked for, by names for the worker's counters."""
        return {
            f"{LOOKUP_COUNTERS}{name}.{what}": count
            for name, source in tuple(self.items())
            for what, count in source.counters().items()
        }


class Source:
    """One lookup. This base asks the conductor for everything."""

    asks = True
    """Whether the conductor may have to be asked for an entry."""

    def __init__(
        self, name: str, talk: Talker, function: Callable[[Any], Any] | None = None
    ) -> None:
        self.name = name
        self.reading: Any = None
        """What has a `read(key, default)` for each thread, if that is how entries are read."""
        self.reads = 0
        """Entries that were read, here or by asking."""
        self.asked = 0
        """Entries that the conductor was asked for."""
        self.round_trips = 0
        self.seconds = 0.0
        """Time spent waiting for answers."""
        self._talk = talk
        self._function = function
        """Makes entries that are missing, in this worker."""
        self._own = threading.local()

    def __getitem__(self, key: Any) -> Any:
        found: Any = self._glanced(key) if type(key) in PLAIN else UNSEEN
        if found == UNSEEN:
            (found,) = self._found([key])
        if found is None:
            raise NoEntry
        return found[0]

    def _glanced(self, key: Any) -> tuple[Any, ...] | None:
        if self._function is not None:
            return UNSEEN
        began = perf_counter()
        found = self._talk.glance(self.name, key)
        if found != UNSEEN:
            self.asked += 1
            self.note_wait(began)
        return found

    def many(self, keys: list[Any]) -> dict[Any, Any]:
        """Return the entries there are for these keys."""
        self.reads += len(keys)
        there, wanted = self.split(keys)
        return joined(keys, there, wanted, self._found(wanted)) if wanted else there

    def split(self, keys: list[Any]) -> tuple[dict[Any, Any], list[Any]]:
        """Return the entries that are known here, and the keys to ask for."""
        return {}, keys

    def change(self, verb: str, args: tuple[Any, ...]) -> Any:
        """Have the conductor change the lookup."""
        return self._waited(self.ask_change(verb, args))

    def shared(self) -> Any:
        """Return the array in shared memory."""
        message = (
            f"lookup {self.name!r} is no array in shared memory. NumPy arrays are placed there "
            "when the run begins: give it to Conductor(lookups=…) as it is"
        )
        raise ConductorStateError(message)

    # Asking, without waiting

    def ask(self, keys: list[Any]) -> Query:
        """Ask for entries: ``(value,)`` or None for each key."""
        if getattr(self._own, "is_loading", False):
            message = (
                f"the function that loads entries of lookup {self.name!r} needs an entry of it: "
                "that may wait for itself. Compute it there, or keep it in another lookup"
            )
            raise ConductorStateError(message)
        self.asked += len(keys)
        is_plain = PLAIN.issuperset(map(type, keys))
        value = None if is_plain else encode_by_value(keys)
        number, query = self._talk.query(
            self._taker(keys),
            None if self._function is None else self._load,
        )
        self._talk.send(LookUp(number, self.name, keys if is_plain else None, value))
        return query

    def ask_change(self, verb: str, args: tuple[Any, ...]) -> Query:
        """Ask for a change: a verb of `lookups.live`, and its arguments."""
        value = encode_by_value(args)
        number, query = self._talk.query()
        self._talk.send(ChangeLookup(number, self.name, verb, value))
        return query

    def forget(self, keys: list[Any] | None) -> None:
        """Let go of entries that have changed."""

    def counters(self) -> dict[str, float]:
        """Say what was read and asked for."""
        return {
            "hits": self.reads - self.asked,
            "misses": self.asked,
            "round_trips": self.round_trips,
            "seconds": self.seconds,
        }

    def _taker(self, _keys: list[Any]) -> Callable[[list[Any]], None] | None:
        """Return what keeps the answer, if anything is kept."""
        return None

    def _found(self, keys: list[Any]) -> list[Any]:
        found: list[Any] = self._waited(self.ask(keys))
        return found

    def _waited(self, query: Query) -> Any:
        began = perf_counter()
        try:
            return query.result()
        finally:
            self.note_wait(began)

    def note_wait(self, began: float) -> None:
        """Take note that an answer was waited for since then, on the clock `perf_counter`."""
        self.round_trips += 1
        self.seconds += perf_counter() - began

    # Making entries

    def _load(self, message: Load) -> None:
        """Make the entries that the conductor wants made here, in the thread that waits."""
        self._own.is_loading = True
        try:
            for number, key in zip(message.numbers, decode(message.value), strict=True):
                self._talk.send(self._loaded(number, key))
        finally:
            self._own.is_loading = False

    def _loaded(self, number: int, key: Any) -> Loaded:
        assert self._function is not None  # noqa: S101 - who has none is told to make nothing
        try:
            return Loaded(number, None, encode_by_value(self._function(key)))
        except JobTimeoutError:
            raise  # this job has no more time; another may
        except Exception as error:
            return Loaded(number, failures.pack(failures.take_apart(error)), encode_by_value(None))


class Cached(Source, dict[object, object]):
    """A lookup whose entries are kept: they are the items of this dict."""

    def __init__(
        self,
        name: str,
        talk: Talker,
        function: Callable[[Any], Any] | None,
        max_entries: int,
    ) -> None:
        super().__init__(name, talk, function)
        self._max_entries = max_entries
        self._missing: set[Any] = set()
        """Keys without an entry."""

    __getitem__ = dict.__getitem__  # pyright: ignore[reportAssignmentType]  # same but for names

    def __missing__(self, key: Any) -> Any:
        if key in self._missing:
            raise NoEntry
        return Source.__getitem__(self, key)

    def _glanced(self, key: Any) -> tuple[Any, ...]:  # noqa: ARG002 - as in the base
        """Ask over the job link: what is kept must have come in the order of the messages."""
        return UNSEEN

    def split(self, keys: list[Any]) -> tuple[dict[Any, Any], list[Any]]:
        there: dict[Any, Any] = {}
        wanted: list[Any] = []
        for key in keys:
            value = self.get(key, NoEntry)
            if value is not NoEntry:
                there[key] = value
            elif key not in self._missing:
                wanted.append(key)
        return there, wanted

    def forget(self, keys: list[Any] | None) -> None:
        if keys is None:
            self.clear()
            self._missing.clear()
            return
        for key in keys:
            self.pop(key, None)
            self._missing.discard(key)

    def _taker(self, keys: list[Any]) -> Callable[[list[Any]], None]:
        return partial(self._keep, keys)

    def _keep(self, keys: list[Any], found: list[Any]) -> None:
        room = self._max_entries
        for key, hit in zip(keys, found, strict=True):
            if hit is not None:
                self[key] = hit[0]
            else:
                self._missing.add(key)
        if len(self) > room:
            for key in list(islice(self, max(len(self) - room, int(room * _SWEPT)))):
                del self[key]
        if len(self._missing) > room:
            self._missing.clear()


class Mapped(Source):
    """A `LookupTable`: read from the map, without a message; what was written is seen at once."""

    asks = False

    def __init__(self, name: str, talk: Talker, table: LookupTable) -> None:
        super().__init__(name, talk)
        self._table = table
        self.reading = table._opened()

    def split(self, keys: list[Any]) -> tuple[dict[Any, Any], list[Any]]:
        return self._table.get_many(keys), []


class Shared(Source):
    """An array in shared memory."""

    asks = False

    def __init__(self, name: str, talk: Talker, layout: Any) -> None:
        super().__init__(name, talk)
        place = assignment.current()
        assert place is not None  # noqa: S101 - only workers have sources
        self._array = layout.view(place.arrays)

    def __getitem__(self, index: Any) -> Any:
        try:
            return self._array[index]
        except IndexError:
            raise NoEntry from None

    def split(self, keys: list[Any]) -> tuple[dict[Any, Any], list[Any]]:
        entries: dict[Any, Any] = {}
        for key in keys:
            with suppress(NoEntry):
                entries[key] = self[key]
        return entries, []

    def shared(self) -> Any:
        self.reads += 1
        return self._array


_KINDS: dict[str, Callable[..., Source]] = {
    "live": Source,
    "cached": Cached,
    "array": Shared,
    "table": Mapped,
}


def joined(
    keys: list[Any], there: dict[Any, Any], wanted: list[Any], found: list[Any]
) -> dict[Any, Any]:
    """Return the entries that were known and those that were found, in the order of the keys."""
    there.update((k, hit[0]) for k, hit in zip(wanted, found, strict=True) if hit is not None)
    return {key: there[key] for key in keys if key in there}
