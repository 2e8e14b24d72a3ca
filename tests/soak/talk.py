"""Requests both ways while workers are killed: each ends once, in its reply or in an error.

    python tests/soak/talk.py --trips 100000

Workers ask the conductor from their jobs, and threads beside the run ask workers at random, some of
them between jobs and some during them. What a killed worker had asked is nobody's any more; what a
killed worker was asked must end in `WorkerGoneError`.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from okanjo_conductor import Conductor, ConductorWorker, JobState, Retry, command
from okanjo_conductor.errors import WorkerGoneError
from soak.soak import RETRIES, Killer, Options

PER_JOB = 20
"""Requests that a job makes, half of them at once."""
AT_ONCE = 10
ASKERS = 2
PATIENCE = 60.0
"""Seconds after which a request hangs."""
COMMANDS = "square", "square now"


class Caller(ConductorWorker):
    """Asks, and is asked."""

    def __init__(self) -> None:
        super().__init__(logging=False)
        self.seen: set[int] = set()
        self.called: Counter[int] = Counter()

    def process_job(self, job: int) -> int:
        numbers = range(job * PER_JOB, (job + 1) * PER_JOB)
        for number in numbers[:AT_ONCE]:
            assert self.request("square", number, timeout=PATIENCE) == number**2
        replies = [
            self.send_request_to_master("square", number, lambda _e, m: self.note(m.data))
            for number in numbers[AT_ONCE:]
        ]
        found = [reply.result(PATIENCE).data for reply in replies]
        assert found == [number**2 for number in numbers[AT_ONCE:]]
        assert self.called == dict.fromkeys(found, 1), "a reply came twice, or another's"
        self.called.clear()
        return PER_JOB

    def note(self, data: int) -> None:
        self.called[data] += 1

    @command("square")
    def square(self, msg: Any) -> int:
        return self.answer(msg.data)

    @command("square now", during_job=True)
    def square_now(self, msg: Any) -> int:
        return self.answer(msg.data)

    def answer(self, number: int) -> int:
        assert number not in self.seen, "a request came twice"
        self.seen.add(number)
        return number**2


@dataclass
class Verdict:
    """What came of it."""

    seconds: float = 0.0
    kills: int = 0
    from_workers: int = 0
    """Requests of workers that were answered, in jobs that came to their end."""
    handled: int = 0
    """Requests of workers that the conductor had; the rest died with who asked."""
    to_workers: int = 0
    """Requests to workers that were answered."""
    gone: int = 0
    """Requests to workers that ended with the worker."""
    wrongs: Counter[str] = field(default_factory=Counter)

    @property
    def is_good(self) -> bool:
        return not self.wrongs

    def __str__(self) -> str:
        rate = (self.from_workers + self.to_workers) / max(self.seconds, 1e-9)
        lines = [
            f"{self.seconds:.1f} s, {self.kills:,} workers killed, {rate:,.0f} round trips/s",
            f"asked by workers: {self.from_workers:,} answered, {self.handled:,} handled",
            f"asked of workers: {self.to_workers:,} answered, {self.gone:,} ended with the worker",
            *(f"WRONG: {wrong} ({count:,} times)" for wrong, count in self.wrongs.items()),
            "PASS" if self.is_good else "FAIL",
        ]
        return "\n".join(lines)


class Talk:
    """One run and its books.

    Args:
        trips: how many requests are to be answered each way.
    """

    def __init__(self, trips: int, options: Options) -> None:
        self.trips, self.options = trips, options
        self.verdict = Verdict()
        self.lock = threading.Lock()
        self.alive: list[int] = []
        self.asked: set[tuple[int, str]] = set()
        self.is_over = threading.Event()
        self.conductor = Conductor(
            Caller,
            jobs_queue=self.jobs(),
            worker_limit=options.workers,
            retry=Retry(crashes=RETRIES),
            logging=False,
        )
        self.conductor.command("square")(self.square)
        self.conductor.on("worker_start", lambda worker_id, _: self.alive.append(worker_id))
        self.conductor.on("worker_exit", lambda end: self.alive.remove(end.worker_id))
        self.conductor.on("error", lambda _: None)
        self.conductor.on("job_done", self.on_done)
        self.conductor.on("job_failed", self.on_done)

    def jobs(self) -> Iterator[int]:
        number = 0
        while min(self.verdict.from_workers, self.verdict.to_workers) < self.trips:
            yield number
            number += 1
        self.is_over.set()

    def expect(self, holds: object, otherwise: str) -> None:
        if not holds:
            with self.lock:
                self.verdict.wrongs[otherwise] += 1

    def square(self, msg: Any) -> int:
        self.verdict.handled += 1
        self.expect((msg.worker_id, msg.callback) not in self.asked, "a request came twice")
        self.asked.add((msg.worker_id, msg.callback))
        return int(msg.data) ** 2

    def on_done(self, outcome: Any) -> None:
        self.expect(outcome.state is JobState.DONE, f"a job is {outcome.state}: {outcome.error}")
        self.verdict.from_workers += outcome.value or 0

    def ask(self, first: int) -> None:
        """Ask workers until it is over."""
        chance = random.Random(first)
        number = first
        while not self.is_over.is_set():
            if not self.alive:
                time.sleep(0.001)
                continue
            asked = []
            for _ in range(AT_ONCE):
                number += ASKERS
                try:
                    worker_id = chance.choice(self.alive)
                except IndexError:
                    break
                reply = self.conductor.request_worker(worker_id, chance.choice(COMMANDS), number)
                asked.append((number, reply))
            for square, reply in asked:
                self.judge(square, reply)

    def judge(self, number: int, reply: Any) -> None:
        try:
            found = reply.result(PATIENCE)
        except WorkerGoneError:
            with self.lock:
                self.verdict.gone += 1
        except TimeoutError:
            self.expect(holds=False, otherwise="a request hung")
        except Exception as error:
            self.expect(holds=False, otherwise=repr(error))
        else:
            self.expect(found == number**2, "a request has another's reply")
            with self.lock:
                self.verdict.to_workers += 1

    def run(self) -> Verdict:
        askers = [threading.Thread(target=self.ask, args=(n,)) for n in range(ASKERS)]
        verdict, began = self.verdict, time.monotonic()
        for asker in askers:
            asker.start()
        try:
            with Killer(self.conductor, self.options) as killer:
                self.conductor.run()
        finally:
            self.is_over.set()
            for asker in askers:
                asker.join(2 * PATIENCE)
                self.expect(not asker.is_alive(), "a thread that asked hangs")
        verdict.kills, verdict.seconds = killer.kills, time.monotonic() - began
        self.expect(verdict.handled >= verdict.from_workers, "a reply came from nowhere")
        return verdict


def main() -> int:
    options = Options()
    parser = argparse.ArgumentParser(description="Requests both ways while workers are killed.")
    parser.add_argument("--trips", type=int, default=100_000, help="each way")
    parser.add_argument("--workers", type=int, default=options.workers)
    parser.add_argument("--kill-every", type=float, default=options.kill_every, help="seconds")
    parser.add_argument("--seed", type=int, default=options.seed)
    given = vars(parser.parse_args())
    verdict = Talk(given.pop("trips"), Options(**given)).run()
    print(verdict)
    return 0 if verdict.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
