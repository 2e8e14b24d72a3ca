"""Workers on a Dask cluster of two processes, all on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from okanjo_conductor import Cause, Conductor
from okanjo_conductor.errors import PlacementError
from okanjo_conductor.testing import check_cluster, cluster_checks
from okanjo_conductor.testing._cluster_jobs import CheckWorker

from .engines import EngineProcess

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


def test_what_no_dask_worker_has_is_asked_for_in_vain_and_that_is_said(client):
    cluster = DaskCluster(client, resources={"quantum": 1}, placement_timeout=1.0)
    with pytest.raises(PlacementError, match=r"'quantum': 1.* were asked for, and there is tcp:"):
        Conductor(CheckWorker, jobs_queue=[1], cluster=cluster, logging=False).run()


def test_the_census_is_the_same(nodes, tmp_path):
    found = []
    for options in (["--cluster", "dask", "--address", nodes.address], ["--cluster", "inline"]):
        out = tmp_path / options[1]
        script = str(ROOT / "examples" / "census.py")
        command = [sys.executable, script, "--limit", "60", "--workers", "2", "--out", str(out)]
        subprocess.run([*command, *options], check=True, capture_output=True, timeout=200)
        found.append(sorted(out.read_bytes().splitlines()))
    assert len(found[0]) == 60
    assert found[0] == found[1]
