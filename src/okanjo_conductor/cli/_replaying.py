"""Running one job in this process, with its conductor around it, and the debugger where it fails.

The worker is the user's, in a class or function around it that lets us see its exception as it is
raised. Its conductor is a new one, of one job and no journal, in this thread: lookups, requests and
messages are answered as in a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from okanjo_conductor._conductor import Conductor
from okanjo_conductor._types import Retry
from okanjo_conductor._wire.functions import is_async
from okanjo_conductor.cli import _targets as targets
from okanjo_conductor.cli._batch import say, told
from okanjo_conductor.cli._errors import DONE, FAILED
from okanjo_conductor.cli._reading import typed
from okanjo_conductor.cli._writing import Output, as_json

if TYPE_CHECKING:
    from types import TracebackType

    from okanjo_conductor._types import Outcome
    from okanjo_conductor.cli._targets import Target
    from okanjo_conductor.journal import JournalEntry

_PACKAGE = "okanjo_conductor"
_shown: list[Exception] = []
"""What the job raised, when it was shown already."""
_debugs: list[bool] = []
"""Whether the debugger is wanted. Here, and not in the classes below: these are pickled."""


def replay_inline(target: Target, entry: JournalEntry, payload: Any, *, debugs: bool) -> int:
    """Run a job once; return the exit code."""
    _debugs[:] = [debugs]
    outcomes: list[Outcome] = []
    conductor = _conductor_for(target, payload, entry.key)
    conductor.on("job_done", outcomes.append)
    conductor.on("job_failed", outcomes.append)
    conductor.run()
    (outcome,) = outcomes
    if not outcome.is_done:
        if not _shown:
            say(told(outcome.error))
        return FAILED
    Output(1).write_line(as_json({"key": entry.key, "value": outcome.value}))
    say(f"job {typed(entry)} is done here; the journal is unchanged")
    return DONE


def _conductor_for(target: Target, payload: Any, key: Any) -> Conductor:
    theirs = target.conductor
    worker, options, _ = (target.worker, {}, None) if theirs is None else theirs._program
    if isinstance(worker, str):
        worker = targets.find(worker).worker
    conductor = Conductor(
        _watched(worker),
        worker_options=options,
        jobs_queue=[payload],
        job_key=lambda _: key,
        cluster="inline",
        lookups=None if theirs is None else theirs.lookups,
        retry=Retry(errors=0, crashes=0, memory=0),
        logging=False,
    )
    if theirs is not None:
        conductor._commands.update(theirs._commands)
        conductor.on_worker_message = theirs.on_worker_message  # type: ignore[method-assign]  # as users do
    return conductor


def _watched(worker: Any) -> Any:
    """Make a worker that shows what it raises, as it is raised."""
    if isinstance(worker, type):
        process_job = _around(worker.process_job)  # type: ignore[attr-defined]  # it was checked
        return type(worker.__name__, (worker,), {"process_job": process_job})
    return _around(worker)


def _around(function: Any) -> Any:
    if is_async(function):

        async def call_async(*args: Any) -> Any:
            try:
                return await function(*args)
            except Exception as error:
                _show(error)
                raise

        return call_async

    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            _show(error)
            raise

    return call


def _show(error: Exception) -> None:
    """Show the traceback, as it is in the user's code; and the debugger there."""
    import traceback

    _shown.append(error)
    trace = _in_users_code(error.__traceback__)
    traceback.print_exception(type(error), error, trace)
    if _debugs[0]:
        import pdb  # noqa: T100 - it was asked for

        pdb.post_mortem(trace)


def _in_users_code(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of this package at the beginning."""
    while trace is not None and trace.tb_next is not None:
        if str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] != _PACKAGE:
            break
        trace = trace.tb_next
    return trace
