"""Feeding: sinks are given each outcome exactly once, across any number of kills.

What a sink has taken is noted in the journal in the transaction of the outcomes themselves: its own
`position`, and the `seq` of the last outcome. A sink writes before the commit; if that does not
come, it is opened at the old position next time, and forgets what lies beyond.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from okanjo_conductor._core.outcomes import all_outcomes_of
from okanjo_conductor.journal._entries import Entries
from okanjo_conductor.journal._store import Transaction
from okanjo_conductor.sinks._base import blamed, is_wanted, require_names

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from okanjo_conductor._core.records import Record
    from okanjo_conductor._types import Outcome
    from okanjo_conductor.journal._store import Store
    from okanjo_conductor.sinks import Sink

_AT_ONCE = 1000
"""Outcomes of earlier commits that a new sink is given in one transaction."""


class _Fed:
    """A sink, and what it has been given."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.position: Any = None
        self.committed: Any = None
        """The position that counts: the last one in the journal."""
        self.seq = 0
        """The last outcome that it was given."""


class Feeding:
    """The sinks of a run.

    Args:
        store: the journal.
        connection: in which transactions are.
        sinks: they are opened.

    Raises:
        SinkError: one cannot be opened.
    """

    def __init__(self, store: Store, connection: sqlite3.Connection, sinks: Sequence[Sink]) -> None:
        self._connection = connection
        self._entries = Entries(store.path, connection, store.values)
        self._all: list[_Fed] = []
        require_names(sinks)
        try:
            for sink in sinks:
                fed = _Fed(sink)
                self._open(fed, is_durable=store.is_durable)
                self._all.append(fed)
        except BaseException:
            self.rewind()
            raise

    def _open(self, fed: _Fed, *, is_durable: bool) -> None:
        row = self._connection.execute(
            "SELECT position, seq FROM sinks WHERE name = ?", (fed.sink.name,)
        ).fetchone()
        position = None
        if row is not None:
            position, fed.seq = json.loads(row[0]), row[1]
        with blamed(fed.sink, "opening it"):
            fed.position = fed.sink.open(
                position, self._since(fed.sink, fed.seq), is_durable=is_durable
            )
        # Noted before anything is written: what was written after it must be found again.
        with Transaction(self._connection):
            self._note(fed)
        fed.committed = fed.position

    def _since(self, sink: Sink, last: int) -> Callable[[int], Iterator[Outcome]]:
        """Return a function that yields what a sink was given after a `seq`."""
        return lambda seq: (
            outcome
            for number, outcome in self._entries.outcomes_after(seq)
            if number <= last and is_wanted(sink, outcome)
        )

    def _note(self, fed: _Fed) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO sinks VALUES(?, ?, ?)",
            (fed.sink.name, json.dumps(fed.position), fed.seq),
        )

    def catch_up(self) -> None:
        """Give sinks what was committed without them: they are new, or were left out."""
        for fed in self._all:
            for last, outcomes in self._behind(fed):
                with Transaction(self._connection):
                    self._write(fed, outcomes, last)
                self.note_committed()

    def _behind(self, fed: _Fed) -> Iterator[tuple[int, list[Outcome]]]:
        while True:
            found = self._entries.some_outcomes_after(fed.seq, _AT_ONCE)
            if not found:
                return
            wanted = [outcome for _, outcome in found if is_wanted(fed.sink, outcome)]
            yield found[-1][0], wanted

    def give(self, records: Iterable[Record]) -> None:
        """Give the sinks the outcomes of this transaction, and note it there."""
        if not self._all:
            return
        outcomes = all_outcomes_of(records)
        if not outcomes:
            return
        (last,) = self._connection.execute("SELECT max(seq) FROM jobs").fetchone()
        for fed in self._all:
            self._write(fed, [o for o in outcomes if is_wanted(fed.sink, o)], last)

    def _write(self, fed: _Fed, outcomes: list[Outcome], last: int) -> None:
        if outcomes:
            with blamed(fed.sink, "writing to it"):
                fed.position = fed.sink.write(outcomes, last)
        fed.seq = last
        self._note(fed)

    def note_committed(self) -> None:
        """Take note that what sinks have written counts."""
        for fed in self._all:
            fed.committed = fed.position

    def close(self) -> None:
        """Close the sinks, and note what they have written at last."""
        with Transaction(self._connection):
            for fed in self._all:
                with blamed(fed.sink, "closing it"):
                    fed.position = fed.sink.close()
                self._note(fed)

    def rewind(self) -> None:
        """Have the sinks forget what was not committed, and close them."""
        for fed in self._all:
            with suppress(Exception):  # what is wrong has been said; the next start does it again
                fed.sink.rewind(fed.committed)
