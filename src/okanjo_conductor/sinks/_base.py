"""What a sink is: a place that outcomes are written to, exactly once.

A sink that keeps a *position* is put back to it when a program that was killed is started again:
what it had written beyond was not committed, and is written anew.
"""

from __future__ import annotations

import builtins
import os
from typing import TYPE_CHECKING, Any

from okanjo_conductor._types import JobState
from okanjo_conductor._wire.failures import said
from okanjo_conductor.errors import ConductorError, ConfigurationError, SinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from okanjo_conductor._types import Outcome


class Sink:
    """Base of all sinks: subclass it to write to something else.

    All methods are called by one thread at a time: with a journal, by the one that commits.
    Whatever they raise stops the run; with a journal, it can be resumed.

    Attributes:
        name: what the journal knows the sink by, the same whenever the program is started.
        failures: whether it wants the outcomes of jobs that were not done, too.
    """

    name: str = ""
    failures: bool = False

    def open(
        self,
        position: Any,
        since: Callable[[int], Iterator[Outcome]],
        *,
        is_durable: bool = False,
    ) -> Any:
        """Get ready to write, and forget what was written beyond a position.

        Args:
            position: what `write` or `open` has returned last and was committed; None: nothing was.
            since: yields the outcomes that this sink was given after a `seq`, for one that holds
            some
                back. They come from the journal, where jobs that are done have no payload.
            is_durable: whether what was written must survive a power cut when `write` returns.

        Returns:
            The position to begin at: None, or what JSON can say.
        """
        del since, is_durable
        return position

    def write(self, outcomes: Sequence[Outcome], seq: int) -> Any:
        """Write outcomes; they are committed next, together with the position that is returned.

        Args:
            outcomes: at least one, in the order of commits.
            seq: the number of the last of them; it grows from commit to commit.
        """
        raise NotImplementedError

    def rewind(self, position: Any) -> None:
        """Forget what was written beyond a position, and close: it could not be committed.

        Args:
            position: the last one that was; what `open` has returned counts as committed.
        """

    def close(self) -> Any:
        """Write what was held back, and close; return the last position."""


class EachOutcome(Sink):
    """Calls a function with each outcome, just before it is committed.

    If the program is killed between the two, it is called again: at least once.
    """

    def __init__(self, function: Callable[[Outcome], Any]) -> None:
        self.function = function
        module = getattr(function, "__module__", type(function).__module__)
        name = f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"
        # Ray puts a function of its own in the place of `print`, now or in the next run.
        self.name = "function:" + ("builtins.print" if function is builtins.print else name)

    def write(self, outcomes: Sequence[Outcome], seq: int) -> Any:
        """Call the function with each of these."""
        del seq
        for outcome in outcomes:
            self.function(outcome)

    def __repr__(self) -> str:
        return self.name


def as_sinks(given: Any) -> list[Sink]:
    """Return what was given as `sink=` as a list of sinks.

    Raises:
        ConfigurationError: it is no sink.
    """
    if given is None:
        return []
    sinks = [_as_sink(one) for one in (given if isinstance(given, list | tuple) else [given])]
    require_names(sinks)
    return sinks


def _as_sink(given: Any) -> Sink:
    if isinstance(given, Sink):
        return given
    if callable(given) and not isinstance(given, type):
        return EachOutcome(given)
    hint = ""
    if isinstance(given, str | os.PathLike):
        hint = f": for a file, sinks.JsonLines({os.fspath(given)!r}) or another class of sinks"
    elif isinstance(given, type):
        hint = ": give an instance of it"
    message = f"sink={given!r} is no sink, no function and no list of these{hint}"
    raise ConfigurationError(message)


def require_names(sinks: Sequence[Sink]) -> None:
    """Refuse sinks that the journal could not tell apart.

    Raises:
        ConfigurationError: one has no name, or two have the same.
    """
    names = [sink.name for sink in sinks]
    for sink in sinks:
        if not sink.name or names.count(sink.name) > 1:
            what = "has no name" if not sink.name else f"has the name of another: {sink.name!r}"
            message = f"sink {sink!r} {what}. Each must write to a place of its own"
            raise ConfigurationError(message)


def is_wanted(sink: Sink, outcome: Outcome) -> bool:
    """Whether a sink takes this outcome."""
    return outcome.state is JobState.DONE or sink.failures


class blamed:  # noqa: N801 - used like a function
    """Raise whatever a sink raises as a `SinkError` that names it."""

    def __init__(self, sink: Sink, doing: str) -> None:
        self._sink = sink
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ConductorError) or error is None:
            return
        if isinstance(error, KeyboardInterrupt):
            return
        message = f"sink {self._sink!r}: {self._doing} failed: {said(error)}"
        raise SinkError(message) from error
