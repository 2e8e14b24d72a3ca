"""Sinks: where the outcomes of jobs are written to.

Given to `Conductor(sink=…)`, one or a list. With a journal they are written in the same
transactions as outcomes are committed, so each appears exactly once across any number of kills. A
function is a sink, too.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from okanjo_conductor.sinks._base import EachOutcome, Sink, as_sinks
    from okanjo_conductor.sinks._feed import Feed
    from okanjo_conductor.sinks._files import Csv, JsonLines
    from okanjo_conductor.sinks._parquet import ParquetParts
    from okanjo_conductor.sinks._sqlite import SqliteTable

_HOME_OF = {
    "EachOutcome": "_base",
    "Sink": "_base",
    "as_sinks": "_base",
    "Feed": "_feed",
    "Csv": "_files",
    "JsonLines": "_files",
    "ParquetParts": "_parquet",
    "SqliteTable": "_sqlite",
}

__all__ = [
    "JsonLines",
    "Csv",
    "SqliteTable",
    "ParquetParts",
    "EachOutcome",
    "Sink",
    "as_sinks",
    "Feed",
]


def __getattr__(name: str) -> object:
    module = _HOME_OF.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    home = f"{__name__}.{module}"
    __import__(home)  # only what is used is loaded
    return getattr(sys.modules[home], name)


def __dir__() -> list[str]:
    return sorted(__all__)
