"""Where the jobs of a command come from: a file, standard input, or arguments after ``:::``."""

from __future__ import annotations

import os
import sys
from itertools import product
from typing import TYPE_CHECKING, Any

from okanjo_conductor.cli._errors import UsageError, did_you_mean
from okanjo_conductor.cli._writing import Output
from okanjo_conductor.errors import ConfigurationError
from okanjo_conductor.sources import Csv, Glob, JsonLines, Lines, by_extension
from okanjo_conductor.sources import _opening as opening

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from okanjo_conductor.sources import Source

MARKS = (":::", ":::+", "::::", "::::+")
"""What inputs of GNU parallel begin with: arguments, and files of them; + links, not combines."""


def source_of(options: Namespace) -> Source | None:
    """Make the source that the options name; None: they name none.

    Raises:
        UsageError: there is no such file, or its format is unknown.
    """
    path: str | None = options.jobs
    if path is None:
        return None
    key, form = options.key, options.format
    if path == opening.STDIN:
        form = form or "lines"
    elif not opening.is_url(path) and "*" not in path and not os.path.exists(path):
        raise UsageError(f"--jobs {path}: there is no such file{near_file(path)}")
    if form == "lines" and key is not None:
        raise UsageError(f"--key {key}: lines have no fields; they are their own keys")
    try:
        if form is not None:
            return _in_format(form, path, key)
        source = by_extension(path, key=key, sql=options.sql)
    except ConfigurationError as error:
        raise UsageError(f"--jobs {error}; --format says how to read it") from error
    if isinstance(source, Glob) and not (options.quiet or opening.is_url(path)):
        _warn_of_nothing(source)
    return source


def _warn_of_nothing(source: Glob) -> None:
    """Say so if no file matches a pattern: that is no error, but seldom what is meant."""
    if next(iter(source), None) is None:
        Output(2).write_line(f"conductor: --jobs {source.path}: no file matches this")


def _in_format(form: str, path: str, key: str | None) -> Source:
    if form == "lines":
        return Lines(path)
    if form == "jsonl":
        return JsonLines(path, key=key)
    return Csv(path, key=key, delimiter="\t" if form == "tsv" else ",")


def has_stdin() -> bool:
    """Whether something is piped in."""
    return sys.stdin is not None and not sys.stdin.closed and not sys.stdin.isatty()


def split_marks(words: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Part a command from the inputs behind it: each mark with its words."""
    command: list[str] = []
    inputs: list[tuple[str, list[str]]] = []
    for word in words:
        if word in MARKS:
            inputs.append((word, []))
        elif inputs:
            inputs[-1][1].append(word)
        else:
            command.append(word)
    return command, inputs


def combined(inputs: Sequence[tuple[str, Sequence[str]]]) -> Iterator[str | tuple[str, ...]]:
    """Combine inputs as GNU parallel does: each with each; those after a ``+`` side by side."""
    columns: list[list[tuple[str, ...]]] = []
    for mark, words in inputs:
        for values in _values_of(mark, words):
            if mark.endswith("+") and columns:
                columns[-1] = [(*row, value) for row, value in _linked(columns[-1], values)]
            else:
                columns.append([(value,) for value in values])
    for parts in product(*columns):
        row = tuple(value for part in parts for value in part)
        yield row[0] if len(row) == 1 else row


def _values_of(mark: str, words: Sequence[str]) -> Iterator[list[str]]:
    if not mark.startswith("::::"):
        yield list(words)
        return
    for path in words:
        if path != opening.STDIN and not os.path.exists(path):
            raise UsageError(f"{mark} {path}: there is no such file{near_file(path)}")
        yield list(Lines(path))


def _linked(
    rows: list[tuple[str, ...]], values: list[str]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Pair rows with values; the shorter side begins again, as GNU parallel has it."""
    if not rows or not values:
        return
    for index in range(max(len(rows), len(values))):
        yield rows[index % len(rows)], values[index % len(values)]


def near_file(path: str) -> str:
    """Name a file beside that has a name like this one."""
    folder = os.path.dirname(path)
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return ""
    return did_you_mean(path, [os.path.join(folder, name) for name in names])


def shown_input(job: Any) -> str:
    """Write a job on one line."""
    if isinstance(job, str):
        return job
    import json

    return json.dumps(job, ensure_ascii=False, default=str)
