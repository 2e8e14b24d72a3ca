"""Workers on other nodes, with subprocesses for nodes: placement, loss, leases, versions."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from faults.moments import state_of
from okanjo_conductor import Cause, Conductor
from okanjo_conductor.clusters._remote import Node
from okanjo_conductor.errors import ConfigurationError, PlacementError
from okanjo_conductor.testing import check_cluster, cluster_checks
from okanjo_conductor.testing._cluster_jobs import CheckWorker

from .subprocesses import Nobody, SubprocessCluster, SubprocessEngine

LEASE = 2.0
"""Seconds: short, where a test waits for the end of one."""


@pytest.mark.parametrize("check", cluster_checks())
def test_it_does_what_runs_rely_on(check):
    check_cluster(SubprocessCluster, only=[check])


def conductor_of(jobs, cluster, **options):
    options.setdefault("worker_limit", 4)
    return Conductor(CheckWorker, jobs_queue=jobs, cluster=cluster, logging=False, **options)


def once(act):
    """Make a listener that acts at the first call."""
    done = []

    def listener(*args):
        if not done:
            done.append(args)
            act(*args)

    return listener


def is_alive(pid):
    return state_of(pid) not in ("", "Z", "X")


def assert_nothing_is_lost(report, outcomes, jobs):
    assert (report.done, report.failed) == (jobs, 0)
    charged = [o.key for o in outcomes if any(a.cause is not Cause.PREEMPTED for a in o.history)]
    assert charged == []


@pytest.mark.parametrize("whom", ["agent", "worker"])
def test_who_is_killed_loses_nothing(whom):
    cluster = SubprocessCluster()
    conductor = conductor_of(range(20_000), cluster)
    pids, outcomes = [], []
    conductor.on("worker_start", lambda _, pid: pids.append(pid))

    def kill(*_):
        agent = cluster.engines[0].started[1].process.pid
        os.kill(agent if whom == "agent" else pids[0], signal.SIGKILL)

    conductor.on("job_done", once(kill))
    conductor.on("job_done", outcomes.append)
    report = conductor.run()
    assert report.done == 20_000
    assert report.workers_lost == (2 if whom == "agent" else 1)
    if whom == "agent":
        assert_nothing_is_lost(report, outcomes, 20_000)
        assert len(cluster.engines[0].started) == 3  # it was replaced


def test_jobs_of_a_lost_agent_are_handed_out_when_it_cannot_be_alive_any_more(tmp_path):
    """What an engine calls dead may go on; its lease ends it before its jobs go to others."""
    cluster = SubprocessCluster(lease=LEASE, nodes=1)
    gate = tmp_path / "gate"
    conductor = conductor_of([("wait_for", str(gate))], cluster, worker_limit=1)
    pids, alive = {}, []
    conductor.on("worker_start", pids.__setitem__)

    def cut_off(*_):
        engine = cluster.engines[0]
        _until(lambda: engine.events._links[1].claimed)  # it is known to execute the job
        agent = engine.agents[1]
        call = engine.loop.call_soon_threadsafe
        engine.agents[1] = Nobody()
        call(lambda: engine.events.on_lost(1, "the network is down", is_certain=False))
        assert agent.process.poll() is None

    def note_exit(end):
        if end.code is None:
            alive.append(is_alive(pids[end.worker_id]))
            gate.touch()

    conductor.on("worker_exit", note_exit)
    watcher = threading.Thread(target=lambda: (_wait_for(f"{gate}.waiting"), cut_off()))
    watcher.start()
    outcomes = []
    conductor.on("job_done", outcomes.append)
    report = conductor.run()
    watcher.join()
    assert alive
    assert not any(alive)
    assert_nothing_is_lost(report, outcomes, 1)


def _wait_for(path):
    pause = threading.Event()
    while not Path(path).exists():
        pause.wait(0.005)


def test_an_agent_that_hears_nothing_ends_itself_and_its_jobs_are_done_by_others(tmp_path):
    cluster = SubprocessCluster(lease=LEASE, nodes=1)
    gate = tmp_path / "gate"
    conductor = conductor_of([("wait_for", str(gate))], cluster, worker_limit=1)
    ends, starts = [], []

    def note_start(*start):
        starts.append(start)
        if len(starts) == 1:
            cluster.engines[0].is_deaf = True
        else:
            gate.touch()

    def note_exit(end):
        cluster.engines[0].is_deaf = False
        ends.append(end)

    conductor.on("worker_start", note_start)
    conductor.on("worker_exit", note_exit)
    outcomes = []
    conductor.on("job_done", outcomes.append)
    assert_nothing_is_lost(conductor.run(), outcomes, 1)
    assert "was lost" in ends[0].detail


def test_another_version_is_refused_by_name():
    def doctor(setup):
        return (setup[0], "0.0.7", *setup[2:])

    with pytest.raises(PlacementError, match=r"the conductor runs okanjo_conductor 0\.0\.7"):
        conductor_of([1], SubprocessCluster(doctor=doctor)).run()


def test_where_there_are_no_nodes_the_run_ends_and_says_why():
    cluster = SubprocessCluster(nodes=0, placement_timeout=0.3)
    with pytest.raises(PlacementError, match=r"within 0\.3 s: there are 0 nodes in this test"):
        conductor_of([1], cluster).run()


def test_a_node_whose_agent_fails_is_left_out_and_another_one_is_used(caplog):
    cluster = SubprocessCluster()
    start = SubprocessEngine.start_agent

    class Engine(SubprocessEngine):
        def start_agent(self, agent_id, node, setup, blobs):
            if node == "n0":
                raise OSError("it has no room for a process")
            start(self, agent_id, node, setup, blobs)

    cluster.make_engine = lambda: Engine(cluster)
    assert conductor_of([1], cluster, worker_limit=1).run().done == 1
    assert "the agent on node 0 could not be started: OSError: it has no room" in caplog.text


def test_workers_go_where_there_is_room_when_an_agent_does_not_come_up(tmp_path, caplog):
    """Two jobs meet on the one node that answers, though it was to have half of the workers."""
    cluster = SubprocessCluster(placement_timeout=1.0)
    cluster.silent = {"n1"}
    meeting = [("meet", str(tmp_path), number, 2) for number in range(2)]
    assert conductor_of(meeting, cluster, worker_limit=2).run().done == 2
    assert not caplog.records


def test_an_agent_that_never_comes_up_is_named(caplog):
    cluster = SubprocessCluster(placement_timeout=0.3)
    cluster.silent = {"n0", "n1"}
    conductor, exits = conductor_of([1, 2], cluster), []
    conductor.on("worker_exit", exits.append)
    with pytest.raises(PlacementError, match=r"2 nodes in this test\. node 0 is silent"):
        conductor.run()
    assert [end.cause for end in exits] == [None, None]
    assert not caplog.records


def test_that_workers_wait_for_room_is_said(tmp_path, caplog):
    cluster = SubprocessCluster(nodes=1, room=1, placement_timeout=4.0)
    gate = tmp_path / "gate"
    conductor = conductor_of([("wait_for", str(gate)), 1], cluster, worker_limit=2)
    watcher = threading.Thread(target=lambda: (_until(lambda: caplog.records), gate.touch()))
    watcher.start()
    report = conductor.run()
    watcher.join()
    assert report.done == 2
    assert "1 of 2 workers wait for a place" in caplog.text
    assert "there are 1 nodes" in caplog.text


def _until(fact):
    pause = threading.Event()
    while not fact():
        pause.wait(0.005)


def test_a_node_that_joins_gets_workers_and_one_that_leaves_gives_its_jobs_back(tmp_path):
    """Three jobs meet: the third finds a worker only when a node has joined."""
    cluster = SubprocessCluster(nodes=1, room=2)
    meeting = [("meet", str(tmp_path), number, 3) for number in range(3)]
    conductor = conductor_of([*meeting, *range(2000)], cluster, worker_limit=3)
    outcomes = []
    conductor.on("job_done", outcomes.append)

    def change(nodes):
        cluster.places[:] = nodes
        engine = cluster.engines[0]
        engine.loop.call_soon(engine.tell_nodes)

    first, second = cluster.places[0], Node("n9", 2, "node 9")
    starts = []

    def join(*_):
        starts.append(1)
        if len(starts) == 2:
            change([first, second])

    conductor.on("worker_start", join)
    conductor.on("job_done", once(lambda *_: change([second])))
    assert_nothing_is_lost(conductor.run(), outcomes, 2003)
    assert cluster.engines[0].killed == [1]


def test_who_gives_no_number_of_workers_gets_all_that_there_is_room_for(tmp_path):
    """Six jobs meet: where there are nodes for four workers, then for six."""
    cluster = SubprocessCluster(nodes=2, room=2)
    jobs = [("meet", str(tmp_path), number, 6) for number in range(6)]
    conductor = conductor_of(jobs, cluster, worker_limit=None)
    limits, pids = [], []

    def note(_, pid):
        pids.append(pid)
        limits.append(conductor.worker_limit)
        if len(pids) == 4:
            cluster.places.append(Node("n9", 2, "node 9"))
            engine = cluster.engines[0]
            engine.loop.call_soon(engine.tell_nodes)

    conductor.on("worker_start", note)
    report = conductor.run()
    assert (report.done, report.workers_started) == (6, 6)
    assert limits == [4, 4, 4, 4, 6, 6]


def test_output_and_environment_are_as_with_local_workers(capsys):
    def work(job):
        import os  # in the worker

        print("job", job, "says", os.environ["SAYS"])
        return os.environ.get("HOME")

    conductor = Conductor(
        work, jobs_queue=[1], cluster=SubprocessCluster(nodes=1), worker_env={"SAYS": "hello"}
    )
    conductor.run()
    assert "job 1 says hello" in capsys.readouterr().out


def test_a_job_that_takes_too_much_memory_is_the_one_that_is_ended():
    def work(job):
        import time

        if job == 1:
            held = bytearray(300 << 20)
            time.sleep(60)
            return len(held)
        return job

    conductor = Conductor(
        work, jobs_queue=range(3), cluster=SubprocessCluster(nodes=1), max_rss=200 << 20
    )
    outcomes = {}
    conductor.on("job_failed", lambda o: outcomes.__setitem__(o.key, o))
    report = conductor.run()
    assert (report.done, report.failed) == (2, 1)
    assert outcomes[1].history[-1].cause is Cause.MEMORY


def test_times_are_checked():
    with pytest.raises(ConfigurationError, match="lease=0"):
        SubprocessCluster(lease=0)


def test_a_table_that_a_node_cannot_reach_is_brought_there(tmp_path):
    pytest.importorskip("lmdb")
    from okanjo_conductor.lookups.table import LookupTable

    path, large = tmp_path / "table", bytes(range(256)) * 8192
    before = set(Path("/dev/shm").glob("okanjo-table-*"))
    with LookupTable.build({**{n: [n] for n in range(50)}, "large": large}, path) as table:
        keys = [*range(50), "large", "missing"]
        jobs = [("look_up", "t", key) for key in keys]
        conductor = conductor_of(jobs, SubprocessCluster(), lookups={"t": table}, worker_limit=2)
        conductor.on("worker_start", once(lambda *_: path.rename(tmp_path / "elsewhere")))
        values = [outcome.result() for outcome in conductor.outcomes(ordered=True)]
    assert values == [*([n] for n in range(50)), large, "none"]
    assert set(Path("/dev/shm").glob("okanjo-table-*")) <= before


def test_arrays_are_brought_to_each_node():
    np = pytest.importorskip("numpy")
    arrays = {"a": np.arange(10_000.0), "b": np.ones((3, 4), order="F")}
    jobs = [("sum_of", name) for name in "ab" * 20]
    conductor = conductor_of(jobs, SubprocessCluster(), lookups=arrays)
    found = {outcome.result() for outcome in conductor.outcomes()}
    assert found == {(49_995_000.0, False), (12.0, False)}
