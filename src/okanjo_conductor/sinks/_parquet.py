"""A sink that is a folder of Parquet files: whole ones, and rows are held back until then."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from okanjo_conductor._wire.failures import said
from okanjo_conductor.errors import ConfigurationError, SinkError
from okanjo_conductor.sinks._base import Sink
from okanjo_conductor.sinks._files import checked_exists
from okanjo_conductor.sinks._rows import flat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from okanjo_conductor._types import Outcome


class ParquetParts(Sink):
    """A folder of Parquet files, ``part-00000.parquet`` and so on, with a row for each done job.

    A row is the job's key and the fields of its value, which is a dict, or ``value``. A part is
    written when there are rows enough, and at the end; until then they are held back, which costs
    memory but no safety: after a kill they come from the journal. Needs pyarrow, the extra
    ``parquet``.

    Args:
        folder: where parts go; it is made if it is not there.
        rows: of a part.
        schema: a schema of pyarrow's; default: the types that it finds in each part, widened so
            that they agree with those of the parts before where that is possible.
        exists: what to do if there are parts that were not written by the run that goes on:
            ``"error"`` or ``"overwrite"``.
        failures: whether jobs that were not done get a row, too.
        row: makes a dict of an outcome, by the names of columns. It sees no payload where the
            outcome comes from the journal.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        rows: int = 100_000,
        schema: Any = None,
        exists: str = "error",
        failures: bool = False,
        row: Callable[[Outcome], dict[str, Any]] = flat,
    ) -> None:
        if rows < 1:
            message = f"rows={rows!r}: a part has 1 row at least"
            raise ConfigurationError(message)
        if checked_exists(exists) == "append":
            message = (
                'exists="append": a folder of parts cannot be appended to; give another folder'
            )
            raise ConfigurationError(message)
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay as they are
        self.name = f"ParquetParts:{self.folder}"
        self.failures = failures
        self._at_once = rows
        self._schema = schema
        self._is_fixed = schema is not None
        self._exists = exists
        self._row = row
        self._held: list[dict[str, Any]] = []
        """Rows of no part yet."""
        self._part = 0
        """The number of the next part."""
        self._seq = 0
        """The last outcome in a part."""
        self._last = 0
        """The last outcome that was given."""
        self._is_durable = False
        try:
            self._arrow = importlib.import_module("pyarrow")
            self._parquet = importlib.import_module("pyarrow.parquet")
        except ImportError:
            message = 'ParquetParts needs pyarrow: pip install "okanjo-conductor[parquet]"'
            raise ConfigurationError(message) from None

    def __repr__(self) -> str:
        return f"ParquetParts({str(self.folder)!r})"

    def open(
        self,
        position: Any,
        since: Callable[[int], Iterator[Outcome]],
        *,
        is_durable: bool = False,
    ) -> Any:
        """Remove parts that were not committed, and take up the rows that were held back."""
        self._is_durable = is_durable
        self.folder.mkdir(parents=True, exist_ok=True)
        if position is None and self._parts() and self._exists == "error":
            message = (
                f"{self.folder} holds parts that were not written by this run. Give the sink "
                'another folder, or exists="overwrite"'
            )
            raise SinkError(message)
        if position is not None:
            self._part, self._seq = position["part"], position["seq"]
            self._require_parts()
        self._remove_from(self._part)
        self._last = self._seq
        self._held = [self._row(outcome) for outcome in since(self._seq)]
        if self._part and not self._is_fixed:
            self._schema = self._parquet.read_schema(self._path(self._part - 1))
        return self._position()

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05}.parquet"

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet*"))

    def _require_parts(self) -> None:
        missing = [path for n in range(self._part) if not (path := self._path(n)).exists()]
        if missing:
            message = (
                f"{missing[0]} is gone: the run cannot go on where it stopped. Restore it; or give "
                "the sink another folder, which will be given everything that is in the journal"
            )
            raise SinkError(message)

    def _remove_from(self, number: int) -> None:
        kept = {self._path(n) for n in range(number)}
        for path in self._parts():
            if path not in kept:
                path.unlink()

    def _position(self) -> dict[str, int]:
        return {"part": self._part, "seq": self._seq}

    def write(self, outcomes: Sequence[Outcome], seq: int) -> Any:
        """Hold their rows back, or write a part."""
        self._held.extend(map(self._row, outcomes))
        self._last = seq
        if len(self._held) >= self._at_once:
            self._write_part()
        return self._position()

    def _write_part(self) -> None:
        try:
            table = self._table_of(self._held)
        except (self._arrow.ArrowException, TypeError, ValueError) as error:
            message = (
                f"{self!r}: rows cannot be made a part: {said(error)}. Give the sink schema=…, or "
                "row=… to return the same fields of the same types for all"
            )
            raise SinkError(message) from error
        path = self._path(self._part)
        new = path.with_suffix(".parquet.new")
        self._parquet.write_table(table, new)
        if self._is_durable:
            _sync(new)
        new.rename(path)
        if self._is_durable:
            _sync(self.folder)
        self._held.clear()
        self._part += 1
        self._seq = self._last

    def _table_of(self, rows: list[dict[str, Any]]) -> Any:
        arrow = self._arrow
        if self._is_fixed:
            return arrow.Table.from_pylist(rows, schema=self._schema)
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = arrow.table({name: [row.get(name) for row in rows] for name in names})
        if self._schema is not None:
            both = [self._schema, table.schema]
            merged = arrow.unify_schemas(both, promote_options="permissive")
            table = arrow.Table.from_pylist(table.to_pylist(), schema=merged)
        self._schema = table.schema
        return table

    def rewind(self, position: Any) -> None:
        """Remove parts that were not committed."""
        self._remove_from(position["part"])

    def close(self) -> Any:
        """Write what is held back as the last part."""
        if self._held:
            self._write_part()
        return self._position()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
