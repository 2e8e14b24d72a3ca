"""Workers as threads of the conductor's process: for I/O, and for Python without a GIL.

Each has the ordinary links to its conductor, a socket pair and a page of cells, so what is said and
claimed, and who is blamed, is the same as with processes. What a process gives besides is missing:
a thread cannot be killed, and what takes the process down takes all of them down.

A worker that does not end when it must, at an abort, is *given up*: its thread goes on as a daemon,
and nothing it does reaches the run any more.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from okanjo_conductor._io import links
from okanjo_conductor._io.conductor_link import ConductorLink
from okanjo_conductor._io.loggers import log
from okanjo_conductor._io.loops import call_soon
from okanjo_conductor.clusters._base import (
    Capabilities,
    Cluster,
    Crew,
    Launch,
    Program,
    load_worker_side,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._io.bootstrap import Start
    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor.clusters._base import Watcher

_PATIENCE = 0.2
"""Seconds that a thread which was hung up on may take to end before that is said."""
_LOOK = 0.01
"""Seconds between looks whether it has."""
_GIVEN_UP = (
    "its thread did not end, and a thread cannot be killed: it was given up, and whatever it still "
    'does has no effect on the run. Where jobs may have to be ended, use cluster="processes"'
)


class ThreadCluster(Cluster):
    """Workers as threads of this process; what ``cluster="threads"`` stands for."""

    name = "threads"
    capabilities = Capabilities(can_kill=False, can_interrupt=False, is_isolated=False)

    def launch(self, program: Program) -> Launch:
        """Do nothing yet: threads are there at once."""
        return Launch(partial(ThreadCrew, program))


class _Thread:
    """One worker: its host, and the thread that the host is run by."""

    def __init__(self, worker_id: int, host: Any, tell: Callable[[int, int], None]) -> None:
        self.worker_id = worker_id
        self.host = host
        self.is_given_up = False
        self._tell = tell
        self.thread = threading.Thread(
            target=self._run, name=f"okanjo-conductor-worker-{worker_id}", daemon=True
        )

    def _run(self) -> None:
        self._tell(self.worker_id, self.host.run())


class ThreadCrew(Crew):
    """The threads of one run."""

    def __init__(self, program: Program, loop: Loop, watcher: Watcher, arrays: int | None) -> None:
        self._program = program
        self._loop = loop
        self._watcher = watcher
        self._arrays = arrays
        self._hosting: Any = load_worker_side("_hosting")
        self._threads: dict[int, _Thread] = {}
        """Of workers whose end was not told yet."""
        self._given_up: list[_Thread] = []
        """Those that may live on all the same."""

    def start_worker(self, order: Start, page: str | None) -> ConductorLink:
        """Start a thread.

        Raises:
            OSError: there are no links for it, or no thread.
        """
        worker_id = order.worker_id
        try:
            ours, theirs = links.make(self._arrays, has_output=False, page_path=page)
        except OSError as error:
            raise links.none_left(error, page) from error
        try:
            host = self._hosting.ThreadHost(self._program, order, theirs)
            thread = _Thread(worker_id, host, partial(call_soon, self._loop, self._on_end))
            thread.thread.start()
        except (OSError, RuntimeError) as error:
            ours.close()
            theirs.close()
            detail = f"its thread could not be started: {error}. Ask for fewer workers"
            raise OSError(detail) from error
        self._threads[worker_id] = thread
        self._loop.call_soon(self._watcher.on_worker_started, worker_id, os.getpid())
        return ConductorLink(
            worker_id, ours, self._loop, self._watcher, keeps_outcomes=page is not None
        )

    def dump_stack(self, worker_id: int) -> bool:
        """Write down where its thread is."""
        worker = self._threads.get(worker_id)
        if worker is None or worker.thread.ident is None:
            return False
        worker.host.write_stack(worker.thread.ident)
        return True

    def terminate(self, worker_id: int) -> None:
        """Have a worker leave as soon as it waits, or its job ends."""
        if worker_id in self._threads:
            self._threads[worker_id].host.condemn()

    def kill(self, worker_id: int) -> None:
        """Give a worker up; where it only waits it will notice, and end."""
        worker = self._threads.get(worker_id)
        if worker is not None and not worker.is_given_up:
            worker.is_given_up = True
            worker.host.condemn()
            self._given_up.append(worker)
            self._loop.call_soon(self._end, worker_id, None, _GIVEN_UP)
            self._loop.call_later(_PATIENCE, self._complain)

    def close(self, then: Callable[[], None]) -> None:
        """Wait a moment for threads that were given up, say which have not ended, go on."""
        for worker_id in tuple(self._threads):
            self.kill(worker_id)
        self._wait(_PATIENCE, then)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        if seconds > 0 and self._living():
            self._loop.call_later(_LOOK, self._wait, seconds - _LOOK, then)
        else:
            self._complain()
            then()

    def _living(self) -> list[_Thread]:
        self._given_up = [worker for worker in self._given_up if worker.thread.is_alive()]
        return self._given_up

    def _complain(self) -> None:
        living, self._given_up = self._living(), []
        for worker in living:
            log().warning("worker %d: %s", worker.worker_id, _GIVEN_UP)

    def _on_end(self, worker_id: int, code: int) -> None:
        """The thread of a worker has ended."""
        self._end(worker_id, code, "")

    def _end(self, worker_id: int, code: int | None, detail: str) -> None:
        """Tell of a worker's end, once."""
        if self._threads.pop(worker_id, None) is not None:
            self._watcher.on_worker_exited(worker_id, code, None, detail)
