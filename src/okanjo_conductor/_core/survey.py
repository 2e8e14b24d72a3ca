"""What every slot is doing, for whoever looks at a run from outside. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from okanjo_conductor._core.fleet import WorkerState
from okanjo_conductor._plain import Named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from okanjo_conductor._core.fleet import Fleet, Worker
    from okanjo_conductor._core.ledger import Ledger
    from okanjo_conductor._types import Key, Ordinal, WorkerId


class Sight(Named):
    """What one worker is doing."""

    worker_id: WorkerId
    slot: int
    activity: str
    """``"starting"``, ``"idle"``, ``"working"`` or ``"leaving"``."""
    key: Key | None
    """Of the job it executes; the oldest, where those are several."""
    since: float | None
    """When that job was first seen executing; None: it has just begun, or there is none."""
    in_flight: int
    """How many jobs it executes."""
    waiting: int
    """How many jobs wait in it behind those."""
    executed: int
    """How many jobs it has executed to an end."""


def look_at(worker: Worker, ledger: Ledger, claimed: Ordinal | None) -> Sight:
    """See what a worker is doing.

    Args:
        claimed: the last ordinal it has started.
    """
    first = 0 if worker.concurrency > 1 else claimed or 0
    in_flight = ledger.count_between(worker.id, first, claimed or 0)
    oldest = ledger.first_between(worker.id, first, claimed or 0)
    job = None if oldest is None else ledger.peek(worker.id, oldest)
    watch = None if oldest is None else worker.watches.get(oldest)
    return Sight(
        worker_id=worker.id,
        slot=worker.slot.number,
        activity=_activity(worker, is_working=job is not None),
        key=None if job is None else job.key,
        since=None if watch is None else watch.since,
        in_flight=in_flight,
        waiting=max(ledger.held_by(worker.id) - in_flight, 0),
        executed=worker.executed,
    )


def _activity(worker: Worker, *, is_working: bool) -> str:
    if worker.state is WorkerState.STOPPING or worker.was_terminated:
        return "leaving"
    if worker.state is WorkerState.STARTING:
        return "starting"
    return "working" if is_working else "idle"


def survey(fleet: Fleet, ledger: Ledger, claims: Mapping[int, Ordinal | None]) -> Iterator[Sight]:
    """Look at every live worker, in the order of slots.

    Args:
        claims: by worker, the last ordinal it has started.
    """
    for worker in sorted(fleet, key=lambda w: (w.slot.number, w.id)):
        yield look_at(worker, ledger, claims.get(worker.id))
