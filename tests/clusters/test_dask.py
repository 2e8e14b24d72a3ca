"""Workers on a Dask cluster of two processes, all on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from okanjo_conductor import Cause, Conductor, current_worker
from okanjo_conductor.errors import ConfigurationError, PlacementError
from okanjo_conductor.testing import check_cluster, cluster_checks
from okanjo_conductor.testing._cluster_jobs import CheckWorker

from .engines import EngineProcess, interrupted_run, run_program

distributed = pytest.importorskip("distributed", reason="Dask is not installed")

from okanjo_conductor.clusters import DaskCluster  # noqa: E402 - only where there is Dask

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("default"),  # Dask's own
]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    process = EngineProcess("dask_nodes.py", tmp_path_factory.mktemp("dask"))
    yield process
    process.close()


@pytest.fixture(scope="module")
def client(nodes):
    with distributed.Client(nodes.address, set_as_default=False) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_is_left(nodes):
    """In place of the one for processes of this machine: Dask's own come and go."""
    yield
    nodes.check_no_workers()


@pytest.mark.parametrize("check", cluster_checks())
def test_it_does_what_runs_rely_on(client, check):
    check_cluster(lambda: DaskCluster(client), only=[check], deadline=120)


def test_an_address_is_enough(nodes):
    jobs = range(100)
    conductor = Conductor(CheckWorker, jobs_queue=jobs, cluster=DaskCluster(nodes.address))
    assert conductor.run().done == 100


def test_a_dask_worker_that_is_killed_loses_nothing(client, nodes):
    cluster = DaskCluster(client, lease=1.0)
    conductor = Conductor(
        CheckWorker, jobs_queue=range(3000), cluster=cluster, logging=False, worker_limit=2
    )
    outcomes = []

    def note(outcome):
        outcomes.append(outcome)
        if len(outcomes) == 1:
            nodes.ask("kill")

    conductor.on("job_done", note)
    report = conductor.run()
    assert (report.done, report.failed, report.workers_lost) == (3000, 0, 1)
    assert len({outcome.key for outcome in outcomes}) == 3000
    assert all(a.cause is Cause.PREEMPTED for o in outcomes for a in o.history)


def test_a_conductor_that_is_killed_leaves_no_workers_and_its_run_is_resumed(nodes, tmp_path):
    lines = [
        "from okanjo_conductor.clusters import DaskCluster",
        *interrupted_run(tmp_path / "journal", f"DaskCluster({nodes.address!r}, lease=1.0)"),
    ]
    assert run_program(*lines).returncode == -signal.SIGKILL
    nodes.check_no_workers()
    done = run_program(*lines)
    assert (done.returncode, done.stdout) == (0, "2000 in all\n"), done.stderr


def test_dask_workers_join_and_get_workers_and_leave_and_give_their_jobs_back(
    client, nodes, tmp_path
):
    """Five jobs meet where there is room for four; then a Dask worker leaves."""
    jobs = [*[("meet", str(tmp_path), n, 5) for n in range(5)], *range(200)]
    cluster = DaskCluster(client, lease=1.0)
    conductor = Conductor(CheckWorker, jobs_queue=jobs, cluster=cluster, worker_limit=5)
    outcomes = []

    def add_once_there_is_no_room():
        while len(list(tmp_path.glob("*.here"))) < 4:
            pause.wait(0.01)
        nodes.ask("add")

    def remove_once_all_have_met(outcome):
        outcomes.append(outcome)
        if outcome.key == 4:
            nodes.ask("remove")

    pause = threading.Event()
    adder = threading.Thread(target=add_once_there_is_no_room)
    conductor.on("job_done", remove_once_all_have_met)
    adder.start()
    report = conductor.run()
    adder.join()
    assert (report.done, report.failed) == (205, 0)
    assert all(a.cause is Cause.PREEMPTED for o in outcomes for a in o.history)


def test_what_workers_share_is_published_once_and_there_once_per_dask_worker(
    client, tmp_path, monkeypatch
):
    pytest.importorskip("lmdb")
    np = pytest.importorskip("numpy")
    from okanjo_conductor.lookups.table import LookupTable

    def work(number, folder=str(tmp_path)):
        CheckWorker().meet(folder, number, 4)
        worker = current_worker()
        total = float(worker.shared("a").sum())
        return os.environ["OKANJO_CONDUCTOR_TABLES"], total, worker.lookup("t", number)

    published, scatter = [], client.scatter

    def count(values, **options):
        published.extend(values)
        return scatter(values, **options)

    monkeypatch.setattr(client, "scatter", count)
    with LookupTable.build({n: [n] for n in range(50)}, tmp_path / "table") as table:
        conductor = Conductor(
            work,
            jobs_queue=range(4),
            cluster=DaskCluster(client),
            worker_limit=4,
            lookups={"t": table, "again": table, "a": np.ones(1000)},
        )
        found = [outcome.result() for outcome in conductor.outcomes(ordered=True)]
    assert [(total, entry) for _, total, entry in found] == [(1000.0, [n]) for n in range(4)]
    assert len({copies for copies, _, _ in found}) == 2
    assert len(published) == 2


def test_who_is_no_scheduler_is_refused():
    with pytest.raises(ConfigurationError, match=r"client=None: a distributed\.Client, or the"):
        DaskCluster(None)


def test_a_scheduler_that_is_not_there_is_named():
    cluster = DaskCluster("tcp://127.0.0.1:9", placement_timeout=1.0)
    with pytest.raises(PlacementError, match=r"no connection with .* at tcp://127\.0\.0\.1:9"):
        Conductor(CheckWorker, jobs_queue=[1], cluster=cluster).run()


def test_what_no_dask_worker_has_is_asked_for_in_vain_and_that_is_said(client):
    cluster = DaskCluster(client, resources={"quantum": 1}, placement_timeout=1.0)
    with pytest.raises(PlacementError, match=r"'quantum': 1.* were asked for, and there is tcp:"):
        Conductor(CheckWorker, jobs_queue=[1], cluster=cluster, logging=False).run()


def test_the_census_is_the_same(nodes, tmp_path):
    """On a Dask cluster that is there, on one of its own, and without any."""
    found = []
    choices = ["dask", "--address", nodes.address], ["dask"], ["inline"]
    for number, choice in enumerate(choices):
        options = ["--cluster", *choice]
        out = tmp_path / str(number)
        script = str(ROOT / "examples" / "census.py")
        command = [sys.executable, script, "--limit", "60", "--workers", "2", "--out", str(out)]
        subprocess.run([*command, *options], check=True, capture_output=True, timeout=200)
        found.append(sorted(out.read_bytes().splitlines()))
    assert len(found[0]) == 60
    assert found[0] == found[1] == found[2]
