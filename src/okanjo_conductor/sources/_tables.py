"""Sources that are tables: a query of SQLite, a Parquet file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from okanjo_conductor.errors import ConfigurationError, SourceError
from okanjo_conductor.sources import _opening as opening
from okanjo_conductor.sources._base import KeyOf, Source, missing_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class SqliteQuery(Source):
    """One job per row of a query: a dict from column to value.

    The database is opened read-only. The query goes on while the jobs are read: a long run holds
    a read transaction, beside which others can write in WAL mode.

    Args:
        path: the database file.
        sql: the query; None: all of the only table there is.
        parameters: values for its placeholders.
        key: the name of a column, or a function of the row.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sql: str | None = None,
        parameters: Sequence[Any] | Mapping[str, Any] = (),
        *,
        key: str | KeyOf | None = None,
    ) -> None:
        super().__init__(path, key=key)
        self._sql = sql
        self._parameters = parameters

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            with closing(self._connected()) as connection:
                yield from self._rows(connection, self._sql or _only_table(connection))
        except (sqlite3.Error, _TablesError) as error:
            raise SourceError(self.path, str(error)) from error

    def _rows(self, connection: sqlite3.Connection, sql: str) -> Iterator[dict[str, Any]]:
        # A connection stays open until its cursors are closed.
        with closing(connection.execute(sql, self._parameters)) as rows:
            fields = [column[0] for column in rows.description or ()]
            self._check_columns(fields)
            for row in rows:
                yield dict(zip(fields, row, strict=True))

    def _connected(self) -> sqlite3.Connection:
        # Closed by whoever drops the iterator, in whichever thread.
        uri = f"file:{quote(os.path.abspath(self.path))}?mode=ro"
        return sqlite3.connect(uri, uri=True, check_same_thread=False)

    def _check_columns(self, fields: list[str]) -> None:
        if self._key_field is not None and self._key_field not in fields:
            raise _TablesError(missing_field(dict.fromkeys(fields), self._key_field))


class _TablesError(Exception):
    """The database has not what was asked for."""


def _only_table(connection: sqlite3.Connection) -> str:
    query = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
    names = [name for (name,) in connection.execute(query)]
    if len(names) != 1:
        there = ", ".join(map(repr, names)) or "none"
        message = f"which table? There are: {there}. Give a query"
        raise _TablesError(message)
    quoted = names[0].replace('"', '""')
    return f'select * from "{quoted}"'  # noqa: S608 - quoted, and from the database itself


class Parquet(Source):
    """One job per row of a Parquet file: a dict from column to value. Extra `parquet`.

    Rows are read a batch at a time; ``len()`` is written in the file.

    Args:
        path: a file or URL.
        columns: those to read; None: all.
        key: the name of a column, or a function of the row.
        batch: rows that are held in memory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        key: str | KeyOf | None = None,
        batch: int = 1024,
    ) -> None:
        super().__init__(path, key=key)
        self._columns = None if columns is None else list(columns)
        self._batch = batch

    def __len__(self) -> int:
        with closing(opening.open_binary(self.path)) as raw, closing(self._opened(raw)) as file:
            return int(file.metadata.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with closing(opening.open_binary(self.path)) as raw, closing(self._opened(raw)) as file:
            self._check_columns(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=self._batch, columns=self._columns):
                yield from batch.to_pylist()

    def _opened(self, raw: Any) -> Any:
        try:
            from pyarrow import ArrowException, parquet  # an extra
        except ImportError:
            message = "Parquet files need pyarrow: pip install 'okanjo-conductor[parquet]'"
            raise ConfigurationError(message) from None
        try:
            return parquet.ParquetFile(raw)
        except ArrowException as error:
            raise SourceError(self.path, f"not a Parquet file: {error}") from error

    def _check_columns(self, names: list[str]) -> None:
        for wanted in (*(self._columns or ()), *filter(None, [self._key_field])):
            if wanted not in names:
                raise SourceError(self.path, missing_field(dict.fromkeys(names), wanted))
