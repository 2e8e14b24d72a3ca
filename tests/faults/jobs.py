"""The jobs under test. A job is a tuple: the name of a function here and its arguments."""

from __future__ import annotations

import ctypes
import itertools
import locale
import logging
import mmap
import multiprocessing
import os
import pickle
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

from faults.moments import is_first, note, touch, wait_for_file, wait_until
from okanjo_conductor import Conductor, ConductorWorker, current_job
from okanjo_conductor._io import assignment, leaving
from okanjo_conductor.errors import JobTimeoutError

MIB = 1 << 20
_kept: list[ProcessPoolExecutor] = []


def perform(job: tuple[Any, ...]) -> Any:
    name, *arguments = job
    return globals()[name](*arguments)


def double(number: int) -> int:
    return 2 * number


def noted(log: str, number: int) -> int:
    """Leave a trace of this execution."""
    note(log, number)
    return number


def process_id() -> int:
    return os.getpid()


def count_start(job: tuple[str, int]) -> int:
    """Count the starts of this job in a byte of shared memory."""
    path, number = job
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 0) as counts:
        counts[number] += 1
    return number


# Ends of the process


def die(how: str) -> None:
    if how.startswith("exit "):
        os._exit(int(how.removeprefix("exit ")))
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        os.kill(os.getpid(), signal.Signals[how])
        signal.pause()


def die_once(marker: str, how: str, log: str, number: int) -> int:
    note(log, number)
    if is_first(marker):
        note(f"{marker}.pid", os.getpid())
        die(how)
    return number


def end_template(marker: str) -> int:
    """Kill the process that forked this one."""
    if is_first(marker):
        template = os.getppid()
        os.kill(template, signal.SIGKILL)
        wait_until(lambda: os.getppid() != template, "the template is gone")
    return os.getpid()


def stop_template(marker: str) -> None:
    """Stop the process that forked this one."""
    if is_first(marker):
        os.kill(os.getppid(), signal.SIGSTOP)


def stop_template_and_die(marker: str) -> None:
    if is_first(marker):
        os.kill(os.getppid(), signal.SIGSTOP)
        die("SIGKILL")


def die_while_sending(marker: str, go: str) -> bytes:
    """Return much, and die when the first bytes of it are under way."""
    wait_for_file(go)
    if is_first(marker):
        main = threading.get_ident()

        def watch() -> None:
            wait_until(lambda: is_sending(main), "the result is being sent")
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=watch, daemon=True).start()
    return bytes(64 * MIB)


def is_sending(thread: int) -> bool:
    return is_in(thread, "send")


def is_in(thread: int, name: str) -> bool:
    """Whether a thread is in a function of the worker's link."""
    code = sys._current_frames()[thread].f_code
    return code.co_name == name and code.co_filename.endswith("worker_link.py")


# Long ones


def wait_for_all(*paths: str) -> str:
    for path in paths:
        wait_for_file(path)
    return "met"


def make(path: str) -> str:
    touch(path)
    return path


def be_busy(running: str, how: str) -> None:
    """Say that this runs, and never end."""
    if how == "ignores SIGTERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if how == "closed the low descriptors":
        os.closerange(3, 101)
    if how == "has a family":
        start_a_family(f"{running}.{os.getpid()}")
    if how == "has a conductor in a program":
        start_a_program_with_workers(f"{running}.{os.getpid()}")
    note(running, os.getpid())
    if how == "is stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "C code":
        re.match(r"(a+)+$", "a" * 64 + "b")  # holds the GIL for longer than the sun shines
    while True:
        time.sleep(3600)


# Streams, descriptors, threads, processes


def close_range(low: int, high: int) -> str:
    os.closerange(low, high)
    return "closed"


def print_much(size: int) -> int:
    line = "x" * 1023 + "\n"
    for _ in range(size // 1024):
        sys.stdout.write(line)
    return size


def change_folder(path: str) -> str:
    os.chdir(path)
    return str(Path.cwd())


def shut_link_when_idle(half: str, path: str) -> str:
    place = assignment.current()
    assert place is not None
    main = threading.get_ident()

    def run() -> None:
        wait_until(lambda: is_in(main, "_read"), "the worker is idle")
        place.link.cut(getattr(socket, half))
        touch(path)

    threading.Thread(target=run, daemon=True).start()
    return half


def leave_a_thread() -> str:
    threading.Thread(target=threading.Event().wait, daemon=False).start()
    return "left"


def fork_and_reap() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def call_a_program() -> str:
    program = [sys.executable, "-c", "import sys; sys.stdin.read(); print('hello')"]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout.strip()


def use_a_pool(method: str) -> list[int]:
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(double, range(10))


def use_an_executor(method: str) -> list[int]:
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, context) as executor:
        return list(executor.map(double, range(10)))


def leave_an_executor() -> list[int]:
    """Use one and never shut it down."""
    _kept.append(ProcessPoolExecutor(2))
    return list(_kept[0].map(double, range(10)))


def leave_a_process(patience: float) -> str:
    """Leave a process that the exit handlers will wait for."""
    leaving._PATIENCE = patience
    multiprocessing.get_context("fork").Process(target=signal.pause).start()
    return "left"


def change_everything() -> str:
    """Change what a process has but one of."""
    os.umask(0o777)
    locale.setlocale(locale.LC_ALL, "C")
    socket.setdefaulttimeout(0.001)
    sys.setrecursionlimit(200)
    os.environ.clear()
    sys.path.clear()
    logging.getLogger().handlers.clear()
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return "changed"


def fork_into_our_code(how: str) -> Any:
    """Fork, and let the child do in our code what it likes; return how it ended."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if how == "raises":
        message = "raised in the child"
        raise ValueError(message)
    if how == "leaves":
        sys.exit(7)
    if how == "logs":
        logging.getLogger("child").warning("logged in the child")
        os._exit(7)
    return {"returns": "little", "returns much": bytes(MIB), "returns a lock": threading.Lock()}[
        how
    ]


def start_a_family(pids: str) -> list[int]:
    """Start a program that starts another, and leave both running."""
    text = f"sleep 3600 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"
    subprocess.Popen(["sh", "-c", text])
    wait_for_file(pids)
    return family(pids)


def family(pids: str) -> list[int]:
    return [int(pid) for pid in Path(pids).read_text().split()]


def start_a_family_and_end(pids: str, how: str) -> list[int]:
    if Path(pids).exists():
        return family(pids)
    start_a_family(pids)
    die(how)
    return []


def start_a_family_and_orphan_it(pids: str) -> list[int]:
    """End the template first, then this process."""
    if Path(pids).exists():
        return family(pids)
    start_a_family(pids)
    end_template(f"{pids}.template")
    die("SIGKILL")
    return []


def start_a_program_with_workers(running: str) -> None:
    """Start a program with a conductor and return when its worker is in a job."""
    text = (
        "from faults import jobs; from okanjo_conductor import Conductor; "
        f"batch = [('be_busy', {running!r}, 'C code')]; "
        "Conductor(jobs.perform, jobs_queue=batch, worker_limit=1).run()"
    )
    subprocess.Popen([sys.executable, "-c", text])
    wait_for_file(running)


def leave_shared_memory() -> str:
    memory = shared_memory.SharedMemory(create=True, size=100)
    memory.close()
    return memory.name


def start_a_session() -> int:
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    return subprocess.Popen(["sleep", "3600"], start_new_session=True, **streams).pid


def size_of(payload: bytes) -> int:
    return len(payload)


def fill(path: str, limit: int) -> None:
    """Write more to a file than this process may."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    with Path(path).open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))


def limit_memory(room: int) -> None:
    """Let this process get so many bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def take_memory(size: int) -> int:
    return len(bytes(size))


def give_without_limits(size: int) -> bytes:
    limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, limits)
    return bytes(size)


def run_a_conductor() -> None:
    Conductor(double, jobs_queue=[1]).run()


# Things that do not travel


class Fails:
    """An object that does something else than to be unpickled."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        return fail, (self.how,)


class Stays:
    """An object that does something else than to be pickled."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        return fail(self.how)


class Model:
    """Holds another object deep inside."""

    def __init__(self, inner: Any) -> None:
        self.layers = [0, {"inner": inner}]


class OddError(BaseException):
    """No `Exception`."""


def fail(how: str) -> Any:
    if how == "raises":
        message = "this does not travel"
        raise ValueError(message)
    if how == "leaves":
        sys.exit(5)
    if how == "is odd":
        raise OddError
    os._exit(6)


class PickyError(Exception):
    """Cannot be rebuilt from its ``args``."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class BadlyBuiltError(Exception):
    """Does something else than to be pickled or rebuilt, or to be shown."""

    def __init__(self, on_pickling: str, on_building: str, on_showing: str = "") -> None:
        super().__init__("badly built")
        self.how = on_pickling, on_building, on_showing

    def __reduce__(self) -> Any:
        on_pickling, on_building, _ = self.how
        return fail(on_pickling) if on_pickling else (fail, (on_building,))

    def __str__(self) -> str:
        return fail(self.how[2]) if self.how[2] else super().__str__()


class UnshowableError(Exception):
    """Arrives as itself, but cannot be shown."""

    def __str__(self) -> str:
        raise SystemExit(7)


class LockedError(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


def nest(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


def endless() -> list[Any]:
    """Make a list that holds itself."""
    made: list[Any] = [1]
    made.append(made)
    return made


def hold_a_lock() -> Any:
    lock = threading.Lock()
    return lambda: lock


def untouched(size: int) -> Any:
    """Make a buffer of which no byte takes memory."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return pickle.PickleBuffer(mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ))


def accept(payload: Any) -> str:
    return type(payload).__name__


def give(what: str) -> Any:
    made = {
        "a lock": threading.Lock,
        "a value that raises": lambda: Fails("raises"),
        "a value that leaves": lambda: Fails("leaves"),
        "an odd value": lambda: Fails("is odd"),
        "a deep value": lambda: nest(100_000),
        "a hidden lock": lambda: Model(threading.Lock()),
        "a hidden failure": lambda: [1, Model(Fails("leaves"))],
        "a value that stays": lambda: Stays("leaves"),
        "an odd value that stays": lambda: Stays("is odd"),
        "a function": hold_a_lock,
        "an endless value": endless,
        "6 GiB": lambda: [1, untouched(6 << 30)],
        "100 MB": lambda: bytes(100_000_000),
    }
    return made[what]()


def log_with(kind: str, how: str) -> str:
    logging.getLogger("jobs").warning("with an odd field", extra={"field": globals()[kind](how)})
    return "logged"


def throw(what: str) -> None:
    if what == "badly pickled":
        raise BadlyBuiltError("is odd", "")
    if what == "badly rebuilt":
        raise BadlyBuiltError("", "is odd")
    if what == "badly shown":
        raise BadlyBuiltError("", "leaves", "leaves")
    if what == "unshowable":
        raise UnshowableError
    if what == "unpicklable":
        raise LockedError
    if what == "picky":
        raise PickyError(1, 2)
    if what == "odd":
        raise OddError
    if what == "an interrupt":
        raise KeyboardInterrupt
    if what == "an exit":
        sys.exit(3)
    raise ValueError("x" * 5_000_000)


# Workers


class Mortal(ConductorWorker):
    """Dies at a given moment of its life; `once`, or each time."""

    def __init__(self, *, moment: str, how: str = "SIGKILL", marker: str = "") -> None:
        super().__init__(logging=False)
        self.moment, self.how, self.marker = moment, how, marker
        self.reach("construct")

    def reach(self, moment: str) -> None:
        if moment == self.moment and (not self.marker or is_first(self.marker)):
            if self.how == "raise":
                message = f"broken in {moment}"
                raise RuntimeError(message)
            if self.how == "wait":
                threading.Event().wait()
            die(self.how)

    def setup(self) -> None:
        self.reach("setup")

    def teardown(self) -> None:
        self.reach("teardown")

    def on_master_message(self, msg: Any) -> None:
        self.reach("on_master_message")

    def process_job(self, job: Any) -> Any:
        return perform(job)


class Reporter(ConductorWorker):
    """Asks the conductor in each job."""

    def process_job(self, job: Any) -> Any:
        name, *_ = job
        if name == "send":
            return self.request("sent", globals()[job[1]](job[2]), timeout=60)
        if name == "receive":
            return self.request("receive", job[1:], timeout=60)
        if name == "ask":
            self.request("asked", os.getpid(), timeout=60)
            return "asked"
        if name == "tell":
            self.send_request_to_master("told", os.getpid())
            return perform(job[1:])
        return perform(job)


class Cramped(ConductorWorker):
    """Has little memory."""

    def setup(self) -> None:
        limit_memory(64 * MIB)

    def process_job(self, job: Any) -> Any:
        return perform(job)


def slow_import(path: str) -> None:
    """What a module under test does while it is imported."""
    note(path, os.getpid())
    Path(path).stat()
    while True:
        time.sleep(3600)


# Limits


def clean_up_when_interrupted(running: str) -> str:
    """Wait for long; when that is cut short, tidy up and give a value."""
    note(running, os.getpid())
    try:
        time.sleep(3600)
    except JobTimeoutError:
        return "tidied up"
    return "slept"


def sleep_in_c(running: str) -> None:
    """Keep the GIL, and look at no signal."""
    note(running, os.getpid())
    sum(itertools.repeat(1))


def start_a_child_and_wait(path: str) -> None:
    child = subprocess.Popen(["sleep", "3600"])
    note(path, child.pid)
    time.sleep(3600)


def hold(mebibytes: int, path: str) -> None:
    held = [os.urandom(MIB) for _ in range(mebibytes)]
    note(path, len(held))
    time.sleep(3600)


def attempt_and_history() -> tuple[int, list[tuple[str, str]]]:
    job = current_job()
    assert job is not None
    if job.attempt < 3:
        message = f"attempt {job.attempt}"
        raise ValueError(message)
    return job.attempt, [(end.cause, str(end.error)) for end in job.history]


class Sleeper:
    """A callable that is no function."""

    def __call__(self, seconds: float) -> None:
        time.sleep(seconds)


_grown: list[bytes] = []


def grow(mebibytes: int) -> None:
    _grown.extend(os.urandom(MIB) for _ in range(mebibytes))


def nap(seconds: float) -> None:
    time.sleep(seconds)


def make_and_wait(path: str, *paths: str) -> str:
    touch(path)
    return wait_for_all(*paths)


def note_and_wait(running: str, go: str) -> None:
    note(running, os.getpid())
    wait_for_file(go)


def say_and_die(how: str) -> None:
    print("I am about\nto die", file=sys.stderr)
    die(how)
