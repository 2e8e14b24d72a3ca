"""One worker in the thread of the run: for breakpoints, profilers and tests.

The run is made of callbacks of an event loop; here, each job is executed by one of them. So between
two jobs everything else happens, and during a job nothing does but what the job itself asks for:
lookups, requests and messages are answered on the spot, by handlers in the same thread.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from okanjo_conductor._io import cells, links
from okanjo_conductor._io.inline_link import InlineLink
from okanjo_conductor._io.threads import Directly
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
    from okanjo_conductor._io.threads import Callers
    from okanjo_conductor.clusters._base import Watcher

_ENDED = "it was ended between two jobs"


class InlineCluster(Cluster):
    """One worker in the thread of the run; what ``cluster="inline"`` stands for."""

    name = "inline"
    capabilities = Capabilities(
        can_kill=False,
        can_interrupt=False,
        is_isolated=False,
        is_concurrent=False,
        most_slots=1,
        largest_batch=1,
    )

    def launch(self, program: Program) -> Launch:
        """Do nothing yet."""
        return Launch(partial(InlineCrew, program))


class InlineCrew(Crew):
    """The workers of one run: mostly one, and two while one replaces another."""

    def __init__(self, program: Program, loop: Loop, watcher: Watcher, arrays: int | None) -> None:
        self._program = program
        self._loop = loop
        self._watcher = watcher
        self._arrays = arrays
        self._inline: Any = load_worker_side("_inline")
        self._hosts: dict[int, Any] = {}
        self._scheduled: set[int] = set()
        """Workers whose turn is about to come."""

    def start_worker(self, order: Start, page: str | None) -> InlineLink:
        """Make a worker, in the next turn of the loop.

        Raises:
            OSError: there is no page for it.
        """
        worker_id = order.worker_id
        try:
            descriptor = cells.make_page(page)
        except OSError as error:
            raise links.none_left(error, page) from error
        wake = partial(self._schedule, worker_id)
        link = InlineLink(worker_id, descriptor, self._loop, self._watcher, wake)
        self._hosts[worker_id] = self._inline.InlineHost(
            self._program,
            order,
            link.worker,
            self._arrays,
            self._loop,
            partial(self._end, worker_id),
        )
        self._loop.call_soon(self._begin, worker_id)
        return link

    def terminate(self, worker_id: int) -> None:
        """Have a worker leave: now, or when its job has ended."""
        host = self._hosts.get(worker_id)
        if host is not None:
            host.condemn()
            if not host.is_at_work:
                self._loop.call_soon(self._end, worker_id, None, _ENDED)

    kill = terminate

    def dump_stack(self, worker_id: int) -> bool:  # noqa: ARG002 - there is none between jobs
        """Refuse: the conductor stands still while a job is executed."""
        return False

    def make_threads(self, most: int, name: str, loop: Loop) -> Callers:  # noqa: ARG002
        """Have functions called directly: the job that waits for them holds up the loop anyway."""
        return Directly()

    def close(self, then: Callable[[], None]) -> None:
        """End the workers that are left."""
        for host in self._hosts.values():
            host.clear_up()
        self._hosts.clear()
        then()

    def _begin(self, worker_id: int) -> None:
        host = self._hosts.get(worker_id)
        if host is not None:
            self._watcher.on_worker_started(worker_id, os.getpid())
            self._go_on(worker_id, host, host.begin())

    def _schedule(self, worker_id: int) -> None:
        if worker_id not in self._scheduled:
            self._scheduled.add(worker_id)
            self._loop.call_soon(self._turn, worker_id)

    def _turn(self, worker_id: int) -> None:
        self._scheduled.discard(worker_id)
        host = self._hosts.get(worker_id)
        if host is not None and host.has_work:
            self._go_on(worker_id, host, host.turn())

    def _go_on(self, worker_id: int, host: Any, code: int | None) -> None:
        """Do what follows from a turn: its end, or another turn."""
        if code is None:
            code = host.code
        if code is not None or host.is_condemned:
            self._loop.call_soon(self._end, worker_id, code, _ENDED if code is None else "")
            host.raise_interrupt()
        elif host.has_work:
            self._schedule(worker_id)

    def _end(self, worker_id: int, code: int | None, detail: str = "") -> None:
        host = self._hosts.pop(worker_id, None)
        if host is not None:
            host.clear_up()
            self._watcher.on_worker_exited(worker_id, code, None, detail)
