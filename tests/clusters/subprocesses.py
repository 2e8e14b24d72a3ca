"""The simplest engine: its nodes are names, its agents subprocesses that talk over sockets."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

from okanjo_conductor._io.loops import call_soon
from okanjo_conductor.clusters._agent import BEAT, Agent
from okanjo_conductor.clusters._remote import Node, RemoteCluster

_LENGTH = struct.Struct("<Q")


class SubprocessCluster(RemoteCluster):
    """Workers of agents in subprocesses.

    Args:
        knows_deaths: whether the engine knows that an agent which it calls lost is dead.
        doctor: changes what agents are told at first.
    """

    def __init__(
        self,
        *,
        nodes=2,
        room=4,
        lease=5.0,
        placement_timeout=30.0,
        knows_deaths=True,
        doctor=lambda setup: setup,
    ):
        super().__init__(lease=lease, placement_timeout=placement_timeout)
        self.name = "subprocesses"
        self.places = [Node(f"n{number}", room, f"node {number}") for number in range(nodes)]
        self.knows_deaths = knows_deaths
        self.doctor = doctor
        self.silent = set()
        """Nodes on which no agent comes up."""
        self.engines = []

    def make_engine(self):
        self.engines.append(SubprocessEngine(self))
        return self.engines[-1]


class SubprocessEngine:
    def __init__(self, cluster):
        self.cluster = cluster
        self.agents = {}
        self.started = {}
        """By agent, the process of each that there ever was."""
        self.killed = []
        """Agents that the run has ended before its own end."""
        self.is_deaf = False
        """Whether what it sends goes nowhere, as if the network were down."""

    def open(self, loop, events):
        self.loop, self.events = loop, events
        loop.call_soon(self.tell_nodes)

    def tell_nodes(self):
        nodes = list(self.cluster.places)
        self.events.on_nodes(nodes, f"there are {len(nodes)} nodes in this test")

    def start_agent(self, agent_id, node, setup, blobs):
        if node in self.cluster.silent:
            self.agents[agent_id] = Nobody()
            return
        agent = _Subprocess(agent_id, self)
        self.agents[agent_id] = self.started[agent_id] = agent
        agent.send(pickle.dumps((self.cluster.doctor(setup), blobs)))

    def why_silent(self, node):
        return f". {node.label} is silent"

    def put(self, agent_id, packet):
        if not self.is_deaf:
            self.agents[agent_id].send(packet)

    def beat(self, agent_id):
        self.put(agent_id, BEAT)

    def kill_agent(self, agent_id):
        self.killed.append(agent_id)
        self.started[agent_id].kill()

    def close(self, then):
        for agent in self.started.values():
            agent.send(None)
            agent.kill()
        for agent in self.started.values():
            agent.join()
        then()


class Nobody:
    def send(self, packet):
        pass


class _Subprocess:
    def __init__(self, agent_id, engine):
        self.agent_id = agent_id
        self.engine = engine
        self.outbox = queue.SimpleQueue()
        self.may_read = threading.Semaphore(2)
        self.socket, theirs = socket.socketpair()
        folder = str(Path(__file__).parent)
        code = (
            f"import sys; sys.path.insert(0, {folder!r}); import subprocesses; subprocesses.main()"
        )
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self.threads = [threading.Thread(target=run) for run in (self._write, self._read)]
        for thread in self.threads:
            thread.start()

    def send(self, packet):
        self.outbox.put(packet)

    def _write(self):
        with suppress(OSError):
            while (packet := self.outbox.get()) is not None:
                self.socket.sendall(_LENGTH.pack(len(packet)) + packet)

    def _read(self):
        events, loop = self.engine.events, self.engine.loop
        with suppress(OSError, EOFError):
            while True:
                self.may_read.acquire()
                call_soon(loop, self._deliver, _receive(self.socket))
        self.process.wait()
        lost = partial(events.on_lost, is_certain=self.engine.cluster.knows_deaths)
        call_soon(loop, lost, self.agent_id, f"exit code {self.process.returncode}")

    def _deliver(self, packet):
        self.may_read.release()
        self.engine.events.on_packet(self.agent_id, packet)

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)

    def join(self):
        self.may_read.release(1 << 20)  # the run takes no more
        for thread in self.threads:
            thread.join()
        self.socket.close()


def _receive(sock):
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    return _exactly(sock, length)


def _exactly(sock, count):
    parts = bytearray()
    while len(parts) < count:
        part = sock.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def main():
    """Be an agent."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    setup, blobs = pickle.loads(_receive(sock))
    agent = Agent(setup, blobs, lambda: os._exit(3))

    def listen():
        with suppress(OSError, EOFError):
            while True:
                agent.put(_receive(sock))
        os._exit(4)

    threading.Thread(target=listen, daemon=True).start()
    with suppress(OSError):
        while (packet := agent.take(1.0)) is not None:
            sock.sendall(_LENGTH.pack(len(packet)) + packet)
    agent.wait()
    os._exit(0)
