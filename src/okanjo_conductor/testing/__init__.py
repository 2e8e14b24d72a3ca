"""The public test kit: for programs that use the package, and for the package itself.

    simulate             the whole system on a fake clock, driven by a seed
    FateWorker, perform  workers whose jobs name their fate
    kill_worker_at       kills a worker at a named moment of a real run
    fixtures             a pytest fixture that fails on leaked processes (imported by itself,
                         because it needs pytest)

The package never imports it.
"""

from okanjo_conductor.testing._simulation import (
    FATES,
    FAULTS,
    SimulatedWorld,
    SimulationReport,
    simulate,
)
from okanjo_conductor.testing._world import BrokenPromiseError

__all__ = [
    # simulation
    "simulate",
    "SimulatedWorld",
    "SimulationReport",
    "BrokenPromiseError",
    "FATES",
    "FAULTS",
]
