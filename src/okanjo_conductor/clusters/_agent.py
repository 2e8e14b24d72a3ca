"""The agent: it speaks for the conductor on another node, and starts the workers there.

One per node, in a process that an engine (Ray, Dask) has placed. Its workers are the ordinary ones
of `_processes`: claims, recall, blame, time limits, stacks, the dead man's pipe and replacement are
those of one machine, and only what comes of them travels.

It speaks with `_remote` in *packets* of entries, tuples of a verb and its arguments (`_packets`).
Engines need not keep packets in order. All that is said of one worker stays in order.

    to the agent                                  to the conductor
    start order         become a worker           hello facts        what this node runs
    frame id bytes      a message for it          refused text       why there can be no workers
    command id cmd bytes  one that may be urgent  started id pid
    withdraw id         it is not wanted          message id message
    recall id number last                         outcomes id …      three columns
    interrupt id ordinal limit                    recalled id number kept
    dump_stack, terminate, kill id                claim id ordinal   it executes this one for long
    measure             tell how large they are   box id text        what it wrote of its threads
    ping time           answer                    pong time
    close                                         output id name bytes
                                                  got size           a large packet has arrived
                                                  memory id bytes ordinal
                                                  garbage id text
                                                  exited id …        and what its cells say
                                                  closed

An empty packet is a *beat*: the conductor lives, and counts on this agent. Where none comes for the
time of the *lease*, the agent ends itself and its workers. So a conductor whom the engine has told
that an agent is dead need wait for that time only, and may then hand its jobs to others: what an
engine calls dead may well be alive behind a broken network.

*Flow.* What a worker has said waits here until the engine takes it, and engines take what the
conductor has time for. Where too much of one worker waits, its links are read no more until it is
less, so that worker waits, and the others do not. In the other direction the conductor has no more
than a few large packets under way.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from okanjo_conductor.__about__ import __version__
from okanjo_conductor._io import cells
from okanjo_conductor._io.conductor_link import Output
from okanjo_conductor._io.descriptors import make_nameless, write_at
from okanjo_conductor._io.light_loop import LightLoop
from okanjo_conductor._io.loops import call_soon
from okanjo_conductor._io.memory import rss_of
from okanjo_conductor._plain import Plain
from okanjo_conductor._wire import messages as msg
from okanjo_conductor._wire import pickling
from okanjo_conductor.clusters._base import load_worker_side
from okanjo_conductor.clusters._packets import PIECE, SELF, Inbox, Outbox
from okanjo_conductor.clusters._processes import ProcessCrew
from okanjo_conductor.clusters.local import LocalCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from okanjo_conductor._io.bootstrap import Start
    from okanjo_conductor._io.conductor_link import ConductorLink
    from okanjo_conductor._wire.messages import AnyMessage
    from okanjo_conductor.clusters._base import Program
    from okanjo_conductor.errors import ProtocolError

PROTOCOL = 1
"""Raised whenever what travels changes: agent and conductor of different ones do not talk."""
BEAT = b""
"""The packet that says nothing but that the conductor lives."""
LARGE = 1 << 16
"""Bytes from which a packet is counted: its arrival is told."""
BACKLOG = 4 * PIECE
"""Bytes of one worker that may wait here until they are taken, but for the last entry."""
_TICK = 0.02
"""Seconds between looks at workers, as in a run on one machine."""
_MEASURE_EVERY = 0.1
"""Seconds between looks at their memory."""
_BOX_TIME = 2.0
"""Seconds for which we look whether a worker has written its stack, having been asked to."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine sleeps, where there is such a clock: a lease does not sleep."""


def setup_for(program: Program, lease: float) -> tuple[Any, ...]:
    """Make what the agents of a program must know: plain data, which those of any version read."""
    # The worker itself is for clusters in the process of the conductor.
    pickled = pickling.dumps(program._replace(worker=None), 5)
    return PROTOCOL, __version__, tuple(sys.version_info[:2]), lease, pickled


def now() -> float:
    """Return the time of the clock that leases go by."""
    return time.clock_gettime(_CLOCK)


class _Sender:
    """What is to be said, for whoever takes it, from any thread: gathered while nobody does."""

    def __init__(self) -> None:
        self._outbox = Outbox()
        self._news = threading.Condition()
        self._last: tuple[Any, ...] | None = None
        """What is to be said when all else is."""
        self._is_closed = False

    def put(self, lane: int, entry: tuple[Any, ...]) -> None:
        """Add an entry; it may wait for `notify`."""
        with self._news:
            self._outbox.put(lane, entry)

    def notify(self) -> None:
        """Have what there is taken."""
        with self._news:
            self._news.notify()

    def close(self, *last: Any) -> None:
        """Nothing will come any more but this entry."""
        with self._news:
            self._last = last
            self._is_closed = True
            self._news.notify_all()

    def backlog(self, lane: int) -> int:
        """Tell how many bytes of a lane nobody has taken."""
        with self._news:
            return self._outbox.size_of(lane)

    def take(self, patience: float) -> bytes | None:
        """Return a packet of what there is, or a beat after that time; None: there is no more."""
        with self._news:
            self._news.wait_for(lambda: self._outbox or self._is_closed, patience)
            if not self._outbox and self._last:
                self._outbox.put(SELF, self._last)
                self._last = None
            if self._outbox:
                return self._outbox.take()
            return None if self._is_closed else BEAT


class _Relay(Output):
    """One of a worker's streams, whose lines go to the conductor."""

    def __init__(self, name: str, say: Callable[[str, bytes], None]) -> None:
        super().__init__(name)
        self._say = say

    def write(self, data: bytes) -> None:
        """Pass whole lines on."""
        self._say(self._name, data)


class _Worker(Plain):
    """What the agent knows of one worker."""

    link: ConductorLink
    pid: int | None = None
    is_parallel: bool = False
    """Whether it executes several jobs at a time."""
    claimed: int = 0
    """At the last look."""
    told: int = 0
    """The claim that the conductor was told last."""
    box_sent: int = 0
    """How much of what it wrote about its threads was sent."""
    box_until: float = 0.0
    """Until when to look whether there is more."""
    is_paused: bool = False
    """Whether it has said so much that nobody has taken that it has to wait."""


class Agent:
    """Starts and watches the workers of one node, in a thread of its own.

    Args:
        setup: what `setup_for` has made, and how many workers there is room for.
        blobs: what all workers read: ``arrays``, the memory in which they lie, and tables by name.
        on_expired: called, in the agent's thread, when the lease is over; it may end the process.
    """

    def __init__(
        self,
        setup: tuple[Any, ...],
        blobs: dict[str, bytes],
        on_expired: Callable[[], None] = lambda: None,
    ) -> None:
        self._setup = setup
        self._blobs = blobs
        self._on_expired = on_expired
        self._heard = now()
        self._inbox: deque[bytes] = deque()
        self._sender = _Sender()
        self._is_noticed = False
        """Whether what was said in this turn of the loop will be taken after it."""
        self._packets = Inbox()
        self._workers: dict[int, _Worker] = {}
        self._crew: ProcessCrew | None = None
        self._memory: int | None = None
        self._copies: dict[str, tuple[str, int]] = {}
        """Of tables: where they lie, and the descriptors that hold their locks."""
        self._measures = False
        self._measured_at = 0.0
        self._is_closing = False
        self._loop = LightLoop()
        self._thread = threading.Thread(target=self._live, name="okanjo-conductor-agent")
        self._thread.daemon = True
        self._thread.start()

    # For the engine: any thread

    def put(self, packet: bytes) -> None:
        """Take a packet of the conductor's."""
        self._heard = now()
        if packet:
            self._inbox.append(packet)
            call_soon(self._loop, self._read)

    def take(self, patience: float) -> bytes | None:
        """Wait for a packet for the conductor; empty: nothing to say. None: it has ended."""
        return self._sender.take(patience)

    def abandon(self) -> None:
        """End the workers and the agent: there is no conductor any more."""
        call_soon(self._loop, self._close)

    def wait(self) -> None:
        """Return when it has ended."""
        self._thread.join()

    # Life

    def _live(self) -> None:
        try:
            self._loop.call_soon(self._begin)
            self._loop.run_forever()
        finally:
            self._loop.close()
            self._sender.close("closed")  # it may be killed from here on

    def _begin(self) -> None:
        protocol, version, python, *rest = self._setup
        here = (PROTOCOL, __version__, tuple(sys.version_info[:2]))
        if (protocol, version, tuple(python)) != here:
            self._refuse(_skew((protocol, version, tuple(python)), here))
            return
        try:
            self._lease, program, room = rest
            self._open_crew(pickling.loads(program)._replace(slots=room))
        except Exception as error:  # else nobody would know why it says nothing
            self._refuse(f"it could not be set up: {type(error).__name__}: {error}")
            return
        self._say("hello", os.getpid())
        self._check_lease()
        self._tick()

    def _refuse(self, why: str) -> None:
        self._say("refused", why)
        self._end()

    def _open_crew(self, program: Program) -> None:
        told = self._place_blobs()
        at_home = set(program.boot.sys_path)
        more = [path for path in sys.path if path and path not in at_home]
        boot = program.boot._replace(sys_path=[*program.boot.sys_path, *more])
        spawns = program.start_method == "spawn" or boot.target.script is not None
        self._crew = ProcessCrew(
            self._loop,
            self,
            LocalCluster(),
            program._replace(boot=boot, env={**os.environ, **told, **program.env}),
            spawns=spawns,
            arrays=self._memory,
            early=None,
            outputs=self._outputs_of,
        )

    def _place_blobs(self) -> dict[str, str]:
        """Put what all workers read where they find it; return what tells them of it."""
        blobs, self._blobs = self._blobs, {}
        arrays = blobs.pop("arrays", None)
        if arrays is not None:
            self._memory = make_nameless("okanjo-conductor-arrays")
            write_at(self._memory, arrays, 0)
        if not blobs:
            return {}
        carrying: Any = load_worker_side("lookups._carrying")
        for name, data in blobs.items():
            self._copies[name] = carrying.unpack(data)
        told: dict[str, str] = carrying.told({name: at for name, (at, _) in self._copies.items()})
        return told

    def _drop_blobs(self) -> None:
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None
        while self._copies:
            _, copy = self._copies.popitem()
            load_worker_side("lookups._carrying").drop(*copy)

    def _outputs_of(self, worker_id: int) -> tuple[Output, Output]:
        def say(name: str, data: bytes) -> None:
            self._say_at_length(worker_id, "output", name, data)

        return _Relay("stdout", say), _Relay("stderr", say)

    def _check_lease(self) -> None:
        if now() - self._heard > self._lease:
            self._drop_blobs()
            self._on_expired()
            self._close()
        else:
            self._loop.call_later(self._lease / 8, self._check_lease)

    def _close(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        crew = self._crew
        if crew is None:
            self._end()
            return
        for worker_id in tuple(self._workers):
            crew.kill(worker_id)
        crew.close(self._end)

    def _end(self) -> None:
        for worker in self._workers.values():
            worker.link.finish()
        self._workers.clear()
        self._drop_blobs()
        self._loop.stop()

    # What goes out

    def _say(self, verb: str, *args: Any) -> None:
        """Say something of this agent."""
        self._put(SELF, (verb, *args))

    def _say_of(self, worker_id: int, verb: str, *args: Any) -> None:
        """Say something of a worker."""
        self._put(worker_id, (verb, worker_id, *args))

    def _say_at_length(self, worker_id: int, verb: str, *args: Any) -> None:
        """Pass on what a worker says, who may have much to say."""
        self._say_of(worker_id, verb, *args)
        worker = self._workers.get(worker_id)
        if worker is not None and not worker.is_paused:
            worker.is_paused = self._sender.backlog(worker_id) > BACKLOG
            if worker.is_paused:
                worker.link.pause()

    def _put(self, lane: int, entry: tuple[Any, ...]) -> None:
        self._sender.put(lane, entry)
        if not self._is_noticed:
            self._is_noticed = True
            self._loop.call_soon(self._notify)

    def _notify(self) -> None:
        self._is_noticed = False
        self._sender.notify()

    def _tick(self) -> None:
        if self._is_closing:
            return
        for worker_id, worker in tuple(self._workers.items()):
            if worker.is_paused and self._sender.backlog(worker_id) < BACKLOG:
                worker.is_paused = False
                worker.link.resume()
            if not worker.is_paused:
                worker.link.tick()
            self._tell_claim(worker_id, worker)
            if worker.box_until:
                self._tell_box(worker_id, worker)
                if now() > worker.box_until:
                    worker.box_until = 0.0
        if self._measures and now() - self._measured_at >= _MEASURE_EVERY:
            self._measured_at = now()
            self._tell_memory()
        self._loop.call_later(_TICK, self._tick)

    def _tell_claim(self, worker_id: int, worker: _Worker) -> None:
        """Tell what is executed for some time: what ends soon is of no interest."""
        claimed = worker.link.last_started() or 0
        lasts = worker.is_parallel or claimed == worker.claimed
        worker.claimed = claimed
        if lasts and claimed != worker.told:
            worker.told = claimed
            self._say_of(worker_id, "claim", claimed)

    def _tell_box(self, worker_id: int, worker: _Worker) -> None:
        text = cells.black_box(worker.link.cells, worker.box_sent)
        if text:
            worker.box_sent += len(text)
            self._say_of(worker_id, "box", text)

    def _tell_memory(self) -> None:
        for worker_id, worker in self._workers.items():
            rss = None if worker.pid is None else rss_of(worker.pid)
            if rss is not None:
                claimed = worker.told = worker.link.last_started() or 0
                self._say_of(worker_id, "memory", rss, claimed)

    # What comes in

    def _read(self) -> None:
        while self._inbox:
            packet = self._inbox.popleft()
            if len(packet) >= LARGE:
                self._say("got", len(packet))
            for verb, *args in self._packets.take(packet):
                if not self._is_closing:
                    _DO[verb](self, *args)

    def _start(self, order: Start) -> None:
        assert self._crew is not None  # noqa: S101 - nobody talks to an agent that refused
        try:
            link = self._crew.start_worker(order, None)
        except OSError as error:
            self._say_of(order.worker_id, "exited", None, None, str(error), None, None, None)
            return
        self._workers[order.worker_id] = _Worker(link)

    def _pass_frame(self, worker_id: int, frame: bytes) -> None:
        if worker_id in self._workers:
            self._workers[worker_id].link.send_frame([frame])

    def _pass_command(self, worker_id: int, cmd: str, frame: bytes) -> None:
        if worker_id in self._workers:
            link = self._workers[worker_id].link
            link.ring_for(cmd)
            link.send_frame([frame])

    def _withdraw(self, worker_id: int) -> None:
        worker = self._workers.get(worker_id)
        if worker is not None and not self._crew.withdraw(worker_id):  # type: ignore[union-attr]
            worker.link.send(msg.Stop())

    def _recall(self, worker_id: int, number: int, last: Any) -> None:
        def answer(kept: int) -> None:
            self._say_of(worker_id, "recalled", number, kept)

        if worker_id in self._workers:
            self._workers[worker_id].link.recall(last, answer)

    def _interrupt(self, worker_id: int, ordinal: int, limit: float) -> None:
        self._force(worker_id, "interrupt", ordinal, limit)

    def _dump_stack(self, worker_id: int) -> None:
        self._force(worker_id, "dump_stack")

    def _terminate(self, worker_id: int) -> None:
        self._force(worker_id, "terminate")

    def _kill(self, worker_id: int) -> None:
        self._force(worker_id, "kill")

    def _force(self, worker_id: int, verb: str, *args: Any) -> None:
        worker = self._workers.get(worker_id)
        if worker is not None:
            getattr(self._crew, verb)(worker_id, *args)
            worker.box_until = now() + _BOX_TIME

    def _begin_measuring(self) -> None:
        self._measures = True

    def _answer(self, time: float) -> None:
        self._say("pong", time)

    # What the workers do (Watcher)

    def on_worker_started(self, worker_id: int, pid: int) -> None:
        """A worker's process exists."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            worker.pid = pid
        self._say_of(worker_id, "started", pid)

    def on_worker_exited(
        self, worker_id: int, code: int | None, signal: str | None, detail: str
    ) -> None:
        """A worker's process is gone: tell all that it leaves."""
        worker = self._workers.get(worker_id)
        if worker is None:
            return
        link = worker.link
        found = link.last_started(), link.running(), link.last_skipped()
        self._tell_box(worker_id, worker)
        link.finish()
        del self._workers[worker_id]
        self._say_of(worker_id, "exited", code, signal, detail, *found)

    def on_no_place(self, detail: str) -> None:
        """Not told by a crew of processes: this machine is there."""
        raise AssertionError(detail)

    def on_room(self, slots: int) -> None:
        """Not told by a crew of processes: there is no more of this machine than there was."""
        raise AssertionError(slots)

    def on_message(self, worker_id: int, message: AnyMessage) -> None:
        """A worker sent a message."""
        if isinstance(message, msg.Bell):
            return  # what it has rung for was passed on
        if isinstance(message, msg.Ready):
            worker = self._workers[worker_id]
            worker.is_parallel = message.concurrency > 1
            worker.link.note_urgent(message.urgent)
        self._say_at_length(worker_id, "message", message)

    def on_outcomes(
        self, worker_id: int, ordinals: list[int], nanoseconds: list[int], results: list[Any]
    ) -> None:
        """A worker has written outcome records."""
        if tuple in map(type, results):  # a failure: perhaps at a time limit, with a stack
            self._tell_box(worker_id, self._workers[worker_id])
        self._say_of(worker_id, "outcomes", ordinals, nanoseconds, results)

    def on_garbage(self, worker_id: int, error: ProtocolError) -> None:
        """A worker's links carry garbage."""
        self._say_of(worker_id, "garbage", str(error))


def _skew(theirs: tuple[Any, ...], here: tuple[Any, ...]) -> str:
    def text(side: tuple[Any, ...]) -> str:
        return f"okanjo_conductor {side[1]} (protocol {side[0]}) on Python {_dotted(side[2])}"

    return (
        f"the conductor runs {text(theirs)}, this node {text(here)}: install the same versions on "
        "both"
    )


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


_DO: dict[str, Callable[..., None]] = {
    "start": Agent._start,
    "frame": Agent._pass_frame,
    "command": Agent._pass_command,
    "withdraw": Agent._withdraw,
    "recall": Agent._recall,
    "interrupt": Agent._interrupt,
    "dump_stack": Agent._dump_stack,
    "terminate": Agent._terminate,
    "kill": Agent._kill,
    "measure": Agent._begin_measuring,
    "ping": Agent._answer,
    "close": Agent._close,
}
