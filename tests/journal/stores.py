"""What the tests of the journal share: records, and a writer with a loop of its own."""

from __future__ import annotations

from okanjo_conductor._core.jobs import Job, Jobs
from okanjo_conductor._core.records import JobFailed, JobRetried, JobsDone
from okanjo_conductor._io.light_loop import LightLoop
from okanjo_conductor._types import Attempt, Cause, JobState
from okanjo_conductor.journal._store import Store
from okanjo_conductor.journal._writer import Writer


def done(values, keys=None, histories=None, worker_id=1):
    """Make a record of done jobs."""
    values = list(values)
    ids = list(range(len(values)))
    keys = list(values) if keys is None else list(keys)
    return JobsDone(
        worker_id=worker_id,
        slot=0,
        jobs=Jobs(ids, keys, ids, ids),
        values=values,
        nanoseconds=[1_000_000] * len(ids),
        histories=histories or {},
    )


def attempt(number=1, cause=Cause.ERROR, error=None):
    return Attempt(number, cause, error or ValueError(f"attempt {number}"), 1, 0.5)


def failed(key, payload="the payload", state=JobState.FAILED, history=None, wire=None):
    """Make a record of a failed job."""
    history = history or (attempt(),)
    return JobFailed(
        worker_id=1,
        slot=0,
        job=Job(0, key, payload, payload if wire is None else wire),
        state=state,
        cause=history[-1].cause,
        error=history[-1].error,
        place="work.py:1 in work",
        history=history,
    )


def retried(key, number=1, ordinal=None):
    """Make a record of a job that will have another attempt."""
    return JobRetried(job=Job(0, key, "p", "p"), attempt=attempt(number), ordinal=ordinal)


class Session:
    """A store and its writer, and what that says."""

    def __init__(self, path, sinks=(), **options):
        self.store = Store(path, **options)
        self.loop = LightLoop()
        try:
            self.store.begin()
            self.batches, self.errors, self.met = [], [], []
            self.writer = Writer(
                self.store,
                self.loop,
                list(sinks),
                on_commit=self.batches.extend,
                on_error=self.errors.append,
                on_met=self.met.extend,
            )
        except BaseException:
            self.loop.close()
            self.store.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def flush(self):
        """Wait until everything is committed, or cannot be."""
        self.writer.flush(self.loop.stop)
        self.loop.run_forever()

    def write(self, *records):
        """Have records committed, and wait for it."""
        self.writer.write(list(records))
        self.flush()

    def close(self, state="done"):
        if self.writer is None:
            return
        self.writer.close(self.loop.stop)
        self.loop.run_forever()
        self.loop.close()
        self.writer._thread.join()
        self.writer = None
        if state is not None:
            self.store.end(state, {})
        self.store.close()
