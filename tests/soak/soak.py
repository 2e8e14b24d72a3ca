"""Many small jobs while somebody kills workers all the time; then the books are compared.

    make soak                                      100,000 jobs, a worker killed every 50 ms
    make soak SOAK="--seconds 600 --workers 8"     at least ten minutes
    python tests/soak/soak.py --concurrency 10     async workers, each with ten jobs in flight

It ends with a verdict, and with exit code 1 unless: each job has exactly one outcome and is done;
whoever was charged was executing, by a side-effect log in shared memory that the killed cannot
change afterwards; whoever was executing was charged, or is a suspect where several were; and the
last third of the run is not grossly slower than the first.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from okanjo_conductor import Cause, Conductor, ConductorWorker, JobState, Outcome, Retry, WorkerExit
from soak.notes import AsyncNotingWorker, Notes, NotingWorker

MOST_WORKERS = 1 << 17
MOST_PER_SECOND = 20_000
"""Jobs for which there is room where `seconds` decides how many there are."""
RETRIES = 20
"""Of crashes. A job is killed once in eighty executions, so none of a million spends them."""
SPARED_AFTER = 2
"""Workers of one slot in a row that were killed before they did anything: the next one is spared,
because three are what the conductor takes for a worker that cannot start."""
MARGIN = 0.02
"""Of the kills may fall between the claim of a job and its first line, or between its last line and
its outcome: microseconds beside milliseconds. There the log cannot tell."""
ASYNC_MARGIN = 0.1
"""Of the executions that end with an async worker: between claim and first line lies a turn of the
loop, in which others go on; and those at the edge come many at a time."""
SLOWEST = 0.5
_REPORT = 1.0


@dataclass(kw_only=True)
class Options:
    """What to do."""

    jobs: int = 100_000
    seconds: float = 0.0
    workers: int = 4
    concurrency: int = 0
    """Jobs in flight in a worker, which is async then; 0: workers that are not."""
    kill_every: float = 0.05
    seed: int = 1
    longest: int = 5_000
    """Microseconds of the longest job."""
    is_quiet: bool = False


@dataclass
class Verdict:
    """What came of it."""

    jobs: int = 0
    seconds: float = 0.0
    kills: int = 0
    charged: int = 0
    """Executions that ended with their worker, and were charged or suspected."""
    suspected: int = 0
    """Of them: beside others, so that nobody is charged."""
    uncharged: int = 0
    """Workers that were lost between jobs, or idle: nobody is charged."""
    unclear: int = 0
    """Charges where the log shows the job at its very start or end."""
    rates: tuple[float, float] = (0.0, 0.0)
    """Outcomes a second in the first and the last third."""
    wrongs: Counter[str] = field(default_factory=Counter)
    """What must not happen, and how often it did."""

    @property
    def is_good(self) -> bool:
        return not self.wrongs

    def __str__(self) -> str:
        first, last = self.rates
        lines = [
            f"{self.jobs:,} jobs in {self.seconds:.1f} s, {self.kills:,} workers killed",
            f"charged to who was executing: {self.charged:,}, to nobody: {self.uncharged:,}",
            *([f"suspects among them: {self.suspected:,}"] if self.suspected else []),
            f"charged on the edge of a job: {self.unclear:,}",
            f"{first:,.0f} jobs/s in the first third, {last:,.0f} jobs/s in the last",
            *(f"WRONG: {wrong} ({count:,} times)" for wrong, count in self.wrongs.items()),
            "PASS" if self.is_good else "FAIL",
        ]
        return "\n".join(lines)


class Soak:
    """One run and its books."""

    worker: type[ConductorWorker] = NotingWorker

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        room = max(options.jobs, int(options.seconds * MOST_PER_SECOND))
        path = folder / "notes"
        cells = MOST_WORKERS * max(options.concurrency, 1)
        self.notes = Notes(path, room, cells)
        self.outcomes = bytearray(room)
        self.charges: Counter[int] = Counter()
        """By job: executions that ended with their worker."""
        self.edges: Counter[int] = Counter()
        """By job: those of them that did not get as far as counting their start."""
        self.verdict = Verdict()
        self.times: list[float] = []
        self.began = time.monotonic()
        self.accepted = 0
        self.conductor = Conductor(
            self.worker,
            jobs_queue=self.jobs(),
            worker_limit=options.workers,
            concurrency=options.concurrency or None,
            retry=Retry(crashes=RETRIES),
            logging=False,
            worker_options={
                "path": str(path),
                "jobs": room,
                "workers": cells,
                "seed": options.seed,
                "longest": options.longest,
            },
        )
        listeners = {
            "job_done": self.on_outcome,
            "job_failed": self.on_outcome,
            "worker_exit": self.on_exit,
            "error": lambda _: None,
        }
        for name, listener in listeners.items():
            self.conductor.on(name, listener)

    def jobs(self) -> Iterator[int]:
        options = self.options
        while self.accepted < options.jobs or (
            time.monotonic() - self.began < options.seconds and self.accepted < len(self.outcomes)
        ):
            self.accepted += 1
            yield self.accepted - 1

    def run(self) -> Verdict:
        with Killer(self.conductor, self.options) as killer, Progress(self, killer):
            report = self.conductor.run()
        verdict = self.verdict
        verdict.jobs, verdict.kills = self.accepted, killer.kills
        verdict.seconds = time.monotonic() - self.began
        self.expect(report.jobs == self.accepted, "the report counts other jobs")
        self.compare()
        self.compare_pace()
        self.notes.close()
        return verdict

    def expect(self, holds: object, otherwise: str) -> None:
        if not holds:
            self.verdict.wrongs[otherwise] += 1

    # While it runs

    def on_outcome(self, outcome: Outcome) -> None:
        number = int(outcome.job)
        self.times.append(time.monotonic())
        self.expect(not self.outcomes[number], "a job has two outcomes")
        self.outcomes[number] = 1
        self.expect(outcome.state is JobState.DONE, f"a job is {outcome.state}")
        self.expect(outcome.value == number * 7, "a job has another job's value")
        causes = Counter(attempt.cause for attempt in outcome.history)
        self.expect(causes == self.causes_of(number), "a job has another history than it should")
        executions = self.notes.starts[number] + self.edges[number]
        self.expect(outcome.attempts == executions, "attempts are not what was executed")

    def causes_of(self, job: int) -> Counter[Cause]:
        """Return what the history of a job should have."""
        return Counter({Cause.CRASH: self.charges[job]})

    def on_exit(self, end: WorkerExit) -> None:
        """Compare who is charged with what the dead worker had noted."""
        if end.cause is None:
            return
        noted = self.notes.at_work[end.worker_id]
        executing = noted - 1 if noted > 0 else None
        if executing is not None:
            self.expect(end.key == executing, "a job was executing and is not the one charged")
        if end.key is None:
            self.verdict.uncharged += 1
        else:
            self.note_charge(int(end.key), is_clear=executing is not None)

    def note_charge(self, job: int, *, is_clear: bool) -> None:
        """Count a charged execution; one that did not get as far as its note counts as well."""
        self.charges[job] += 1
        missing = self.charges[job] - self.notes.starts[job] - self.edges[job]
        self.expect(missing in {0, 1}, "an execution is charged that was none")
        self.edges[job] += missing
        if is_clear and not missing:
            self.verdict.charged += 1
        else:
            self.verdict.unclear += 1

    # Afterwards

    def compare(self) -> None:
        done = sum(self.outcomes)
        self.expect(done == self.accepted, f"{self.accepted - done} jobs have no outcome")
        notes = self.notes
        for number in range(self.accepted):
            self.expect(notes.ends[number] >= 1, "a job that is done never came to its end")
        self.expect(
            self.verdict.unclear <= self.most_unclear, "too many charges on the edge of a job"
        )

    @property
    def most_unclear(self) -> float:
        return MARGIN * self.verdict.kills + 5

    def compare_pace(self) -> None:
        third = len(self.times) // 3
        if third < 2:
            return
        spans = self.times[third] - self.began, self.times[-1] - self.times[-third]
        first, last = (third / max(span, 1e-9) for span in spans)
        self.verdict.rates = first, last
        self.expect(last >= SLOWEST * first, "it became slower and slower")


class AsyncSoak(Soak):
    """The same where workers have several jobs in flight."""

    worker = AsyncNotingWorker

    def __init__(self, options: Options, folder: Path) -> None:
        super().__init__(options, folder)
        self.suspicions: Counter[int] = Counter()
        """By job: executions that ended with their worker, beside others."""

    def causes_of(self, job: int) -> Counter[Cause]:
        suspected = self.suspicions[job]
        return Counter({Cause.CRASH: self.charges[job] - suspected, Cause.SUSPECT: suspected})

    @property
    def most_unclear(self) -> float:
        return ASYNC_MARGIN * self.verdict.charged + 2 * self.options.concurrency

    def on_exit(self, end: WorkerExit) -> None:
        if end.cause is None:
            return
        first, count = end.worker_id * self.options.concurrency, self.options.concurrency
        noted = {job - 1 for job in self.notes.at_work[first : first + count] if job > 0}
        blamed = set(map(int, end.keys))
        self.expect(noted <= blamed, "a job was executing and is neither charged nor a suspect")
        only = min(blamed) if len(blamed) == 1 else None
        self.expect(end.key == only, "a job is charged that was not the only one")
        was_alone = len(blamed) == 1 or not any(self.charges[job] for job in blamed)
        self.expect(was_alone, "a suspect was executed beside others")
        if not blamed:
            self.verdict.uncharged += 1
        for job in blamed:
            self.note_charge(job, is_clear=job in noted)
        if only is None:
            self.suspicions.update(blamed)
            self.verdict.suspected += len(blamed)


class Killer(threading.Thread):
    """Kills a random worker again and again."""

    def __init__(self, conductor: Conductor, options: Options) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self._every = options.kill_every
        self._chance = random.Random(options.seed)
        self._lock = threading.Lock()
        self._alive: dict[int, int] = {}
        """A pidfd per worker: a number would soon be somebody else's."""
        self._worked: set[int] = set()
        self._unworked: Counter[int] = Counter()
        """By slot, in a row: workers that died before they did anything."""
        self._is_over = threading.Event()
        conductor.on("worker_start", self._note_start)
        conductor.on("worker_exit", self._note_exit)
        conductor.on("job_done", self._note_work)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()
        for pidfd in self._alive.values():
            os.close(pidfd)

    def run(self) -> None:
        while not self._is_over.wait(self._every):
            with self._lock:
                self._kill_one()

    def _kill_one(self) -> None:
        is_tired = max(self._unworked.values(), default=0) >= SPARED_AFTER
        found = [w for w in self._alive if w in self._worked or not is_tired]
        if found:
            with suppress(ProcessLookupError):
                pidfd = self._alive[self._chance.choice(found)]
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                self.kills += 1

    def _note_start(self, worker_id: int, pid: int) -> None:
        with self._lock, suppress(ProcessLookupError):
            self._alive[worker_id] = os.pidfd_open(pid)

    def _note_exit(self, end: WorkerExit) -> None:
        with self._lock:
            if pidfd := self._alive.pop(end.worker_id, None):
                os.close(pidfd)
            if end.worker_id not in self._worked and not end.keys:
                self._unworked[end.slot] += 1
            else:
                self._unworked[end.slot] = 0
            self._worked.discard(end.worker_id)

    def _note_work(self, outcome: Outcome) -> None:
        if outcome.worker_id is not None and outcome.worker_id not in self._worked:
            with self._lock:
                self._worked.add(outcome.worker_id)


class Progress(threading.Thread):
    """Shows a line that says how far it is."""

    def __init__(self, soak: Soak, killer: Killer) -> None:
        super().__init__(daemon=True)
        self._soak, self._killer = soak, killer
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        if not self._soak.options.is_quiet:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        if self.is_alive():
            self.join()
            print(flush=True)

    def run(self) -> None:
        before = 0
        while not self._is_over.wait(_REPORT):
            soak, done = self._soak, len(self._soak.times)
            line = (
                f"{time.monotonic() - soak.began:6.0f} s  {done:9,} of {soak.options.jobs:,} jobs"
                f"  {(done - before) / _REPORT:7,.0f}/s  {self._killer.kills:6,} kills"
                f"  {sum(soak.verdict.wrongs.values())} wrong"
            )
            before = done
            print(f"\r{line}", end="" if sys.stdout.isatty() else "\n", flush=True)


def main() -> int:
    options = Options()
    parser = argparse.ArgumentParser(description="Many small jobs while workers are killed.")
    parser.add_argument("--jobs", type=int, default=options.jobs)
    parser.add_argument("--seconds", type=float, default=options.seconds, help="at least so long")
    parser.add_argument("--workers", type=int, default=options.workers)
    parser.add_argument(
        "--concurrency", type=int, default=options.concurrency, help="jobs in flight in a worker"
    )
    parser.add_argument("--kill-every", type=float, default=options.kill_every, help="seconds")
    parser.add_argument("--seed", type=int, default=options.seed)
    parser.add_argument("--longest", type=int, default=options.longest, help="microseconds")
    options = Options(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as folder:
        kind = AsyncSoak if options.concurrency else Soak
        verdict = kind(options, Path(folder)).run()
    print(verdict)
    return 0 if verdict.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
