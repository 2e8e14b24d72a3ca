"""What a cluster is: where the workers of a run come from.

A `Cluster` says what it can do and has, for each run, a `Crew`, which starts the workers of that
run, carries what is said between them and their conductor, and watches their ends. `_run.Run` talks
to a crew and to the links it makes, and never asks what kind they are.

    Cluster         given to Conductor(cluster=…); any number of runs
      └─ Launch     a run is about to begin: what takes long is begun
           └─ Crew      one run: start_worker, terminate, kill, close
                └─ Link     one worker: frames both ways, its claims, its outcomes

**The contract of a crew**

*Calls.* All methods are called in the thread of the run, from a callback of its loop; none blocks.
What a crew has to tell, it tells in that thread too, and never from within one of its methods.

*One worker.* `start_worker` makes the link of a worker and has the worker started: it runs
`_runtime.Runtime`, or an agent that speaks for one. Then `Watcher.on_worker_started` is called at
most once, and `Watcher.on_worker_exited` exactly once, after everything that the worker had said
has arrived at its link: the run reads the link to its end (`Link.finish`) and believes that nothing
follows. The worker is then executing nothing, or what it does has no effect on the run.

*Blame.* `Link.last_started` tells which ordinal a worker had started last, also when it is dead,
without its help. The outcome of an ordinal has arrived before a later one is started. So the run
knows whom to charge.

*Recall.* `Link.recall` takes back what a worker was handed and has not started, also from a worker
that is in a long job, and answers with the last ordinal that it may still execute.

*Force.* `terminate` asks a worker to end, whatever it is doing, and `kill` ends it. A cluster that
cannot kill says so (`Capabilities.can_kill`): it then gives the worker up, reports its end as if it
had been killed, and sees to it that nothing the worker still says reaches the run.

*The end.* `close` lets go of everything, and calls back when nothing is left.

Conformance is tested by `okanjo_conductor.testing.check_cluster`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from okanjo_conductor._io.memory import rss_of
from okanjo_conductor._io.threads import Threads
from okanjo_conductor._plain import Frozen
from okanjo_conductor.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from okanjo_conductor._io.bootstrap import Boot, Start
    from okanjo_conductor._io.conductor_link import Ahead, Receiver
    from okanjo_conductor._io.hatch import Answerer
    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor._io.threads import Callers
    from okanjo_conductor._types import Ordinal
    from okanjo_conductor._wire.messages import AnyMessage


class Capabilities(Frozen):
    """What a cluster can do. What it cannot is refused when the conductor is made."""

    can_kill: bool = True
    """A worker can be ended whatever it does: `job_timeout`, `start_timeout`. Without, a worker
    that does not end is given up at an abort, and its job may go on without effect."""
    can_interrupt: bool = True
    """An exception can be raised in a job from outside: `soft_timeout`."""
    is_isolated: bool = True
    """The process of a worker is its own: it can die by itself, its memory can be measured
    (`max_rss`, `Recycle.rss`), and it can have an environment (`worker_env`), a start method and a
    script that is run again in it."""
    is_concurrent: bool = True
    """The conductor goes on while a job is executed: `stuck_after`, requests to a busy worker,
    blocking requests whose handlers are ``async``."""
    most_slots: int | None = None
    """How many workers there can be at a time; None: as many as are asked for."""
    largest_batch: int | None = None
    """How many jobs a worker is handed at once, at most; None: as many as suit it."""


class Program(Frozen):
    """What the workers of a run are made of."""

    worker: Any
    """As it was given to the conductor, for workers in this process."""
    boot: Boot
    """How another process finds it."""
    env: dict[str, str]
    """The whole environment of worker processes."""
    start_method: str | None
    """``"fork"`` or ``"spawn"``; None: as the cluster likes."""
    slots: int
    """How many workers there are to be, at first."""


if TYPE_CHECKING:  # making protocols takes a while, in every new process

    class Watcher(Receiver, Protocol):
        """The run: who is told what becomes of workers, and what they say."""

        def on_worker_started(self, worker_id: int, pid: int) -> None:
            """The worker exists, in this process."""

        def on_worker_exited(
            self, worker_id: int, code: int | None, signal: str | None, detail: str
        ) -> None:
            """The worker is gone, or will never be. Called once per worker that was started."""

        def on_no_place(self, detail: str) -> None:
            """There is no place for any worker, and no hope of one: the run cannot go on."""

        def on_room(self, slots: int) -> None:
            """There is room for so many workers now; told by clusters whose nodes come and go."""

    class Link(Protocol):
        """What connects a run with one worker. `_io.conductor_link` has the usual one."""

        definitions_sent: int
        """How many objects of ``__main__`` the worker has; kept by the run."""
        ahead: Ahead | None
        """What the worker must be told before anything else."""

        @property
        def hatch(self) -> Answerer | None:
            """Where the worker asks what can be answered at once; None: it is out of reach."""
            ...

        @property
        def round_trip(self) -> float:
            """Seconds from a word to the answer to it, as far as is known; 0: hardly any."""
            ...

        @property
        def stderr(self) -> str:
            """The last lines that the worker wrote to its standard error."""
            ...

        @property
        def box_size(self) -> int:
            """How much the worker has written about its threads."""
            ...

        def take_stack(self, begin: int | None = None, end: int | None = None) -> str:
            """Return what it has written about its threads."""
            ...

        def send(self, message: AnyMessage) -> None:
            """Send a message; to the dead, it is dropped."""

        def send_command(self, cmd: str, message: AnyMessage) -> None:
            """Send a message that does not wait for a job where the worker handles it at once."""

        def note_urgent(self, commands: list[str]) -> None:
            """Take note of what the worker handles during a job."""

        def tick(self) -> None:
            """Pass on outcomes that nobody has announced."""

        def last_started(self) -> Ordinal | None:
            """The ordinal that the worker has started last and not skipped."""

        def last_skipped(self) -> tuple[Ordinal, Ordinal] | None:
            """The last run of ordinals that it has skipped: it may not have said so."""

        def running(self) -> Ordinal | None:
            """Whose code it is in, where it executes several jobs at a time."""

        def recall(self, last: Ordinal, answer: Callable[[Ordinal], None]) -> None:
            """Take back what it has not started, up to `last`, the last ordinal it was handed.

            `answer` is given the last ordinal that it may still execute; not before its outcomes
            up to now were passed on, and not at all once the link is finished.
            """

        @property
        def settled(self) -> int | None:
            """Position in the worker's outcome log before which everything was passed on.

            None: it has none, or that is hard to say just now.
            """
            ...

        @property
        def is_filling(self) -> bool:
            """Whether much of its outcome log waits to be freed; ask where it is `settled`."""
            ...

        def free(self, position: int) -> None:
            """Let the worker write over outcomes before this position: they are kept elsewhere."""

        def note_kept(self) -> None:
            """Let the worker go on after a large outcome: it is kept elsewhere."""

        def finish(self) -> None:
            """Pass on everything that the worker has said, and close."""


class Cluster:
    """Where workers come from. Subclass it, with a `Crew`, to have them come from elsewhere."""

    name: str = "cluster"
    """How messages call it, as in ``cluster="processes"``."""
    capabilities: Capabilities = Capabilities()
    slots: int | None = None
    """How many workers there are where nobody says; None: as many as suit this machine."""

    def launch(self, program: Program) -> Launch:
        """Begin what takes long: a run is about to begin.

        It must be cheap to load, and raise nothing for want of resources: the first worker does.
        """
        raise NotImplementedError


class Launch:
    """A run that is about to begin.

    Args:
        open_crew: makes the crew of the run.
    """

    def __init__(self, open_crew: Callable[[Loop, Watcher, int | None], Crew]) -> None:
        self._open_crew = open_crew

    def open(self, loop: Loop, watcher: Watcher, arrays: int | None) -> Crew:
        """Make the crew: there is a run now.

        Args:
            arrays: descriptor of the memory in which the arrays among the lookups lie, if there
                are any; workers get copies of it.
        """
        return self._open_crew(loop, watcher, arrays)

    def abandon(self) -> None:
        """Let go of what was begun: there will be no run."""


class Crew:
    """The workers of one run. The contract is at the head of this file."""

    def publish(self, find: Callable[[], dict[str, Callable[[], bytes]]]) -> None:
        """Take note of the tables among the lookups, for workers that cannot open their files.

        Args:
            find: finds them: by name, what makes bytes of each, for `lookups._carrying`.
        """

    def start_worker(self, order: Start, page: str | None) -> Link:
        """Have a worker started; return its link.

        Args:
            page: where its cells and outcome log are to be a file, that holds what the worker has
                done when this process is dead; None: nobody would look for it. A cluster whose
                workers have no such memory need not make one: what was on its way is executed
                again then.

        Raises:
            OSError: it cannot be, and the text says why and what to do. Nothing is left of it.
        """
        raise NotImplementedError

    def withdraw(self, worker_id: int) -> bool:  # noqa: ARG002 - for who can
        """Take an order back that nobody has begun to carry out; say whether that was so.

        The worker's exit is then reported, with code 0.
        """
        return False

    def measure(self, worker_id: int, pid: int) -> int | None:  # noqa: ARG002 - for who asks others
        """Tell how many bytes of memory a worker holds, or None where that is not known yet."""
        return rss_of(pid)

    def dump_stack(self, worker_id: int) -> bool:
        """Have a worker's link hold what its threads are doing, soon; say whether it will."""
        raise NotImplementedError

    def interrupt(self, worker_id: int, ordinal: int, limit: float) -> None:
        """Have `JobTimeoutError` raised in this job, and in no other."""
        raise NotImplementedError

    def terminate(self, worker_id: int) -> None:
        """Ask a worker to end now."""
        raise NotImplementedError

    def kill(self, worker_id: int) -> None:
        """End a worker."""
        raise NotImplementedError

    def make_threads(self, most: int, name: str, loop: Loop) -> Callers:
        """Make who calls plain handlers of commands, and functions that make entries of lookups."""
        return Threads(most, name, loop)

    def close(self, then: Callable[[], None]) -> None:
        """Let go of everything, and of workers that are left; call `then` when that is done."""
        raise NotImplementedError


def load_worker_side(module: str) -> ModuleType:
    """Load a module of the worker's side into the conductor's process.

    By its name, as a new process is told it (`_io.launching`): a cluster knows of no worker.
    """
    name = f"okanjo_conductor.{module}"
    __import__(name)
    return sys.modules[name]


def find_cluster(cluster: Any) -> Cluster:
    """Return the cluster that was meant.

    Raises:
        ConfigurationError: there is no such cluster.
    """
    if isinstance(cluster, Cluster):
        return cluster
    if cluster == "processes":
        from okanjo_conductor.clusters.local import LocalCluster

        return LocalCluster()
    if cluster == "threads":
        from okanjo_conductor.clusters.threads import ThreadCluster

        return ThreadCluster()
    if cluster == "inline":
        from okanjo_conductor.clusters.inline import InlineCluster

        return InlineCluster()
    message = f'cluster={cluster!r}: "processes", "threads", "inline", or a Cluster'
    raise ConfigurationError(message)


def refuse_what_it_lacks(cluster: Cluster, asked: dict[str, Any]) -> None:
    """Refuse options that this cluster cannot honour.

    Args:
        asked: by name, the options that depend on capabilities; those that were not asked for are
            None or false.

    Raises:
        ConfigurationError: one of them is asked for.
    """
    for capability, names in _NEEDED_BY.items():
        if getattr(cluster.capabilities, capability):
            continue
        for name, instead in names.items():
            if asked.get(name):
                message = (
                    f'{name}: cluster="{cluster.name}" cannot do that, because '
                    f"{_WHY[capability]}. {instead}"
                )
                raise ConfigurationError(message)


_PROCESSES = 'Use cluster="processes"'
_WHY = {
    "can_kill": "a worker there cannot be ended while it executes a job",
    "can_interrupt": "no exception can be raised in a job there from outside",
    "is_isolated": "its workers live in the process of the conductor",
    "is_concurrent": "the conductor stands still while a job is executed",
}
_NEEDED_BY: dict[str, dict[str, str]] = {
    "can_kill": {
        "job_timeout": (
            f"{_PROCESSES}; or limit what the job waits for, by the timeouts of the library it "
            "uses or by asyncio.timeout() in an async worker"
        ),
        "start_timeout": f"{_PROCESSES}, or leave it out",
    },
    "can_interrupt": {"soft_timeout": f"{_PROCESSES}, or leave it out"},
    "is_isolated": {
        "max_rss": f"{_PROCESSES}, or leave it out",
        "recycle.rss": f"{_PROCESSES}, or Recycle(jobs=…) or Recycle(seconds=…)",
        "worker_env": f"{_PROCESSES}, or set os.environ before the run",
        "start_method": f"{_PROCESSES}, or leave it out",
        "worker=None": f"{_PROCESSES}, or give the worker to Conductor(worker=…)",
    },
    "is_concurrent": {
        "stuck_after": f'{_PROCESSES} or cluster="threads", or leave it out',
    },
}
