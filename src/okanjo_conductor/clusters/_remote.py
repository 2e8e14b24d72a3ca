"""The conductor's side of workers on other nodes, whatever engine has placed their agents there.

    RemoteCrew      one run: which worker is at home with which agent, and what waits for a place
      ├─ _Agent     one agent: what is on its way to it, and what it says, in order
      ├─ RemoteLink one worker: says what the agent has told of it
      └─ Engine     places agents on nodes, carries packets, tells which agents are lost

What travels is told in `_agent`. An engine knows nothing of workers or jobs.

*Placement.* A node has room for so many slots. There is an agent on as many nodes as there are
workers, and the workers are spread over them evenly. What finds no room waits: for a node to join,
or for a slot to be given back. Where no agent at all has come up within `placement_timeout`, the
run ends, with what was asked for and what there is; where some have, they take what they have room
for, and a warning tells the same.

*Loss.* An agent that is lost takes its workers with it, and none of their jobs is charged. Where
the engine knows that the process is dead, that is told at once; else when its lease must be over,
because until then it may go on working.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from okanjo_conductor._io import stacks
from okanjo_conductor._io.conductor_link import Output
from okanjo_conductor._io.loggers import log
from okanjo_conductor._plain import Frozen
from okanjo_conductor._wire.messages import to_segments
from okanjo_conductor.clusters._agent import BEAT, LARGE, setup_for
from okanjo_conductor.clusters._base import Cluster, Crew, Launch, Program
from okanjo_conductor.clusters._packets import PIECE, SELF, Inbox, Outbox
from okanjo_conductor.errors import ConfigurationError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._io.bootstrap import Start
    from okanjo_conductor._io.conductor_link import Ahead
    from okanjo_conductor._io.loops import Loop, Timer
    from okanjo_conductor._types import Ordinal
    from okanjo_conductor._wire.messages import AnyMessage
    from okanjo_conductor.clusters._base import Watcher

_BEATS = 6
"""Per lease: some may be late."""
_MARGIN = 0.5
"""Seconds that are waited beyond a lease: what was under way to the agent when it was lost."""
_SILENCE = 6
"""Leases after which an agent that says nothing at all is given up."""
_UNDER_WAY = 4 * PIECE
"""Bytes in large packets that may be under way to an agent before the next one is sent."""
_PINGS = 5
"""Round trips that are remembered. The shortest counts: the others tell of load, not of the way."""
_CLOSING = 5.0
"""Seconds that agents may take to end their workers and themselves."""


class Node(Frozen):
    """Where an agent can be."""

    name: str
    """By which the engine knows it."""
    room: int
    """For so many workers."""
    label: str
    """By which people know it."""


if TYPE_CHECKING:  # making protocols takes a while, in every new process

    class Events(Protocol):
        """Who is told what an engine sees. To be called in the thread of the run."""

        def on_nodes(self, nodes: list[Node], facts: str) -> None:
            """These are the nodes that agents can be on now.

            The facts are for people who find no place: what was asked for, and what there is.
            """

        def on_failed(self, detail: str) -> None:
            """The engine itself cannot be reached."""

        def on_packet(self, agent_id: int, packet: bytes) -> None:
            """An agent has said something."""

        def on_lost(self, agent_id: int, detail: str, *, is_certain: bool) -> None:
            """An agent is gone, or could not be started.

            Certain, if its process is known to have ended; otherwise it may go on working.
            """

    class Engine(Protocol):
        """What places agents, and reaches them. All but `beat` is called in the run's thread.

        It takes packets from an agent (`_agent.Agent.take`) no faster than `Events.on_packet` gets
        them, but for a few: the others wait with the agent, which lets its workers wait.
        """

        def open(self, loop: Loop, events: Events) -> None:
            """Begin to look for nodes, and to tell of them as they come and go."""

        def start_agent(
            self, agent_id: int, node: str, setup: tuple[Any, ...], blobs: dict[str, bytes]
        ) -> None:
            """Start an agent on a node. The blobs are the same for all, and may be large."""

        def why_silent(self, node: Node) -> str:
            """Say, in a sentence to be added, what an agent there may be waiting for."""
            ...

        def put(self, agent_id: int, packet: bytes) -> None:
            """Send a packet; to who is gone, it is dropped."""

        def beat(self, agent_id: int) -> None:
            """Send a beat. From any thread."""

        def kill_agent(self, agent_id: int) -> None:
            """End an agent."""

        def close(self, then: Callable[[], None]) -> None:
            """Let go of everything; call `then` in the thread of the run when that is done."""


class RemoteCluster(Cluster):
    """A cluster whose workers are on other nodes.

    Args:
        lease: seconds for which an agent works on without news of its conductor; and, where it is
            not certain that a lost agent has ended, those after which its jobs go to others.
        placement_timeout: seconds until a run without any node for its workers is given up.
        nodes: how many there are to be, at most; None: all.
        slots_per_node: how many workers a node has; None: as many as suit it.
    """

    def __init__(
        self,
        *,
        lease: float,
        placement_timeout: float,
        nodes: int | None = None,
        slots_per_node: int | None = None,
    ) -> None:
        for name, seconds in (("lease", lease), ("placement_timeout", placement_timeout)):
            if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds <= 0:
                message = f"{name}={seconds!r}: seconds, more than 0"
                raise ConfigurationError(message)
        for name, number in (("nodes", nodes), ("slots_per_node", slots_per_node)):
            is_number = isinstance(number, int) and not isinstance(number, bool)
            if number is not None and not (is_number and number > 0):
                message = f"{name}={number!r}: a whole number, from 1, or None"
                raise ConfigurationError(message)
        self.nodes, self.slots_per_node = nodes, slots_per_node
        if nodes and slots_per_node:
            self.slots = nodes * slots_per_node
        self._lease = float(lease)
        self._placement_timeout = float(placement_timeout)

    def make_engine(self) -> Engine:
        """Make the engine of a run."""
        raise NotImplementedError

    def launch(self, program: Program) -> Launch:
        """Do nothing yet: the engine is opened with the run."""

        def open_crew(loop: Loop, watcher: Watcher, arrays: int | None) -> Crew:
            return RemoteCrew(
                self.make_engine(),
                program,
                loop,
                watcher,
                arrays,
                lease=self._lease,
                placement_timeout=self._placement_timeout,
            )

        return Launch(open_crew)


class RemoteLink:
    """What an agent has told of one worker, and the way to it.

    Args:
        say: sends an entry to its agent, once it has one.
    """

    def __init__(self, worker_id: int, say: Callable[..., None]) -> None:
        self._worker_id = worker_id
        self._say = say
        self.definitions_sent = 0
        self.ahead: Ahead | None = None
        self.hatch = None
        self.stdout, self._stderr = Output("stdout"), Output("stderr")
        self._box = ""
        self._box_read = 0
        self.claimed: int | None = None
        """What it had started last, when the agent told of it last."""
        self.is_running: int | None = None
        self.skipped: tuple[Ordinal, Ordinal] | None = None
        self.rss: tuple[int, int] | None = None
        """How much memory it held, and what it had claimed then."""
        self._recalls: dict[int, Callable[[Ordinal], None]] = {}
        self._recalled = 0
        self.is_open = True
        self.home: _Agent | None = None

    @property
    def round_trip(self) -> float:
        """Seconds that its agent needs for an answer; 0: it is at home with none."""
        return 0.0 if self.home is None else self.home.round_trip

    @property
    def stderr(self) -> str:
        """The last lines that the worker wrote to its standard error."""
        return self._stderr.last_lines

    @property
    def box_size(self) -> int:
        """How much of what the worker has written about its threads is here."""
        return len(self._box)

    def take_stack(self, begin: int | None = None, end: int | None = None) -> str:
        """Return what it has written about its threads."""
        begin = self._box_read if begin is None else begin
        text = self._box[begin:end]
        self._box_read = max(self._box_read, begin + len(text))
        return stacks.tidy(text)

    def send(self, message: AnyMessage) -> None:
        """Send a message; to the dead, it is dropped."""
        self._send_ahead()
        if self.is_open:
            self._say("frame", self._worker_id, b"".join(to_segments(message, 0)))

    def send_command(self, cmd: str, message: AnyMessage) -> None:
        """Send a message that does not wait for a job where the worker handles it at once."""
        self._send_ahead()
        if self.is_open:
            self._say("command", self._worker_id, cmd, b"".join(to_segments(message, 0)))

    def _send_ahead(self) -> None:
        if self.is_open and self.ahead:
            for first in self.ahead.take():
                self._say("frame", self._worker_id, b"".join(to_segments(first, 0)))

    def note_urgent(self, commands: list[str]) -> None:
        """Nothing to do: the agent has taken note of it."""

    def tick(self) -> None:
        """Nothing to do: the agent looks."""

    def last_started(self) -> Ordinal | None:
        """The ordinal that the worker has started last, as far as the agent has told.

        What it executes for some time is told soon, and the last one of all with its exit.
        """
        return self.claimed or None  # type: ignore[return-value]  # an ordinal is an int

    def last_skipped(self) -> tuple[Ordinal, Ordinal] | None:
        """The last run of ordinals that it had skipped when it died."""
        return self.skipped

    def running(self) -> Ordinal | None:
        """Whose code it was in when it died."""
        return self.is_running  # type: ignore[return-value]  # as above

    def recall(self, last: Ordinal, answer: Callable[[Ordinal], None]) -> None:
        """Have the agent take back what the worker has not started."""
        self._recalled += 1
        self._recalls[self._recalled] = answer
        self._say("recall", self._worker_id, self._recalled, last)

    @property
    def settled(self) -> int | None:
        """None: its outcome log is on another machine, and gone with that."""
        return None

    @property
    def is_filling(self) -> bool:
        """No: it is kept for nobody."""
        return False

    def free(self, position: int) -> None:
        """Nothing to do: its outcome log is kept for nobody."""

    def note_kept(self) -> None:
        """Nothing to do, for the same reason."""

    def finish(self) -> None:
        """Believe nothing more that is said of it."""
        self.is_open = False
        self._recalls.clear()

    # For the crew

    def on_recalled(self, number: int, kept: Ordinal) -> None:
        """The agent has taken jobs back."""
        answer = self._recalls.pop(number, None)
        if answer is not None:
            answer(kept)

    def on_box(self, text: str) -> None:
        """The worker has written about its threads."""
        self._box += text

    def on_output(self, name: str, data: bytes) -> None:
        """The worker has written lines."""
        (self.stdout if name == "stdout" else self._stderr).write(data)


class _Agent:
    """One agent: what goes to it, and what is known of it."""

    def __init__(self, agent_id: int, node: Node, put: Callable[[int, bytes], None]) -> None:
        self.id = agent_id
        self.node = node
        self._put = put
        self._outbox = Outbox()
        self._is_due = False
        """Whether what was said in this turn of the loop goes out after it."""
        self._under_way = 0
        """Bytes in large packets whose arrival was not told."""
        self.packets = Inbox()
        self.is_ready = False
        self.is_late = False
        """It has not come up in the time for that; it still may."""
        self.is_lost = False
        self.has_closed = False
        self.refusal = ""
        self.heard = 0.0
        self._trips: deque[float] = deque(maxlen=_PINGS)
        """How long the last answers took."""
        self._pings = 0
        self.slots: dict[int, set[int]] = {}
        """By slot, its workers: a slot that is recycled has two, and needs no room for both."""

    def say(self, loop: Loop, entry: tuple[Any, ...], worker_id: int = SELF) -> None:
        """Send an entry, with all others of this turn of the loop."""
        self._outbox.put(worker_id, entry)
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what there is, as far as the way is free."""
        self._is_due = False
        while self._outbox and self._under_way < _UNDER_WAY:
            packet = self._outbox.take()
            if len(packet) >= LARGE:
                self._under_way += len(packet)
            if not self.is_lost:
                self._put(self.id, packet)

    def close(self, loop: Loop) -> None:
        """Have it end, at once."""
        self._outbox.clear()
        self._under_way = 0
        self.say(loop, ("close",))
        self.flush()

    def note_arrival(self, size: int) -> None:
        """A large packet has arrived: there is room for others."""
        self._under_way -= size
        self.flush()

    @property
    def round_trip(self) -> float:
        """Seconds until an answer comes, once a first one has."""
        return min(self._trips, default=0.0)

    def ping(self, loop: Loop) -> None:
        """Have it answer."""
        self.say(loop, ("ping", loop.time()))

    def note_answer(self, loop: Loop, asked: float) -> None:
        """It has answered; ask again, the first times."""
        self._trips.append(loop.time() - asked)
        self._pings += 1
        if self._pings < _PINGS:
            self.ping(loop)

    def leave(self, worker_id: int) -> None:
        """Forget a worker."""
        for slot, workers in tuple(self.slots.items()):
            workers.discard(worker_id)
            if not workers:
                del self.slots[slot]


class RemoteCrew(Crew):
    """The workers of one run, on other nodes."""

    def __init__(
        self,
        engine: Engine,
        program: Program,
        loop: Loop,
        watcher: Watcher,
        arrays: int | None,
        *,
        lease: float,
        placement_timeout: float,
    ) -> None:
        self._engine = engine
        self._loop = loop
        self._watcher = watcher
        self._setup = setup_for(_travelling(program), lease)
        self._blobs: dict[str, bytes] = {}
        """What each node gets once: arrays and tables."""
        if arrays is not None:
            self._blobs["arrays"] = _content_of(arrays)
        self._lease = lease
        self._patience = placement_timeout
        self._nodes: list[Node] = []
        self._facts = "the cluster has not answered yet"
        self._agents: dict[int, _Agent] = {}
        """Those that are not known to be gone."""
        self._started = 0
        self._homes: dict[int, _Agent] = {}
        """By worker that has a place."""
        self._links: dict[int, RemoteLink] = {}
        self._waiting: dict[int, Start] = {}
        """Workers without a place."""
        self._before: dict[int, list[tuple[Any, ...]]] = {}
        """What they shall be told once they have one."""
        self._timer: Timer | None = None
        """Until those who wait have waited long enough."""
        self._has_warned = False
        self._is_measuring = False
        self._is_closing = False
        self._close_done: Callable[[], None] | None = None
        self._stop_beating = threading.Event()
        engine.open(loop, self)
        self._watch_silence()
        self._beater = threading.Thread(
            target=self._beat, name="okanjo-conductor-beats", daemon=True
        )
        self._beater.start()

    # The run's calls

    def publish(self, find: Callable[[], dict[str, Callable[[], bytes]]]) -> None:
        """Have each node get a copy of the tables, as they are now."""
        self._blobs.update((name, pack()) for name, pack in find().items())

    def start_worker(self, order: Start, page: str | None) -> RemoteLink:  # noqa: ARG002 - no memory of theirs is here
        """Find a place for a worker, or let it wait for one."""
        worker_id = order.worker_id
        link = RemoteLink(worker_id, partial(self._say, worker_id))
        self._links[worker_id] = link
        self._waiting[worker_id] = order
        self._before[worker_id] = []
        self._loop.call_soon(self._place)
        return link

    def withdraw(self, worker_id: int) -> bool:
        """Take an order back: its agent does, or has the worker stop."""
        if worker_id in self._waiting:
            self._loop.call_soon(self._end, worker_id, 0, None, "")
        elif worker_id in self._homes:
            self._say(worker_id, "withdraw", worker_id)
        return True

    def measure(self, worker_id: int, pid: int) -> int | None:  # noqa: ARG002 - not of this machine
        """Tell what its agent has told last, if that is of the job it executes now."""
        if not self._is_measuring:
            self._is_measuring = True
            for agent in self._agents.values():
                agent.say(self._loop, ("measure",))
        link = self._links[worker_id]
        if link.rss is None or link.rss[1] != (link.claimed or 0):
            return None
        return link.rss[0]

    def dump_stack(self, worker_id: int) -> bool:
        """Have a worker's stack come, if it can write it."""
        if worker_id not in self._homes:
            return False
        self._say(worker_id, "dump_stack", worker_id)
        return True

    def interrupt(self, worker_id: int, ordinal: int, limit: float) -> None:
        """Have `JobTimeoutError` raised in a job."""
        self._say(worker_id, "interrupt", worker_id, ordinal, limit)

    def terminate(self, worker_id: int) -> None:
        """Have SIGTERM sent to a worker; end it at once if it has no place yet."""
        self._force(worker_id, "terminate")

    def kill(self, worker_id: int) -> None:
        """Have a worker's process group killed; end it at once if it has no place yet."""
        self._force(worker_id, "kill")

    def _force(self, worker_id: int, verb: str) -> None:
        if worker_id in self._waiting:
            detail = f"it had found no place: {self._facts}"
            self._loop.call_soon(self._end, worker_id, None, None, detail)
        else:
            self._say(worker_id, verb, worker_id)

    def close(self, then: Callable[[], None]) -> None:
        """Have the agents end, then the engine."""
        self._is_closing = True
        self._close_done = then
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._silence_timer.cancel()
        for agent in self._agents.values():
            agent.close(self._loop)
        self._patience_timer = self._loop.call_later(_CLOSING, self._close_engine)
        self._close_when_empty()

    def _close_when_empty(self) -> None:
        if self._is_closing and all(agent.has_closed for agent in self._agents.values()):
            self._close_engine()

    def _close_engine(self) -> None:
        then, self._close_done = self._close_done, None
        if then is None:
            return
        self._patience_timer.cancel()
        self._stop_beating.set()
        self._beater.join()
        self._engine.close(then)

    # Beats

    def _beat(self) -> None:
        """Tell the agents that the conductor lives, whatever its loop is busy with."""
        while not self._stop_beating.wait(self._lease / _BEATS):
            for agent_id in tuple(self._agents):
                with suppress(Exception):  # the engine tells the loop what is wrong
                    self._engine.beat(agent_id)

    def _watch_silence(self) -> None:
        """Ask agents for an answer; give up those that say nothing for long, not even that."""
        now = self._loop.time()
        for agent in tuple(self._agents.values()):
            if not agent.is_ready:
                continue
            if now - agent.heard <= _SILENCE * self._lease:
                agent.ping(self._loop)
                continue
            self._engine.kill_agent(agent.id)
            detail = f"it has said nothing for {now - agent.heard:.0f} s"
            self.on_lost(agent.id, detail, is_certain=False)
        self._silence_timer = self._loop.call_later(self._lease, self._watch_silence)

    # Placement

    def _say(self, worker_id: int, *entry: Any) -> None:
        agent = self._homes.get(worker_id)
        if agent is not None:
            agent.say(self._loop, entry, worker_id)
        elif worker_id in self._waiting:
            self._before[worker_id].append(entry)

    def _place(self) -> None:
        """Give places to those who wait, as far as there are any."""
        if self._is_closing or not self._waiting:
            return
        self._start_agents()
        ready = [agent for agent in self._agents.values() if agent.is_ready]
        for worker_id, order in tuple(self._waiting.items()):
            agent = self._home_for(order.slot, ready)
            if agent is not None:
                self._settle(worker_id, order, agent)
        if not self._waiting:
            self._stop_waiting()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._run_out_of_patience)

    def _start_agents(self) -> None:
        """Have an agent on as many nodes as there are workers."""
        taken = {agent.node.name for agent in self._agents.values()}
        for node in self._nodes:
            if len(self._agents) >= len(self._links):
                return
            if node.name not in taken:
                self._started += 1
                agent = _Agent(self._started, node, self._engine.put)
                self._agents[agent.id] = agent
                try:
                    setup = (*self._setup, node.room)
                    self._engine.start_agent(agent.id, node.name, setup, self._blobs)
                except Exception as error:  # whatever the engine's library raises
                    lost = partial(self.on_lost, is_certain=True)
                    self._loop.call_soon(lost, agent.id, f"{type(error).__name__}: {error}")

    def _home_for(self, slot: int, ready: list[_Agent]) -> _Agent | None:
        """Find the agent for a worker: where its slot is already, else where most room is."""
        for agent in ready:
            if slot in agent.slots:
                return agent
        share = -(-len(self._links) // max(1, len(self._agents)))
        free = [agent for agent in ready if len(agent.slots) < agent.node.room]
        fair = [agent for agent in free if len(agent.slots) < share]
        if not fair and all(agent.is_ready or agent.is_late for agent in self._agents.values()):
            fair = free  # nobody else will take it
        return min(fair, key=lambda agent: len(agent.slots) / agent.node.room, default=None)

    def _settle(self, worker_id: int, order: Start, agent: _Agent) -> None:
        del self._waiting[worker_id]
        self._homes[worker_id] = self._links[worker_id].home = agent
        agent.slots.setdefault(order.slot, set()).add(worker_id)
        agent.say(self._loop, ("start", order), worker_id)
        for entry in self._before.pop(worker_id):
            agent.say(self._loop, entry, worker_id)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run_out_of_patience(self) -> None:
        """Somebody has waited long: fail if nobody has found a place, else say so, once."""
        self._timer = None
        silent = [agent for agent in self._agents.values() if not agent.is_ready]
        facts = self._facts + "".join(map(self._engine.why_silent, (a.node for a in silent)))
        if len(silent) == len(self._agents):
            self._watcher.on_no_place(f"none was found within {self._patience:g} s: {facts}")
            return
        for agent in silent:
            agent.is_late = True  # others take the workers that it was to have
        self._place()
        if self._waiting and not self._has_warned:
            self._has_warned = True
            log().warning(
                "%d of %d workers wait for a place: %s. The run goes on with the others",
                len(self._waiting),
                len(self._links),
                facts,
            )

    def _end(self, worker_id: int, code: int | None, signal: str | None, detail: str) -> None:
        """Tell of a worker's end, once."""
        if self._links.pop(worker_id, None) is None:
            return
        self._waiting.pop(worker_id, None)
        self._before.pop(worker_id, None)
        agent = self._homes.pop(worker_id, None)
        if agent is not None:
            agent.leave(worker_id)
        self._watcher.on_worker_exited(worker_id, code, signal, detail)
        self._place()

    # What the engine sees (Events)

    def on_nodes(self, nodes: list[Node], facts: str) -> None:
        """Nodes have come or gone."""
        self._nodes, self._facts = nodes, facts
        if nodes and not self._is_closing:
            self._watcher.on_room(sum(node.room for node in nodes))
        names = {node.name for node in nodes}
        for agent in tuple(self._agents.values()):
            if agent.node.name not in names:
                self._engine.kill_agent(agent.id)  # it may be alive, and hear of it
                self.on_lost(agent.id, "its node has left the cluster", is_certain=False)
        self._place()

    def on_failed(self, detail: str) -> None:
        """The engine cannot be reached."""
        self._watcher.on_no_place(detail)

    def on_lost(self, agent_id: int, detail: str, *, is_certain: bool) -> None:
        """An agent is gone: so are its workers, at the latest when its lease is over."""
        agent = self._agents.pop(agent_id, None)
        if agent is None:
            return
        agent.is_lost = True
        if agent.has_closed or self._is_closing:
            self._close_when_empty()
            return
        if not agent.is_ready:  # nobody is at home there
            self._on_failed_agent(agent, detail)
            return
        log().warning("the agent on %s is lost: %s", agent.node.label, detail)
        hold = 0.0 if is_certain else self._lease + _MARGIN
        self._loop.call_later(hold, self._end_all_of, agent, detail)

    def _on_failed_agent(self, agent: _Agent, detail: str) -> None:
        """An agent could not be started: try another node; without any, nothing can be done."""
        why = f"the agent on {agent.node.label} could not be started: {agent.refusal or detail}"
        self._nodes = [node for node in self._nodes if node.name != agent.node.name]
        self._facts = why
        if self._agents or self._nodes:
            log().warning("%s", why)
            self._place()
        else:
            self._watcher.on_no_place(why)

    def _end_all_of(self, agent: _Agent, detail: str) -> None:
        for worker_id in [w for w, home in self._homes.items() if home is agent]:
            link = self._links[worker_id]
            # What it executed is not known to have killed it.
            link.claimed = link.is_running = None
            text = f"the agent on its node, {agent.node.label}, was lost: {detail}"
            self._end(worker_id, None, None, text)

    def on_packet(self, agent_id: int, packet: bytes) -> None:
        """An agent has said something."""
        agent = self._agents.get(agent_id)
        if agent is None:
            return  # it was lost: what it says has no effect any more
        agent.heard = self._loop.time()
        if packet == BEAT:
            return
        for verb, *args in agent.packets.take(packet):
            handle = _OF_AGENTS.get(verb)
            if handle is not None:
                handle(self, agent, *args)
            elif args[0] in self._links:
                _OF_WORKERS[verb](self, *args)

    # What agents say of themselves

    def _on_hello(self, agent: _Agent, _pid: int) -> None:
        agent.is_ready = True
        agent.ping(self._loop)
        if self._is_measuring:
            agent.say(self._loop, ("measure",))
        self._place()

    def _on_pong(self, agent: _Agent, asked: float) -> None:
        agent.note_answer(self._loop, asked)

    def _on_got(self, agent: _Agent, size: int) -> None:
        agent.note_arrival(size)

    def _on_refused(self, agent: _Agent, text: str) -> None:
        agent.refusal = text

    def _on_closed(self, agent: _Agent) -> None:
        agent.has_closed = True
        if self._is_closing:
            self._close_when_empty()
        else:
            self._engine.kill_agent(agent.id)
            self.on_lost_by_itself(agent)

    def on_lost_by_itself(self, agent: _Agent) -> None:
        """An agent has ended without having been asked to: its workers have ended as well."""
        agent.has_closed = False
        detail = "it has ended, having heard nothing from its conductor"
        self.on_lost(agent.id, detail, is_certain=True)

    # What they say of workers

    def _on_started(self, worker_id: int, pid: int) -> None:
        self._watcher.on_worker_started(worker_id, pid)

    def _on_message(self, worker_id: int, message: AnyMessage) -> None:
        if self._links[worker_id].is_open:
            self._watcher.on_message(worker_id, message)

    def _on_outcomes(self, worker_id: int, *columns: list[Any]) -> None:
        if self._links[worker_id].is_open:
            self._watcher.on_outcomes(worker_id, *columns)

    def _on_garbage(self, worker_id: int, text: str) -> None:
        self._watcher.on_garbage(worker_id, ProtocolError(text))

    def _on_recalled(self, worker_id: int, number: int, kept: Any) -> None:
        self._links[worker_id].on_recalled(number, kept)

    def _on_claim(self, worker_id: int, ordinal: int) -> None:
        self._links[worker_id].claimed = ordinal

    def _on_memory(self, worker_id: int, rss: int, ordinal: int) -> None:
        link = self._links[worker_id]
        link.claimed, link.rss = ordinal, (rss, ordinal)

    def _on_box(self, worker_id: int, text: str) -> None:
        self._links[worker_id].on_box(text)

    def _on_output(self, worker_id: int, name: str, data: bytes) -> None:
        self._links[worker_id].on_output(name, data)

    def _on_exited(
        self,
        worker_id: int,
        code: int | None,
        signal: str | None,
        detail: str,
        claimed: int | None,
        running: int | None,
        skipped: Any,
    ) -> None:
        link = self._links[worker_id]
        link.claimed, link.is_running, link.skipped = claimed, running, skipped
        self._end(worker_id, code, signal, detail)


_OF_AGENTS: dict[str, Callable[..., None]] = {
    "hello": RemoteCrew._on_hello,
    "refused": RemoteCrew._on_refused,
    "pong": RemoteCrew._on_pong,
    "got": RemoteCrew._on_got,
    "closed": RemoteCrew._on_closed,
}
_OF_WORKERS: dict[str, Callable[..., None]] = {
    "started": RemoteCrew._on_started,
    "message": RemoteCrew._on_message,
    "outcomes": RemoteCrew._on_outcomes,
    "garbage": RemoteCrew._on_garbage,
    "recalled": RemoteCrew._on_recalled,
    "claim": RemoteCrew._on_claim,
    "memory": RemoteCrew._on_memory,
    "box": RemoteCrew._on_box,
    "output": RemoteCrew._on_output,
    "exited": RemoteCrew._on_exited,
}


def _content_of(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        return file.read()


def _travelling(program: Program) -> Program:
    """Make what of a program has a meaning on another machine.

    Of the environment, what differs from the conductor's own; of the paths, those that do not hang
    on the folder in which it was started.
    """
    env = {name: text for name, text in program.env.items() if os.environ.get(name) != text}
    here = os.getcwd()  # noqa: PTH109 - as a string, like its neighbours
    paths = [path or here for path in program.boot.sys_path]
    return program._replace(env=env, boot=program.boot._replace(sys_path=paths))
