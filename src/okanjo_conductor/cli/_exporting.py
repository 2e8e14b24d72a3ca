"""Writing rows of a journal as JSON lines, CSV or Parquet: what sinks would have written.

The columns of tables are those of the first row.
"""

from __future__ import annotations

import csv
import io
import os
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from okanjo_conductor.cli._errors import UsageError
from okanjo_conductor.cli._writing import Output, as_json, encoded
from okanjo_conductor.sinks._rows import cell, flattened

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

_ROWS_AT_ONCE = 10_000
_TEXTS = ("cause", "error")
"""Columns that are texts where they are anything."""


def write_table(rows: Iterable[dict[str, Any]], form: str, path: str | None) -> None:
    """Write rows to a file, which appears when it is whole, or to standard output.

    Args:
        form: ``"jsonl"``, ``"csv"`` or ``"parquet"``.

    Raises:
        UsageError: the file cannot be written, or the rows make no table.
    """
    if form == "parquet":
        assert path is not None  # noqa: S101 - the caller has looked
        with _whole_file(path) as beside:
            _write_parquet(map(flattened, rows), beside)
        return
    lines = _csv_lines(rows) if form == "csv" else (as_json(row) + "\n" for row in rows)
    if path is None:
        _write_lines(lines, Output(1).write)
        return
    with _whole_file(path) as beside, open(beside, "wb") as file:
        _write_lines(lines, file.write)


def _write_lines(lines: Iterable[str], write: Callable[[bytes], Any]) -> None:
    for line in lines:
        write(encoded(line))


@contextmanager
def _whole_file(path: str) -> Generator[str]:
    """Give a name beside, and rename that file when it is written to its end."""
    beside = f"{path}.{os.getpid()}.part"
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise UsageError(f"--out {path}: {error.strerror or error}") from error
    finally:
        if os.path.exists(beside):
            os.remove(beside)


def _csv_lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    columns: list[str] = []
    for row in map(flattened, rows):
        if not columns:
            columns = list(row)
            yield _csv_line(columns)
        _require_columns(row, columns)
        try:
            yield _csv_line([cell(row.get(name)) for name in columns])
        except (TypeError, ValueError, RecursionError) as error:
            message = f"job {row.get('key')!r} makes no row: {error}; --format jsonl takes any"
            raise UsageError(message) from error


def _require_columns(row: dict[str, Any], columns: list[str]) -> None:
    new = [name for name in row if name not in columns]
    if new:
        message = (
            f"job {row.get('key')!r} has {', '.join(map(repr, new))}, which the first one has not: "
            "no table; --format jsonl takes rows of any kind"
        )
        raise UsageError(message)


def _csv_line(cells: list[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _write_parquet(rows: Iterator[dict[str, Any]], path: str) -> None:
    try:
        import pyarrow as pa  # an extra
        from pyarrow import parquet
    except ImportError:
        message = "Parquet files need pyarrow: pip install 'okanjo-conductor[parquet]'"
        raise UsageError(message) from None
    first = list(islice(rows, _ROWS_AT_ONCE))
    try:
        schema = pa.Table.from_pylist(first).schema
        for name in _TEXTS:
            index = schema.get_field_index(name)
            if index >= 0 and pa.types.is_null(schema.field(index).type):  # no failed one so far
                schema = schema.set(index, pa.field(name, pa.string()))
        columns = schema.names
        with parquet.ParquetWriter(path, schema) as file:
            for some in chain([first], iter(lambda: list(islice(rows, _ROWS_AT_ONCE)), [])):
                for row in some:
                    _require_columns(row, columns)
                file.write_table(pa.Table.from_pylist(some, schema=schema))
    except pa.ArrowException as error:
        message = f"these values make no Parquet table: {error}; --format jsonl takes any"
        raise UsageError(message) from error
