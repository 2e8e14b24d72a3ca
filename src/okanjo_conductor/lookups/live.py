"""Lookups on the conductor's side: what workers ask for is answered from the mappings.

The conductor's loop is the one place where a lookup is read or changed for a worker, one request
after another; so all of it is linearisable.

**What workers keep.** A worker that has opened a `Lookup(cached=True)` may keep what it reads. For
each such worker there is a `News`: the entries that were changed since it was last told anything.
Its link sends these ahead of whatever it says next: jobs, answers, messages. So a job that is
handed out after a change was acknowledged finds nothing of older date in its worker, and nobody
whom the conductor has told of a change, in whatever way, can then read what was before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from okanjo_conductor._io.loggers import log
from okanjo_conductor._wire import byvalue, failures, pickling
from okanjo_conductor._wire import messages as msg
from okanjo_conductor._wire.codec import Encoded, decode
from okanjo_conductor.errors import ReadOnlyLookupError, SerialisationError
from okanjo_conductor.lookups._attending import Attention
from okanjo_conductor.lookups._kinds import Loading, Lookup, loading_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor._io.threads import Callers
    from okanjo_conductor.clusters._base import Link
    from okanjo_conductor.lookups.arrays import Arena
    from okanjo_conductor.lookups.loading import Flight, Loads, Waiter

_MOST_KEYS = 256
"""Changed entries of a lookup that are told one by one; beyond, all of it is."""
_PLAIN = frozenset({int, str, bytes, bool, type(None)})
"""Types of keys that are equal exactly if they are after their travel."""

if TYPE_CHECKING:  # making protocols takes a while, in every new process

    class Owner(Protocol):
        """The conductor, as far as lookups go."""

        lookups: dict[str, Any]

        def get_lookup(self, name: str) -> Any:
            """Find the mapping of a lookup, or raise `UnknownLookupError`."""

        def get_lookup_value(self, name: str, key: Any, default: Any = None) -> Any:
            """Read an entry."""

        def set_lookup_value(self, name: str, key: Any, value: Any) -> None:
            """Set an entry."""

        def update_lookup(self, name: str, entries: Mapping[Any, Any]) -> None:
            """Set many entries."""

        def increment_lookup_value(self, name: str, key: Any, by: Any = 1) -> Any:
            """Add to an entry."""

        def compare_and_set_lookup_value(
            self, name: str, key: Any, expected: Any, value: Any
        ) -> bool:
            """Set an entry if it is as expected."""
            ...


class News:
    """What one worker must be told of changes before anything else. False if there is nothing."""

    def __init__(self) -> None:
        self._changed: dict[str, set[Any] | None] = {}
        """By lookup the keys, or None for all."""

    def __bool__(self) -> bool:
        return bool(self._changed)

    def add(self, name: str, keys: Iterable[Any] | None) -> None:
        """Note a change; None: of anything."""
        if keys is None:
            self._changed[name] = None
            return
        noted = self._changed.setdefault(name, set())
        if noted is not None:
            noted.update(keys)
            if len(noted) > _MOST_KEYS:
                self._changed[name] = None

    def take(self) -> list[msg.AnyMessage]:
        """Return what is to be said, once."""
        changed, self._changed = self._changed, {}
        return [
            msg.Invalidate(name, None if keys is None else list(keys))
            for name, keys in changed.items()
        ]


class Desk:
    """Answers the workers of a run that ask about lookups.

    Args:
        make_threads: makes so many threads, of that name, for functions that make entries.
    """

    def __init__(
        self,
        owner: Owner,
        loop: Loop,
        links: dict[int, Link],
        arena: Arena | None,
        make_threads: Callable[[int, str], Callers],
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._links = links
        self._arena = arena
        self._make_threads = make_threads
        self._news: dict[int, News] = {}
        """By worker, of those that keep entries of any lookup."""
        self._keepers: dict[str, dict[int, News]] = {}
        """By lookup, the workers that may have kept entries of it."""
        self._loads: dict[str, Loads] = {}
        """By lookup, where entries are made when asked for."""
        self._flights = count(1)
        self._attention = Attention(loop, links, self._glance)

    def close(self) -> None:
        """Answer nobody any more, and make no more entries."""
        self._attention.close()
        for loads in self._loads.values():
            loads.close()

    def forget_worker(self, worker_id: int) -> None:
        """A worker is gone: its requests need no answer."""
        self._attention.forget(worker_id)
        self._news.pop(worker_id, None)
        for keepers in self._keepers.values():
            keepers.pop(worker_id, None)
        for loads in self._loads.values():
            loads.drop(lambda waiter: waiter.worker_id == worker_id)
        for lookup in self._owner.lookups.values():
            if _is_table(lookup):
                try:
                    lookup.forget_dead_readers()
                except Exception as error:  # it was closed, perhaps; that is for who reads it
                    log().warning("worker %d has ended: %r: %s", worker_id, lookup, error)

    def note_change(self, name: str, keys: Iterable[Any]) -> None:
        """Entries of a lookup may have changed: see that whoever has kept them is told."""
        keepers = self._keepers.get(name)
        if not keepers:
            return
        # Of a sequence, two keys may mean one entry: -1 is the last.
        is_told = isinstance(self._owner.get_lookup(name), Mapping) and all(map(_is_plain, keys))
        for news in keepers.values():
            news.add(name, keys if is_told else None)

    def require_writable(self, name: str) -> None:
        """Refuse to change an array in shared memory.

        Raises:
            ReadOnlyLookupError: it is one.
        """
        if self._layout_of(name) is not None:
            raise ReadOnlyLookupError(name, "numpy.ndarray, in shared memory while the run goes on")

    # What workers ask

    def on_message(self, worker_id: int, message: Any) -> None:
        """Handle a message about lookups."""
        _ON_MESSAGE[type(message)](self, worker_id, message)

    def _on_open(self, worker_id: int, message: msg.OpenLookup) -> None:
        self._answer(worker_id, message.request, lambda: self._opened(worker_id, message.name))

    def _opened(self, worker_id: int, name: str) -> tuple[Any, ...]:
        """Say how a worker reaches the entries: the arguments of a source."""
        mapping = self._owner.get_lookup(name)
        given = self._owner.lookups.get(name, mapping)
        layout = self._layout_of(name)
        if layout is not None:
            return "array", layout
        if _is_table(mapping):
            return "table", mapping
        loading = loading_of(given)
        function = loading.function if loading is not None and loading.in_worker else None
        if not (isinstance(given, Lookup) and given.cached):
            return "live", function
        news = self._news.get(worker_id)
        if news is None:
            news = self._news[worker_id] = News()
            self._links[worker_id].ahead = news
        self._keepers.setdefault(name, {})[worker_id] = news
        return "cached", function, given.max_entries

    def _on_look_up(self, worker_id: int, message: msg.LookUp) -> None:
        if message.plain is not None and len(message.plain) == 1:
            self._attention.note(worker_id)
        loading = loading_of(self._owner.lookups.get(message.name))
        if loading is None:
            self._answer(worker_id, message.request, lambda: self._found(message))
            return
        try:
            keys = _keys_of(message)
            missing = [key for key in dict.fromkeys(keys) if key not in loading.data]
        except Exception as error:
            self._answer_error(worker_id, message.request, error)
            return
        if missing:
            from okanjo_conductor.lookups.loading import Waiter  # only for who has such lookups

            waiter = Waiter(worker_id, message.request, keys)
            self._loads_of(message.name, loading).wait(waiter, missing)
        else:
            self._answer(worker_id, message.request, lambda: self._entries(message.name, keys))

    def _glance(self, name: str, key: Any) -> tuple[Any, ...] | None:
        """Find an entry that can be answered at once, and is plain data."""
        try:
            loading = loading_of(self._owner.lookups.get(name))
            if loading is not None and key not in loading.data:
                return msg.UNSEEN
            (hit,) = self._entries(name, [key])
        except Exception:  # told to the worker when it asks in the usual way
            return msg.UNSEEN
        return hit if hit is None or type(hit[0]) in msg.PLAIN else msg.UNSEEN

    def _found(self, message: msg.LookUp) -> list[Any]:
        return self._entries(message.name, _keys_of(message))

    def _entries(self, name: str, keys: list[Any]) -> list[Any]:
        self._owner.get_lookup(name)
        get, missing = self._owner.get_lookup_value, object()
        values = [get(name, key, missing) for key in keys]
        return [None if value is missing else (value,) for value in values]

    def _on_change(self, worker_id: int, message: msg.ChangeLookup) -> None:
        owner = self._owner
        acts: dict[str, Callable[..., Any]] = {
            "set": owner.set_lookup_value,
            "update": owner.update_lookup,
            "increment": owner.increment_lookup_value,
            "compare_and_set": owner.compare_and_set_lookup_value,
        }
        act = acts[message.verb]
        self._answer(
            worker_id,
            message.request,
            lambda: act(message.name, *read(message.value, "a lookup entry")),
        )

    def _layout_of(self, name: str) -> Any:
        return self._arena and self._arena.layout_of(name, self._owner.lookups.get(name))

    # Entries that are made when asked for

    def _loads_of(self, name: str, loading: Loading) -> Loads:
        from okanjo_conductor.lookups.loading import Loads

        loads = self._loads.get(name)
        if loads is None:
            loads = self._loads[name] = Loads(
                loading,
                self._loop,
                self._make_threads(loading.threads, "okanjo-conductor-loading"),
                self._flights,
                tell_to_load=self._tell_to_load,
                answer=lambda waiter, error: self._answer_waiter(name, waiter, error),
            )
        return loads

    def _tell_to_load(self, waiter: Waiter, flights: list[Flight]) -> None:
        worker_id, numbers = waiter.worker_id, [flight.number for flight in flights]
        keys, error = _encoded([flight.key for flight in flights])
        if error is None:
            self._links[worker_id].send(msg.Load(waiter.request, numbers, keys))
            return
        for number in numbers:  # a key that came from a worker does not find back
            self._land(worker_id, number, error, None)

    def _answer_waiter(self, name: str, waiter: Waiter, error: BaseException | None) -> None:
        if waiter.worker_id not in self._links:
            return
        if error is not None:
            self._answer_error(waiter.worker_id, waiter.request, error)
            return

        def found() -> list[Any]:
            now = self._entries(name, waiter.keys)
            return [
                (waiter.landed[key],) if hit is None and key in waiter.landed else hit
                for key, hit in zip(waiter.keys, now, strict=True)
            ]

        self._answer(waiter.worker_id, waiter.request, found)

    def _on_loaded(self, worker_id: int, message: msg.Loaded) -> None:
        error: BaseException | None = None
        value = None
        if message.error is not None:
            error = failures.rebuild(failures.unpack(message.error))
        else:
            try:
                value = read(message.value, "an entry that was made in a worker")
            except SerialisationError as unreadable:
                error = unreadable
        self._land(worker_id, message.number, error, value)

    def _land(self, worker_id: int, number: int, error: BaseException | None, value: Any) -> None:
        for loads in self._loads.values():
            loads.on_loaded(worker_id, number, error, value)

    def _on_forget(self, worker_id: int, message: msg.Forget) -> None:
        for loads in self._loads.values():
            loads.drop(lambda w: w.worker_id == worker_id and w.request == message.request)

    # Answers

    def _answer(self, worker_id: int, request: int, act: Callable[[], Any]) -> None:
        try:
            value = act()
        except Exception as error:
            self._answer_error(worker_id, request, error)
            return
        if _travels_plain(value):
            self._links[worker_id].send(msg.Answer(request, None, [value], None))
            return
        encoded, unpicklable = _encoded(value)
        if unpicklable is None:
            self._links[worker_id].send(msg.Answer(request, None, None, encoded))
        else:
            self._answer_error(worker_id, request, unpicklable)

    def _answer_error(self, worker_id: int, request: int, error: BaseException) -> None:
        packed = failures.pack(failures.take_apart(error))
        self._links[worker_id].send(msg.Answer(request, packed, None, None))


def _travels_plain(value: Any) -> bool:
    """Whether an answer is plain data, or such entries."""
    if type(value) is not list:
        return type(value) in msg.PLAIN
    return all(hit is None or type(hit[0]) in msg.PLAIN for hit in value)


def _keys_of(message: msg.LookUp) -> list[Any]:
    if message.plain is not None:
        return message.plain
    keys: list[Any] = read(message.value, "the key of a lookup")
    return keys


def tables_among(lookups: Mapping[str, Any]) -> dict[str, Callable[[], bytes]]:
    """Find the tables among lookups: by a name for it, what packs each for another machine."""
    tables = [lookup for lookup in lookups.values() if _is_table(lookup)]
    if not tables:
        return {}
    from okanjo_conductor.lookups import _carrying

    return {_carrying.name_of(table): _carrying.packer(table) for table in tables}


def _is_table(lookup: Any) -> bool:
    """Whether a lookup is a table, told without loading what tables need."""
    return hasattr(type(lookup), "forget_dead_readers")


def _is_plain(key: Any) -> bool:
    return type(key) in _PLAIN or (type(key) is tuple and all(map(_is_plain, key)))


def read(value: Encoded | None, what: str) -> Any:
    """Unpickle what a worker sent.

    Raises:
        SerialisationError: that raised, whatever it was.
    """
    try:
        return decode(value)  # type: ignore[arg-type]  # None of garbage: an error like others
    except KeyboardInterrupt:
        raise  # more likely the user's than the value's
    except BaseException as error:  # a class's __setstate__ may raise anything
        message = f"{what} cannot be unpickled in the conductor: {failures.said(error)}"
        raise SerialisationError(message) from error


def _encoded(value: Any) -> tuple[Encoded, BaseException | None]:
    try:
        return byvalue.encode_by_value(value), None
    except KeyboardInterrupt:
        raise  # more likely the user's than the value's
    except BaseException as error:  # a class's __reduce__ may raise anything
        return NOTHING, error


NOTHING = Encoded(pickling.dumps(None), [])
_ON_MESSAGE: dict[type[Any], Callable[[Desk, int, Any], None]] = {
    msg.OpenLookup: Desk._on_open,
    msg.LookUp: Desk._on_look_up,
    msg.ChangeLookup: Desk._on_change,
    msg.Loaded: Desk._on_loaded,
    msg.Forget: Desk._on_forget,
}
