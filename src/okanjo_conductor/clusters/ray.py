"""Workers on the nodes of a Ray cluster: `RayCluster`, from the extra ``ray``.

Ray places one agent actor per node, watches it, and carries bytes; the agent starts the workers
there. What that means is told in `_agent` and `_remote`. Here is only what is Ray's:

- an agent is tied to its node, and reserves there the CPUs that its workers use;
- packets go to it by a method call each; they come back by a method that waits for them, called
  again and again (a *long poll*), two at a time, so that one waits while the other travels;
- Ray never restarts an agent, nor repeats a call: its words "restarted" and "repeated" know nothing
  of jobs that were executed already.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from okanjo_conductor._io.loops import call_soon
from okanjo_conductor.clusters._agent import Agent
from okanjo_conductor.clusters._remote import Node, RemoteCluster
from okanjo_conductor.clusters._watching import WatchingEngine
from okanjo_conductor.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor.clusters._remote import Engine, Events

_POLL = 1.0
"""Seconds that an agent waits for something to say before it says that it lives."""
_POLLS = 2
"""Calls that wait at a time."""
_ERROR = 40
"""A level of `logging`. Below, Ray tells that we connect from a thread of our own."""
_AUTH_MODE, _TOKENS = "RAY_AUTH_MODE", ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


class RayCluster(RemoteCluster):
    """Workers on the nodes of a Ray cluster, one agent per node.

    Where this process is connected with a Ray cluster already (``ray.init()``), that one is used.
    Otherwise each run connects, and disconnects at its end.

    Args:
        address: of the cluster, as for ``ray.init()``; ``"local"``: one on this machine that ends
            with the run; None: what ``RAY_ADDRESS`` says, one that is there on this machine, or
            a local one.
        nodes: use no more than so many; default: all that can be used, also those that join later.
        slots_per_node: workers per node, each of which reserves a CPU; default: its CPUs.
        resources: what an agent asks for besides, by name: ``{"GPU": 2, "fast_disk": 1}``. Nodes
            that do not have it are not used.
        runtime_env: Ray's description of the environment of agents and workers: packages, files,
            variables. Folders of this machine are brought along only where the run connects
            itself: else give them to ``ray.init()``.
        lease: seconds for which an agent works on without news of its conductor; and, where it is
            not certain that a lost agent has ended, those after which its jobs go to others.
        placement_timeout: seconds until a run without any node for its workers is given up.

    Raises:
        ConfigurationError: Ray is not installed, or a number makes no sense.
    """

    name = "ray"

    def __init__(
        self,
        address: str | None = None,
        *,
        nodes: int | None = None,
        slots_per_node: int | None = None,
        resources: Mapping[str, float] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
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
            __import__("ray")
        except ImportError as error:
            message = "RayCluster needs Ray: pip install 'okanjo-conductor[ray]'"
            raise ConfigurationError(message) from error
        self.address = address
        self.resources = dict(resources or {})
        self.runtime_env = dict(runtime_env or {})

    def make_engine(self) -> Engine:
        """Make the engine of a run."""
        return _RayEngine(self)


class _AgentActor:
    """The agent, as Ray sees it."""

    def __init__(self, setup: tuple[Any, ...], names: list[str], *blobs: bytes) -> None:
        if os.environ.get("OMP_NUM_THREADS") == str(setup[-1]):
            del os.environ["OMP_NUM_THREADS"]  # by Ray, for an actor that has all CPUs to itself
        self._agent = Agent(setup, dict(zip(names, blobs, strict=True)), lambda: os._exit(1))

    def put(self, packet: bytes) -> None:
        self._agent.put(packet)

    def poll(self) -> bytes | None:
        return self._agent.take(_POLL)


class _RayEngine(WatchingEngine):
    """Agents as actors."""

    def __init__(self, cluster: RayCluster) -> None:
        super().__init__(cluster.name, cluster.nodes)
        self._cluster = cluster
        self._agents: dict[int, _Actor] = {}
        self._blobs: dict[str, Any] = {}
        """In Ray's store, from which a node gets each of them once."""
        self._is_ours = False
        """Whether we have connected this process, and so disconnect it."""

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        self._is_ours = True
        ray.init(
            self._cluster.address,
            # Only here are folders of this machine brought along; actors inherit it.
            runtime_env=self._cluster.runtime_env or None,
            log_to_driver=False,
            logging_level=_ERROR,
        )

    def _why_not(self, error: Exception) -> str:
        return _why_not(self._cluster.address, error)

    def _find(self) -> tuple[list[Node], str]:
        import ray

        cluster = self._cluster
        found: list[Node] = []
        there: list[str] = []
        for entry in ray.nodes():  # type: ignore[no-untyped-call]
            if not entry["Alive"]:
                continue
            has = entry["Resources"]
            label = entry["NodeManagerHostname"]
            there.append(f"{label} with {_shown(has)}")
            room = cluster.slots_per_node or int(has.get("CPU", 0))
            wanted = self._asked(room)
            if room and all(has.get(name, 0) >= amount for name, amount in wanted.items()):
                found.append(Node(entry["NodeID"], room, f"{label} ({entry['NodeID'][:8]})"))
        asked = _shown(self._asked(cluster.slots_per_node or 1))
        facts = f"of each node {asked} was asked for, and there is {'; '.join(there) or 'no node'}"
        return found, facts

    def _asked(self, room: int) -> dict[str, float]:
        return {"CPU": room, **self._cluster.resources}

    def why_silent(self, node: Node) -> str:
        """Say what its agent waits for, and what of that is free."""
        asked = self._asked(node.room)
        text = f". The agent on {node.label} waits for {_shown(asked)}"
        with suppress(Exception):  # it is not public, and may be gone one day
            from ray._private.state import available_resources_per_node

            free = available_resources_per_node()[node.name]  # type: ignore[no-untyped-call]
            there = {name: free.get(name, 0) for name in asked}
            text += f", of which {_shown(there)} is free: something else holds the rest"
        return f"{text}. Give a smaller slots_per_node, or a longer placement_timeout"

    def start_agent(
        self, agent_id: int, node: str, setup: tuple[Any, ...], blobs: dict[str, bytes]
    ) -> None:
        """Have Ray start an actor on this node, and nowhere else."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for name in blobs.keys() - self._blobs.keys():
            self._blobs[name] = ray.put(blobs[name])
        asked = self._asked(self._rooms[node])
        handle = (
            ray.remote(concurrency_groups={"poll": _POLLS})(_AgentActor)  # type: ignore[call-overload]
            .options(
                num_cpus=asked.pop("CPU"),
                num_gpus=asked.pop("GPU", 0),
                resources=asked,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                runtime_env=None if self._is_ours else self._cluster.runtime_env or None,
            )
            .remote(setup, list(self._blobs), *self._blobs.values())
        )
        self._agents[agent_id] = _Actor(agent_id, handle, self._loop, self._events)

    def put(self, agent_id: int, packet: bytes) -> None:
        """Call the agent."""
        agent = self._agents.get(agent_id)
        if agent is not None:
            agent.put(packet)

    def kill_agent(self, agent_id: int) -> None:
        """Have Ray end the actor."""
        agent = self._agents.pop(agent_id, None)
        if agent is not None:
            agent.kill()

    def _let_go(self) -> None:
        for agent_id in tuple(self._agents):
            self.kill_agent(agent_id)
        self._blobs.clear()
        if self._is_ours:
            import ray

            ray.shutdown()


class _Actor:
    """One agent: its actor, and the calls that wait for what it says."""

    def __init__(self, agent_id: int, handle: Any, loop: Loop, events: Events) -> None:
        self._agent_id = agent_id
        self._handle = handle
        self._loop = loop
        self._events = events
        self._poll = handle.poll.options(concurrency_group="poll")
        self._is_over = False
        for _ in range(_POLLS):
            self._wait()

    def put(self, packet: bytes) -> None:
        """Call it with a packet; what comes of the call is seen by those that wait."""
        self._handle.put.remote(packet)

    def kill(self) -> None:
        """End it."""
        import ray

        self._is_over = True
        with suppress(Exception):  # it is gone
            ray.kill(self._handle)

    def _wait(self) -> None:
        future: Future[Any] = self._poll.remote().future()
        future.add_done_callback(lambda done: call_soon(self._loop, self._on_done, done))

    def _on_done(self, future: Future[Any]) -> None:
        error = future.exception()
        if self._is_over:
            return
        if error is not None:
            self._on_error(error)
            return
        packet = future.result()
        if packet is None:
            return  # it has ended, and has said so
        self._wait()
        self._events.on_packet(self._agent_id, packet)

    def _on_error(self, error: BaseException) -> None:
        self._is_over = True
        text = str(error).strip()
        # Ray tells apart a process that has ended and a node that is not heard of.
        is_certain = "worker process has died" in text
        lost = partial(self._events.on_lost, is_certain=is_certain)
        lost(self._agent_id, _in_short(text))


def _in_short(text: str) -> str:
    """Leave out what Ray says of its inner life; what an exception was comes last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any("Traceback" in line for line in lines) or "Error" in lines[-1]:
        return lines[-1]
    kept = [line for line in lines if "died" in line or "exit" in line.lower()]
    return " ".join(kept or lines[:1])


def _why_not(address: str | None, error: Exception) -> str:
    where = "" if address is None else f" at {address}"
    text = f"no connection with the Ray cluster{where}: {type(error).__name__}: {error}"
    return f"{text}. {_hint()}" if isinstance(error, ConnectionError) else text


def _hint() -> str:
    """Say what Ray does not: a token that is missing, or wrong, looks like a cluster that is."""
    mode = os.environ.get(_AUTH_MODE)
    given = next((name for name in _TOKENS if os.environ.get(name)), "neither")
    return (
        "If it is up, it asks for a token, as newer versions of Ray have it: set "
        f"{_AUTH_MODE}=token (it is {'not set' if mode is None else repr(mode)} here) and "
        f"{' or '.join(_TOKENS)} to the token of that cluster (set here: {given})"
    )


def _shown(resources: Mapping[str, float]) -> str:
    """Show amounts by name, without what Ray adds for itself."""
    mine = {"memory", "object_store_memory"}
    shown = [
        f"{name}: {amount:g}"
        for name, amount in resources.items()
        if name not in mine and not name.startswith("node:")
    ]
    return "{" + ", ".join(shown) + "}"
