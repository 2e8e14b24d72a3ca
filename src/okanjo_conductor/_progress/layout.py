"""What a snapshot looks like in lines of text. Pure: nothing here knows a terminal.

A line is a list of *spans*: a text, and what it is, which `live` gives a colour.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from okanjo_conductor import _reporting as words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from okanjo_conductor._snapshot import Snapshot, WorkerSnapshot
    from okanjo_conductor._types import RecentFailure, Report

Span: TypeAlias = tuple[str, str]
Line: TypeAlias = list[Span]

_BAR = 40
"""Columns of the longest bar."""
_SHORTEST_BAR = 5
"""Others are multiples of it, so that the bar keeps its length when the text beside it changes."""
_NOTES = 4
"""Lines of recent failures and lost workers."""
_HEAD = 2
_PHASES = {
    "new": "starting",
    "ending": "workers are leaving",
    "draining": "finishing the jobs in execution",
    "aborting": "aborting",
}
"""What to say of phases that are not the usual one."""
_COUNTED = ("failed", "quarantined", "cancelled")
_ASCII = str.maketrans({"…": "~", "━": "#", "─": "-", "·": ",", "�": "?"})


# A line by itself


def plain_line(snapshot: Snapshot) -> str:
    """Say in a line how a run stands."""
    parts = [_jobs(snapshot), *_outcomes(snapshot), words.rate(snapshot.rate)]
    if snapshot.eta is not None:
        parts.append(f"{words.duration(snapshot.eta)} left")
    parts.append(text_of(_crew_spans(snapshot)))
    phase = _PHASES.get(snapshot.phase)
    return f"[{words.duration(snapshot.seconds)}] {', '.join(filter(None, (phase, *parts)))}"


def last_line(report: Report) -> str:
    """Say in a line how a run went."""
    jobs = words.counted(report.jobs, "job")
    tally = ", ".join(f"{count:,} {state}" for state, count in report.counts.items() if count)
    said = f"{jobs} in {words.duration(report.seconds)}, {words.rate(report.jobs_per_second)}"
    parts = [f"{said}: {tally}" if tally else said]
    if report.skipped:
        parts.append(f"{report.skipped:,} skipped")
    if report.workers_lost:
        workers = words.counted(report.workers_started, "worker")
        parts.append(f"{report.workers_lost:,} of {workers} lost")
    if report.stopped:
        parts.append(f"stopped early ({words.first_line(report.stopped)})")
    if report.unstarted:
        parts.append(f"{report.unstarted:,} not started")
    return "; ".join(parts)


def _jobs(snapshot: Snapshot) -> str:
    ended = snapshot.finished + snapshot.skipped
    if snapshot.total is None:
        return words.counted(ended, "job")
    share = "" if snapshot.fraction is None else f" ({_percent(snapshot.fraction)})"
    return f"{ended:,} of {words.counted(snapshot.total, 'job')}{share}"


def _percent(fraction: float) -> str:
    """Write a share; 100 % is reached when all is."""
    return f"{int(fraction * 100)} %"


def _outcomes(snapshot: Snapshot) -> list[str]:
    """Say what has come out of the jobs besides values."""
    parts = [f"{n:,} {s}" for s, n in snapshot.counts.items() if n and s in _COUNTED]
    if snapshot.skipped:
        parts.append(f"{snapshot.skipped:,} skipped")
    if snapshot.retries:
        parts.append(words.counted(snapshot.retries, "retry", "retries"))
    return parts


def _crew_spans(snapshot: Snapshot) -> Line:
    """Say what the workers do."""
    states = Counter(worker.state for worker in snapshot.workers)
    order = ("working", "idle", "starting", "leaving")
    parts = [f"{states[state]:,} {state}" for state in order if states[state]]
    line = [(f"workers: {', '.join(parts) or 'none'}", "")]
    if snapshot.workers_lost:
        line += [(", ", ""), (f"{snapshot.workers_lost:,} lost", "bad")]
    return line


# The whole view


def view(snapshot: Snapshot, width: int, height: int, *, ascii_only: bool = False) -> list[Line]:
    """Lay a snapshot out.

    Args:
        width: columns that a line may take.
        height: rows that all lines together may take, at least 1.
        ascii_only: use no other characters.
    """
    lines = [_bar_line(snapshot, width)]
    if height >= _HEAD:
        lines.append(_state_line(snapshot))
    room = height - len(lines)
    notes = _notes(snapshot, min(_NOTES, max(room - len(snapshot.workers), room // 3)))
    lines += _worker_lines(snapshot.workers, width, room - len(notes))
    lines += notes
    lines = [_fitted(line, width) for line in lines]
    if ascii_only:
        lines = [[(_to_ascii(text), kind) for text, kind in line] for line in lines]
    return lines


def text_of(line: Line) -> str:
    """Return the text of a line."""
    return "".join(text for text, _ in line)


def _to_ascii(text: str) -> str:
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def _bar_line(snapshot: Snapshot, width: int) -> Line:
    facts = [_jobs(snapshot), words.rate(snapshot.rate), words.duration(snapshot.seconds)]
    if snapshot.eta is not None and snapshot.phase == "running":
        facts.append(f"{words.duration(snapshot.eta)} left")
    text = " · ".join(facts)
    fraction = snapshot.fraction
    columns = min(_BAR, (width - len(text) - 1) // _SHORTEST_BAR * _SHORTEST_BAR)
    if fraction is None or columns < _SHORTEST_BAR:
        return [(text, "")]
    full = int(fraction * columns)
    return [("━" * full, "bar"), ("─" * (columns - full), "rest"), (" " + text, "")]


def _state_line(snapshot: Snapshot) -> Line:
    line: Line = []
    phase = _PHASES.get(snapshot.phase)
    if phase:
        line += [(phase, "phase"), (" · ", "")]
    for part in _outcomes(snapshot):
        line += [(part, "bad" if part.endswith(_COUNTED) else ""), (" · ", "")]
    return [*line, *_crew_spans(snapshot)]


def _notes(snapshot: Snapshot, rows: int) -> list[Line]:
    """Tell of lost workers, in half of the rows, and of failed jobs; the newest last."""
    exits = snapshot.exits[-max(rows // 2, rows - len(snapshot.failures)) :]
    failures = snapshot.failures[max(len(snapshot.failures) + len(exits) - rows, 0) :]
    return [
        *([("lost ", "bad"), (words.exit_line(end), "")] for end in exits),
        *([(f"{f.state} ", "bad"), (_failure(f), "")] for f in failures),
    ][:rows]


def _failure(failure: RecentFailure) -> str:
    return f"{words.shown(failure.key)}: {words.error_line(failure.error)}"


def _worker_lines(workers: tuple[WorkerSnapshot, ...], width: int, rows: int) -> Iterable[Line]:
    """Give every worker a line, or, where there is no room, those that take longest."""
    hidden: list[WorkerSnapshot] = []
    if len(workers) > rows:
        places = sorted(range(len(workers)), key=lambda place: -_since(workers[place]))
        kept = set(places[: max(rows - 1, 0)])
        hidden = [worker for place, worker in enumerate(workers) if place not in kept]
        workers = tuple(worker for place, worker in enumerate(workers) if place in kept)
    digits = max((len(str(worker.slot)) for worker in workers), default=1)
    for worker in workers:
        yield _worker_line(worker, width, digits)
    if hidden and rows > 0:
        states = Counter(worker.state for worker in hidden)
        said = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
        yield [(f"… {len(hidden):,} more: {said}", "dim")]


def _since(worker: WorkerSnapshot) -> float:
    """Tell how interesting a worker is: who takes long is."""
    return -1.0 if worker.seconds is None else worker.seconds


def _worker_line(worker: WorkerSnapshot, width: int, digits: int) -> Line:
    figures = "".join(
        (
            f"{'' if worker.seconds is None else words.duration(worker.seconds):>9}",
            f"{'' if worker.rss is None else words.size(worker.rss):>9}",
            "" if worker.worker_id is None else f"{words.counted(worker.executed, 'job'):>14}",
        )
    )
    slot = f"{worker.slot:>{digits + 1}}  "
    room = width - len(slot) - len(figures)
    kind = "" if worker.state == "working" else "dim"
    what = _doing(worker)
    if room < len(what) and room < width // 3:
        return [(slot, "dim"), (what, kind)]
    return [(slot, "dim"), (words.clipped(what, room).ljust(room), kind), (figures, "dim")]


def _doing(worker: WorkerSnapshot) -> str:
    if not worker.in_flight:
        return worker.state
    key = words.shown(worker.key)
    more = f" and {worker.in_flight - 1:,} more" if worker.in_flight > 1 else ""
    return f"leaving: {key}{more}" if worker.state == "leaving" else key + more


def _fitted(line: Line, width: int) -> Line:
    """Cut a line to so many characters."""
    fitted: Line = []
    for text, kind in line:
        if len(text) > width:
            return [*fitted, (words.clipped(text, width), kind)]
        fitted.append((text, kind))
        width -= len(text)
    return fitted
