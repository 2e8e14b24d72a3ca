"""Sources that are files of text: lines, JSON lines, tables with separators.

They are read as bytes and decoded line by line, so that whatever is wrong can be said of its line.
"""

from __future__ import annotations

import csv
import json
import os
import zlib
from contextlib import closing
from lzma import LZMAError
from typing import TYPE_CHECKING, Any

from okanjo_conductor.errors import ConfigurationError, SourceError
from okanjo_conductor.sources import _opening as opening
from okanjo_conductor.sources._base import UNKNOWN_LENGTH, KeyOf, Source, missing_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BOM = b"\xef\xbb\xbf"
_SAMPLE = 1 << 20
"""Bytes of a large file in which lines are counted."""
_COUNTED = 1 << 26
"""Bytes of a file of which every line is counted: 10 ms."""


class _TextFile(Source):
    """A file of lines."""

    _header_lines = 0

    def __length_hint__(self) -> int:
        """Guess the number of jobs: lines, counted or extrapolated, where that is cheap."""
        if (
            self.path == opening.STDIN
            or opening.is_url(self.path)
            or opening.is_compressed(self.path)
        ):
            return UNKNOWN_LENGTH
        try:
            return max(0, _count_lines(self.path) - self._header_lines)
        except OSError:
            return UNKNOWN_LENGTH

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield number and bytes of each line, its end included."""
        number = 0
        with closing(opening.open_binary(self.path)) as file:
            try:
                for number, line in enumerate(file, 1):
                    yield number, line.removeprefix(_BOM) if number == 1 else line
            except (OSError, EOFError, zlib.error, LZMAError) as error:
                why = f"reading failed: {error}"
                raise SourceError(self.path, why, number + 1) from error

    def _decoded(self) -> Iterator[tuple[int, str]]:
        for number, line in self._lines():
            try:
                yield number, line.decode()
            except UnicodeDecodeError as error:
                why = f"not UTF-8: byte 0x{line[error.start]:02x}"
                raise SourceError(self.path, why, number, error.start + 1) from error


class Lines(_TextFile):
    """One job per line: its text without the end of the line.

    Bytes that are no UTF-8 survive as Python keeps them in file names (``surrogateescape``).

    Args:
        path: a file or URL.
        key: a function of the line; None: the line itself.
        blank: whether lines without any text are jobs, too.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, key: KeyOf | None = None, blank: bool = False
    ) -> None:
        super().__init__(path, key=key)
        self._blank = blank

    def __iter__(self) -> Iterator[str]:
        for _, line in self._lines():
            text = line.rstrip(b"\r\n")
            if self._blank or text.strip():
                yield text.decode("utf-8", "surrogateescape")


class JsonLines(_TextFile):
    """One job per line: the JSON value that it holds. Blank lines are skipped.

    Args:
        path: a file or URL.
        key: the name of a field that every object has, or a function of the value.
    """

    def __iter__(self) -> Iterator[Any]:
        for number, text in self._decoded():
            if text.strip():
                job = self._parsed(number, text)
                self._require_key(job, number)
                yield job

    def _parsed(self, number: int, text: str) -> Any:
        try:
            return json.loads(text.rstrip())
        except json.JSONDecodeError as error:
            why = f"not JSON: {error.msg}{_hint_on(text, number)}"
            raise SourceError(self.path, why, number, error.colno) from error


def _hint_on(text: str, number: int) -> str:
    is_pretty = number == 1 and text.strip() in ("{", "[")
    return "; there must be one whole JSON value on each line" if is_pretty else ""


class Csv(_TextFile):
    """One job per row of a table with a header: a dict from column to text.

    Args:
        path: a file or URL.
        key: the name of a column, or a function of the row.
        delimiter: what stands between cells; None: a tab in ``.tsv`` files, else a comma.
        fields: names of the columns of a table that has no header.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: str | KeyOf | None = None,
        delimiter: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> None:
        super().__init__(path, key=key)
        if delimiter is not None and len(delimiter) != 1:
            message = f"delimiter={delimiter!r}: one character"
            raise ConfigurationError(message)
        self._delimiter = delimiter or ("\t" if opening.extension(self.path) == ".tsv" else ",")
        self._fields = None if fields is None else list(fields)
        self._header_lines = 1 if fields is None else 0

    def __iter__(self) -> Iterator[dict[str, str]]:
        texts = (text for _, text in self._decoded())
        rows = csv.reader(texts, delimiter=self._delimiter, strict=True)
        with closing(texts):
            fields = self._fields
            for cells in self._rows(rows):
                if not cells:
                    continue
                if fields is None:
                    fields = self._header(cells, rows.line_num)
                else:
                    yield self._row(fields, cells, rows.line_num)

    def _rows(self, rows: Any) -> Iterator[list[str]]:
        try:
            yield from rows
        except csv.Error as error:
            raise SourceError(self.path, f"not CSV: {error}", rows.line_num) from error

    def _header(self, cells: list[str], line: int) -> list[str]:
        twice = {name for name in cells if cells.count(name) > 1}
        if twice:
            why = f"the header names a column twice: {', '.join(map(repr, sorted(twice)))}"
            raise SourceError(self.path, why, line)
        if self._key_field is not None and self._key_field not in cells:
            raise SourceError(self.path, missing_field(dict.fromkeys(cells), self._key_field), line)
        return cells

    def _row(self, fields: list[str], cells: list[str], line: int) -> dict[str, str]:
        if len(cells) != len(fields):
            many = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
            why = f"{many}, where there are {len(fields)} columns"
            raise SourceError(self.path, why, line, min(len(cells), len(fields)) + 1)
        return dict(zip(fields, cells, strict=True))


def _count_lines(path: str) -> int:
    """Count the lines of a file, or extrapolate from its beginning."""
    size = os.stat(path).st_size
    count = 0
    with open(path, "rb") as file:
        if size > _COUNTED:
            sample = file.read(_SAMPLE)
            return sample.count(b"\n") * size // len(sample)
        block = last = b""
        while block := file.read(_SAMPLE):
            count += block.count(b"\n")
            last = block
    return count + bool(last and not last.endswith(b"\n"))
