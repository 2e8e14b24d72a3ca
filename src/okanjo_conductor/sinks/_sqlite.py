"""A sink that is a table of an SQLite database: its position is its largest rowid."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from okanjo_conductor.errors import SinkError
from okanjo_conductor.sinks._base import Sink
from okanjo_conductor.sinks._files import checked_exists, checked_row, require_known
from okanjo_conductor.sinks._rows import flat, json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from okanjo_conductor._types import Outcome

_MOST_PLACES = 2000
"""Values in one statement: many rows at once, for the reason given in `journal._writer`."""
_PLAIN = frozenset({str, int, float, bytes, type(None)})
_LARGEST = 1 << 63


class SqliteTable(Sink):
    """A row for each done job: its key and the fields of its value, which is a dict, or ``value``.

    The table is made with the columns of the first row, unless they are given. Lists, dicts and the
    like become JSON. While the run goes on, nothing else should insert into the table: rows that
    the journal does not know of are deleted when the run is started again.

    Args:
        path: the database; it is made if it is not there. Not the journal itself.
        table: the name of the table.
        columns: their names, in order.
        exists: what to do if there is such a table, with rows that were not written by the run that
            goes on: ``"error"``, ``"append"`` or ``"overwrite"``.
        failures: whether jobs that were not done get a row, too.
        row: makes a dict of an outcome, by the names of columns.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        table: str = "outcomes",
        *,
        columns: Sequence[str] | None = None,
        exists: str = "error",
        failures: bool = False,
        row: Callable[[Outcome], dict[str, Any]] = flat,
    ) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100 - it may be a str
        self.table = table
        self.name = f"SqliteTable:{self.path}:{table}"
        self.failures = failures
        self._given = None if columns is None else list(columns)
        self._exists = checked_exists(exists)
        self._row = row
        self._columns: list[str] | None = None
        """Those of the table; None: it is not made yet."""
        self._connection: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        return f"SqliteTable({self.path!r}, {self.table!r})"

    def open(
        self,
        position: Any,
        since: Callable[[int], Iterator[Outcome]],
        *,
        is_durable: bool = False,
    ) -> Any:
        """Open the database, and delete rows that were not committed."""
        del since
        connection = self._connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=20
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
            self._columns = self._columns_there()
            if position is None:
                self._begin()
            else:
                self._go_on(position["rowid"])
            return self._position()
        except BaseException:
            connection.close()
            raise

    def _columns_there(self) -> list[str] | None:
        rows = self._all(f"PRAGMA table_info({_quoted(self.table)})")
        return [row[1] for row in rows] or None

    def _begin(self) -> None:
        if self._last() and self._exists == "error":
            message = (
                f"{self.path} has a table {self.table!r} with rows that were not written by this "
                'run. Give the sink another table, exists="append" or exists="overwrite"'
            )
            raise SinkError(message)
        if self._columns is not None and self._exists == "overwrite":
            self._all(f"DROP TABLE {_quoted(self.table)}")
            self._columns = None

    def _go_on(self, last: int) -> None:
        there = self._last()
        if there < last:
            message = (
                f"table {self.table!r} of {self.path} has lost rows: its last one is {there:,} and "
                f"should be {last:,}. Restore it; or give the sink another table, which will be "
                "given everything that is in the journal"
            )
            raise SinkError(message)
        if there > last:
            self._all(f"DELETE FROM {_quoted(self.table)} WHERE rowid > ?", last)  # noqa: S608

    def _last(self) -> int:
        if self._columns is None:
            return 0
        return self._all(f"SELECT max(rowid) FROM {_quoted(self.table)}")[0][0] or 0  # noqa: S608

    def _position(self) -> dict[str, int]:
        return {"rowid": self._last()}

    def write(self, outcomes: Sequence[Outcome], seq: int) -> Any:
        """Insert their rows, all or none."""
        del seq
        rows = [(outcome, checked_row(self, outcome, self._row(outcome))) for outcome in outcomes]
        self._all("BEGIN IMMEDIATE")
        try:
            self._insert(rows)
            position = self._position()
            self._all("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._all("ROLLBACK")
            self._columns = self._columns_there()
            raise
        return position

    def _insert(self, rows: list[tuple[Outcome, dict[str, Any]]]) -> None:
        if self._columns is None:
            self._columns = self._given or list(rows[0][1])
            names = ", ".join(map(_quoted, self._columns))
            self._all(f"CREATE TABLE {_quoted(self.table)}({names})")
        columns = self._columns
        values: list[list[Any]] = []
        for outcome, row in rows:
            require_known(self, outcome, row, columns)
            values.append([_value(row.get(name)) for name in columns])
        at_once = max(_MOST_PLACES // len(columns), 1)
        for begin in range(0, len(values), at_once):
            self._insert_some(columns, values[begin : begin + at_once])

    def _insert_some(self, columns: list[str], values: list[list[Any]]) -> None:
        names = ", ".join(map(_quoted, columns))
        places = ", ".join([f"({', '.join('?' * len(columns))})"] * len(values))
        statement = f"INSERT INTO {_quoted(self.table)}({names}) VALUES {places}"  # noqa: S608
        self._all(statement, *chain.from_iterable(values))

    def rewind(self, position: Any) -> None:
        """Delete rows that were not committed."""
        if self._connection is not None:
            with suppress(sqlite3.Error, SinkError):
                self._go_on(position["rowid"])
            self._connection.close()

    def close(self) -> Any:
        """Close the database, and leave it as one file."""
        position = self._position()
        if self._connection is not None:
            with suppress(sqlite3.Error):  # somebody is reading it
                self._all("PRAGMA journal_mode = DELETE")
            self._connection.close()
        return position

    def _all(self, statement: str, *given: Any) -> list[tuple[Any, ...]]:
        assert self._connection is not None  # noqa: S101 - it is open
        return self._connection.execute(statement, given).fetchall()


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _value(value: Any) -> Any:
    if type(value) is bool:
        return int(value)
    if type(value) is int and not -_LARGEST <= value < _LARGEST:
        return str(value)
    if type(value) is str:
        return value.encode("utf-8", "backslashreplace").decode()
    return value if type(value) in _PLAIN else json_text(value)
