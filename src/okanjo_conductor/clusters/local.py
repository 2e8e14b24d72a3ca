"""Workers as processes on this machine: `LocalCluster`. What it does is in `_processes`.

This much is loaded first in every run, because the template boots while the rest is loaded.

A slot outlives its workers, and what belongs to it, cores and a device, is given to each of them.
Cores are set after a fork. A device is named in the environment, which libraries read when they are
loaded: so where slots have devices, each worker is a fresh process.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from okanjo_conductor._io.cpus import usable_cpus
from okanjo_conductor._io.launching import EarlyTemplate
from okanjo_conductor.clusters._base import Cluster, Launch
from okanjo_conductor.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor.clusters._base import Crew, Program, Watcher

THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Environment variables that say how many threads a numerical library starts: as many as there are
CPUs, where nobody says so, in each worker."""


class LocalCluster(Cluster):
    """Workers as processes on this machine; what ``cluster="processes"`` stands for.

    Libraries that start threads of their own (OpenMP, BLAS, NumExpr) are told to start no more than
    CPUs / workers in each worker, by the environment variables in `THREAD_LIMITS`; those that are
    set already, here or by the user, stay as they are.

    Args:
        python: path of the interpreter of the workers; default: that of the conductor. Its version
            must be the same, up to the second number.
        env: environment variables of the workers, besides those of the conductor; they go before
            ``worker_env``, and are set before anything is imported.
        cpu_ids: numbers of the CPUs that workers may run on. They are divided among the slots;
            where there are fewer than slots, these share them. Default: the system decides.
        devices: names or numbers of devices, such as GPUs: slot *n* has the *n*-th, and begins anew
            with the first where there are more slots. Each worker is then a fresh process.
        device_variable: the environment variable in which a worker finds its device.

    Raises:
        ConfigurationError: there is no such interpreter or CPU, or it makes no sense.
    """

    name = "processes"

    def __init__(
        self,
        *,
        python: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        cpu_ids: Iterable[int] | None = None,
        devices: Sequence[str | int] = (),
        device_variable: str = "CUDA_VISIBLE_DEVICES",
    ) -> None:
        self.python = None if python is None else _checked_python(os.fspath(python))
        self.env = {} if env is None else _checked_env(env)
        self.cpu_ids = None if cpu_ids is None else _checked_cpus(list(cpu_ids))
        self.devices = _checked_devices(devices)
        self.device_variable = device_variable

    def launch(self, program: Program) -> Launch:
        """Start the template."""
        return _Launch(self, program)

    def env_of(self, program: Program, slot: int) -> dict[str, str]:
        """Return the whole environment of the workers of a slot."""
        env = {**program.env, **self.env}
        cpus = usable_cpus() if self.cpu_ids is None else len(self.cpu_ids)
        threads = str(max(1, cpus // program.slots))
        for name in THREAD_LIMITS:
            env.setdefault(name, threads)
        if self.devices:
            env[self.device_variable] = self.devices[slot % len(self.devices)]
        return env

    def cpus_of(self, program: Program, slot: int) -> list[int] | None:
        """Return the numbers of the CPUs of a slot; None: all there are."""
        cpus, slots = self.cpu_ids, program.slots
        if cpus is None:
            return None
        if slots >= len(cpus):
            return [cpus[slot % len(cpus)]]
        place = slot % slots
        return cpus[place * len(cpus) // slots : (place + 1) * len(cpus) // slots]


class _Launch(Launch):
    """A template that boots, where workers are forked from one."""

    def __init__(self, cluster: LocalCluster, program: Program) -> None:
        self._cluster = cluster
        self._program = program
        is_script = program.boot.target.script is not None
        self._spawns = program.start_method == "spawn" or is_script or bool(cluster.devices)
        self._early: EarlyTemplate | None = None
        if not self._spawns:
            try:
                self._early = EarlyTemplate(
                    program.boot, cluster.env_of(program, 0), cluster.python
                )
            except OSError:
                self._early = None  # the first worker will say so

    def open(self, loop: Loop, watcher: Watcher, arrays: int | None) -> Crew:
        """Watch the template."""
        from okanjo_conductor.clusters._processes import ProcessCrew

        early, self._early = self._early, None
        return ProcessCrew(
            loop,
            watcher,
            self._cluster,
            self._program,
            spawns=self._spawns,
            arrays=arrays,
            early=early,
        )

    def abandon(self) -> None:
        """End the template: nobody will want it."""
        if self._early is not None:
            self._early.abandon()


def _checked_python(python: str) -> str:
    import subprocess  # only for who wants another interpreter

    code = "import sys; print(*sys.version_info[:2], sys.implementation.name)"
    try:
        done = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        message = f"python={python!r}: it does not run Python code: {error}"
        raise ConfigurationError(message) from error
    ours = f"{sys.version_info[0]} {sys.version_info[1]} {sys.implementation.name}"
    if done.stdout.strip() != ours:
        message = (
            f"python={python!r} is Python {done.stdout.strip()}, and the conductor runs on {ours}: "
            "jobs and functions travel between interpreters of the same version only"
        )
        raise ConfigurationError(message)
    return python


def _checked_env(env: Mapping[Any, Any]) -> dict[str, str]:
    for name, value in env.items():
        if not (isinstance(name, str) and isinstance(value, str)) or "=" in name or not name:
            message = f"env[{name!r}]={value!r}: names and values are strings"
            raise ConfigurationError(message)
    return dict(env)


def _checked_cpus(cpu_ids: list[int]) -> list[int]:
    if not hasattr(os, "sched_setaffinity"):
        message = "cpu_ids: this system cannot bind processes to CPUs; leave it out"
        raise ConfigurationError(message)
    usable = os.sched_getaffinity(0)
    unknown = [cpu for cpu in cpu_ids if cpu not in usable]
    if unknown or not cpu_ids or len(set(cpu_ids)) < len(cpu_ids):
        message = (
            f"cpu_ids={cpu_ids!r}: different numbers of CPUs that this process may use, of "
            f"{sorted(usable)}"
        )
        raise ConfigurationError(message)
    return cpu_ids


def _checked_devices(devices: Any) -> list[str]:
    if isinstance(devices, str):
        message = f"devices={devices!r}: a list of names or numbers, one for each slot"
        raise ConfigurationError(message)
    return [str(device) for device in devices]
