"""The first code of every process that a conductor starts.

The process loads the worker's module, says so, and waits for orders. It then either becomes the
worker, or, where it is the *template*, forks one worker per order: a replacement costs
milliseconds, and what the module loaded is shared memory. The template stays single-threaded and
runs nothing of the user's but the import.
"""

from __future__ import annotations

import _socket as socket  # as in `bootstrap`
import errno
import faulthandler
import gc
import os
import select
import signal
import sys
from contextlib import suppress

from okanjo_conductor import _runtime
from okanjo_conductor._basis import FunctionWorker
from okanjo_conductor._io import assignment, bootstrap, cells, deadman, groups
from okanjo_conductor._io.descriptors import move_up
from okanjo_conductor._io.leaving import WorkerLeft, leave_process
from okanjo_conductor._io.worker_link import WorkerLink
from okanjo_conductor._wire import functions, pickling
from okanjo_conductor._wire.byvalue import share_main
from okanjo_conductor._wire.messages import LastWords
from okanjo_conductor.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, TypeVar

    from okanjo_conductor._basis import Basis
    from okanjo_conductor._io.bootstrap import Boot, Start, Target

    _Code = TypeVar("_Code", int, int | None)

_NO_PIDFD_POLL = 20
"""Milliseconds between looks at children where there are no pidfds."""


def main(descriptor: int) -> NoReturn:
    """Serve the conductor at the other end of this socket; never return."""
    sock = socket.socket(fileno=move_up(descriptor))
    boot, (switch,) = bootstrap.receive(sock)
    switch = move_up(switch)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assignment.mark_as_worker()
    deadman.arm(switch)
    sys.path[:] = boot.sys_path
    sys.argv[:] = boot.argv
    try:
        worker = load(boot.target)
        if functions.is_async(worker):
            __import__("okanjo_conductor._async_worker")  # here, so that no fork has to
    except BaseException:
        with suppress(ConnectionError):
            bootstrap.send(sock, bootstrap.BootFailed(_trace()))
        os._exit(1)
    try:
        bootstrap.send(sock, bootstrap.Booted(can_fork=_is_single_threaded()))
        order, ends = bootstrap.receive(sock)
        if order.forks:
            _serve_forks(sock, switch, boot, worker, order, ends)
        _become(boot, worker, order, ends)
    except (EOFError, ConnectionError):  # the conductor does not need this process, or is gone
        os._exit(0)


def load(target: Target) -> Any:
    """Find the worker, a class or a function; None where a script makes it."""
    if target.reference is not None:
        module, path = target.reference
        __import__(module)
        found: Any = sys.modules[module]
        for name in path.split("."):
            found = getattr(found, name)
        return found
    if target.function is not None:
        worker = functions.unpack(target.function)
        share_main(worker)
        return worker
    if target.pickled is not None:
        worker = pickling.loads(target.pickled)
        share_main(worker)
        return worker
    return None


def _serve_forks(
    sock: socket.socket, switch: int, boot: Boot, worker: Any, order: Start, ends: list[int]
) -> NoReturn:
    """Fork a worker per order and report when it is gone, until the conductor hangs up."""
    gc.freeze()  # and no `collect` before: it takes its time, and leaves holes to be written into
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # then nobody learns how a child ended
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    children: dict[int, tuple[int, int | None]] = {}
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while True:
        try:
            pid = _fork(ends)
        except OSError as error:
            bootstrap.send(sock, bootstrap.ForkFailed(order.worker_id, _why_no_fork(error)))
            order, ends = _next_order(sock, poll, children)
            continue
        if pid == 0:
            sock.close()
            for _, pidfd in children.values():
                if pidfd is not None:
                    os.close(pidfd)
            with suppress(OSError):
                os.setpgid(0, 0)
            deadman.arm(switch)
            _reseed()
            _become(boot, worker, order, ends)
        with suppress(OSError):
            os.setpgid(pid, pid)
        for end in ends:
            os.close(end)
        pidfd = _open_pidfd(pid)
        if pidfd is not None:
            poll.register(pidfd, select.POLLIN)
        children[pid] = order.worker_id, pidfd
        started = bootstrap.Started(order.worker_id, pid)
        bootstrap.send(sock, started, [] if pidfd is None else [pidfd])
        order, ends = _next_order(sock, poll, children)


def _fork(ends: list[int]) -> int:
    """Fork a process for a worker with these ends; close them if that is impossible."""
    if not ends:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    try:
        return os.fork()
    except OSError:
        for end in ends:
            os.close(end)
        raise


def _why_no_fork(error: OSError) -> str:
    return (
        f"its process could not be forked: {error}. Ask for fewer workers, or raise the limits on "
        "processes, memory and open files (ulimit -u, -v, -n)"
    )


def _open_pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # out of descriptors: we look for its end now and then
        return None


def _next_order(
    sock: socket.socket, poll: select.poll, children: dict[int, tuple[int, int | None]]
) -> tuple[Start, list[int]]:
    """Wait for an order, and meanwhile for the ends of children."""
    while True:
        is_blind = any(pidfd is None for _, pidfd in children.values())
        ready = {descriptor for descriptor, _ in poll.poll(_NO_PIDFD_POLL if is_blind else None)}
        for pid, (worker_id, pidfd) in list(children.items()):
            if pidfd is not None and pidfd not in ready:
                continue
            status = groups.reap(pid)
            if status is not None:
                del children[pid]
                if pidfd is not None:
                    poll.unregister(pidfd)
                    os.close(pidfd)
                bootstrap.send(sock, bootstrap.Exited(worker_id, status))
        if sock.fileno() in ready:
            return bootstrap.receive(sock)


def _become(boot: Boot, worker: Any, order: Start, ends: list[int]) -> NoReturn:
    """Be a worker, and leave when it is done."""
    job_link, page, stdout, stderr, bell, *shared = ends
    _redirect(stdout, stderr)
    if order.cpus is not None:
        os.sched_setaffinity(0, order.cpus)
    link = WorkerLink(move_up(job_link), move_up(page), move_up(bell))
    os.register_at_fork(after_in_child=link.abandon)
    faulthandler.enable(link.black_box)
    faulthandler.register(signal.SIGUSR1, link.black_box)
    link.cells[cells.DUMPS] = 1
    arrays = move_up(shared[0]) if shared else None
    place = assignment.Assignment(
        order.worker_id, order.slot, order.master_id, order.log_level, link, arrays
    )
    assignment.assign(place)
    script = boot.target.script

    def start() -> int:
        return _start(worker, order) if script is None else _run_script(script, link)

    leave_process(live(start, link))


def live(start: Callable[[], _Code], link: WorkerLink) -> _Code | int:
    """Let a worker run, and return what comes of it: its exit code. What it raises is told."""
    try:
        return start()
    except WorkerLeft as left:
        return left.code
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
        if code:
            _say_last_words(link)
        return code
    except BaseException:
        _say_last_words(link)
        return 1


def _start(worker: Any, order: Start) -> int:
    construct(worker, order).start()
    return 0


def _run_script(path: str, link: WorkerLink) -> int:
    """Run the user's script as ``__main__``; it is expected to start its worker."""
    import runpy  # only scripts need it

    runpy.run_path(path, run_name="__main__")
    if _runtime.has_run():
        return 0
    text = (
        f"the script {path} ended without starting a worker. Where is_worker() is true, it must "
        "call start() on a ConductorWorker; or give the worker to Conductor(worker=…)"
    )
    link.send(LastWords(text))
    return 1


def _trace() -> str:
    import traceback  # rarely needed

    return traceback.format_exc()


def _say_last_words(link: WorkerLink) -> None:
    text = _trace()
    try:
        link.send(LastWords(text))
    except OSError:  # a job has closed the link
        with suppress(Exception):
            sys.stderr.write(text)


def construct(worker: Any, order: Start) -> Basis:
    """Make the worker object from a class or a function."""
    made = _made(worker, pickling.loads(order.options))
    concurrency = order.concurrency
    if concurrency is not None:
        if not made._is_async:
            message = f"concurrency={concurrency}: {worker.__qualname__} is not async"
            raise ConfigurationError(message)
        made.concurrency = concurrency
    return made


def _made(worker: Any, options: dict[str, Any]) -> Basis:
    if functions.is_async(worker):
        from okanjo_conductor._async_worker import AsyncFunctionWorker  # only these need asyncio

        return AsyncFunctionWorker(worker, **options)
    if not isinstance(worker, type):
        return FunctionWorker(worker, **options)
    from okanjo_conductor._worker import ConductorWorker  # only classes need it

    made = worker(**options)
    if not isinstance(made, ConductorWorker):
        message = f"{worker.__qualname__} is no ConductorWorker: subclass it"
        raise ConfigurationError(message)
    if not hasattr(made, "stats"):
        message = f"{worker.__qualname__}.__init__ does not call super().__init__()"
        raise ConfigurationError(message)
    return made


def _redirect(stdout: int, stderr: int) -> None:
    for source, target, name in ((stdout, 1, "stdout"), (stderr, 2, "stderr")):
        os.dup2(source, target)
        os.close(source)
        stream = open(  # noqa: SIM115 - for the life of the process
            target, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _is_single_threaded() -> bool:
    """Whether a fork of this process is safe. Libraries start threads without Python knowing."""
    try:
        return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - `pathlib` takes 3 ms to load
    except OSError:
        return False


def _reseed() -> None:
    """Give this fork random numbers of its own; ``random`` does so by itself."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
