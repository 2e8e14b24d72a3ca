"""What users wrap a mapping in to say how workers shall reach it. Light: workers load it, too."""

from __future__ import annotations

from okanjo_conductor._wire.functions import is_async
from okanjo_conductor.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any, Final

DEFAULT_CACHE = 100_000
"""Entries of one lookup that a worker keeps."""


class Absent:
    """The type of `ABSENT`."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()
"""What ``compare_and_set`` expects where there shall be no entry yet."""


class Lookup:
    """A lookup with options; ``Conductor(lookups={"rates": Lookup(mapping, cached=True)})``.

    Args:
        data: any mapping, or a `Loading`.
        cached: whether workers keep what they have read. An entry must then depend on nothing but
            its own key, and be changed in no other way than by the methods of the conductor and
            its workers: these know who has to forget what. A worker sees its own writes, never
            sees an older value after a newer one, and in a job that is handed out after a change
            was acknowledged it sees that change.
        max_entries: how many entries a worker keeps; beyond, the oldest go.

    Raises:
        ConfigurationError: `max_entries` makes no sense.
    """

    def __init__(
        self, data: Any, *, cached: bool = False, max_entries: int = DEFAULT_CACHE
    ) -> None:
        if not isinstance(max_entries, int) or isinstance(max_entries, bool) or max_entries < 1:
            message = f"Lookup(max_entries={max_entries!r}): a number of entries, from 1"
            raise ConfigurationError(message)
        self.data = data
        self.cached = cached
        self.max_entries = max_entries

    def __repr__(self) -> str:
        return f"Lookup({self.data!r}, cached={self.cached}, max_entries={self.max_entries})"


class Loading:
    """A lookup whose entries are made when they are first asked for.

    Whoever asks for an entry that is being made waits for it: it is made once, however many workers
    want it. Where making it raises, all who wait for it get the error, and the next one who asks
    has it made again. Where the worker that makes it dies or gives up, the next one who waits takes
    over.

    Args:
        function: from key to value. In the conductor, a plain one runs in threads, and an
            ``async def`` as a task, so that neither holds up anything else. It must not need an
            entry of this same lookup.
        data: a mutable mapping that holds the entries; default: a new dict, which only grows. It
            may hold some to begin with, or drop them at any time.
        in_worker: call the function in the worker that asked, in the thread that asked; it must be
            plain then.
        threads: how many calls of a plain function may run at once in the conductor.

    Raises:
        ConfigurationError: the function cannot be called as asked.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        data: MutableMapping[Any, Any] | None = None,
        in_worker: bool = False,
        threads: int = 4,
    ) -> None:
        given: Any = function
        if not callable(given):
            message = f"Loading({function!r}): a function from key to value"
            raise ConfigurationError(message)
        if in_worker and is_async(function):
            message = "Loading(in_worker=True): a plain function, not an async one"
            raise ConfigurationError(message)
        if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
            message = f"Loading(threads={threads!r}): a number of threads, from 1"
            raise ConfigurationError(message)
        self.function = function
        self.data: MutableMapping[Any, Any] = {} if data is None else data
        self.in_worker = in_worker
        self.threads = threads

    def __repr__(self) -> str:
        return f"Loading({self.function!r}, in_worker={self.in_worker}, {len(self.data)} entries)"


def mapping_of(lookup: Any) -> Any:
    """Return the mapping beneath the options."""
    loading = loading_of(lookup)
    if loading is not None:
        return loading.data
    return lookup.data if isinstance(lookup, Lookup) else lookup


def loading_of(lookup: Any) -> Loading | None:
    """Return what makes the entries, or None."""
    if isinstance(lookup, Lookup):
        lookup = lookup.data
    return lookup if isinstance(lookup, Loading) else None
