"""Workers that talk: what `test_messages` has them do."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from faults.moments import is_first, touch, wait_for_file
from okanjo_conductor import ConductorWorker, command, current_job, current_worker

from .moments import DEADLINE


class Talker(ConductorWorker):
    """Does what the job names, and answers the conductor meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging=False)
        self.heard: list[Any] = []
        self.told = threading.Event()

    def process_job(self, job):
        name, *args = job
        return getattr(self, name)(*args)

    # Handlers

    @command("double")
    def double(self, msg):
        return 2 * msg.data

    @command("fail")
    def fail(self, msg):
        raise KeyError(msg.data)

    @command("exit")
    def exit(self, _msg):
        raise SystemExit(3)

    @command("unpicklable")
    def unpicklable(self, _msg):
        return threading.Lock()

    @command("note")
    def note(self, msg):
        self.heard.append(msg.data)
        return len(self.heard)

    @command("tell", during_job=True)
    def tell(self, msg):
        self.heard.append(msg.data)
        if not isinstance(msg.data, int):
            self.told.set()
        return "told", threading.current_thread() is threading.main_thread()

    @command("die at once", during_job=True)
    def die_at_once(self, _msg):
        os.kill(os.getpid(), signal.SIGKILL)

    @command("ask back", during_job=True)
    def ask_back(self, msg):
        return self.request("square", msg.data, timeout=DEADLINE)

    # Jobs

    def nothing(self, number=0):
        return number

    def hear(self):
        return list(self.heard)

    def say(self, cmd, *all_data):
        for data in all_data:
            self.notify(cmd, data)

    def ask(self, cmd, data=None):
        return self.request(cmd, data, timeout=DEADLINE)

    def ask_in_vain(self, cmd, then):
        """Do not wait for replies, and have them come; return how many are still expected."""
        for _ in range(20):
            try:
                self.request(cmd, timeout=0)
            except TimeoutError:
                continue
        self.request(then, 1, timeout=DEADLINE)
        return len(self._live.talk._replies)

    def die_once(self, path, cmd=None):
        if is_first(path):
            if cmd is not None:
                self.request(cmd, timeout=DEADLINE)
            os.kill(os.getpid(), signal.SIGKILL)
        return list(self.heard)

    def burn(self, cmd=None):
        """Use the processor, and nothing else, until the conductor says something."""
        if cmd is not None:
            self.notify(cmd, self.worker_id)
        end = time.monotonic() + DEADLINE
        while not self.told.is_set():
            if time.monotonic() > end:
                return "never told"
        return list(self.heard)

    def close_and_burn(self, cmd):
        os.closerange(3, 101)
        return self.burn(cmd)

    def fork_and_burn(self, cmd):
        pid = os.fork()
        if not pid:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        return self.burn(cmd)

    def ask_behind_the_bell(self):
        """Wait for a reply while messages that do not wait come in."""
        return self.request("tell me first", timeout=DEADLINE), list(self.heard)

    def add(self, *jobs):
        for job in jobs:
            self.add_job(job)

    def add_and_die_once(self, path, *jobs):
        self.add(*jobs)
        if is_first(path):
            os.kill(os.getpid(), signal.SIGKILL)

    def add_some_and_die_once(self, path, *jobs):
        """Die after half of them, the first time."""
        self.add(*jobs[: len(jobs) // 2])
        if is_first(path):
            os.kill(os.getpid(), signal.SIGKILL)
        self.add(*jobs[len(jobs) // 2 :])

    def add_with(self, **options):
        self.add_job(("key_of_this",), **options)

    def add_keyed(self):
        self.add_job(("key_of_this",), key="mine", timeout=60)

    def key_of_this(self):
        assert self.job is not None
        return self.job.key

    def add_unpicklable(self):
        self.add_job(threading.Lock())

    def add_poison(self):
        self.add_job(Poison(), key="poisoned")
        self.add_job(("nothing",), key=Poison())

    def grow(self, depth, width):
        if depth:
            for _ in range(width):
                self.add_job(("grow", depth - 1, width))
        return depth

    def give_up(self, reason):
        self.abort(reason)
        wait_for_file("/nonexistent")

    def report(self, path, *fractions):
        for fraction in fractions:
            self.progress(fraction, f"at {fraction}")
        wait_for_file(path)

    def add_when(self, running, path, job):
        touch(running)
        wait_for_file(path)
        self.add_job(job)

    def add_in_a_thread(self, job):
        thread = threading.Thread(target=self.add_job, args=(job,))
        thread.start()
        thread.join()

    def add_in_a_fork(self, job):
        pid = os.fork()
        if not pid:
            try:
                self.add_job(job)
            except Exception as error:
                os._exit(3 if "forked" in str(error) else 4)
            os._exit(5)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Poison:
    """Can be pickled, and not unpickled."""

    def __reduce__(self):
        return int, ("poison",)


class Hook(ConductorWorker):
    """Answers in the hook of the Node module."""

    def on_master_message(self, msg):
        return "hook", msg.cmd, msg.data, msg.callback

    def process_job(self, job):
        return self.request(job, timeout=DEADLINE)


class Heir(Talker):
    """Handles one command otherwise, and one by another method."""

    def double(self, msg):
        return 3 * msg.data

    @command("fail")
    def do_not_fail(self, msg):
        return msg.data


class Twice(ConductorWorker):
    """Has two handlers for one command."""

    process_job = print

    @command("same")
    def one(self, _msg):
        pass

    @command("same")
    def other(self, _msg):
        pass


def grow(job):
    """Add two jobs, as a function, down to nothing."""
    if job:
        for _ in range(2):
            current_worker().add_job(job - 1)
    found = current_job()
    assert found is not None
    return found.key


def sit(path):
    """Wait for a file."""
    Path(path).with_suffix(".running").touch()
    wait_for_file(path)
