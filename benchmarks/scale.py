"""Many workers, simulated around the real core: what a conductor costs, and what it keeps busy.

    .venv/bin/python -m benchmarks.scale [--workers 10,100,1000,10000] [--only noop,100ms]
    .venv/bin/python -m benchmarks.scale --packet 0.0005 --round-trip 0.02
    .venv/bin/python -m benchmarks.scale --real             real workers beside simulated ones

With `--page docs/scale.md` the table is written into that page, in its place.
Prints a table in Markdown. The makespan is in units of the lower bound. *Busy* is the share of it
in which the conductor was; at 100 % it is what workers wait for. Of a run in whose middle a node is
lost it says by how much it was longer than the run without a loss, and than the bound that knows of
the loss. `docs/scale.md` says what of all this is made up, and what is measured.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import nodes
from benchmarks.page import machine
from okanjo_conductor.testing import ScaleReport, ShellCosts, simulate_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NODES = 32


def _heavy_tail() -> list[float]:
    """Draw durations from 10 ms to 5 s: most jobs are short, most of the work is in few."""
    chance = random.Random(7)  # noqa: S311 - durations, no secret
    return [min(0.01 * chance.paretovariate(1.1), 5.0) for _ in range(100_003)]


@dataclass(frozen=True)
class Mix:
    """Jobs, and how many of them each worker gets: so many that to begin is a small part of it."""

    durations: Sequence[float]
    each: int
    most: int = 1_000_000
    """In all."""


MIXES = {
    "noop": Mix([1e-6], 50_000, most=4_000_000),
    "1ms": Mix([0.001], 1_000),
    "100ms": Mix([0.1], 50, most=200_000),
    "10s": Mix([10.0], 10),
    "tail": Mix(_heavy_tail(), 400, most=200_000),
}
_COLUMNS = (
    "workers",
    "each",
    "jobs",
    "makespan",
    "utilised",
    "busy",
    "jobs/s",
    "core µs/job",
    "core µs/event",
    "messages/job",
    "bytes/worker",
    "a node lost",
    "repeated",
)


def row(workers: int, name: str, round_trip: float, costs: ShellCosts) -> list[str]:
    """Simulate one kind of jobs, without and with the loss of a node, and once for the memory."""
    mix = MIXES[name]
    jobs = min(workers * mix.each, mix.most)
    run: Callable[..., ScaleReport] = partial(
        simulate_cluster,
        nodes=min(NODES, workers),
        workers=workers,
        durations=mix.durations,
        round_trip=round_trip,
        costs=costs,
    )
    whole = run(jobs=jobs)
    lossy = run(jobs=jobs, lose_node_at=whole.makespan / 2)
    traced = run(jobs=min(jobs, 10 * workers), traces_memory=True)
    return [
        f"{workers:,}",
        name,
        f"{jobs:,}",
        f"{whole.makespan / whole.bound:.2f}",
        f"{whole.utilisation:.1%}",
        f"{min(1.0, whole.busy / whole.makespan):.1%}",
        f"{jobs / whole.makespan:,.0f}",
        f"{whole.core / jobs * 1e6:.2f}",
        f"{whole.core / whole.events * 1e6:.0f}",
        f"{whole.messages / jobs:.3f}",
        f"{traced.bytes_per_worker:,}",
        f"+ {max(0.0, lossy.makespan - max(lossy.bound, whole.makespan)):.1f} s",
        f"{lossy.repeated:,}",
    ]


def _written(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Print a table, line by line, and return it."""
    lines = []
    for cells in chain([columns, ["---"] * len(columns)], rows):
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def _put_into(page: Path, name: str, table: str) -> None:
    """Replace a table of a page, and say what machine it is from."""
    here = machine()
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = page.read_text().split(begin)
    after = rest.split(end)[1]
    told = f"{here['cpus']} CPUs of {here['cpu']}, {here['system']}, {here['python']}."
    page.write_text(f"{before}{begin}\n\n{told}\n\n{table}\n\n{end}{after}")


def main() -> None:
    """Simulate, and print a line for each number of workers and each kind of jobs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", default="10,100,1000,10000")
    parser.add_argument("--only", default=",".join(MIXES))
    parser.add_argument("--packet", type=float, default=ShellCosts().packet, help="in seconds")
    parser.add_argument("--round-trip", type=float, default=0.005, help="in seconds")
    parser.add_argument("--real", action="store_true", help="real workers beside simulated ones")
    parser.add_argument("--page", type=Path, help="write the table into this page")
    args = parser.parse_args()
    if args.real:
        name, table = "real", _written(nodes.COLUMNS, nodes.rows())
    else:
        costs = ShellCosts(packet=args.packet)
        cases = product(args.only.split(","), map(int, args.workers.split(",")))
        rows = (row(workers, mix, args.round_trip, costs) for mix, workers in cases)
        name, table = "simulated", _written(_COLUMNS, rows)
    if args.page:
        _put_into(args.page, name, table)


if __name__ == "__main__":
    main()
