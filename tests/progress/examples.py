"""Snapshots to look at."""

from __future__ import annotations

from okanjo_conductor import Cause, JobState, RecentFailure, Snapshot, WorkerExit, WorkerSnapshot

DONE, FAILED, QUARANTINED = JobState.DONE, JobState.FAILED, JobState.QUARANTINED


def worker(slot, state="working", **fields):
    """A worker that works at job ``job-<slot>``, unless said otherwise."""
    given = {"worker_id": slot + 1, "pid": 100 + slot, "rss": 84_000_000, "executed": 7, **fields}
    if state == "working":
        given = {"key": f"job-{slot}", "seconds": 1.5, "in_flight": 1, **given}
    return WorkerSnapshot(slot=slot, state=state, **given)


def snapshot(**fields):
    """A run in the middle."""
    given = {
        "phase": "running",
        "counts": {**dict.fromkeys(JobState, 0), DONE: 4210, FAILED: 3},
        "total": 10_000,
        "seconds": 17.2,
        "rate": 245.3,
        "eta": 23.6,
        "workers": (worker(0), worker(1, "idle")),
        "workers_started": 2,
        **fields,
    }
    return Snapshot(**given)


def failure(key, text="ValueError: bad"):
    """A job that has failed."""
    return RecentFailure(key, FAILED, Cause.ERROR, text)


def lost(worker_id, key=None):
    """A worker that was killed."""
    keys = () if key is None else (key,)
    return WorkerExit(
        type="worker_exit",
        worker_id=worker_id,
        slot=worker_id - 1,
        code=None,
        signal="SIGKILL",
        cause=Cause.CRASH,
        key=key,
        keys=keys,
    )
