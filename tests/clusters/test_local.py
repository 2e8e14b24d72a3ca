"""What belongs to a slot of a `LocalCluster`: its cores, its device, its share of threads."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from okanjo_conductor import Conductor, ConductorWorker, LocalCluster, Retry
from okanjo_conductor.clusters.local import THREAD_LIMITS
from okanjo_conductor.errors import ConfigurationError
from okanjo_conductor.testing import check_cluster

NAMES = ("CUDA_VISIBLE_DEVICES", "MY_DEVICE", "MINE", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Looks(ConductorWorker):
    """Tells where it is; crashes where it is told to; waits for others at a path."""

    def process_job(self, job):
        if job == "crash" and self.job.attempt == 1:
            self.crash()
        if isinstance(job, str) and job != "crash":
            self.meet(Path(job))
        cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        return self.slot, os.getpid(), cpus, {name: os.environ.get(name) for name in NAMES}

    def meet(self, here):
        """Wait until somebody is at each place of this run."""
        here.touch()
        count = int(os.environ["MEETING"])
        while len(list(here.parent.iterdir())) < count:
            time.sleep(0.002)


CRASHING = [0, "crash", *range(40)]


def look(cluster, jobs=range(60), **options):
    """Run; return what each worker has told: slot, CPUs and environment, by process."""
    options = {"worker_limit": 2, "retry": Retry(crashes=1), "logging": False, **options}
    options["worker_env"] = {"MEETING": str(options["worker_limit"])}
    conductor = Conductor(Looks, jobs_queue=jobs, cluster=cluster, **options)
    conductor.on("error", lambda _: None)
    told = [outcome.result() for outcome in conductor.outcomes()]
    return {pid: (slot, cpus, env) for slot, pid, cpus, env in told}


def test_a_slot_keeps_its_device_when_its_worker_is_replaced():
    told = look(LocalCluster(devices=["gpu-a", "gpu-b"]), CRASHING, worker_limit=1)

    assert len(told) == 2
    assert {(slot, env["CUDA_VISIBLE_DEVICES"]) for slot, _, env in told.values()} == {(0, "gpu-a")}


def test_each_slot_has_its_own_device(tmp_path):
    jobs = [str(tmp_path / name) for name in "abc"]
    told = look(LocalCluster(devices=["gpu-a", "gpu-b"]), jobs, worker_limit=3)

    places = {(slot, env["CUDA_VISIBLE_DEVICES"]) for slot, _, env in told.values()}
    assert places == {(0, "gpu-a"), (1, "gpu-b"), (2, "gpu-a")}


def test_the_device_is_named_in_the_variable_that_was_asked_for():
    told = look(LocalCluster(devices=[3], device_variable="MY_DEVICE"))
    assert {env["MY_DEVICE"] for _, _, env in told.values()} == {"3"}
    assert {env["CUDA_VISIBLE_DEVICES"] for _, _, env in told.values()} <= {None}


needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="processes cannot be bound to CPUs here"
)


@needs_affinity
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_slot_keeps_its_cores_when_its_worker_is_replaced(start_method):
    cpu = max(os.sched_getaffinity(0))
    cluster = LocalCluster(cpu_ids=[cpu])
    told = look(cluster, CRASHING, worker_limit=1, start_method=start_method)

    assert len(told) == 2
    assert [found for _, found, _ in told.values()] == [[cpu]] * 2


@needs_affinity
def test_each_slot_has_its_own_cores(tmp_path):
    cpus = sorted(os.sched_getaffinity(0))
    told = look(LocalCluster(cpu_ids=cpus), [str(tmp_path / name) for name in "ab"])

    half = len(cpus) // 2
    expected = {0: cpus[:half], 1: cpus[half:]} if half else {0: cpus, 1: cpus}
    assert {slot: found for slot, found, _ in told.values()} == expected


@needs_affinity
def test_more_slots_than_cpus_share_them():
    cpu = min(os.sched_getaffinity(0))
    told = look(LocalCluster(cpu_ids=[cpu]), worker_limit=3)
    assert all(found == [cpu] for _, found, _ in told.values())


def test_numerical_libraries_are_told_their_share_of_threads(monkeypatch):
    for name in THREAD_LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("okanjo_conductor.clusters.local.usable_cpus", lambda: 7)
    told = look("processes", worker_limit=2)
    assert {env["OMP_NUM_THREADS"] for _, _, env in told.values()} == {"3"}

    told = look("processes", worker_limit=9, jobs=range(5))
    assert {env["OMP_NUM_THREADS"] for _, _, env in told.values()} == {"1"}


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    told = look(LocalCluster(env={"MKL_NUM_THREADS": "6", "MINE": "yes"}))
    found = {(e["OMP_NUM_THREADS"], e["MKL_NUM_THREADS"], e["MINE"]) for _, _, e in told.values()}
    assert found == {("5", "6", "yes")}


def test_another_interpreter_of_the_same_version(tmp_path):
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    conductor = Conductor(
        executable, jobs_queue=[0], cluster=LocalCluster(python=link), worker_limit=1
    )
    assert [outcome.result() for outcome in conductor.outcomes()] == [str(link)]


def executable(_job):
    return sys.executable


def test_an_interpreter_of_another_version_is_refused(tmp_path):
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 2 7 cpython\n")
    other.chmod(0o755)
    with pytest.raises(ConfigurationError, match="is Python 2 7 cpython, and the conductor runs"):
        LocalCluster(python=other)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cpu_ids": []}, "cpu_ids"),
        ({"cpu_ids": [10**6]}, "that this process may use"),
        ({"cpu_ids": [min(os.sched_getaffinity(0))] * 2}, "different numbers"),
        ({"devices": "0,1"}, "a list of names"),
        ({"env": {"A": 1}}, "are strings"),
        ({"python": "/no/such/python"}, "does not run"),
    ],
)
def test_what_makes_no_sense_is_refused(options, said):
    with pytest.raises(ConfigurationError, match=said):
        LocalCluster(**options)


def test_it_may_be_used_for_several_runs():
    cluster = LocalCluster(env={"MINE": "again"})
    for _ in range(2):
        assert {env["MINE"] for _, _, env in look(cluster).values()} == {"again"}


@pytest.mark.parametrize("check", ["hand_out", "deaths", "resize"])
def test_with_everything_it_is_a_cluster_like_others(check):
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    check_cluster(
        lambda: LocalCluster(cpu_ids=cpus, devices=["a", "b"], env={"X": "y"}), only=[check]
    )
