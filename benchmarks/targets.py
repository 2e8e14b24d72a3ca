"""What we mean to reach, and whether we do: the middle of all rounds decides.

Ratios are formed within each round, so that both sides met the same mood of the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from benchmarks.contenders import WORKERS
from benchmarks.rounds import Table
from benchmarks.workloads import WORKLOADS, Figures
from okanjo_conductor._core.prefetch import MAX_BATCH

Round = dict[str, Figures]
"""The figures of one workload in one round, by contender."""
US = "conductor"
_RATE = "lookups_per_second"
WINDOW = 8 * WORKERS * MAX_BATCH
"""Jobs that may have been read and not been seen by the consumer. Batches per worker: two held,
one waiting, one being read, four in the buffer of outcomes (`Run._set_buffer_limit`)."""


@dataclass(frozen=True)
class Target:
    """A figure with a limit."""

    workload: str
    what: str
    value: Callable[[Round], float | None]
    """None: this round does not tell."""
    least: float | None = None
    most: float | None = None

    def limit(self) -> str:
        """Write the limit out."""
        if self.least is not None:
            return f"≥ {self.least:,.5g}"
        return "–" if self.most is None else f"≤ {self.most:,.5g}"

    def is_met_by(self, value: float) -> bool | None:
        """Judge; None: there is no limit."""
        if self.least is not None:
            return value >= self.least
        return None if self.most is None else value <= self.most


@dataclass(frozen=True)
class Verdict:
    """What came of a target."""

    target: Target
    values: list[float]
    """One for each round that tells."""

    @property
    def value(self) -> float:
        """The one that is judged."""
        return median(self.values)

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None: there is none, or nothing to judge."""
        return self.target.is_met_by(self.value) if self.values else None


def own(figure: str) -> Callable[[Round], float | None]:
    """Take a figure of ours."""
    return lambda row: row[US][figure] if US in row else None


def over(figure: str, rival: str) -> Callable[[Round], float | None]:
    """Divide a figure of ours by the same of a rival."""

    def ratio(row: Round) -> float | None:
        return row[US][figure] / row[rival][figure] if {US, rival} <= set(row) else None

    return ratio


def of(contender: str, figure: str) -> Callable[[Round], float | None]:
    """Take a figure of one of our ways."""
    return lambda row: row[contender][figure] if contender in row else None


def between(contender: str, rival: str) -> Callable[[Round], float | None]:
    """Divide the rate of one way of looking up by that of another."""

    def ratio(row: Round) -> float | None:
        return row[contender][_RATE] / row[rival][_RATE] if {contender, rival} <= set(row) else None

    return ratio


def over_best(figure: str) -> Callable[[Round], float | None]:
    """Divide a figure of ours by the highest of all rivals."""

    def ratio(row: Round) -> float | None:
        rivals = [row[name][figure] for name in row if not name.startswith(US)]
        return row[US][figure] / max(rivals) if US in row and rivals else None

    return ratio


TARGETS = [
    Target("noop", "rate, × Pool with chunk size 1", over("jobs_per_second", "pool"), least=15),
    Target("cpu100us", "efficiency", own("efficiency"), least=0.90),
    Target("cpu1ms", "efficiency", own("efficiency"), least=0.97),
    Target("tail", "makespan, × lower bound", own("makespan_to_bound"), most=1.01),
    Target("arrays", "rate, × the best rival", over_best("mib_per_second"), least=1.5),
    Target("roundtrip", "p50, µs", own("p50"), most=120),
    Target("roundtrip", "p50 after 20 ms of silence, × Pool", over("p50_after_silence", "pool")),
    Target("script", "time, × Pool", over("seconds", "pool"), most=1.5),
    Target("import", "ms", own("ms")),
    Target("stream", "jobs/s", own("jobs_per_second"), least=200_000),
    Target("stream", "growth of memory, MiB", own("growth_mib"), most=20),
    Target("stream", "jobs read ahead", own("read_ahead"), most=WINDOW),
    Target("lookups", "one at a time, × Manager", between("conductor", "pool-manager"), least=1.5),
    Target(
        "lookups", "100 at a time, × Manager", between("conductor-many", "pool-manager"), least=10
    ),
    Target(
        "lookups",
        "table, × a copy of one's own",
        between("conductor-table", "pool-copy"),
        least=0.5,
    ),
    Target("lookups", "kept by the worker, lookups/s", of("conductor-cached", _RATE), least=3e6),
    Target("lookup-memory", "MiB", of("conductor-table", "mib_per_worker"), most=15),
    Target("lookup-reopening", "ms", of("conductor-table", "ms"), most=50),
    Target("journal", "rate, × one commit per job", own("times_one_by_one"), least=5),
    Target("journal-cost", "of the CPU time", own("slowed_by"), most=0.05),
    Target("replacement", "ms", own("ms"), most=60),
]


def verdicts(table: Table) -> list[Verdict]:
    """Judge every target whose workload was measured."""
    return [Verdict(t, _values(t, table)) for t in TARGETS if t.workload in table]


def ratio_to_ours(table: Table, workload: str, contender: str) -> float | None:
    """Say how many times better we are than a contender, the middle of all rounds."""
    kind = WORKLOADS[workload]

    def ratio(row: Round) -> float | None:
        if not {US, contender} <= set(row):
            return None
        ours, theirs = row[US][kind.figure], row[contender][kind.figure]
        if not (ours and theirs):
            return None
        return ours / theirs if kind.is_more_better else theirs / ours

    values = [value for row in _rounds(table, workload) if (value := ratio(row)) is not None]
    return median(values) if values else None


def _values(target: Target, table: Table) -> list[float]:
    values = map(target.value, _rounds(table, target.workload))
    return [value for value in values if value is not None]


def _rounds(table: Table, workload: str) -> list[Round]:
    """Turn series by contender into rounds, without what failed."""
    row = table[workload]
    count = max((len(series.rounds) for series in row.values()), default=0)
    return [
        {name: figures for name, s in row.items() if (figures := s.rounds[number]) is not None}
        for number in range(count)
    ]
