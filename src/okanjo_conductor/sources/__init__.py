"""Sources of jobs: files, patterns, queries and tables, read lazily.

Each is an iterable of payloads for ``Conductor(jobs_queue=…)``. Nothing is opened before the first
job is wanted, and no more is read than jobs are wanted. What cannot be read raises a
`~okanjo_conductor.errors.SourceError`, which names file, line and column.

    JsonLines     one JSON value per line                 str, int, dict, …
    Csv           a table with a header                   dict of str
    Lines         one text per line                       str
    Glob          the files that match a pattern          str
    SqliteQuery   the rows of a query                     dict
    Parquet       the rows of a file (extra `parquet`)    dict

A source that is given ``key=`` has it as its attribute ``key``, a function from payload to key;
`Conductor` takes it for ``job_key`` where none is given. ``len()`` works where the number is
written down, `operator.length_hint` where it can be guessed cheaply.

Files are read through ``gz``, ``bz2``, ``xz`` and, from Python 3.14 on, ``zst``, by extension, and
from URLs such as ``s3://…`` with the extra `sources`.
"""

from okanjo_conductor.sources._base import Source
from okanjo_conductor.sources._choosing import by_extension
from okanjo_conductor.sources._places import Glob
from okanjo_conductor.sources._tables import Parquet, SqliteQuery
from okanjo_conductor.sources._texts import Csv, JsonLines, Lines

__all__ = [
    "Csv",
    "Glob",
    "JsonLines",
    "Lines",
    "Parquet",
    "Source",
    "SqliteQuery",
    "by_extension",
]
