"""ConductorWorker: what users subclass. One object per worker process."""

from __future__ import annotations

from pyee.base import EventEmitter

from okanjo_conductor._basis import Basis
from okanjo_conductor.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, TypeVar

    from okanjo_conductor._io.assignment import Assignment
    from okanjo_conductor._runtime import Runtime
    from okanjo_conductor._types import JobInfo

    _Method = TypeVar("_Method", bound=Callable[..., Any])


_MARK = "_okanjo_conductor_command"
"""Attribute of a method that handles a command: its name, and whether it does so during a job."""


def command(name: str, *, during_job: bool = False) -> Callable[[_Method], _Method]:
    """Decorate a method of a `ConductorWorker` that handles a command of the conductor.

    It is called with a `Message`. What it returns is the reply to a request; what it raises, the
    requester gets to see.

    Args:
        during_job: whether it is run at once, in a thread for that, while a job goes on. Otherwise
            it is run between jobs.
    """

    def mark(method: _Method) -> _Method:
        setattr(method, _MARK, (name, during_job))
        return method

    return mark


class ConductorWorker(EventEmitter, Basis):
    """Runs jobs in a process of its own. Subclass it and write `process_job`.

    Where they are needed, write `setup`, `teardown` and `on_master_message` as well.

    Args:
        stats: counters to begin with, name to number; ``jobs_done`` is counted for you.
        stats_interval: seconds between reports of the counters to the conductor.
        logging: whether this worker's life is logged, at level INFO.

    Events:
        ``stats`` (the counters), in the thread that reports them; ``job_done``; ``error`` (an
        exception that failed a job); ``completed``, when there is no more work.
    """

    def __init__(
        self,
        *,
        stats: dict[str, Any] | None = None,
        stats_interval: float = 5.0,
        logging: bool = True,
    ) -> None:
        super().__init__()
        self._begin(stats, stats_interval, logging=logging)

    # Write these

    def process_job(self, job: Any) -> Any:
        """Do the job; return its value, or raise.

        In callback style, call `complete_job` before returning, or return `LATER` and call it
        afterwards, from any thread.
        """
        raise NotImplementedError

    # Use these

    @property
    def job(self) -> JobInfo | None:
        """Key and attempt of the job at hand, or None between jobs."""
        return self._runtime.job_at_hand() if self._runtime else None

    def complete_job(self, err: Any = None, job: Any = None, *, value: Any = None) -> None:
        """End the job at hand: done with `value`, or failed if `err` is given.

        `job` is what `process_job` was given; a job that is no longer at hand is ignored with a
        warning.
        """
        self._live.complete(err, job, value)

    def get_next_job(self) -> Any:
        """Within `process_job`, after `complete_job`: begin another job that waits here.

        Returns:
            Its payload, or None if none waits; then return from `process_job`.
        """
        return self._live.next_job()

    def crash(self, err: BaseException | str | None = None) -> NoReturn:
        """End this process with exit code 4; another one takes its place.

        Use it when only a fresh process would help. The job at hand is charged with a crash.
        """
        self._live.die(err)

    def fire_request_callback(
        self, callback_name: str, err: BaseException | None = None, data: Any = None
    ) -> None:
        """Hand a reply to whoever sent the request; for use in `on_master_message`."""
        self._live.talk.fire(callback_name, err, data)

    # For the runtime

    def _attach(self, runtime: Runtime, place: Assignment) -> None:
        super()._attach(runtime, place)
        found = _commands_of(type(self))
        self._commands = {name: getattr(self, method) for name, (method, _) in found.items()}
        self._urgent = frozenset(name for name, (_, during_job) in found.items() if during_job)

    def _hears(self, event: str) -> bool:
        return bool(self.listeners(event))

    def _tell(self, event: str, *args: Any) -> None:
        self.emit(event, *args)

    def _on_listener(self, note: Callable[[str], None]) -> None:
        def on_new_listener(event: str, _listener: Any) -> None:
            note(event)

        self.on("new_listener", on_new_listener)


def _commands_of(kind: type[Any]) -> dict[str, tuple[str, bool]]:
    """Find the methods that handle commands: by command, method name and whether during a job."""
    found: dict[str, tuple[str, bool]] = {}
    for base in reversed(kind.__mro__):
        own: dict[str, tuple[str, bool]] = {}
        for method, member in vars(base).items():
            name, during_job = getattr(member, _MARK, (None, False))
            if name in own:
                message = (
                    f"{base.__qualname__}: both {own[name][0]} and {method} handle {name!r}; "
                    "a command has one handler"
                )
                raise ConfigurationError(message)
            if name is not None:
                own[name] = method, during_job
        found |= own
    return found
