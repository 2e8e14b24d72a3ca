"""What a worker can do with lookups: the methods that users call."""

from __future__ import annotations

from okanjo_conductor.lookups._client import NoEntry, Sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from okanjo_conductor.lookups._client import Talker


class LookupVerbs:
    """The part of every worker that is about lookups.

    All methods raise `UnknownLookupError` where there is no lookup of that name, and what the
    mapping itself raises. Those that change something return when every worker can see it.
    """

    _lookups: Sources

    def _begin_lookups(self) -> None:
        self._lookups = Sources(self._talker)

    def _talker(self) -> Talker:
        raise NotImplementedError

    def lookup(self, name: str, key: Any, default: Any = None) -> Any:
        """Return one entry of a lookup, or `default` where there is none."""
        source = self._lookups[name]
        source.reads += 1
        reading = source.reading
        if reading is not None:
            return reading.read(key, default)
        try:
            return source[key]
        except NoEntry:
            return default

    def lookup_many(self, name: str, keys: Iterable[Any]) -> dict[Any, Any]:
        """Return the entries there are for these keys, in one round trip at most."""
        return self._lookups[name].many(list(keys))

    def set_lookup(self, name: str, key: Any, value: Any) -> None:
        """Set an entry of a lookup."""
        self._lookups[name].change("set", (key, value))

    def update_lookup(self, name: str, entries: Mapping[Any, Any]) -> None:
        """Set many entries of a lookup in one round trip; nobody sees some of them only."""
        self._lookups[name].change("update", (dict(entries),))

    def increment(self, name: str, key: Any, by: Any = 1) -> Any:
        """Add to an entry of a lookup, which is 0 where there is none; return what it is then.

        Two workers never get the same number.
        """
        return self._lookups[name].change("increment", (key, by))

    def compare_and_set(self, name: str, key: Any, expected: Any, value: Any) -> bool:
        """Set an entry of a lookup if it equals `expected`; say whether that was so.

        `ABSENT` as `expected`: if there is no such entry.
        """
        done: bool = self._lookups[name].change("compare_and_set", (key, expected, value))
        return done

    def shared(self, name: str) -> Any:
        """Return the NumPy array that is the lookup, as a read-only view: no copy is made.

        Raises:
            ConductorStateError: that lookup was no array when the run began.
        """
        return self._lookups[name].shared()
