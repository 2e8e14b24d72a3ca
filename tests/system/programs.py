"""Workers of the tests, in a module that worker processes can import.

The first six are the worker programs of the Node module's own tests.
"""

from __future__ import annotations

import enum
import logging
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from okanjo_conductor import LATER, ConductorWorker, is_worker
from okanjo_conductor._io import cells

SEEN_AT_IMPORT = {
    "is_worker": is_worker(),
    **{name: os.environ.get(name) for name in ("worker_type", "master_id", "COLOUR")},
}
"""What the environment said when this module was imported."""

# The Node module's worker programs


class BasicWorker(ConductorWorker):
    """Completes each job in callback style."""

    def process_job(self, job):
        self.complete_job(None, job, value=job)


class ErrorsWorker(ConductorWorker):
    """Fails, raises, or crashes, as the job says."""

    def process_job(self, job):
        if job == "fail":
            return self.complete_job("it was told to fail", job)
        if job == "raise":
            raise ValueError(job)
        if job == "crash":
            self.crash("it was told to crash")
        return self.complete_job(None, job, value="fine")


class MessagesWorker(ConductorWorker):
    """Says hello to the conductor, and keeps what it hears."""

    def __init__(self, **options):
        super().__init__(**options)
        self.heard: list[Any] = []
        self.called_back: list[Any] = []

    def on_master_message(self, msg):
        self.heard.append((msg.cmd, msg.data, msg.callback is not None))
        if msg.cmd == "fired_by_hand":
            self.fire_request_callback(msg.callback, None, "by hand")

    def process_job(self, job):
        command, data = job
        reply = self.send_request_to_master(
            command, data, lambda err, msg: self.called_back.append((err, msg))
        )
        answer = reply.result(30)
        ((error, called_with),) = self.called_back
        assert error is None
        assert called_with is answer
        self.called_back.clear()
        return getattr(answer, "data", answer), self.heard


class StatsWorker(ConductorWorker):
    """Counts by the job."""

    def process_job(self, job):
        if job == "die":
            self.report("ready to die")
            os.kill(os.getpid(), signal.SIGKILL)
        self.stats["points"] = self.stats.get("points", 0) + job
        return job

    def report(self, _why):
        """Wait until the conductor has read everything up to here."""
        self.request("sync")


class BroadcastWorker(ConductorWorker):
    """Waits in its job until the conductor has told it a secret."""

    secret = None

    def on_master_message(self, msg):
        if msg.cmd == "secret":
            self.secret = msg.data

    def process_job(self, job):
        if self.secret is None:
            self.request("here")
        return self.secret


class AbortWorker(ConductorWorker):
    """Sits in its job."""

    def process_job(self, job):
        if job == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.send_request_to_master("sitting", job)
        threading.Event().wait(60)


# Others


class Colour(enum.Enum):
    """Equal to itself alone, and by name after a travel."""

    RED = 1


class Lookups(ConductorWorker):
    """Calls the method that the job names."""

    def process_job(self, job):
        method, *args = job
        return getattr(self, method)(*args)

    def read_own_write(self, name, key, value):
        self.set_lookup(name, key, value)
        return self.lookup(name, key)


class Completer(ConductorWorker):
    """Completes its jobs in each of the ways there are."""

    def process_job(self, job):
        if job == "sync":
            self.complete_job(None, job, value="sync")
            return None
        if job == "sync and return":
            self.complete_job(None, job)
            return "returned"
        thread = threading.Thread(target=self.finish, args=(job,), daemon=True)
        thread.start()
        if job == "thread within":
            thread.join()
            return None
        return LATER

    def finish(self, job):
        if job == "thread error":
            self.complete_job(KeyError("from a thread"), job)
        else:
            self.complete_job(None, "another job", value="never")
            self.complete_job(None, job, value="from a thread")
            self.complete_job(None, job, value="too late")


class Batcher(ConductorWorker):
    """Takes the jobs that wait here within one call of `process_job`."""

    def process_job(self, job):
        calls = self.stats["calls"] = self.stats.get("calls", 0) + 1
        while job is not None:
            self.complete_job(None, job, value=(job, calls))
            job = self.get_next_job()


class GreedyWorker(ConductorWorker):
    """Calls `get_next_job` before it has completed its job."""

    def process_job(self, job):
        self.get_next_job()


class UnpicklableError(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, code, lock):
        super().__init__(code)
        self.lock = lock


class PlainError(Exception):
    """Survives pickling."""


def raise_what_is_asked(job):
    if job == "plain":
        raise PlainError("plain", 7)
    if job == "unpicklable":
        raise UnpicklableError(5, threading.Lock())
    if job == "SystemExit":
        sys.exit(3)
    if job == "KeyboardInterrupt":
        raise KeyboardInterrupt
    return job


class Lifecycle(ConductorWorker):
    """Writes its life down, a line per event."""

    def __init__(self, *, path, **options):
        super().__init__(**options)
        self.path = path
        for event in ("job_done", "error", "completed", "stats"):
            self.on(event, lambda *_, event=event: self.note(event))

    def note(self, what):
        with open(self.path, "a") as file:  # noqa: PTH123 - one write, one line
            file.write(f"{self.worker_id} {what}\n")

    def setup(self):
        self.note("setup")

    def teardown(self):
        self.note("teardown")

    def process_job(self, job):
        if job == "raise":
            raise PlainError(job)
        return job


class Requester(ConductorWorker):
    """Asks the conductor in the way that the job names."""

    def process_job(self, job):
        return getattr(self, job)()

    def blocking(self):
        return self.request("double", 21)

    def future(self):
        reply = self.send_request_to_master("double", 4)
        message = reply.result(30)
        return reply.done(), message.cmd, message.data, message.master_id == self.master_id

    def several_at_once(self):
        replies = [self.send_request_to_master("double", n) for n in range(50)]
        return [reply.result(30).data for reply in reversed(replies)]

    def unknown(self):
        return self.request("no such command")

    def failing(self):
        return self.request("fail")

    def late(self):
        try:
            self.request("never answered", timeout=0.01)
        except TimeoutError:
            return "timed out"
        return "answered"

    def pool(self):
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(self.ask_from_thread, range(40)))

    def ask_from_thread(self, number):
        return self.request("double", number), self.lookup("squares", number)

    def background(self):
        """Ask from a thread while the main thread sits in its job."""
        with ThreadPoolExecutor(1) as pool:
            try:
                return pool.submit(self.request, "double", 8).result(30)
            except FutureTimeoutError:
                return "nobody reads the link"


class Listener(ConductorWorker):
    """Keeps the messages it was sent."""

    def __init__(self, **options):
        super().__init__(**options)
        self.heard: list[Any] = []

    def on_master_message(self, msg):
        self.heard.append((msg.cmd, msg.data))

    def process_job(self, job):
        if job == "call me":
            self.request("call me", timeout=30)
        return list(self.heard)


class Logger(ConductorWorker):
    """Logs and prints."""

    def process_job(self, job):
        log = logging.getLogger("tests.worker")
        log.warning("job %s says hello", job)
        try:
            raise_what_is_asked("plain")
        except PlainError:
            log.exception("job %s failed", job)
        return job


def print_lines(job):
    for number in range(200):
        sys.stdout.write(f"<{job}:{number}:")
        sys.stdout.write("x" * 300 + ">\n")
    print(f"<{job}:err>", file=sys.stderr)
    return job


def tell_surroundings(_job):
    return SEEN_AT_IMPORT


class Intervals(ConductorWorker):
    """Reports at short intervals, and waits for three reports of its own."""

    def __init__(self, **options):
        super().__init__(stats_interval=0.01, **options)
        self.reported = threading.Semaphore(0)
        self.on("stats", lambda _: self.reported.release())

    def process_job(self, job):
        self.stats["points"] = self.stats.get("points", 0) + 1
        if job == "stop":
            monitor = self._monitor
            self.stop_monitoring()
            monitor.join(30)
            return not monitor.is_alive()
        if job == "start":
            self.start_monitoring()
        for _ in range(3):
            assert self.reported.acquire(timeout=30)
        return dict(self.last_stats)


class Chancy(ConductorWorker):
    """Counts before it dies, or lives on."""

    def __init__(self, **options):
        super().__init__(stats_interval=0.01, **options)

    def process_job(self, job):
        self.stats["points"] = self.stats.get("points", 0) + 1
        if job in {30, 60} and self.job.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return job


class Attempts(ConductorWorker):
    """Crashes as often as the job says."""

    def process_job(self, job):
        if self.job.attempt <= job:
            self.crash(PlainError(f"attempt {self.job.attempt}"))
        return self.job.attempt, self.slot


class BrokenSetup(ConductorWorker):
    """Cannot start."""

    def setup(self):
        raise PlainError("no setup today")

    def process_job(self, job):
        return job


class Nothing(ConductorWorker):
    """Has no `process_job`."""


def square(job):
    return job * job


def identity(job):
    return job


def take_a_while(job):
    """Take longer than a batch is meant to, so that jobs travel one at a time."""
    time.sleep(0.01)
    return job


def meet(job):
    """Say that the job has begun, and wait until it may go on."""
    begun, may_go_on, value = job
    begun.happen()
    may_go_on.wait()
    return value


def return_a_lock(job):
    return threading.Lock() if job == "lock" else job


def my_pid(_job):
    return os.getpid()


class StartsTwice(ConductorWorker):
    """Calls `start` within its job."""

    def process_job(self, job):
        if job == "worker":
            self.start()
        else:
            from okanjo_conductor import Conductor

            Conductor(square, jobs_queue=[1]).run()


class AsksInACallback(ConductorWorker):
    """Makes a request of its own while it is handed the reply to another one."""

    def process_job(self, job):
        self.send_request_to_master("first", job, self.on_reply)
        return LATER

    def on_reply(self, err, msg):
        self.complete_job(err, value=self.lookup("words", msg.data))


class AsksInAHandler(ConductorWorker):
    """Makes a request of its own while it handles the reply to another one."""

    def process_job(self, job):
        return self.request("first", job)

    def on_master_message(self, msg):
        word = self.lookup("words", msg.data)
        self.fire_request_callback(msg.callback, None, word)


class TakesWhatWasRecalled(ConductorWorker):
    """Asks for the next job just after the conductor has recalled what waits here.

    The value tells what it was given though it had been recalled.
    """

    def process_job(self, job):
        batch, index = self._runtime._batch, self._runtime._index
        last = batch.first + len(batch.wires) - 1
        if index + 1 == len(batch.wires):
            return []
        cells.revoke(self._runtime._link.cells, last)
        self.complete_job(None, value=[])
        given = self.get_next_job()
        if given is not None:
            self.complete_job(None, value=[given])
        return None
