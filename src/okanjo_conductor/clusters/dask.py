"""Workers on the nodes of a Dask cluster: `DaskCluster`, from the extra ``dask``.

One agent per Dask worker, as a Dask actor; what it does is told in `_agent` and `_remote`. Here is
only what is Dask's:

- all that is called of an actor is ``async``: such methods run on the event loop of the Dask worker
  and so never wait for each other, nor for a thread of its pool; the agent has a thread of its own;
- what travels is bytes: Dask would walk through lists and dictionaries, element by element;
- calls may overtake each other, and the numbers of the packets put them in order;
- nothing of ours calls ``sys.exit()`` in the process of a Dask worker, which would be closed, and
  its nanny with it; an agent whose lease is over ends its workers, and not that process.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from okanjo_conductor._io.loops import call_soon
from okanjo_conductor._wire import pickling
from okanjo_conductor.clusters._agent import Agent
from okanjo_conductor.clusters._remote import Node, RemoteCluster
from okanjo_conductor.clusters._watching import WatchingEngine
from okanjo_conductor.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor.clusters._remote import Engine, Events

_AHEAD = 2
"""Packets that are taken from an agent before the run has had the first of them."""
_CONNECT = 30.0
"""Seconds in which a scheduler must answer, as Dask has it."""
_PATIENCE = 2.0
"""Seconds that a call may take which tells an agent to end: one whose process is gone never hears,
and Dask does not always say so."""
_POLL = 1.0
"""Seconds that an agent waits for something to say before it says that it lives."""


class DaskCluster(RemoteCluster):
    """Workers beside the workers of a Dask cluster, one agent for each of those.

    Give Dask one worker per machine, with as many threads as there shall be workers of ours; they
    are idle meanwhile. While a run goes on, the Dask cluster must not be scaled down: Dask cannot
    know that its workers are busy.

    Args:
        client: a `distributed.Client`, which stays open; or the address of a scheduler, to which
            each run then makes a connection of its own.
        nodes: use no more than so many Dask workers; default: all, also those that join later.
        slots_per_node: workers per Dask worker; default: as many as that has threads.
        resources: only Dask workers are used that were started with these ``--resources``.
        lease: seconds for which an agent works on without news of its conductor; and, where it is
            not certain that a lost agent has ended, those after which its jobs go to others.
        placement_timeout: seconds until a run without any Dask worker is given up.

    Raises:
        ConfigurationError: Dask is not installed, or an argument makes no sense.
    """

    name = "dask"

    def __init__(
        self,
        client: Any,
        *,
        nodes: int | None = None,
        slots_per_node: int | None = None,
        resources: Mapping[str, float] | None = None,
        lease: float = 5.0,
        placement_timeout: float = 60.0,
    ) -> None:
        super().__init__(
            lease=lease,
            placement_timeout=placement_timeout,
            nodes=nodes,
            slots_per_node=slots_per_node,
        )
        try:
            __import__("distributed")
        except ImportError as error:
            message = "DaskCluster needs Dask: pip install 'okanjo-conductor[dask]'"
            raise ConfigurationError(message) from error
        if not isinstance(client, str) and not hasattr(client, "scheduler_info"):
            message = f"client={client!r}: a distributed.Client, or the address of a scheduler"
            raise ConfigurationError(message)
        self.client = client
        self.resources = dict(resources or {})

    def make_engine(self) -> Engine:
        """Make the engine of a run."""
        return _DaskEngine(self)


class _AgentActor:
    """The agent, as Dask sees it."""

    def __init__(self, setup: bytes, names: list[str], *blobs: bytes) -> None:
        self._agent = Agent(pickling.loads(setup), dict(zip(names, blobs, strict=True)))
        self._threads = _pollers()

    async def put(self, packet: bytes) -> None:
        self._agent.put(packet)

    async def poll(self) -> bytes | None:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._agent.take, _POLL)

    async def abandon(self) -> None:
        self._agent.abandon()


def _pollers() -> Any:
    """Make the thread that waits for what an agent says: not one of the pool that Dask shares."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1, "okanjo-conductor-polls")


class _DaskEngine(WatchingEngine):
    """Agents as actors; all that is called of them is called on the loop of a client."""

    def __init__(self, cluster: DaskCluster) -> None:
        super().__init__(cluster.name, cluster.nodes)
        self._cluster = cluster
        self._agents: dict[int, _Actor] = {}
        self._scattering: Any = None
        """The task that publishes arrays and tables, once for all agents."""
        self._client: Any = None
        self._is_ours = False
        """Whether the client is ours to close."""

    def _connect(self) -> None:
        given = self._cluster.client
        if isinstance(given, str):
            from distributed import Client

            # Earlier than the run gives up: so it can be said why.
            timeout = min(self._cluster._placement_timeout / 2, _CONNECT)
            self._client = Client(
                given, set_as_default=False, direct_to_workers=True, timeout=timeout
            )
            self._is_ours = True
        else:
            self._client = given

    def _why_not(self, error: Exception) -> str:
        return f"no connection with the Dask scheduler at {self._cluster.client}: {error}"

    def _find(self) -> tuple[list[Node], str]:
        cluster = self._cluster
        found: list[Node] = []
        there: list[str] = []
        for address, entry in self._client.scheduler_info(n_workers=-1)["workers"].items():
            room, has = entry["nthreads"], entry.get("resources") or {}
            there.append(f"{address} with {room} threads" + (f" and {has}" if has else ""))
            if all(has.get(name, 0) >= amount for name, amount in cluster.resources.items()):
                found.append(Node(address, cluster.slots_per_node or room, address))
        asked = f"Dask workers with {cluster.resources}" if cluster.resources else "Dask workers"
        return found, f"{asked} were asked for, and there is {'; '.join(there) or 'none'}"

    def why_silent(self, node: Node) -> str:
        """Say what keeps a Dask worker from answering."""
        return (
            f". The agent on {node.label} has not come up: that Dask worker may be paused for want "
            "of memory, or something in it holds its event loop"
        )

    def start_agent(
        self, agent_id: int, node: str, setup: tuple[Any, ...], blobs: dict[str, bytes]
    ) -> None:
        """Have an actor made in this Dask worker, and nowhere else."""
        agent = _Actor(agent_id, self._loop, self._events)
        self._agents[agent_id] = agent
        self._client.loop.add_callback(agent.start, self, node, pickling.dumps(setup, 5), blobs)

    async def make_actor(
        self, agent_id: int, node: str, setup: bytes, blobs: dict[str, bytes]
    ) -> Any:
        """Make an actor; called on the client's loop. Return its future, which keeps it alive."""
        published: list[Any] = []
        if blobs:
            if self._scattering is None:
                values = list(blobs.values())
                scatter = self._client.scatter(values, hash=True, asynchronous=True)
                self._scattering = asyncio.ensure_future(scatter)
            scattering: Any = self._scattering
            published = await scattering
        return self._client.submit(
            _AgentActor,
            setup,
            list(blobs),
            *published,
            key=f"okanjo-conductor-agent-{id(self)}-{agent_id}",
            actor=True,
            workers=[node],
            allow_other_workers=False,
            pure=False,
        )

    def call(self, function: Callable[[], None]) -> None:
        """Have a function called on the client's loop."""
        self._client.loop.add_callback(function)

    def as_current(self) -> Any:
        """Make the client the one that Dask's own code finds."""
        return self._client.as_current()

    def put(self, agent_id: int, packet: bytes) -> None:
        """Call the agent."""
        agent = self._agents.get(agent_id)
        if agent is not None:
            self._client.loop.add_callback(agent.put, packet)

    def kill_agent(self, agent_id: int) -> None:
        """Have the agent end its workers and itself; its process is Dask's."""
        agent = self._agents.pop(agent_id, None)
        if agent is not None:
            self._client.loop.add_callback(agent.abandon)

    def _let_go(self) -> None:
        agents, self._agents = list(self._agents.values()), {}
        if self._client is not None:
            with suppress(Exception):  # it has lost its scheduler
                self._client.sync(_release_all, agents)
            self._scattering = None
            if self._is_ours:
                self._client.close()


async def _release_all(agents: list[_Actor]) -> None:
    await asyncio.gather(*(agent.abandon() for agent in agents))


class _Actor:
    """One agent: its actor, and the calls that wait for what it says. On the client's loop."""

    def __init__(self, agent_id: int, loop: Loop, events: Events) -> None:
        self._agent_id = agent_id
        self._loop = loop
        self._events = events
        self._future: Any = None
        self._early: list[bytes] | None = []
        """What is to be sent once it is there; then None."""
        self._is_over = False
        self._room = asyncio.Semaphore(_AHEAD)
        self._listening: asyncio.Task[None] | None = None

    async def start(
        self, engine: _DaskEngine, node: str, setup: bytes, blobs: dict[str, bytes]
    ) -> None:
        """Make it, and wait for what it says until it has ended."""
        self._listening = asyncio.current_task()
        try:
            self._future = await engine.make_actor(self._agent_id, node, setup, blobs)
            with engine.as_current():  # a handle looks for its client there, once
                handle = await self._future
                self._poll, self._put = handle.poll, handle.put
                self._abandon = handle.abandon
            early, self._early = self._early, None
            for packet in early or ():
                await self.put(packet)
            turn = partial(engine.call, self._room.release)
            while (packet := await self._poll()) is not None:
                await self._room.acquire()
                call_soon(self._loop, self._deliver, packet, turn)
        except Exception as error:
            self._on_error(error)

    def _deliver(self, packet: bytes, then: Callable[[], None]) -> None:
        """Let the run have a packet; in its thread."""
        then()
        self._events.on_packet(self._agent_id, packet)

    async def put(self, packet: bytes) -> None:
        """Call it with a packet; what comes of the call is seen by the one that waits."""
        if self._early is not None:
            self._early.append(packet)
        elif not self._is_over:
            with suppress(Exception):
                await self._put(packet)

    async def abandon(self) -> None:
        """Have it end, if it has not, and let go of it."""
        was_over, self._is_over = self._is_over, True
        if self._early is None and not was_over:
            with suppress(Exception):  # it is gone
                await asyncio.wait_for(self._abandon(), _PATIENCE)
        if self._listening is not None:
            self._listening.cancel()
        if self._future is not None:
            self._future.release()

    def _on_error(self, error: Exception) -> None:
        if self._is_over:
            return
        self._is_over = True
        lost = partial(self._events.on_lost, is_certain=False)
        call_soon(self._loop, lost, self._agent_id, f"{type(error).__name__}: {error}")
