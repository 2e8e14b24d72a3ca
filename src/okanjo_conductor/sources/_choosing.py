"""Which source a file name stands for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from okanjo_conductor.errors import ConfigurationError
from okanjo_conductor.sources import _opening as opening
from okanjo_conductor.sources._places import Glob
from okanjo_conductor.sources._tables import Parquet, SqliteQuery
from okanjo_conductor.sources._texts import Csv, JsonLines, Lines

if TYPE_CHECKING:
    from okanjo_conductor.sources._base import KeyOf, Source

_JSON = (".jsonl", ".ndjson", ".jl")
_TABLES = (".csv", ".tsv")
_TEXTS = (".txt", ".list", ".lst", "")
_PARQUET = (".parquet", ".pq")
_DATABASES = (".db", ".sqlite", ".sqlite3")


def by_extension(
    path: str | os.PathLike[str], *, key: str | KeyOf | None = None, sql: str | None = None
) -> Source:
    """Make the source that the extension of a file name stands for.

    ``.jsonl``, ``.ndjson``; ``.csv``, ``.tsv``; ``.txt`` or none; ``.parquet``; ``.db``,
    ``.sqlite``; each of the texts also with ``.gz``, ``.bz2``, ``.xz`` or ``.zst``. A name with
    ``*`` is a pattern of files.

    Args:
        path: a file, a pattern or a URL.
        key: what identifies a job: a field of its rows, or a function of the payload.
        sql: the query of a database.

    Raises:
        ConfigurationError: the extension says nothing, or `key` or `sql` make no sense with it.
    """
    name = os.fspath(path)
    kind = opening.extension(name)
    if sql is not None and kind not in _DATABASES:
        message = f"a query is for a database ({', '.join(_DATABASES)}), not for {name}"
        raise ConfigurationError(message)
    if "*" in name:
        return Glob(name, key=_function(key, "the files of a pattern"))
    if kind in _JSON:
        return JsonLines(name, key=key)
    if kind in _TABLES:
        return Csv(name, key=key)
    if kind in _PARQUET:
        return Parquet(name, key=key)
    if kind in _DATABASES:
        return SqliteQuery(name, sql, key=key)
    if kind in _TEXTS:
        return Lines(name, key=_function(key, "lines of text"))
    raise ConfigurationError(_unknown(name, kind))


def _function(key: str | KeyOf | None, what: str) -> KeyOf | None:
    if isinstance(key, str):
        message = f"key={key!r}: {what} have no fields; they are their own keys"
        raise ConfigurationError(message)
    return key


def _unknown(name: str, kind: str) -> str:
    known = ", ".join((*_JSON, *_TABLES, *_TEXTS[:1], *_PARQUET, *_DATABASES))
    hint = " (.json: one value per line is .jsonl)" if kind == ".json" else ""
    return f"{name}: the extension {kind!r} tells no format; known are {known}{hint}"
