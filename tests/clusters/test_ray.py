"""Workers on a Ray cluster of two nodes, all on this machine."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from okanjo_conductor import Cause, Conductor, Retry, current_worker
from okanjo_conductor.errors import PlacementError
from okanjo_conductor.testing import check_cluster, cluster_checks
from okanjo_conductor.testing._cluster_jobs import CheckWorker

from . import engines
from .engines import EngineProcess

ray = pytest.importorskip("ray", reason="there is no wheel of Ray for this Python")

from okanjo_conductor.clusters import RayCluster  # noqa: E402 - only where there is Ray

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("default"),  # Ray's own
]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    home = tmp_path_factory.mktemp("ray")
    (home / "token").write_text(secrets.token_hex(20))
    process = EngineProcess("ray_nodes.py", home)
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(home / "token")
    ray._raylet.Config.initialize("")  # it was read when Ray was imported
    try:
        ray.init(process.address, log_to_driver=False, logging_level="error")
        yield process
    finally:
        ray.shutdown()
        del os.environ["RAY_AUTH_TOKEN_PATH"], os.environ["RAY_AUTH_MODE"]
        ray._raylet.Config.initialize("")
        process.close()


@pytest.fixture(autouse=True)
def nothing_is_left(nodes):
    """In place of the one for processes of this machine: Ray's own come and go."""
    yield
    nodes.check_no_workers()


@pytest.mark.parametrize("check", cluster_checks())
def test_it_does_what_runs_rely_on(nodes, check):
    check_cluster(lambda: RayCluster(nodes.address), only=[check], deadline=120)


def run_and_harm(cluster, gate, harm):
    """Do harm while a job waits at a gate, which is opened when a worker is gone."""
    jobs = [("wait_for", str(gate)), *range(1000)]
    conductor = Conductor(
        CheckWorker, jobs_queue=jobs, cluster=cluster, worker_limit=1, retry=Retry(crashes=1)
    )
    pids, outcomes = [], []
    conductor.on("worker_start", lambda _, pid: pids.append(pid))
    conductor.on("job_done", outcomes.append)
    conductor.on("worker_exit", lambda _: gate.touch())

    def do_harm():
        while not Path(f"{gate}.waiting").exists():
            pause.wait(0.01)
        harm(pids)

    pause = threading.Event()
    thread = threading.Thread(target=do_harm)
    thread.start()
    report = conductor.run()
    thread.join()
    assert (report.done, report.failed, report.workers_lost) == (1001, 0, 1)
    assert len({outcome.key for outcome in outcomes}) == 1001
    return outcomes


def charged(outcomes):
    return [o.key for o in outcomes if any(a.cause is not Cause.PREEMPTED for a in o.history)]


def test_a_worker_that_is_killed_loses_nothing(nodes, tmp_path):
    cluster = RayCluster(nodes.address)
    outcomes = run_and_harm(
        cluster, tmp_path / "gate", lambda pids: os.kill(pids[0], signal.SIGKILL)
    )
    assert charged(outcomes) == [0]


def test_an_agent_that_is_killed_loses_nothing(nodes, tmp_path):
    def harm(_):
        for pid in nodes.pids(lambda line: line.startswith("ray::_AgentActor")):
            os.kill(pid, signal.SIGKILL)

    outcomes = run_and_harm(RayCluster(nodes.address), tmp_path / "gate", harm)
    assert charged(outcomes) == []


def test_a_node_that_is_killed_loses_nothing(nodes, tmp_path):
    """Its raylet, that is; what it had started lives on, and ends with the lease."""
    number = nodes.ask("add")
    jobs = [*[("meet", str(tmp_path), n, 4) for n in range(3)], *range(1000)]
    cluster = RayCluster(nodes.address, slots_per_node=1, lease=2.0)
    conductor = Conductor(CheckWorker, jobs_queue=jobs, cluster=cluster, worker_limit=3)
    outcomes, exits = [], []

    def kill_once_all_are_at_work():
        while len(list(tmp_path.glob("*.here"))) < 3:
            pause.wait(0.01)
        nodes.ask(f"kill {number}")

    def note_exit(end):
        exits.append(end)
        (tmp_path / "3.here").touch()  # the others go on

    pause = threading.Event()
    killer = threading.Thread(target=kill_once_all_are_at_work)
    conductor.on("job_done", outcomes.append)
    conductor.on("worker_exit", note_exit)
    killer.start()
    report = conductor.run()
    killer.join()
    assert (report.done, report.failed, report.workers_lost) == (1003, 0, 1)
    assert len({outcome.key for outcome in outcomes}) == 1003
    assert charged(outcomes) == []
    assert "was lost" in exits[0].detail


def test_a_conductor_that_is_killed_leaves_no_workers_and_its_run_is_resumed(nodes, tmp_path):
    lines = engines.interrupted_run(tmp_path / "journal", "RayCluster(address, lease=1.0)")
    assert run_program(nodes, tmp_path, *lines).returncode == -signal.SIGKILL
    nodes.check_no_workers()
    done = run_program(nodes, tmp_path, *lines)
    assert (done.returncode, done.stdout) == (0, "2000 in all\n"), done.stderr


def test_what_no_node_has_is_asked_for_in_vain_and_that_is_said(nodes):
    cluster = RayCluster(nodes.address, resources={"quantum": 1}, placement_timeout=1.0)
    with pytest.raises(PlacementError, match=r"quantum: 1.* was asked for, and there is .*CPU"):
        Conductor(CheckWorker, jobs_queue=[1], cluster=cluster, logging=False).run()


def test_what_something_else_holds_is_asked_for_in_vain_and_that_is_said(nodes):
    class Holder:
        def answer(self):
            return True

    holders = [
        ray.remote(num_cpus=1)(Holder).options(scheduling_strategy="SPREAD").remote()
        for _ in range(2)
    ]
    ray.get([holder.answer.remote() for holder in holders])
    cluster = RayCluster(nodes.address, placement_timeout=1.0)
    try:
        with pytest.raises(PlacementError, match=r"waits for {CPU: 2}, of which {CPU: 1} is free"):
            Conductor(CheckWorker, jobs_queue=[1, 2], cluster=cluster, logging=False).run()
    finally:
        for holder in holders:
            ray.kill(holder)


def test_nodes_join_and_get_workers_and_leave_and_give_their_jobs_back(nodes, tmp_path):
    """Five jobs meet where there is room for four; then one more waits for a node to leave."""
    jobs = [*[("meet", str(tmp_path), n, 5) for n in range(5)], *range(200)]
    cluster = RayCluster(nodes.address)
    conductor = Conductor(CheckWorker, jobs_queue=jobs, cluster=cluster, worker_limit=5)
    outcomes, exits, added = [], [], []

    def add_once_there_is_no_room():
        while len(list(tmp_path.glob("*.here"))) < 4:
            pause.wait(0.01)
        added.append(nodes.ask("add"))

    def remove_once_all_have_met(outcome):
        outcomes.append(outcome)
        if outcome.key == 4:
            nodes.ask(f"remove {added[0]}")

    pause = threading.Event()
    adder = threading.Thread(target=add_once_there_is_no_room)
    conductor.on("job_done", remove_once_all_have_met)
    conductor.on("worker_exit", exits.append)
    adder.start()
    report = conductor.run()
    adder.join()
    assert (report.done, report.failed) == (205, 0)
    assert charged(outcomes) == []


def run_program(nodes, folder, *lines, **env):
    """Run a program that is not connected with Ray yet."""
    imports = "from okanjo_conductor.clusters import RayCluster", f"address = {nodes.address!r}"
    return engines.run_program(*imports, *lines, HOME=str(folder), **env)


def test_the_environment_of_workers_is_that_of_the_runtime_env(nodes, tmp_path):
    """Ray brings a folder with a module, and variables."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "brought_along.py").write_text("WHAT = 'a module'\n")
    environment = {"working_dir": str(folder), "env_vars": {"BROUGHT": "a variable"}}
    done = run_program(
        nodes,
        tmp_path,
        "def work(job):",
        "    import brought_along",
        "    return brought_along.WHAT, os.environ['BROUGHT'], brought_along.__file__",
        f"cluster = RayCluster(address, runtime_env={environment!r})",
        "for outcome in Conductor(work, jobs_queue=[1], cluster=cluster).outcomes():",
        "    print(*outcome.result(), sep='\\n')",
    )
    assert done.returncode == 0, done.stderr
    what, variable, path = done.stdout.splitlines()
    assert (what, variable) == ("a module", "a variable")
    assert not path.startswith(str(tmp_path))


def test_variables_of_the_runtime_env_reach_workers_over_a_connection_that_was_there(nodes):
    cluster = RayCluster(nodes.address, runtime_env={"env_vars": {"BROUGHT": "a variable"}})
    conductor = Conductor(lambda _: os.environ["BROUGHT"], jobs_queue=[1], cluster=cluster)
    assert [outcome.result() for outcome in conductor.outcomes()] == ["a variable"]


def test_what_workers_share_is_published_once_and_there_once_per_node(nodes, tmp_path, monkeypatch):
    pytest.importorskip("lmdb")
    np = pytest.importorskip("numpy")
    from okanjo_conductor.lookups.table import LookupTable

    def work(number, folder=str(tmp_path)):
        CheckWorker().meet(folder, number, 4)
        worker = current_worker()
        total = float(worker.shared("a").sum())
        return os.environ["OKANJO_CONDUCTOR_TABLES"], total, worker.lookup("t", number)

    published, put = [], ray.put
    monkeypatch.setattr(ray, "put", lambda value: published.append(len(value)) or put(value))
    with LookupTable.build({n: [n] for n in range(50)}, tmp_path / "table") as table:
        conductor = Conductor(
            work,
            jobs_queue=range(4),
            cluster=RayCluster(nodes.address),
            worker_limit=4,
            lookups={"t": table, "again": table, "a": np.ones(1000)},
        )
        found = [outcome.result() for outcome in conductor.outcomes(ordered=True)]
    assert [(total, entry) for _, total, entry in found] == [(1000.0, [n]) for n in range(4)]
    assert len({copies for copies, _, _ in found}) == 2
    assert len(published) == 2


def test_a_wrong_token_is_called_that(nodes, tmp_path):
    wrong = tmp_path / "token"
    wrong.write_text(secrets.token_hex(20))
    done = run_program(
        nodes,
        tmp_path,
        "Conductor(abs, jobs_queue=[1], cluster=RayCluster(address)).run()",
        RAY_AUTH_TOKEN_PATH=str(wrong),
    )
    last = done.stderr.splitlines()[-1]
    assert "PlacementError: no worker has a place: no connection with the Ray cluster" in last
    assert "RAY_AUTH_TOKEN_PATH to the token of that cluster" in last


def census(folder, name, *options, env=None):
    """Take a census; return its rows in order."""
    out = folder / name
    script = str(ROOT / "examples" / "census.py")
    command = [sys.executable, script, "--limit", "60", "--workers", "2", "--out", str(out)]
    done = subprocess.run(
        [*command, *options], check=False, capture_output=True, text=True, timeout=200, env=env
    )
    assert done.returncode == 0, done.stderr
    return sorted(out.read_bytes().splitlines())


def test_the_census_is_the_same_on_a_ray_of_its_own_which_ends_with_it(nodes, tmp_path):
    mark = f"OKANJO_CONDUCTOR_CENSUS_{os.getpid()}"  # others may take one at the same time
    env = {**os.environ, mark: "1", "HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
    del env["RAY_AUTH_TOKEN_PATH"], env["RAY_AUTH_MODE"]  # those of another cluster
    found = census(tmp_path, "ray", "--cluster", "ray", "--address", "local", env=env)
    assert len(found) == 60
    assert found == census(tmp_path, "inline", "--cluster", "inline")
    end = time.monotonic() + 60
    while left := [e for e in Path("/proc").glob("[0-9]*") if mark.encode() in environ_of(e)]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def environ_of(entry):
    try:
        return (entry / "environ").read_bytes()
    except OSError:
        return b""
