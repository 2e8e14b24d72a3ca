"""No-op jobs on the clusters: local processes, Ray, Dask, and Ray actors that are called per job.

    .venv/bin/python -m benchmarks.clusters [--jobs 300000] [--only processes,ray,actors,dask]

All in one run, on this machine: two nodes of Ray with two slots each, two Dask workers with two
threads each, four local processes. The clock runs from the first worker's start to the last
outcome, so that how long an engine takes to start a process is left out.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from okanjo_conductor import Conductor

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

NODES, SLOTS = 2, 2
_IN_FLIGHT = 8
"""Calls of one actor that wait at a time: more did not make it faster."""


def noop(job: int) -> int:
    """Do nothing."""
    return job


def rate_of(cluster: Any, jobs: int) -> float:
    """Return jobs per second."""
    conductor = Conductor(
        noop, jobs_queue=range(jobs), cluster=cluster, worker_limit=NODES * SLOTS, logging=False
    )
    began: list[float] = []
    conductor.on("worker_start", lambda *_: began.append(time.perf_counter()))
    report = conductor.run()
    if report.done != jobs:
        message = f"{report.done} of {jobs} jobs are done"
        raise RuntimeError(message)
    return jobs / (time.perf_counter() - began[0])


def processes(jobs: int) -> float:
    """Measure local processes."""
    return rate_of("processes", jobs)


def ray(jobs: int) -> float:
    """Measure workers on two nodes of Ray."""
    from okanjo_conductor.clusters import RayCluster

    with ray_nodes():
        return rate_of(RayCluster(slots_per_node=SLOTS), jobs)


def actors(jobs: int) -> float:
    """Measure Ray's own actors, called once per job: a part of the jobs, as they take long."""
    import ray

    jobs //= 20

    class Actor:
        """Does nothing, per call."""

        def call(self, job: int) -> int:
            return job

    with ray_nodes():
        remote: Any = ray.remote(num_cpus=1)(Actor)
        pool = [remote.remote() for _ in range(NODES * SLOTS)]
        ray.get([actor.call.remote(0) for actor in pool])
        began, done = time.perf_counter(), 0
        waiting: dict[Any, int] = {}
        for job in range(jobs):
            if len(waiting) >= _IN_FLIGHT * len(pool):
                ready, _ = ray.wait(list(waiting), num_returns=1)
                for ref in ready:
                    done += ray.get(ref) == waiting.pop(ref)
            waiting[pool[job % len(pool)].call.remote(job)] = job
        done += sum(ray.get(ref) == job for ref, job in waiting.items())
        if done != jobs:
            message = f"{done} of {jobs} jobs are done"
            raise RuntimeError(message)
        return jobs / (time.perf_counter() - began)


def dask(jobs: int) -> float:
    """Measure workers beside two of Dask's."""
    from distributed import Client, LocalCluster

    from okanjo_conductor.clusters import DaskCluster

    with (
        LocalCluster(
            n_workers=NODES, threads_per_worker=SLOTS, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        return rate_of(DaskCluster(client), jobs)


@contextmanager
def ray_nodes() -> Generator[None]:
    """Have two nodes of Ray on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"num_cpus": SLOTS, "object_store_memory": 80 << 20}
    cluster = Cluster(True, head_node_args={**options, "include_dashboard": False})
    try:
        for _ in range(NODES - 1):
            cluster.add_node(**options)
        ray.init(cluster.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


CONTENDERS: dict[str, Callable[[int], float]] = {
    "processes": processes,
    "ray": ray,
    "actors": actors,
    "dask": dask,
}


def main() -> None:
    """Measure, and print a line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=300_000)
    parser.add_argument("--only", default=",".join(CONTENDERS))
    args = parser.parse_args()
    for name in args.only.split(","):
        rate = CONTENDERS[name](args.jobs)
        print(json.dumps({"name": name, "jobs_per_second": round(rate)}), flush=True)


if __name__ == "__main__":
    main()
