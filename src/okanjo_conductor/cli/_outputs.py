"""``--out FILE``: the sink that the extension of a file name stands for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from okanjo_conductor import sinks
from okanjo_conductor.cli._errors import UsageError

if TYPE_CHECKING:
    from okanjo_conductor.sinks import Sink

_SINKS = {
    ".jsonl": "JsonLines",
    ".ndjson": "JsonLines",
    ".csv": "Csv",
    ".db": "SqliteTable",
    ".sqlite": "SqliteTable",
    ".sqlite3": "SqliteTable",
    ".parquet": "ParquetParts",
}


def sink_for(path: str, exists: str | None) -> Sink:
    """Make the sink for a file, or for a folder of Parquet files.

    Args:
        exists: what to do if it is there already; None: what the sink does.

    Raises:
        UsageError: the extension stands for none.
    """
    extension = os.path.splitext(path)[1].lower()
    name = _SINKS.get(extension)
    if name is None:
        known = ", ".join(_SINKS)
        raise UsageError(f"--out {path}: the extension {extension!r} tells no format: {known}")
    given = {} if exists is None else {"exists": exists}
    made: Sink = getattr(sinks, name)(path, **given)
    return made
