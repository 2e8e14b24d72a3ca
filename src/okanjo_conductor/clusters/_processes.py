"""Workers as processes on this machine.

Never a plain fork of the conductor, which has threads and the user's state. A *template*, one clean
single-threaded process that has imported the worker's module, forks a worker per order; so a
replacement costs milliseconds. Where the import left a second thread in the template, where the
user's script is run again in each worker, or where asked (``start_method="spawn"``), each worker
is a fresh process instead.
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from okanjo_conductor._io import bootstrap, cells, groups, links
from okanjo_conductor._io.conductor_link import ConductorLink
from okanjo_conductor._io.deadman import DeadMansSwitch
from okanjo_conductor._io.launching import Launched
from okanjo_conductor.clusters._base import Crew

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._io.bootstrap import Start
    from okanjo_conductor._io.conductor_link import Output
    from okanjo_conductor._io.launching import EarlyTemplate
    from okanjo_conductor._io.links import WorkerEnds
    from okanjo_conductor._io.loops import Loop, Timer
    from okanjo_conductor.clusters._base import Program, Watcher
    from okanjo_conductor.clusters.local import LocalCluster

_LEAVE_PATIENCE = 2.0
"""Seconds that a process which was hung up on may take to leave."""
_REPORT_PATIENCE = 5.0
"""Seconds that a template may take to say how a worker has ended."""
_LEAVE_POLL = 0.001
"""Seconds between looks at such a process where there are no pidfds."""
_EXIT_POLL = 0.02
"""Seconds between looks at a process where there are no pidfds."""
_NO_PROCESS = (
    "its process could not be started: {}. Ask for fewer workers, or raise the limits on "
    "processes, memory and open files (ulimit -u, -v, -n)"
)


class ProcessCrew(Crew):
    """Starts, signals and watches worker processes.

    Args:
        cluster: says what belongs to a slot.
        spawns: whether each worker is a fresh process.
        arrays: descriptor of what all workers read, if there is such a thing.
        early: a template that was launched already.
        outputs: makes what a worker's output goes to; None: the streams of this process.
    """

    def __init__(
        self,
        loop: Loop,
        watcher: Watcher,
        cluster: LocalCluster,
        program: Program,
        *,
        spawns: bool,
        arrays: int | None,
        early: EarlyTemplate | None,
        outputs: Callable[[int], tuple[Output, Output]] | None = None,
    ) -> None:
        self._loop = loop
        self._watcher = watcher
        self._cluster = cluster
        self._program = program
        self._spawns = spawns
        self._arrays = arrays
        self._outputs = outputs
        self._switch = DeadMansSwitch() if early is None else early.switch
        self._processes: set[_Process] = set()
        self._homes: dict[int, _Process] = {}
        """The process that each live worker is, or came from."""
        self._links: dict[int, ConductorLink] = {}
        self._template: _Process | None = None if early is None else self._watch(early.process)

    def start_worker(self, order: Start, page: str | None) -> ConductorLink:
        """Order a worker.

        Raises:
            OSError: there are no links for it, or no process.
        """
        try:
            ours, theirs = links.make(self._arrays, page_path=page)
        except OSError as error:
            raise links.none_left(error, page) from error
        try:
            process = self._home(order.slot)
        except OSError as error:
            ours.close()
            theirs.close()
            raise OSError(_NO_PROCESS.format(error)) from error
        worker_id = order.worker_id
        outputs = None if self._outputs is None else self._outputs(worker_id)
        link = ConductorLink(
            worker_id, ours, self._loop, self._watcher, outputs, keeps_outcomes=page is not None
        )
        self._links[worker_id] = link
        cpus = self._cluster.cpus_of(self._program, order.slot)
        self._assign(order._replace(cpus=cpus), theirs, process)
        return link

    def _assign(self, order: Start, ends: WorkerEnds, process: _Process) -> None:
        self._homes[order.worker_id] = process
        process.order(order, ends)

    def withdraw(self, worker_id: int) -> bool:
        """Take an order back if no process has received it yet; say whether that was so."""
        home = self._homes.get(worker_id)
        return home is not None and home.withdraw(worker_id)

    def dump_stack(self, worker_id: int) -> bool:
        """Have a worker write its stack; before it can, that signal would end it."""
        link = self._links.get(worker_id)
        if link is None or not link.cells[cells.DUMPS]:
            return False
        self._signal(worker_id, signal.SIGUSR1)
        return True

    def interrupt(self, worker_id: int, ordinal: int, limit: float) -> None:
        """Have `JobTimeoutError` raised in a job."""
        page = self._links[worker_id].cells
        page[cells.LIMIT] = int(limit * 1e9)
        page[cells.EXPIRED] = ordinal
        self._signal(worker_id, signal.SIGUSR2)

    def terminate(self, worker_id: int) -> None:
        """Send a worker SIGTERM."""
        self._signal(worker_id, signal.SIGTERM)

    def kill(self, worker_id: int) -> None:
        """Send SIGKILL to a worker and its whole process group."""
        self._signal(worker_id, signal.SIGKILL)

    def _signal(self, worker_id: int, number: signal.Signals) -> None:
        home = self._homes.get(worker_id)
        if home is not None and not home.withdraw(worker_id, "its module was still being imported"):
            home.signal(worker_id, number)

    def close(self, then: Callable[[], None]) -> None:
        """Let the template go, and everybody else with it; call `then` when they are gone."""
        left = set(self._processes)

        def gone(process: _Process | None) -> None:
            left.discard(process)
            if not left:
                self._switch.close()
                then()

        if not left:
            gone(None)
        for process in tuple(left):
            process.close(gone)

    # For _Process

    def process_booted(self, process: _Process, *, can_fork: bool) -> bool:
        """Take note that a process is ready for orders; say whether it shall fork them."""
        if not self._spawns and not can_fork:
            self._spawns, self._template = True, None
            for order, ends in process.give_up_orders_but_one():
                self._reassign(order, ends)
        return not self._spawns

    def worker_ended(
        self, worker_id: int, code: int | None, signal_name: str | None, detail: str = ""
    ) -> None:
        """Pass on a worker's end, once."""
        if self._homes.pop(worker_id, None) is not None:
            del self._links[worker_id]
            self._watcher.on_worker_exited(worker_id, code, signal_name, detail)

    def worker_started(self, worker_id: int, pid: int) -> None:
        """Pass on that a worker's process exists."""
        self._watcher.on_worker_started(worker_id, pid)

    def workers_of(self, process: _Process) -> set[int]:
        """Return the workers that were ordered of a process and have not ended."""
        return {worker_id for worker_id, home in self._homes.items() if home is process}

    def process_ended(self, process: _Process) -> None:
        """Forget a process that is gone."""
        self._processes.discard(process)
        if self._template is process:
            self._template = None

    def _home(self, slot: int) -> _Process:
        """Find the process for the next worker of a slot, or start it."""
        if self._spawns:
            return self._launch(slot)
        if self._template is None:
            self._template = self._launch(slot)
        return self._template

    def _reassign(self, order: Start, ends: WorkerEnds) -> None:
        """Give an order to a process of its own."""
        try:
            self._assign(order, ends, self._launch(order.slot))
        except OSError as error:
            ends.close()
            detail = _NO_PROCESS.format(error)
            self._loop.call_soon(self.worker_ended, order.worker_id, None, None, detail)

    def _launch(self, slot: int) -> _Process:
        cluster, program = self._cluster, self._program
        env = cluster.env_of(program, slot)
        return self._watch(Launched(program.boot, env, self._switch.read_end, cluster.python))

    def _watch(self, launched: Launched) -> _Process:
        process = _Process(self, self._loop, launched)
        self._processes.add(process)
        return process


class _Process:
    """A process that was started here: a template, or a worker by itself."""

    def __init__(
        self,
        cluster: ProcessCrew,
        loop: Loop,
        launched: Launched,
    ) -> None:
        self._cluster = cluster
        self._loop = loop
        self._orders: list[tuple[Start, WorkerEnds]] = []
        """Not sent yet: the process is still importing."""
        self._is_booted = False
        self._forks = True
        self._pidfds: dict[int, int] = {}
        self._pids: dict[int, int] = {}
        self._own_worker: int | None = None
        """The worker that this process has become, if it does not fork."""
        self._data = b""
        self._descriptors: list[int | None] = []
        """Pidfds whose message is not whole yet; None where we had no descriptor for one."""
        self._failure = ""
        self._status: tuple[int | None, str | None] = (None, None)
        """Exit code or signal, once it is gone."""
        self._socket = socket.socket(fileno=launched.socket.detach())
        self._pid = launched.pid
        self._has_left = False
        """It is gone and reaped."""
        self._exit_watch = _watch_exit(loop, self._pid, self._has_ended, self._on_exit)
        loop.add_reader(self._socket, self._on_readable)

    def order(self, order: Start, ends: WorkerEnds) -> None:
        """Have a worker made of, or forked by, this process."""
        if self._is_booted:
            self._send_order(order, ends)
        else:
            self._orders.append((order, ends))

    def withdraw(self, worker_id: int, detail: str = "") -> bool:
        """Drop an order that was not sent."""
        for entry in self._orders:
            order, ends = entry
            if order.worker_id == worker_id:
                self._orders.remove(entry)
                ends.close()
                self._loop.call_soon(self._cluster.worker_ended, worker_id, 0, None, detail)
                return True
        return False

    def give_up_orders_but_one(self) -> list[tuple[Start, WorkerEnds]]:
        """Return the orders that a process which cannot fork cannot carry out."""
        surplus, self._orders = self._orders[1:], self._orders[:1]
        return surplus

    def signal(self, worker_id: int, number: signal.Signals) -> None:
        """Send a signal to a worker of this process."""
        pid = self._pids.get(worker_id)
        if pid is None:
            if number is signal.SIGKILL:
                self._kill()  # it has the order, and does not carry it out
            return
        with suppress(ProcessLookupError, PermissionError):
            if number is signal.SIGKILL:
                os.killpg(pid, number)
        with suppress(ProcessLookupError):
            if worker_id in self._pidfds:
                signal.pidfd_send_signal(self._pidfds[worker_id], number)
            else:
                os.kill(pid, number)

    def close(self, gone: Callable[[_Process], None]) -> None:
        """Hang up; a template leaves then. Whatever does not is killed."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._exit_watch()
        for _, ends in self._orders:
            ends.close()
        self._orders.clear()
        if not self._is_booted:
            groups.end(self._pid)

        def finish() -> None:
            patience.cancel()
            self._has_ended()
            self._forget()
            gone(self)

        patience = self._loop.call_later(_LEAVE_PATIENCE, self._kill)
        if self._has_ended():
            finish()
        else:
            self._exit_watch = _watch_exit(
                self._loop, self._pid, self._has_ended, finish, poll=_LEAVE_POLL
            )

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def _has_ended(self) -> bool:
        """Whether the process is gone; if so, its group is as well.

        But for the group of a template: what the import has started may serve its workers.
        """
        if not self._has_left:
            is_template = self._is_booted and self._forks
            try:
                status = groups.reap(self._pid, with_group=not is_template)
            except ChildProcessError:  # reaped by somebody else, who has its status
                self._has_left = True
                return True
            if status is None:
                return False
            self._has_left = True
            self._status = _read_status(status)
        return True

    # What the process says

    def _on_readable(self) -> None:
        try:
            data, descriptors, flags, _ = socket.recv_fds(
                self._socket, 1 << 16, 16, socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return
        except OSError:
            data, descriptors, flags = b"", [], 0
        self._descriptors += descriptors
        if not data:
            self._loop.remove_reader(self._socket)
            return
        if flags & socket.MSG_CTRUNC and not descriptors:
            self._descriptors.append(None)
        messages, self._data = bootstrap.split(self._data + data)
        for message in messages:
            self._on_message(message)

    def _on_message(self, message: Any) -> None:
        if isinstance(message, bootstrap.Booted):
            self._forks = self._cluster.process_booted(self, can_fork=message.can_fork)
            self._is_booted = True
            orders, self._orders = self._orders, []
            for order, ends in orders:
                self._send_order(order, ends)
        elif isinstance(message, bootstrap.BootFailed):
            self._failure = message.detail
        elif isinstance(message, bootstrap.Started):
            self._pids[message.worker_id] = message.pid
            pidfd = self._descriptors.pop(0) if self._descriptors else None
            if pidfd is not None:
                self._pidfds[message.worker_id] = pidfd
                self._loop.add_reader(pidfd, self._on_worker_gone, message.worker_id)
            self._cluster.worker_started(message.worker_id, message.pid)
        elif isinstance(message, bootstrap.ForkFailed):
            self._cluster.worker_ended(message.worker_id, None, None, message.detail)
        elif isinstance(message, bootstrap.Exited):
            self._forget_worker(message.worker_id)
            self._cluster.worker_ended(message.worker_id, *_read_status(message.status))

    def _send_order(self, order: Start, ends: WorkerEnds) -> None:
        with suppress(OSError):  # it is gone: its exit tells
            bootstrap.send(self._socket, order._replace(forks=self._forks), ends.as_list())
        ends.close()
        if not self._forks:
            self._own_worker = order.worker_id
            self._pids[order.worker_id] = self._pid
            self._cluster.worker_started(order.worker_id, self._pid)

    # Its end

    def _on_exit(self) -> None:
        """The process is gone."""
        # First: what is reported below may order a worker, and this process can make none.
        self._cluster.process_ended(self)
        while self._socket.fileno() >= 0 and self._has_more():
            self._on_readable()
        self._has_ended()
        status, detail = self._status, self._failure
        if not self._is_booted and not detail:
            detail = f"its process ended while it imported the worker: {status[1] or status[0]}"
        for order, ends in self._orders:
            ends.close()
            self._cluster.worker_ended(order.worker_id, *status, detail)
        self._orders.clear()
        if self._own_worker is not None:
            self._forget_worker(self._own_worker)
            self._cluster.worker_ended(self._own_worker, *status)
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for worker_id, pidfd in tuple(self._pidfds.items()):
            self._loop.add_reader(pidfd, self._on_orphan_exit, worker_id)
        # An order that it had received and not carried out is nobody's any more.
        for worker_id in self._cluster.workers_of(self) - set(self._pidfds):
            if (
                worker_id in self._pids
            ):  # it may be alive, but nobody could tell when it no longer is
                groups.end(self._pids.pop(worker_id))
            self._cluster.worker_ended(worker_id, None, None)

    def _has_more(self) -> bool:
        with suppress(OSError):
            return bool(self._socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
        return False

    def _on_orphan_exit(self, worker_id: int) -> None:
        """A worker whose template had gone before it is gone too; its status went with it."""
        groups.end(self._pids[worker_id])  # nobody holds its number, but those in its group
        self._forget_worker(worker_id)
        self._cluster.worker_ended(worker_id, None, None)

    def _on_worker_gone(self, worker_id: int) -> None:
        """A worker is gone: its template has to reap it and to say how it ended."""
        self._loop.remove_reader(self._pidfds[worker_id])
        self._loop.call_later(_REPORT_PATIENCE, self._require_report, worker_id)

    def _require_report(self, worker_id: int) -> None:
        if worker_id in self._pidfds:
            self._kill()  # it does not do anything any more

    def _forget_worker(self, worker_id: int) -> None:
        self._pids.pop(worker_id, None)
        pidfd = self._pidfds.pop(worker_id, None)
        if pidfd is not None:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)

    def _forget(self) -> None:
        for worker_id in tuple(self._pids):
            self._forget_worker(worker_id)
        self._cluster.process_ended(self)


def _watch_exit(
    loop: Loop,
    pid: int,
    has_ended: Callable[[], bool],
    then: Callable[[], None],
    *,
    poll: float = _EXIT_POLL,
) -> Callable[[], None]:
    """Call `then` when the process is gone; return what stops the watch."""
    try:
        pidfd = os.pidfd_open(pid)
    except (AttributeError, OSError):  # there are none here, or no descriptor for one
        return _poll_exit(loop, has_ended, then, poll)

    def stop() -> None:
        if pidfd in open_pidfds:
            open_pidfds.discard(pidfd)
            loop.remove_reader(pidfd)
            os.close(pidfd)

    def on_readable() -> None:
        stop()
        then()

    open_pidfds = {pidfd}
    loop.add_reader(pidfd, on_readable)
    return stop


def _poll_exit(
    loop: Loop, has_ended: Callable[[], bool], then: Callable[[], None], poll: float
) -> Callable[[], None]:
    timer: list[Timer] = []

    def look() -> None:
        if has_ended():
            timer.clear()
            then()
        else:
            timer[:] = [loop.call_later(poll, look)]

    timer[:] = [loop.call_later(poll, look)]
    return lambda: timer.pop().cancel() if timer else None


def _read_status(status: int) -> tuple[int | None, str | None]:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code, None
    try:
        return None, signal.Signals(-code).name
    except ValueError:
        return None, f"signal {-code}"  # a real-time signal has no name
