"""What every worker has: counters that are reported, and a runtime to talk through.

Beneath `ConductorWorker`, and all there is to a worker that was made of a function: that one needs
no events, and so no `pyee`, which takes longer to load than the rest of a worker process.
"""

from __future__ import annotations

import threading
from time import monotonic

from okanjo_conductor import _runtime
from okanjo_conductor.errors import ConductorStateError, ConfigurationError
from okanjo_conductor.lookups._verbs import LookupVerbs

TYPE_CHECKING = False  # see _plain
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from okanjo_conductor._io.assignment import Assignment
    from okanjo_conductor._runtime import Runtime
    from okanjo_conductor._talk import Talk
    from okanjo_conductor._types import Message


class Basis(LookupVerbs):
    """A worker, as far as its runtime needs to know it."""

    process_job: Callable[[Any], Any]

    def _begin(self, stats: dict[str, Any] | None, stats_interval: float, *, logging: bool) -> None:
        if not stats_interval > 0:
            message = f"stats_interval={stats_interval!r}: seconds, more than 0"
            raise ConfigurationError(message)
        self.stats: dict[str, Any] = {"jobs_done": 0} if stats is None else stats
        self.last_stats: dict[str, Any] = {}
        """The counters as last reported."""
        self.stats_interval = stats_interval
        self.logging = logging
        self.worker_id = 0
        """Number of this worker, from 1; set when it starts."""
        self.master_id = ""
        """Id of the conductor that this worker belongs to; set when it starts."""
        self.slot = -1
        """The place this worker fills, from 0; its replacement gets the same."""
        self._runtime: Runtime | None = None
        self._begin_lookups()
        self._reported_at = monotonic()
        self._monitor: threading.Thread | None = None
        self._monitor_stop = threading.Event()

    def setup(self) -> None:
        """Prepare; called once, before the first job. An exception here fails the start."""

    def teardown(self) -> None:
        """Clean up; called once, after the last job, unless the process dies."""

    def on_master_message(self, msg: Message) -> None:
        """Handle a message from the conductor; between jobs, or at once if it is a reply.

        A reply whose callback is not fired here is fired afterwards, with the message.
        """

    def start(self) -> None:
        """Work until the conductor has no more jobs.

        Called for you, unless the script is run again in its worker processes (see `is_worker`).

        Raises:
            ConductorStateError: this process was not started by a conductor.
        """
        _runtime.start(self)

    def start_monitoring(self) -> None:
        """Report the counters every `stats_interval` seconds. Done for you at the start."""
        if self._monitor is None:
            self._monitor_stop = threading.Event()
            self._monitor = threading.Thread(
                target=self._report_repeatedly, name="stats", daemon=True
            )
            self._monitor.start()

    def stop_monitoring(self) -> None:
        """Stop reporting; the last report, at the end, is still sent."""
        self._monitor_stop.set()
        self._monitor = None

    # For the runtime

    def _attach(self, runtime: Runtime, place: Assignment) -> None:
        self._runtime = runtime
        self.worker_id, self.slot = place.worker_id, place.slot
        self.master_id = place.master_id

    def _hears(self, _event: str) -> bool:
        """Whether anybody listens to an event."""
        return False

    def _tell(self, event: str, *args: Any) -> None:
        """Tell listeners."""

    def _on_listener(self, note: Callable[[str], None]) -> None:
        """Have `note` called with the event that a listener is added for."""

    @property
    def _live(self) -> Runtime:
        if self._runtime is None:
            from okanjo_conductor._io import assignment

            where = "before start()" if assignment.is_worker() else "outside a worker process"
            message = f"{type(self).__qualname__} cannot talk to a conductor {where}"
            raise ConductorStateError(message)
        return self._runtime

    def _talker(self) -> Talk:
        return self._live.talk

    def _take_report(self) -> tuple[dict[str, Any], float]:
        """Copy the counters that can be added up, and the time since the previous copy."""
        now = monotonic()
        span, self._reported_at = now - self._reported_at, now
        counters = {**self.stats, **self._lookups.counters()}
        self.last_stats = {k: v for k, v in counters.items() if isinstance(v, int | float)}
        return self.last_stats, span

    def _report_repeatedly(self) -> None:
        stop = self._monitor_stop
        while not stop.wait(self.stats_interval):
            self._live.report_stats()


class FunctionWorker(Basis):
    """A worker made of a function from job to value."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        stats: dict[str, Any] | None = None,
        stats_interval: float = 5.0,
        logging: bool = True,
    ) -> None:
        self._begin(stats, stats_interval, logging=logging)
        if not hasattr(function, "__code__"):
            function = _in_a_frame(function)
        self.process_job = function  # no extra call per job


def _in_a_frame(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give a function that is not written in Python a frame of its own.

    By its frame a job is told from the loop around it when it is interrupted.
    """

    def call(job: Any) -> Any:
        return function(job)

    return call
