"""The verbs that read a journal: ``status``, ``ls``, ``show`` and ``export``. None changes it."""

from __future__ import annotations

import os
import time
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from okanjo_conductor._types import JobState
from okanjo_conductor.cli._errors import UsageError
from okanjo_conductor.cli._exporting import write_table
from okanjo_conductor.cli._input import near_file
from okanjo_conductor.cli._writing import Output, as_json
from okanjo_conductor.errors import ConductorError
from okanjo_conductor.journal import open_journal
from okanjo_conductor.sinks._rows import plain_key

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from okanjo_conductor.journal import JournalEntry, JournalReader, RunInfo

_ERROR_SHOWN = 60
"""Characters of an error in a list."""
_SUSPECTS_SHOWN = 10
_HEADING = f"{'STATE':<12} {'ATTEMPTS':>8} {'SECONDS':>10}  KEY"


def opened(path: str) -> JournalReader:
    """Open a journal.

    Raises:
        UsageError: there is no such file.
    """
    if not os.path.exists(path):
        raise UsageError(f"{path}: there is no such journal{near_file(path)}")
    return open_journal(path)


# conductor status


def status(options: Namespace) -> int:
    """Tell how far a run is."""
    with opened(options.journal) as journal:
        facts = _facts_of(journal)
    stdout = Output(1)
    if options.json:
        stdout.write_line(as_json(facts))
    else:
        for line in _lines_of(facts):
            stdout.write_line(line)
    return 0


def _facts_of(journal: JournalReader) -> dict[str, Any]:
    runs = journal.runs()
    counts = journal.counts()
    return {
        "journal": journal.path,
        "state": runs[-1].state if runs else "new",
        "error": runs[-1].error if runs else "",
        "jobs": sum(counts.values()),
        "counts": {state.value: counts.get(state.value, 0) for state in JobState},
        "unfinished": [{"key": key, "attempts": len(ends)} for key, ends in journal.unfinished()],
        "suspects": [{"key": each.key, "times": each.times} for each in journal.suspects()],
        "runs": [_facts_of_run(run) for run in runs],
    } | _pace_of(runs[-1] if runs else None, journal.rate())


def _facts_of_run(run: RunInfo) -> dict[str, Any]:
    return {
        "run": run.id,
        "state": run.state,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "host": run.host,
        "pid": run.pid,
        "argv": list(run.argv),
        "cwd": run.cwd,
        "counts": run.counts,
        "error": run.error,
    }


def _pace_of(run: RunInfo | None, recent: float | None) -> dict[str, Any]:
    """Say how fast the last run is, or was, and how long it will take for what is left.

    Args:
        recent: its rate of late, if it goes on.
    """
    if run is None:
        return _OF_NO_RUN
    is_live = run.state == "live"
    until = run.ended_at or (time.time() if is_live else run.last_outcome_at) or run.started_at
    seconds = max(until - run.started_at, 0.0)
    rate = recent if is_live else run.finished / seconds if run.finished and seconds else None
    left = None if run.expected is None else run.expected - run.skipped - run.finished
    return {
        "read": run.total,
        "skipped": run.skipped,
        "finished": run.finished,
        "expected": run.expected,
        "seconds": seconds,
        "rate": rate,
        "eta": max(left, 0) / rate if is_live and rate and left is not None else None,
    }


_OF_NO_RUN: dict[str, Any] = {
    "read": 0,
    "skipped": 0,
    "finished": 0,
    "expected": None,
    "seconds": None,
    "rate": None,
    "eta": None,
}


def _lines_of(facts: dict[str, Any]) -> Iterator[str]:
    yield f"{facts['journal']}: {_STATES[facts['state']]}"
    if facts["error"]:
        yield f"  {facts['error']}"
    counted = ", ".join(f"{count:,} {state}" for state, count in facts["counts"].items() if count)
    yield f"{facts['jobs']:,} jobs have their outcome: {counted or 'none'}"
    if facts["runs"]:
        yield from _lines_of_run(facts, facts["runs"][-1])
    for each in facts["unfinished"][:_SUSPECTS_SHOWN]:
        yield f"not finished after {each['attempts']} attempts: {each['key']}"
    for each in facts["suspects"][:_SUSPECTS_SHOWN]:
        times = "once" if each["times"] == 1 else f"{each['times']} times"
        yield f"suspect, executing when the machine went down, {times}: {each['key']}"
    hidden = sum(max(0, len(facts[name]) - _SUSPECTS_SHOWN) for name in ("unfinished", "suspects"))
    if hidden:
        yield f"and {hidden:,} more of these"


_STATES = {
    "new": "nothing was run yet",
    "live": "a run goes on",
    "done": "all jobs of the last run have their outcome",
    "stopped": "the last run was stopped; start it again to go on",
    "broken": "the last run could not go on; start it again when the cause is gone",
    "killed": "the last run was killed; start it again to go on",
    "down": "the machine went down, and the last run with it; start it again to go on",
}


def _lines_of_run(facts: dict[str, Any], run: dict[str, Any]) -> Iterator[str]:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run["started_at"]))
    yield f"run {run['run']}: began {began} on {run['host']} as process {run['pid']}"
    if facts["skipped"]:
        yield f"  {facts['skipped']:,} skipped: earlier runs had done them"
    pace = "" if facts["rate"] is None else f", {facts['rate']:,.1f} jobs/s"
    left = "" if facts["eta"] is None else f"; the rest takes {_span(facts['eta'])} at that rate"
    yield f"  {_of_how_many(facts)} finished in {_span(facts['seconds'])}{pace}{left}"


def _of_how_many(facts: dict[str, Any]) -> str:
    """Say how many have finished, of how many, as far as that is known."""
    if facts["expected"] is not None:
        return f"{facts['finished']:,} of {facts['expected'] - facts['skipped']:,}"
    return f"{facts['finished']:,} of the {facts['read'] - facts['skipped']:,} read so far"


def _span(seconds: float) -> str:
    """Write a time in two units."""
    whole = round(seconds)
    for size, name, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // below} {small}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{seconds:.1f} s"  # noqa: PLR2004 - a minute


# conductor ls


def ls(options: Namespace) -> int:
    """List jobs."""
    stdout = Output(1)
    with opened(options.journal) as journal:
        entries = islice(_in_states(journal, options.state), options.limit)
        if not options.json:
            stdout.write_line(_HEADING)
        for entry in entries:
            stdout.write_line(as_json(_brief(entry)) if options.json else _row(entry))
    return 0


def _in_states(journal: JournalReader, states: list[str] | None) -> Iterator[JournalEntry]:
    if states is not None and len(states) == 1:
        yield from journal.outcomes(states[0])
        return
    for entry in journal.outcomes():
        if states is None or entry.state in states:
            yield entry


def _brief(entry: JournalEntry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "state": entry.state.value,
        "cause": entry.cause,
        "attempts": entry.attempts,
        "seconds": entry.seconds,
        "finished_at": entry.finished_at,
        "run": entry.run,
        "error_type": entry.error_type or None,
        "error": entry.error or None,
        "place": entry.place or None,
    }


def _row(entry: JournalEntry) -> str:
    seconds = "" if entry.seconds is None else f"{entry.seconds:.3f}"
    error = _first_line(entry)
    return (
        f"{entry.state.value:<12} {entry.attempts:>8} {seconds:>10}  {typed(entry)}"
        f"{'  ' if error else ''}{error}"
    )


def _first_line(entry: JournalEntry) -> str:
    if not entry.error_type:
        return ""
    lines = entry.error.splitlines()
    text = f"{entry.error_type.rpartition('.')[2]}: {lines[0] if lines else ''}"
    return text if len(text) <= _ERROR_SHOWN else f"{text[: _ERROR_SHOWN - 1]}…"


def typed(entry: JournalEntry) -> str:
    """Write a key so that it can be typed after ``show``."""
    key = entry.key
    is_plain = isinstance(key, str) and key.isprintable() and key == key.strip() and bool(key)
    return str(key) if is_plain else entry.key_text


# conductor show


def show(options: Namespace) -> int:
    """Show one job."""
    stdout = Output(1)
    with opened(options.journal) as journal:
        entry = journal.find(options.key)
        facts = _brief(entry) | _details(entry)
    if options.json:
        stdout.write_line(as_json(facts))
        return 0
    for name, value in facts.items():
        if value is not None and value not in ("", []):
            stdout.write_line(_fact(name, value))
    return 0


def _details(entry: JournalEntry) -> dict[str, Any]:
    return {
        "started_at": entry.started_at,
        "worker_id": entry.worker_id,
        "slot": entry.slot,
        "value": _decoded(entry, "value") if entry.is_done else None,
        "payload": None if entry.is_done else _decoded(entry, "payload"),
        "history": [
            {
                "attempt": end.number,
                "cause": end.cause,
                "error": f"{type(end.error).__name__}: {end.error}",
                "worker_id": end.worker_id,
                "seconds": end.seconds,
            }
            for end in entry.history
        ],
        "traceback": entry.traceback or None,
    }


def _decoded(entry: JournalEntry, what: str) -> Any:
    try:
        return getattr(entry, what)
    except ConductorError as error:
        return f"({error})"


def _fact(name: str, value: Any) -> str:
    if name in ("started_at", "finished_at"):
        value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    elif name == "seconds":
        value = f"{value:.6f}"
    elif not isinstance(value, str):
        value = as_json(value)
    if "\n" in value.rstrip():
        value = "\n" + "\n".join(f"  {line}" for line in value.rstrip().splitlines())
    return f"{name + ':':<12} {value}".rstrip()


# conductor export


def export(options: Namespace) -> int:
    """Write values to a file."""
    form = options.format or _format_by(options.out)
    if form == "parquet" and options.out is None:
        raise UsageError("--format parquet: give --out FILE, it is nothing for a terminal")
    # The first row says which columns there are: it should be of a done job.
    asked: list[str] = options.state or [JobState.DONE.value]
    states = [state for state in JobState if state.value in asked]
    has_others = states != [JobState.DONE]
    with opened(options.journal) as journal:
        entries = chain.from_iterable(journal.outcomes(state) for state in states)
        rows = (_exported(entry, has_others=has_others) for entry in entries)
        write_table(rows, form, options.out)
    return 0


def _format_by(path: str | None) -> str:
    if path is None:
        return "jsonl"
    form = os.path.splitext(path)[1].removeprefix(".").lower()
    form = {"ndjson": "jsonl", "pq": "parquet"}.get(form, form)
    if form not in ("csv", "jsonl", "parquet"):
        raise UsageError(f"--out {path}: its extension tells no format; give --format")
    return form


def _exported(entry: JournalEntry, *, has_others: bool) -> dict[str, Any]:
    """Make a row; where there are jobs that were not done, each says how it ended."""
    row: dict[str, Any] = {"key": plain_key(entry.key)}
    if has_others:
        row |= {"state": entry.state.value, "cause": entry.cause, "error": entry.error or None}
    return row | {"value": entry.value} if entry.is_done else row
