"""Sinks that are text files, which only grow: their position is their size.

A file is cut to its committed size when it is opened, so a line that was written but not committed
is not there twice. That it is still the same file is seen by its last bytes.
"""

from __future__ import annotations

import csv
import io
import os
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from okanjo_conductor.errors import ConfigurationError, SinkError
from okanjo_conductor.sinks._base import Sink
from okanjo_conductor.sinks._rows import cell, flat, json_text, nested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    from okanjo_conductor._types import Outcome

_LOOKED_AT = 64
"""Bytes at the end of a file by which it is known again."""
EXISTS = ("error", "append", "overwrite")


def checked_exists(exists: str) -> str:
    """Accept what to do about something that is there already."""
    if exists not in EXISTS:
        message = f"exists={exists!r}: one of {', '.join(map(repr, EXISTS))}"
        raise ConfigurationError(message)
    return exists


class _File(Sink):
    """A file that lines are appended to.

    Args:
        path: the file.
        exists: what to do if it is there already, and was not written by the run that goes on:
            ``"error"``, ``"append"`` or ``"overwrite"``. An empty file is no obstacle.
        failures: whether jobs that were not done get a line, too.
        row: makes of an outcome what is to be written; default: see the class. Where outcomes come
            from the journal, those of done jobs have no payload.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        exists: str = "error",
        failures: bool = False,
        row: Callable[[Outcome], Any] | None = None,
    ) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100 - it may be a str
        self.name = f"{type(self).__name__}:{self.path}"
        self.failures = failures
        self._exists = checked_exists(exists)
        self._row = row or type(self)._default_row
        self._file: BinaryIO | None = None
        self._size = 0
        self._end = b""
        """The last bytes of the file."""
        self._is_durable = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    _default_row: Callable[[Outcome], Any] = staticmethod(nested)

    def open(
        self,
        position: Any,
        since: Callable[[int], Iterator[Outcome]],
        *,
        is_durable: bool = False,
    ) -> Any:
        """Open the file, and cut it to its committed size."""
        del since
        self._is_durable = is_durable
        if position is None:
            self._begin()
        else:
            self._go_on(position)
        return self._position()

    def _begin(self) -> None:
        mode = "r+b"
        size = os.path.getsize(self.path) if os.path.exists(self.path) else 0  # noqa: PTH110, PTH202
        if size and self._exists == "error":
            message = (
                f"{self.path} is there already, and was not written by this run. Give the sink "
                'another path, exists="append" or exists="overwrite"'
            )
            raise SinkError(message)
        if not size or self._exists == "overwrite":
            mode, size = "w+b", 0
        file = self._file = _opened(self.path, mode)
        self._size = file.seek(0, os.SEEK_END)
        self._end = self._last_bytes()
        if self._size:
            self._appending(file)
            if not self._end.endswith(b"\n"):
                self._put(b"\n")

    def _appending(self, file: BinaryIO) -> None:
        """Take note of what is in the file already."""

    def _go_on(self, position: dict[str, Any]) -> None:
        size = position["size"]
        try:
            self._file = _opened(self.path, "r+b")
        except FileNotFoundError:
            raise self._lost("is gone") from None
        there = self._file.seek(0, os.SEEK_END)
        if there < size:
            raise self._lost(f"has {there:,} bytes and should have {size:,} at least")
        self._size = size
        self._end = self._last_bytes()
        if zlib.crc32(self._end) != position["check"]:
            raise self._lost("has been changed")
        self._file.truncate(size)
        self._file.seek(size)

    def _last_bytes(self) -> bytes:
        assert self._file is not None  # noqa: S101 - it has just been opened
        self._file.seek(max(self._size - _LOOKED_AT, 0))
        return self._file.read(min(_LOOKED_AT, self._size))

    def _lost(self, what: str) -> SinkError:
        if self._file is not None:
            self._file.close()
        return SinkError(
            f"{self.path} {what}: the run cannot go on where it stopped. Restore it; or give the "
            "sink another path, which will be given everything that is in the journal"
        )

    def _position(self) -> dict[str, Any]:
        return {"size": self._size, "check": zlib.crc32(self._end)}

    def write(self, outcomes: Sequence[Outcome], seq: int) -> Any:
        """Append their lines."""
        del seq
        self._put("".join(self._lines(outcomes)).encode())
        return self._position()

    def _lines(self, outcomes: Sequence[Outcome]) -> Iterator[str]:
        raise NotImplementedError

    def _put(self, data: bytes) -> None:
        assert self._file is not None  # noqa: S101 - it is open
        self._file.write(data)
        self._file.flush()
        if self._is_durable:
            os.fsync(self._file.fileno())
        self._size += len(data)
        self._end = (self._end + data)[-_LOOKED_AT:]

    def rewind(self, position: Any) -> None:
        """Cut what was not committed."""
        if self._file is None or self._file.closed:
            return
        with suppress(OSError):
            self._file.close()  # what could not be written may still be in its buffer
        os.truncate(self.path, position["size"])

    def close(self) -> Any:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        return self._position()


class JsonLines(_File):
    """A line of JSON for each done job: ``{"key": …, "value": …}``, or what `row` makes of it.

    Common types beyond JSON's are written as what comes closest: NumPy's numbers and arrays, dates,
    paths, Decimal, UUID, Enum as text, sets, dataclasses. NaN is written as Python does.
    """

    def _lines(self, outcomes: Sequence[Outcome]) -> Iterator[str]:
        for outcome in outcomes:
            try:
                yield f"{json_text(self._row(outcome))}\n"
            except (TypeError, ValueError, RecursionError) as error:
                raise _cannot_write(self, outcome, error) from error


def _cannot_write(sink: Sink, outcome: Outcome, error: BaseException) -> SinkError:
    return SinkError(f"{sink!r}: the outcome of job {outcome.key!r} cannot be written: {error}")


class Csv(_File):
    """A row for each done job: its key and the fields of its value, which is a dict, or ``value``.

    The first row decides which columns there are, unless they are given; a later row may lack some,
    but have no others. Lists and dicts within a row are written as JSON.

    Args:
        columns: their names, in order.
        delimiter: between fields.
    """

    _default_row = staticmethod(flat)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        delimiter: str = ",",
        exists: str = "error",
        failures: bool = False,
        row: Callable[[Outcome], Any] | None = None,
    ) -> None:
        super().__init__(path, exists=exists, failures=failures, row=row)
        self._given = None if columns is None else list(columns)
        self._columns: list[str] | None = None
        """Those of the header that is in the file."""
        self._delimiter = delimiter

    def _appending(self, file: BinaryIO) -> None:
        file.seek(0)
        text = io.TextIOWrapper(file, "utf-8", newline="")
        try:
            self._columns = next(csv.reader(text, delimiter=self._delimiter))
        finally:
            text.detach()
        file.seek(0, os.SEEK_END)

    def _go_on(self, position: dict[str, Any]) -> None:
        super()._go_on(position)
        self._columns = position["columns"]

    def _position(self) -> dict[str, Any]:
        return {**super()._position(), "columns": self._columns}

    def _lines(self, outcomes: Sequence[Outcome]) -> Iterator[str]:
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self._delimiter, lineterminator="\n")
        for outcome in outcomes:
            row = checked_row(self, outcome, self._row(outcome))
            if self._columns is None:
                self._columns = self._given or list(row)
                writer.writerow(self._columns)
            columns = self._columns
            require_known(self, outcome, row, columns)
            try:
                writer.writerow([cell(row.get(name)) for name in columns])
            except (TypeError, ValueError, csv.Error) as error:
                raise _cannot_write(self, outcome, error) from error
        yield text.getvalue()


def _opened(path: str, mode: str) -> BinaryIO:
    return open(path, mode)  # type: ignore[return-value]  # noqa: PTH123 - it is binary


def checked_row(sink: Sink, outcome: Outcome, row: Any) -> dict[str, Any]:
    """Accept a row that is a dict.

    Raises:
        SinkError: it is none.
    """
    if not isinstance(row, dict):
        message = (
            f"{sink!r}: row=… made a {type(row).__name__} of the outcome of job {outcome.key!r}: "
            "let it return a dict, by the names of columns"
        )
        raise SinkError(message)
    return row


def require_known(
    sink: Sink, outcome: Outcome, row: dict[str, Any], columns: Sequence[str]
) -> None:
    """Refuse a row with fields for which there is no column.

    Raises:
        SinkError: it has some.
    """
    if new := [name for name in row if name not in columns]:
        message = (
            f"{sink!r}: the outcome of job {outcome.key!r} has fields for which there is no "
            f"column: {', '.join(map(str, new))}. Name all columns that there will be with "
            "columns=[…], or let row=… return the same fields for all"
        )
        raise SinkError(message)
