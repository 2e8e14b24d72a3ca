"""The workers' counters, added up.

Workers report on their own clocks. A *cycle* ends when every live worker has reported, or when one
reports for the second time: then somebody has nothing to say, and a full interval has passed.

A dead worker's last totals stay in the sum, once. ``agg.diff`` is the change of the whole sum, so
over a run the diffs add up to the last totals whatever died in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from okanjo_conductor._types import StatsAggregate, StatsReport, WorkerStats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from okanjo_conductor._types import WorkerId


class StatsBook:
    """The counters of all workers of one run."""

    def __init__(self) -> None:
        self._totals: dict[WorkerId, dict[str, Any]] = {}
        """Latest totals of every worker, the dead included."""
        self._cycle: dict[int, WorkerStats] = {}
        """What was reported since the last cycle was closed."""
        self._last: dict[str, Any] = {}
        """The sum at that time."""

    def has_reported(self, worker_id: WorkerId) -> bool:
        """Whether a worker has reported in this cycle."""
        return worker_id in self._cycle

    @property
    def is_cycle_open(self) -> bool:
        """Whether anybody has reported in this cycle."""
        return bool(self._cycle)

    def note(self, worker_id: WorkerId, totals: dict[str, Any], time_span: float) -> None:
        """Take a worker's report into the open cycle."""
        before = self._totals.get(worker_id, {})
        self._totals[worker_id] = totals
        self._cycle[worker_id] = WorkerStats(totals, _difference(totals, before), time_span)

    @property
    def reporters(self) -> int:
        """How many workers have reported in this cycle, the dead included."""
        return len(self._cycle)

    def is_cycle_complete(self, live: Iterable[WorkerId]) -> bool:
        """Whether all of these have reported."""
        return all(worker_id in self._cycle for worker_id in live)

    def close_cycle(self) -> StatsReport:
        """Add everything up and begin the next cycle."""
        last: dict[str, Any] = {}
        for totals in self._totals.values():
            for name, count in totals.items():
                last[name] = last.get(name, 0) + count
        spans = [report.time_span for report in self._cycle.values()]
        report = StatsReport(
            raw=self._cycle,
            agg=StatsAggregate(last=last, diff=_difference(last, self._last)),
            avg_time_span=sum(spans) / len(spans),
        )
        self._cycle, self._last = {}, last
        return report


def _difference(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    return {name: after.get(name, 0) - before.get(name, 0) for name in {**before, **after}}
