"""Who talks too much waits, and nobody else does; a way that takes long is measured."""

from __future__ import annotations

import pickle
import threading
from functools import partial

import pytest

from okanjo_conductor import Conductor, ConductorWorker
from okanjo_conductor._core import events as ev
from okanjo_conductor._io.loops import call_soon
from okanjo_conductor._run import Run
from okanjo_conductor.clusters._agent import BACKLOG, BEAT, Agent
from okanjo_conductor.clusters._packets import PIECE, Inbox
from okanjo_conductor.clusters._remote import _UNDER_WAY, Node, RemoteCluster, _Agent
from okanjo_conductor.testing._cluster_jobs import CheckWorker

LINE = 1000
LINES = 3 * BACKLOG // LINE
"""So many of them are more than may wait."""


class Talker(ConductorWorker):
    """Says much, in either way."""

    def process_job(self, job):
        self.request("begin")
        for number in range(LINES):
            text = f"{number}:".ljust(LINE, ".")
            if job == "print":
                print(text)
            else:
                self.notify("hear", text)
        return job


class NearbyCluster(RemoteCluster):
    """One node: an agent in this process.

    Args:
        delay: seconds that a packet needs, either way.
    """

    name = "nearby"

    def __init__(self, delay=0.0):
        super().__init__(lease=30.0, placement_timeout=30.0)
        self.delay = delay
        self.may_take = threading.Event()
        self.may_take.set()
        self.agents = {}

    def make_engine(self):
        return NearbyEngine(self)


class NearbyEngine:
    def __init__(self, cluster):
        self.cluster = cluster
        self.agents = cluster.agents
        self.threads = []

    def open(self, loop, events):
        self.loop, self.events = loop, events
        loop.call_soon(events.on_nodes, [Node("here", 2, "this node")], "there is this node")

    def start_agent(self, agent_id, node, setup, blobs):
        self.agents[agent_id] = Agent(pickle.loads(pickle.dumps(setup)), blobs)
        self.threads.append(threading.Thread(target=self.listen, args=(agent_id,)))
        self.threads[-1].start()

    def why_silent(self, node):
        return f". {node.label} is silent"

    def put(self, agent_id, packet):
        self.loop.call_later(self.cluster.delay, self.agents[agent_id].put, packet)

    def beat(self, agent_id):
        self.agents[agent_id].put(BEAT)

    def listen(self, agent_id):
        room, deliver = threading.Semaphore(2), partial(self.events.on_packet, agent_id)
        take = partial(self.agents[agent_id].take, 0.1)
        while self.cluster.may_take.wait() and (packet := take()) is not None:
            room.acquire()
            call_soon(self.loop, self.loop.call_later, self.cluster.delay, deliver, packet)
            call_soon(self.loop, room.release)

    def kill_agent(self, agent_id):
        self.agents[agent_id].abandon()

    def close(self, then):
        for agent in self.agents.values():
            agent.abandon()
            agent.wait()
        for thread in self.threads:
            thread.join()
        then()


def until(fact):
    pause = threading.Event()
    while not fact():
        pause.wait(0.005)


@pytest.mark.parametrize("how", ["print", "notify"])
def test_who_has_much_to_say_waits_until_it_is_heard(how, capsys):
    cluster = NearbyCluster()
    conductor = Conductor(Talker, jobs_queue=[how], cluster=cluster, worker_limit=1, logging=False)
    heard, waiting = [], []
    conductor.command("hear")(lambda msg: heard.append(msg.data))
    conductor.command("begin")(lambda _: cluster.may_take.clear())

    def waits(agent):
        sizes = [agent._sender.backlog(n) for n, w in agent._workers.items() if w.is_paused]
        waiting[:] = [size for size in sizes if size > BACKLOG]
        return waiting

    def watch():
        until(lambda: not cluster.may_take.is_set())
        until(partial(waits, cluster.agents[1]))
        cluster.may_take.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    report = conductor.run()
    watcher.join()
    assert report.done == 1
    texts = capsys.readouterr().out.splitlines() if how == "print" else heard
    assert [int(text.partition(":")[0]) for text in texts] == list(range(LINES))
    assert waiting[0] < BACKLOG + PIECE


class Turns:
    """A loop whose turns the test takes itself."""

    def __init__(self):
        self.due = []

    def call_soon(self, function, *args):
        self.due.append(partial(function, *args))

    def turn(self):
        due, self.due = self.due, []
        for call in due:
            call()


def test_no_more_goes_to_an_agent_than_it_takes():
    sent, loop = [], Turns()
    agent = _Agent(1, Node("n", 2, "node"), lambda _, packet: sent.append(packet))
    for number in range(10):
        agent.say(loop, ("frame", number, b"x" * PIECE), 1)
    loop.turn()
    under_way = len(sent)
    assert _UNDER_WAY <= sum(map(len, sent)) < _UNDER_WAY + 2 * PIECE
    agent.note_arrival(len(sent[0]))
    assert len(sent) == under_way + 1
    agent.close(loop)  # whatever is under way, and without the rest
    inbox = Inbox()
    assert [verb for packet in sent for verb, *_ in inbox.take(packet)][-1] == "close"
    assert len(sent) == under_way + 2


def test_large_jobs_and_values_pass_through_in_pieces():
    data = bytes(range(256)) * (5 * _UNDER_WAY // 256)
    jobs = [("size_of", data), *range(100), ("size_of", data)]
    conductor = Conductor(CheckWorker, jobs_queue=jobs, cluster=NearbyCluster(), worker_limit=2)
    values = [outcome.result() for outcome in conductor.outcomes(ordered=True)]
    assert values[0] == values[-1] == (len(data), data)
    assert values[1:-1] == [2 * n for n in range(100)]


def test_the_core_is_told_how_long_an_answer_takes(monkeypatch):
    trips = []
    post = Run.post

    def note(self, event):
        if isinstance(event, ev.WorkerReady):
            trips.append(event.round_trip)
        post(self, event)

    monkeypatch.setattr(Run, "post", note)
    for cluster in (NearbyCluster(delay=0.05), NearbyCluster(), "processes", "inline"):
        Conductor(CheckWorker, jobs_queue=[1], cluster=cluster, worker_limit=1).run()
    far, near, *local = trips
    assert 0.1 <= far < 30
    assert 0 < near < far
    assert local == [0, 0]


def test_no_bell_of_a_worker_is_passed_on(monkeypatch):
    heard = set()
    on_message = Run.on_message

    def note(self, worker_id, message):
        heard.add(type(message).__name__)
        on_message(self, worker_id, message)

    monkeypatch.setattr(Run, "on_message", note)
    conductor = Conductor(abs, jobs_queue=range(100), worker_limit=2, cluster=NearbyCluster())
    assert conductor.run().done == 100
    assert heard == {"Ready", "Stats", "Bye"}
