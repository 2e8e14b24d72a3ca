"""Sinks without a journal: they are given outcomes as these are delivered."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from okanjo_conductor._core.outcomes import all_outcomes_of
from okanjo_conductor.sinks._base import blamed, is_wanted, require_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from okanjo_conductor._core.records import Record
    from okanjo_conductor.sinks._base import Sink


class Feed:
    """Gives outcomes to sinks. What a run that is killed had given them stays there.

    Args:
        sinks: they are opened.

    Raises:
        SinkError: one cannot be opened, or, from the methods, not written to.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        require_names(sinks)
        self._sinks: list[Sink] = []
        self._count = 0
        self._is_broken = False
        try:
            for sink in sinks:
                with blamed(sink, "opening it"):
                    sink.open(None, lambda _: iter(()))
                self._sinks.append(sink)
        except BaseException:
            for sink in self._sinks:
                with suppress(Exception):
                    sink.close()
            raise

    def write(self, records: Iterable[Record]) -> None:
        """Give them the outcomes of these records; nothing more after an error."""
        if self._is_broken:
            return
        outcomes = all_outcomes_of(records)
        self._count += len(outcomes)
        self._is_broken = True
        for sink in self._sinks:
            if wanted := [outcome for outcome in outcomes if is_wanted(sink, outcome)]:
                with blamed(sink, "writing to it"):
                    sink.write(wanted, self._count)
        self._is_broken = False

    def close(self) -> None:
        """Close them all; raise the first of what goes wrong."""
        sinks, self._sinks = self._sinks, []
        errors: list[Exception] = []
        for sink in sinks:
            try:
                with blamed(sink, "closing it"):
                    sink.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
