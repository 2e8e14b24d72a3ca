"""A run's report for people, in lines of at most `WIDTH` columns, and as plain data."""

from __future__ import annotations

from contextlib import suppress
from math import isfinite
from operator import index
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from okanjo_conductor._types import (
        FailureGroup,
        Key,
        LookupStats,
        Report,
        TimeSplit,
        WorkerExit,
    )

FORMAT = 1
"""Of `as_dict`. A field may be added; when one changes its meaning or goes, this number rises."""
WIDTH = 98
_SHOWN_GROUPS = 10
_SHOWN_SLOWEST = 5
_SHOWN_BIGGEST = 3
_SHOWN_EXITS = 10
_LONGEST_KEY = 40
_BIG = 1 << 20
"""Bytes from which a payload or value is worth a line."""
_UNITS = ("B", "kB", "MB", "GB", "TB")


# For people


def lines(report: Report) -> Iterator[str]:
    """Yield the lines of a report."""
    for line in _lines(report):
        yield clipped(line, WIDTH)


def _lines(report: Report) -> Iterator[str]:
    yield f"{counted(report.jobs, 'job')}: {_tally(report.counts) or 'none'}"
    yield _pace(report)
    if report.workers_started:
        yield _workers(report)
    if report.time.workers:
        yield _time(report.time)
    if report.skipped:
        yield f"{counted(report.skipped, 'job')} skipped: an earlier run has done them"
    if report.stopped:
        yield f"stopped early: {report.stopped}"
    if report.unstarted:
        yield f"{counted(report.unstarted, 'job')} not started: left in the queue"
    yield from _failures(report)
    if report.slowest:
        yield "slowest:"
        for seconds, key in report.slowest[:_SHOWN_SLOWEST]:
            yield f"  {seconds:9.3f} s  {shown(key)}"
    yield from _biggest("biggest payloads", report.biggest_payloads)
    yield from _biggest("biggest values", report.biggest_values)
    if report.lookups:
        yield "lookups:"
        yield from (_lookup(*item) for item in sorted(report.lookups.items()))
    yield from _exits(report)


def _pace(report: Report) -> str:
    retries = counted(report.retries, "retry", "retries")
    if report.retried:
        retries += f" ({_tally(report.retried)})"
    return f"{duration(report.seconds)}, {rate(report.jobs_per_second)}, {retries}"


def _workers(report: Report) -> str:
    text = f"{counted(report.workers_started, 'worker')} started, {report.workers_lost:,} lost"
    return f"{text} ({_tally(report.lost_causes)})" if report.lost_causes else text


def _time(time: TimeSplit) -> str:
    """Say what the workers did with their time."""
    parts = [("starting", time.start), ("at work", time.work)]
    if time.lost:
        parts.append(("in jobs that were lost", time.lost))
    if time.wait is None:
        said = ", ".join(f"{duration(seconds)} {what}" for what, seconds in parts)
        return f"workers' time, {duration(time.workers)}: {said} (jobs overlap)"
    parts.append(("waiting", time.wait))
    said = ", ".join(f"{seconds / time.workers:.0%} {what}" for what, seconds in parts)
    return f"workers' time, {duration(time.workers)}: {said}"


def _failures(report: Report) -> Iterator[str]:
    if not report.failures:
        return
    yield f"failures ({_tally(report.causes)}):" if report.causes else "failures:"
    for group in report.failures[:_SHOWN_GROUPS]:
        yield from _group(group)
    hidden = report.failures_not_shown + sum(g.count for g in report.failures[_SHOWN_GROUPS:])
    if hidden:
        yield f"  and {hidden:,} more of other kinds"


def _group(group: FailureGroup) -> Iterator[str]:
    yield f"  {group.count:6,} {group.state}  {error_line(group.error)}"
    if group.place:
        yield f"         at {clipped_left(group.place, WIDTH - 12)}"
    more = ", …" if group.count > len(group.keys) else ""
    word = "job" if group.count == 1 else "jobs"
    yield f"         {word}: {', '.join(map(shown, group.keys))}{more}"


def _biggest(title: str, sizes: Sequence[tuple[int, Key]]) -> Iterator[str]:
    big = [f"{size(count)} {shown(key)}" for count, key in sizes[:_SHOWN_BIGGEST] if count >= _BIG]
    if big:
        yield f"{title}: {', '.join(big)}"


def _lookup(name: str, stats: LookupStats) -> str:
    asked = f"{stats.misses:,} misses, {stats.round_trips:,} round trips"
    return f"  {name}: {stats.hits:,} hits, {asked}, {stats.seconds:.3f} s waited"


def _exits(report: Report) -> Iterator[str]:
    if not report.worker_exits:
        return
    yield "workers lost:"
    for end in report.worker_exits[:_SHOWN_EXITS]:
        yield f"  {exit_line(end)}"
    more = report.workers_lost - min(len(report.worker_exits), _SHOWN_EXITS)
    if more:
        yield f"  and {more:,} more"


def exit_line(end: WorkerExit) -> str:
    """Say in a line how a worker has ended."""
    how = end.signal or ("no exit code" if end.code is None else f"exit code {end.code}")
    what = "no job" if end.key is None else f"job {shown(end.key)}"
    if len(end.keys) > 1:
        what = f"{len(end.keys)} jobs"
    cause = f" ({end.cause})" if end.cause else ""
    return f"worker {end.worker_id} in slot {end.slot}: {how}{cause}, executing {what}"


def _tally(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


# Figures and texts that fit


def counted(count: int, singular: str, plural: str = "") -> str:
    """Write a number of things."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def duration(seconds: float) -> str:
    """Write seconds as people do: ``4.2 s``, ``1:23``, ``2:03:04``, ``3 d 04:05``."""
    if seconds < 59.95:  # noqa: PLR2004 - it would be written as 60.0 s
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"  # noqa: PLR2004
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:  # noqa: PLR2004 - four days; hours say nothing any more
        return f"{hours // 24} d {hours % 24:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rate(per_second: float) -> str:
    """Write a rate of jobs; a small one by the minute or the hour."""
    if per_second >= 100:  # noqa: PLR2004 - three digits suffice
        return f"{per_second:,.0f} jobs/s"
    for unit, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        if per_second * seconds >= 1 or unit == "h" or not per_second:
            break
    return f"{per_second * seconds:.1f} jobs/{unit}"


def size(count: float) -> str:
    """Write a number of bytes."""
    power = 0
    while count >= 1000 and power < len(_UNITS) - 1:  # noqa: PLR2004 - decimal units
        count, power = count / 1000, power + 1
    digits = 0 if count >= 100 or not power else 1  # noqa: PLR2004 - three of them
    return f"{count:.{digits}f} {_UNITS[power]}"


def shown(key: Any) -> str:
    """Write a job's key; one with spaces or of another type as its ``repr``, and none too long."""
    if type(key) is int:
        return str(key)
    is_plain = type(key) is str and key.isprintable() and key and " " not in key
    text = key if is_plain else described(key)
    return clipped(" ".join(text.split()), _LONGEST_KEY)


def first_line(text: str) -> str:
    """Return the first line of a text, without what would move the cursor of a terminal."""
    line = text.strip().partition("\n")[0]
    return "".join(c if c.isprintable() else "�" for c in line.replace("\t", " "))


def error_line(error: str) -> str:
    """Return the first line of an error, and name those of this package in short."""
    return first_line(error).removeprefix("okanjo_conductor.errors.")


def clipped(text: str, width: int) -> str:
    """Cut a text to so many characters."""
    return text if len(text) <= width else (text[: width - 1] + "…" if width else "")


def clipped_left(text: str, width: int) -> str:
    """Cut a text to so many characters, at its beginning."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


# Plain data


def as_dict(report: Report) -> dict[str, Any]:
    """Return a report as plain data."""
    return {
        "format": FORMAT,
        "jobs": report.jobs,
        "states": _plain(report.counts),
        "causes": _plain(report.causes),
        "skipped": report.skipped,
        "recovered": report.recovered,
        "unstarted": report.unstarted,
        "stopped": report.stopped,
        "seconds": report.seconds,
        "jobs_per_second": report.jobs_per_second,
        "retries": report.retries,
        "retried": _plain(report.retried),
        "time": _fields(report.time),
        "failures": [_fields(group) for group in report.failures],
        "failures_not_shown": report.failures_not_shown,
        "slowest": [{"seconds": s, "key": _plain(key)} for s, key in report.slowest],
        "biggest_payloads": [{"bytes": n, "key": _plain(k)} for n, k in report.biggest_payloads],
        "biggest_values": [{"bytes": n, "key": _plain(k)} for n, k in report.biggest_values],
        "workers": {
            "started": report.workers_started,
            "lost": report.workers_lost,
            "causes": _plain(report.lost_causes),
            "exits": [_fields(end) for end in report.worker_exits],
        },
        "stats": _plain(report.last_stats),
        "lookups": {name: _fields(stats) for name, stats in report.lookups.items()},
    }


def as_json(report: Report, indent: int | None) -> str:
    """Return a report as JSON."""
    import json

    return json.dumps(as_dict(report), indent=indent)


def _fields(thing: Any) -> dict[str, Any]:
    return {name: _plain(getattr(thing, name)) for name in type(thing).names}


def _plain(value: Any) -> Any:
    """Make plain data of a value; what is none becomes its ``repr``."""
    if isinstance(value, dict):
        return {_name(key): _plain(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return [_plain(part) for part in value]
    return _atom(value)


def _name(key: Any) -> str:
    plain = _plain(key)
    return plain if isinstance(plain, str) else str(plain)


def _atom(value: Any) -> str | float | bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    with suppress(Exception):  # a class of the user's may raise anything
        if isinstance(value, float):  # JSON has neither inf nor nan
            return float(value) if isfinite(value) else repr(float(value))
        if hasattr(type(value), "__index__"):  # whole numbers of NumPy's are no ints
            return index(value)
    return described(value)


def described(value: Any) -> str:
    """Return the ``repr`` of a value. Never raises."""
    try:
        return repr(value)
    except Exception:  # as above
        return f"a {type(value).__name__}"
