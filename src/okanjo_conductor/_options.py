"""What a conductor is given, checked and made ready before anything is started.

All functions here raise `ConfigurationError` for what makes no sense.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from okanjo_conductor._core.policy import Policy
from okanjo_conductor._io.bootstrap import Target
from okanjo_conductor._io.cpus import usable_cpus
from okanjo_conductor._io.memory import rss_of
from okanjo_conductor._plain import Frozen
from okanjo_conductor._types import check_concurrency
from okanjo_conductor._wire import functions
from okanjo_conductor._wire.byvalue import (
    encode_by_value,
    encode_worker,
    has_spec,
    is_importable,
)
from okanjo_conductor.errors import ConfigurationError

DEFAULT_TYPE = "conductor_worker"


class Keeping(Frozen):
    """What is kept of a run, and where."""

    path: Any
    duplicates: str
    rerun: Any
    version: str | None
    accept_changed: bool
    durability: str
    sink: Any


_MOST_WORKERS = 4
"""By default, as in the Node module."""
_WORKER_MODULES = ("okanjo_conductor._worker", "okanjo_conductor._async_worker")


def find_target(worker: Any, worker_type: str, *, travels: bool = True) -> Target:
    """Find out how other processes get at the worker, if it has to be found by any."""
    if worker is None:
        return _script_target(worker_type)
    if isinstance(worker, str):
        return _named_target(worker)
    if isinstance(worker, type):
        _check_class(worker)
    elif not callable(worker):
        message = f"worker={worker!r}: a ConductorWorker subclass, a function or 'module:name'"
        raise ConfigurationError(message)
    return _packed_target(worker) if travels else Target()


def _named_target(worker: str) -> Target:
    module, colon, name = worker.partition(":")
    if not (module and colon and name):
        message = f'worker={worker!r}: write "module:name"'
        raise ConfigurationError(message)
    if not has_spec(module):
        message = f"worker={worker!r}: no module {module!r} can be imported from sys.path"
        raise ConfigurationError(message)
    return Target(reference=(module, name))


def _packed_target(worker: Any) -> Target:
    if is_importable(worker):
        return Target(reference=(worker.__module__, worker.__qualname__))
    if (packed := functions.pack(worker, is_importable)) is not None:
        return Target(function=packed)
    try:
        return Target(pickled=encode_worker(worker))
    except Exception as error:
        message = (
            f"worker={worker!r} can neither be imported by another process nor be pickled: {error}"
        )
        raise ConfigurationError(message) from error


def _script_target(worker_type: str) -> Target:
    script = getattr(sys.modules["__main__"], "__file__", None)
    if worker_type == DEFAULT_TYPE:
        message = (
            "no worker given: pass a ConductorWorker subclass, a function or 'module:name'; or "
            "name a worker_type and start the worker in your script where is_worker() is true"
        )
        raise ConfigurationError(message)
    if script is None:
        message = f"no worker given, and there is no script to start a {worker_type!r} worker in"
        raise ConfigurationError(message)
    return Target(script=os.path.abspath(script))  # noqa: PTH100 - `pathlib` takes 3 ms to load


def _check_class(worker: type[Any]) -> None:
    bases = [base for base in worker.__mro__ if base.__module__ in _WORKER_MODULES]
    if not bases:
        message = f"worker={worker.__qualname__}: a class must be a ConductorWorker"
        raise ConfigurationError(message)
    if not any("process_job" in vars(base) for base in worker.__mro__ if base not in bases):
        message = f"worker={worker.__qualname__} has no process_job: write one"
        raise ConfigurationError(message)
    if functions.is_async(worker.process_job) and not is_async(worker):
        message = f"worker={worker.__qualname__}: process_job is async; use AsyncConductorWorker"
        raise ConfigurationError(message)


def is_async(worker: Any) -> bool | None:
    """Whether a worker executes several jobs at a time; None: only its process will tell."""
    if worker is None or isinstance(worker, str):
        return None
    if isinstance(worker, type):
        return any(base.__module__ == _WORKER_MODULES[1] for base in worker.__mro__)
    return functions.is_async(worker)


def checked_concurrency(concurrency: int | None, worker: Any) -> int | None:
    """Accept how many jobs an async worker executes at a time; None: as it likes."""
    if concurrency is None:
        return None
    check_concurrency(concurrency)
    if worker is None:
        message = "concurrency: the script makes its own worker; give it there"
        raise ConfigurationError(message)
    if is_async(worker) is False:
        message = (
            f"concurrency={concurrency}: {worker!r} executes one job at a time; only an async def "
            "function or an AsyncConductorWorker can have several in flight"
        )
        raise ConfigurationError(message)
    return concurrency


class PartKey:
    """Identifies a job by an item of it, where it is a mapping, or else by an attribute."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:  # journals compare it
        return f"the part {self._name!r}"

    def __call__(self, job: Any) -> Any:
        """Return the key of a job."""
        try:
            return job[self._name] if isinstance(job, Mapping) else getattr(job, self._name)
        except (KeyError, AttributeError):
            message = f"job_key={self._name!r}: this job has none: {job!r}"
            raise ConfigurationError(message) from None


def checked_key(job_key: Any) -> Any:
    """Accept a function of a job, or the name of a part of it, or None."""
    if job_key is None or callable(job_key):
        return job_key
    if isinstance(job_key, str):
        return PartKey(job_key)
    message = f"job_key={job_key!r}: a function of the job, or the name of a field or attribute"
    raise ConfigurationError(message)


def checked_limit(limit: int | None) -> int:
    """Count the workers there may be."""
    if limit is None:
        return min(_MOST_WORKERS, usable_cpus())
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        message = f"worker_limit={limit!r}: a whole number of workers, from 1"
        raise ConfigurationError(message)
    return limit


def checked_lookups(lookups: Any) -> dict[str, Any]:
    """Accept lookups by name."""
    if not isinstance(lookups, dict) or not all(isinstance(name, str) for name in lookups):
        message = f"lookups={lookups!r}: a dict, from name to mapping"
        raise ConfigurationError(message)
    return lookups


def encoded_options(options: Mapping[str, Any]) -> bytes:
    """Pickle the arguments for the worker class."""
    try:
        return bytes(encode_by_value(dict(options)).blob)
    except Exception as error:
        message = f"worker_options={options!r} cannot be pickled: {error}"
        raise ConfigurationError(message) from error


def checked_env(env: Mapping[Any, Any]) -> dict[str, str]:
    """Copy environment variables that a process can have."""
    for name, value in env.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            message = f"worker_env[{name!r}]={value!r}: names and values are strings"
            raise ConfigurationError(message)
        if not name or "=" in name or "\0" in name + value:
            message = f"worker_env[{name!r}]={value!r}: no process can have such a variable"
            raise ConfigurationError(message)
    return dict(env)


def check_choices(start_method: str | None, buffer: int | None) -> None:
    """Refuse values that no run could have."""
    if start_method not in (None, "fork", "spawn"):
        message = f'start_method={start_method!r}: "fork" or "spawn"'
        raise ConfigurationError(message)
    if buffer is not None and buffer < 1:
        message = f"buffer={buffer!r}: a number of outcomes, from 1"
        raise ConfigurationError(message)


def check_keeping(keeping: Keeping) -> None:
    """Refuse what no journal could do, and sinks that are none."""
    if not isinstance(keeping.path, str | os.PathLike | None):
        message = f"journal={keeping.path!r}: the path of a file"
        raise ConfigurationError(message)
    for name, choices in _KEEPING_CHOICES.items():
        if getattr(keeping, name) not in choices:
            choice = " or ".join(f'"{choice}"' for choice in choices)
            message = f"{name}={getattr(keeping, name)!r}: {choice}"
            raise ConfigurationError(message)
    if isinstance(keeping.rerun, str) and keeping.rerun != "failed":
        message = f'rerun={keeping.rerun!r}: "failed", a list of keys, or a function of an entry'
        raise ConfigurationError(message)
    if keeping.sink is not None:
        from okanjo_conductor.sinks import as_sinks  # only for those who have sinks

        as_sinks(keeping.sink)
    if keeping.path is None:
        for name in _ONLY_WITH_A_JOURNAL:
            value = getattr(keeping, name)
            if value not in (None, False, "error", "normal"):
                message = f"{name}={value!r} means something with a journal only: say journal=…"
                raise ConfigurationError(message)


_KEEPING_CHOICES = {"duplicates": ("error", "skip", "number"), "durability": ("normal", "full")}
_ONLY_WITH_A_JOURNAL = ("duplicates", "rerun", "version", "accept_changed", "durability")


def checked_seconds(name: str, seconds: Any) -> float | None:
    """Accept a time limit, or None for none."""
    if seconds is None:
        return None
    if not (_is_number(seconds) and seconds > 0):
        message = f"{name}={seconds!r}: seconds, more than 0, or None for no limit"
        raise ConfigurationError(message)
    return float(seconds)


def checked_progress(progress: Any) -> bool | float:
    """Accept whether progress is shown, or the seconds between lines of it."""
    if isinstance(progress, bool):
        return progress
    if not (_is_number(progress) and progress > 0):
        message = f"progress={progress!r}: True, False, or seconds between lines, more than 0"
        raise ConfigurationError(message)
    return float(progress)


def checked_timeout(timeout: Any) -> Any:
    """Accept a time limit for all jobs, or a function that gives each its own."""
    return timeout if callable(timeout) else checked_seconds("job_timeout", timeout)


def check_policy(policy: Policy) -> None:
    """Refuse limits and graces that no run could have."""
    for name in ("abort_grace", "timeout_grace"):
        grace = getattr(policy, name)
        if not (_is_number(grace) and grace >= 0):
            message = f"{name}={grace!r}: seconds, from 0"
            raise ConfigurationError(message)
    checked_seconds("stuck_after", policy.stuck_after)
    checked_seconds("start_timeout", policy.start_timeout)
    if policy.max_rss is not None and not (_is_number(policy.max_rss) and policy.max_rss > 0):
        message = f"max_rss={policy.max_rss!r}: bytes, more than 0, or None for no limit"
        raise ConfigurationError(message)
    if policy.measures_memory and rss_of(os.getpid()) is None:
        message = "max_rss, Recycle(rss=…): the memory of a process cannot be measured here"
        raise ConfigurationError(message)
    _check_max_failures(policy.max_failures)


def _check_max_failures(most: Any) -> None:
    if most is None:
        return
    is_count = isinstance(most, int) and not isinstance(most, bool) and most >= 0
    is_share = isinstance(most, float) and 0 < most < 1
    if not (is_count or is_share):
        message = f"max_failures={most!r}: a number of jobs, or a share of them between 0.0 and 1.0"
        raise ConfigurationError(message)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
