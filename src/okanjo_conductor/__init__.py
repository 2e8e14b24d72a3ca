"""okanjo_conductor: hands a batch of jobs to worker processes and sees every one of them through.

The public names, grouped. Modules with an underscore are private; what they define is reached
through here. A name is loaded when it is first used, so that importing the package is cheap and a
worker process never loads the conductor's half.
"""

import sys

from okanjo_conductor import errors
from okanjo_conductor.__about__ import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from okanjo_conductor._async_worker import AsyncConductorWorker
    from okanjo_conductor._backoff import exponential
    from okanjo_conductor._conductor import Conductor, conduct
    from okanjo_conductor._io.assignment import is_worker
    from okanjo_conductor._runtime import current_job, current_worker
    from okanjo_conductor._snapshot import Snapshot, WorkerSnapshot
    from okanjo_conductor._types import (
        LATER,
        Attempt,
        Cause,
        FailureGroup,
        JobInfo,
        JobProgress,
        JobState,
        LookupStats,
        Message,
        Outcome,
        RecentFailure,
        Recycle,
        Report,
        Retry,
        StatsAggregate,
        StatsReport,
        TimeSplit,
        WorkerExit,
        WorkerStats,
        WorkerStuck,
    )
    from okanjo_conductor._worker import ConductorWorker, command
    from okanjo_conductor.clusters.local import LocalCluster
    from okanjo_conductor.journal import JournalEntry, JournalReader, RunInfo, open_journal
    from okanjo_conductor.lookups._kinds import ABSENT, Loading, Lookup
    from okanjo_conductor.lookups.table import LookupTable

_HOMES = {
    "_backoff": ("exponential",),
    "_conductor": ("Conductor", "conduct"),
    "_async_worker": ("AsyncConductorWorker",),
    "_worker": ("ConductorWorker", "command"),
    "_runtime": ("current_job", "current_worker"),
    "_io.assignment": ("is_worker",),
    "clusters.local": ("LocalCluster",),
    "journal": ("JournalEntry", "JournalReader", "RunInfo", "open_journal"),
    "lookups.table": ("LookupTable",),
    "_snapshot": ("Snapshot", "WorkerSnapshot"),
    "_types": (
        "LATER",
        "Attempt",
        "Cause",
        "FailureGroup",
        "JobInfo",
        "JobProgress",
        "JobState",
        "LookupStats",
        "Message",
        "Outcome",
        "RecentFailure",
        "Recycle",
        "Report",
        "Retry",
        "StatsAggregate",
        "StatsReport",
        "TimeSplit",
        "WorkerExit",
        "WorkerStats",
        "WorkerStuck",
    ),
    "lookups._kinds": ("ABSENT", "Loading", "Lookup"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    # the main process
    "Conductor",
    "conduct",
    "Retry",
    "Recycle",
    "exponential",
    "LookupTable",
    "LocalCluster",
    # the worker process
    "ConductorWorker",
    "AsyncConductorWorker",
    "command",
    "LATER",
    "JobInfo",
    "current_job",
    "current_worker",
    "is_worker",
    # lookups
    "Lookup",
    "Loading",
    "ABSENT",
    "LookupStats",
    # what travels and what comes back
    "Message",
    "Outcome",
    "JobState",
    "Cause",
    "Attempt",
    "Report",
    "FailureGroup",
    "TimeSplit",
    "Snapshot",
    "WorkerSnapshot",
    "RecentFailure",
    "WorkerExit",
    "WorkerStuck",
    "JobProgress",
    "StatsReport",
    "StatsAggregate",
    "WorkerStats",
    # journals
    "open_journal",
    "JournalReader",
    "JournalEntry",
    "RunInfo",
    # what goes wrong
    "errors",
    "__version__",
]


def __getattr__(name: str) -> object:
    module = _HOME_OF.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    home = f"{__name__}.{module}"
    __import__(home)  # `importlib` takes a millisecond to load, in every process
    return getattr(sys.modules[home], name)


def __dir__() -> list[str]:
    return sorted(__all__)
