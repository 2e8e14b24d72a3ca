"""The public test kit: for programs that use the package, and for the package itself.

    simulate             the whole system on a fake clock, driven by a seed
    simulate_cluster     thousands of workers around the real core: what it costs, how long it takes
    FateWorker           a worker whose jobs name their fate
    meet_fate            the same as a function
    check_cluster        the conformance suite for clusters, and
    cluster_checks       the names of its checks
    kill_worker_at       kills a worker at a named moment of a real run
    fixtures             a pytest fixture that fails on leaked processes (imported by itself,
                         because it needs pytest)

The package never imports it.
"""

from okanjo_conductor.testing._clusters import ClusterCheckError, check_cluster, cluster_checks
from okanjo_conductor.testing._kills import Kill, kill_worker_at
from okanjo_conductor.testing._promises import BrokenPromiseError
from okanjo_conductor.testing._scale import ScaleReport, ShellCosts, simulate_cluster
from okanjo_conductor.testing._simulation import SimulatedWorld, SimulationReport, simulate
from okanjo_conductor.testing.jobs import FateError, FateWorker, meet_fate

__all__ = [
    # the real thing
    "FateWorker",
    "FateError",
    "meet_fate",
    "kill_worker_at",
    "Kill",
    "check_cluster",
    "cluster_checks",
    "ClusterCheckError",
    # the simulation
    "simulate",
    "SimulatedWorld",
    "SimulationReport",
    "BrokenPromiseError",
    # the same at scale
    "simulate_cluster",
    "ScaleReport",
    "ShellCosts",
]
