"""Real workers beside simulated ones: what the simulation is worth, and what it is fed with.

The nodes are agents in subprocesses of this machine, which talk over sockets: the engine of the
tests. Jobs sleep, so that there may be more workers than CPUs. What the conductor spends is counted
from the tenth part of the outcomes to the last: not while it starts.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from okanjo_conductor import Conductor
from okanjo_conductor._core import commands as do
from okanjo_conductor._core import events as ev
from okanjo_conductor._core.state import ConductorState
from okanjo_conductor.clusters._remote import RemoteCrew
from okanjo_conductor.testing import simulate_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from okanjo_conductor._core.state import Step

_ROUND_TRIP = 0.0005
"""Seconds, through two sockets and four threads."""
COLUMNS = (
    "workers",
    "job",
    "jobs/s, real",
    "simulated",
    "conductor µs/job, real",
    "simulated",
    "core µs/event, real",
    "simulated",
    "messages/job, real",
    "simulated",
    "beside the core µs/message",
    "packets/message",
)


def noop(job: int) -> int:
    """Do nothing."""
    return job


def nap(job: int, seconds: float) -> int:
    """Sleep."""
    time.sleep(seconds)
    return job


@dataclass
class Spent:
    """What was counted up to one moment."""

    at: float = 0.0
    cpu: float = 0.0
    """Of this process, all threads."""
    core: float = 0.0
    events: int = 0
    messages: int = 0
    packets: int = 0
    jobs: int = 0
    nanoseconds: int = 0
    """That workers said they took."""

    def since(self, before: Spent) -> Spent:
        """Return the difference."""
        names = [field.name for field in fields(self)]
        return Spent(**{name: getattr(self, name) - getattr(before, name) for name in names})


class Meter:
    """Counts what a conductor does while it runs in this process.

    Args:
        warm_up: outcomes before that are not counted.
    """

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self._now = Spent()
        self._first: Spent | None = None
        self._last = Spent()

    @property
    def spent(self) -> Spent:
        """From the end of the warm-up to the last outcome."""
        return self._last.since(self._first or Spent())

    @contextmanager
    def attached(self, engine: Any) -> Generator[None]:
        """Count, within this block."""
        watched: list[tuple[Any, str, Callable[..., Any]]] = [
            (ConductorState, "handle", self._handle),
            (ConductorState, "next_deadline", self._in_core),
            (RemoteCrew, "on_packet", self._count_packet),
            (engine, "put", self._count_packet),
        ]
        with ExitStack() as stack:
            for owner, name, around in watched:
                original = getattr(owner, name)
                stack.enter_context(patch.object(owner, name, _wrapped(around, original)))
            yield

    def _in_core(self, original: Callable[..., Any], *args: Any) -> Any:
        began = time.process_time()
        result = original(*args)
        self._now.core += time.process_time() - began
        return result

    def _handle(
        self, original: Callable[..., Step], state: ConductorState, event: ev.Event, now: float
    ) -> Step:
        step: Step = self._in_core(original, state, event, now)
        self._now.events += 1
        said = isinstance(event, ev.AttemptsDone | ev.JobsSeen | ev.JobsRecalled)
        heard = sum(isinstance(c, do.HandOut | do.RecallJobs) for c in step.commands)
        self._now.messages += said + heard
        if isinstance(event, ev.AttemptsDone):
            self._now.jobs += len(event.ordinals)
            self._now.nanoseconds += sum(event.nanoseconds)
            self._note()
        return step

    def _note(self) -> None:
        self._now.at, self._now.cpu = time.perf_counter(), time.process_time()
        self._last = self._now.since(Spent())
        if self._first is None and self._now.jobs >= self._warm_up:
            self._first = self._last

    def _count_packet(self, original: Callable[..., None], *args: Any) -> None:
        self._now.packets += 1
        original(*args)


def _wrapped(around: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        return around(original, *args)

    return call


def rows() -> Iterator[list[str]]:
    """Run and simulate each case."""
    yield row("no-op", noop, jobs=1_000_000, workers=1, nodes=1)
    for milliseconds, workers, nodes, jobs in (
        (1, 2, 1, 10_000),
        (1, 8, 2, 20_000),
        (20, 8, 2, 2_000),
        (100, 32, 2, 2_000),
    ):
        worker = partial(nap, seconds=milliseconds / 1000)
        yield row(f"{milliseconds} ms", worker, jobs=jobs, workers=workers, nodes=nodes)


def row(
    name: str, worker: Callable[[int], int], *, jobs: int, workers: int, nodes: int
) -> list[str]:
    """Run jobs on real workers, and simulate as many that take as long."""
    engines: Any = import_module("tests.clusters.subprocesses")
    cluster = engines.SubprocessCluster(nodes=nodes, room=-(-workers // nodes))
    meter = Meter(jobs // 10)
    conductor = Conductor(
        worker, jobs_queue=range(jobs), cluster=cluster, worker_limit=workers, logging=False
    )
    with meter.attached(engines.SubprocessEngine):
        conductor.run()
    real = meter.spent
    simulated = simulate_cluster(
        nodes=nodes,
        workers=workers,
        jobs=jobs,
        durations=real.nanoseconds / real.jobs / 1e9,
        round_trip=_ROUND_TRIP,
    )
    return [
        str(workers),
        name,
        f"{real.jobs / (real.at):,.0f}",
        f"{jobs / simulated.makespan:,.0f}",
        f"{real.cpu / real.jobs * 1e6:.2f}",
        f"{simulated.busy / jobs * 1e6:.2f}",
        f"{real.core / real.events * 1e6:.0f}",
        f"{simulated.core / simulated.events * 1e6:.0f}",
        f"{real.messages / real.jobs:.3f}",
        f"{simulated.messages / jobs:.3f}",
        f"{(real.cpu - real.core) / real.messages * 1e6:.0f}",
        f"{real.packets / real.messages:.2f}",
    ]
