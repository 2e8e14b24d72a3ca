"""How each pool does the same thing, the way its manual says, with two workers.

A contender is opened with the function that its workers are to execute. What it imports, it imports
when it is opened, so that none carries the weight of another. To add a rival, write a class and add
a line to `CONTENDERS`; if it is to appear among the start-up times, also one to `SCRIPTS`.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from itertools import islice
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

WORKERS = 2
Function = Callable[[Any], Any]


class Contender:
    """A pool that is open."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""

    def stream(self, jobs: Iterable[Any], count: int) -> Iterator[Any]:
        """Yield the values of so many jobs as they come."""
        raise NotImplementedError

    def call(self, job: Any) -> Any:
        """Have one job done and wait for its value."""
        raise NotImplementedError

    def latencies(self, count: int, pause: float) -> list[float]:
        """Measure the seconds that each of so many jobs takes, with a pause before each."""
        times = []
        for number in range(count):
            time.sleep(pause)
            began = time.perf_counter()
            self.call(number)
            times.append(time.perf_counter() - began)
        return times

    def seconds(self, jobs: Iterable[Any], count: int) -> float:
        """Measure the time from handing over the jobs to having their last value."""
        began = time.perf_counter()
        received = sum(1 for _ in self.stream(jobs, count))
        elapsed = time.perf_counter() - began
        if received != count:
            message = f"{count} jobs, but {received} values"
            raise RuntimeError(message)
        return elapsed


class Ours(Contender):
    """Conductor, iterated over with `for outcome in conductor.outcomes()`; asyncio's own loop.

    One run is kept open by a source that waits for more; lists and ranges are appended to its
    queue, anything else is read through the source.
    """

    has_uvloop = False

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        _choose_loop(has_uvloop=self.has_uvloop)
        from okanjo_conductor import Conductor

        self._sources: SimpleQueue[Iterable[Any] | None] = SimpleQueue()
        self._conductor = Conductor(
            function, jobs_queue=self._read(), worker_limit=WORKERS, logging=False
        )
        self._outcomes = iter(self._conductor.outcomes())

    def _read(self) -> Iterator[Any]:
        while (jobs := self._sources.get()) is not None:
            yield from jobs

    def close(self) -> None:
        self._sources.put(None)
        for _ in self._outcomes:
            pass

    def stream(self, jobs: Iterable[Any], count: int) -> Iterator[Any]:
        if isinstance(jobs, Collection):
            self._conductor.jobs_queue.extend(jobs)
        else:
            self._sources.put(jobs)
        for outcome in islice(self._outcomes, count):
            if outcome.is_done:
                yield outcome.value

    def call(self, job: Any) -> Any:
        self._conductor.add_job(job)
        return next(self._outcomes).result()


class OursUvloop(Ours):
    """The same with the extra `uvloop`."""

    has_uvloop = True


class OursRun(Contender):
    """Conductor, run with `run()` and no listener: outcomes are counted, and handed to nobody.

    The clock starts when jobs are appended for warm workers, and stops when `run()` returns, which
    includes the end of the workers.
    """

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        _choose_loop(has_uvloop=False)

    def seconds(self, jobs: Iterable[Any], count: int) -> float:
        from okanjo_conductor import Conductor

        is_warm = threading.Event()
        began = 0.0

        def source() -> Iterator[Any]:
            nonlocal began
            yield from islice(jobs, 2 * WORKERS)
            is_warm.wait()
            began = time.perf_counter()
            conductor.jobs_queue.extend(jobs)

        def note(_: Any) -> None:
            done.append(None)
            if len(done) == 2 * WORKERS:
                conductor.remove_listener("job_done", note)
                is_warm.set()

        done: list[None] = []
        conductor = Conductor(
            self.function, jobs_queue=source(), worker_limit=WORKERS, logging=False
        )
        conductor.on("job_done", note)
        report = conductor.run()
        elapsed = time.perf_counter() - began
        if report.done != count + 2 * WORKERS:
            raise RuntimeError(str(report))
        return elapsed


class OursAsync(Contender):
    """Conductor, iterated over with `async for` in the loop that adds the jobs."""

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        _choose_loop(has_uvloop=False)

    def latencies(self, count: int, pause: float) -> list[float]:
        import asyncio

        return asyncio.run(self._latencies(count, pause))

    async def _latencies(self, count: int, pause: float) -> list[float]:
        import asyncio

        from okanjo_conductor import Conductor

        over = asyncio.Event()

        async def source() -> AsyncIterator[Any]:
            yield 0
            await over.wait()

        conductor = Conductor(
            self.function, jobs_queue=source(), worker_limit=WORKERS, logging=False
        )
        outcomes = aiter(conductor.outcomes())
        await anext(outcomes)
        times = []
        for number in range(count):
            await asyncio.sleep(pause)
            began = time.perf_counter()
            conductor.add_job(number)
            await anext(outcomes)
            times.append(time.perf_counter() - began)
        over.set()
        async for _ in outcomes:
            pass
        return times


class Pool(Contender):
    """multiprocessing.Pool, `imap_unordered` with its default chunk size, 1."""

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        import multiprocessing

        self._pool = multiprocessing.Pool(WORKERS)

    def close(self) -> None:
        self._pool.terminate()

    def stream(self, jobs: Iterable[Any], count: int) -> Iterator[Any]:
        return self._pool.imap_unordered(self.function, jobs, self.chunk(count))

    def chunk(self, count: int) -> int:  # noqa: ARG002 - the other one needs it
        """Choose a chunk size."""
        return 1

    def call(self, job: Any) -> Any:
        return self._pool.apply(self.function, (job,))


class PoolAuto(Pool):
    """multiprocessing.Pool, `imap_unordered` with the chunk size that `Pool.map` would choose."""

    def chunk(self, count: int) -> int:
        return math.ceil(count / (4 * WORKERS))


class Executor(Contender):
    """ProcessPoolExecutor, `map` with its default chunk size, 1."""

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        from concurrent.futures import ProcessPoolExecutor

        self._pool = ProcessPoolExecutor(WORKERS)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def stream(self, jobs: Iterable[Any], count: int) -> Iterator[Any]:  # noqa: ARG002
        return self._pool.map(self.function, jobs)

    def call(self, job: Any) -> Any:
        return self._pool.submit(self.function, job).result()


class Joblib(Contender):
    """joblib with loky, its default, and automatic batches; values as they come."""

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        import joblib

        self._job = joblib.delayed(function)
        self._parallel = joblib.Parallel(WORKERS, return_as="generator_unordered")

    def close(self) -> None:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(kill_workers=True)

    def stream(self, jobs: Iterable[Any], count: int) -> Iterator[Any]:  # noqa: ARG002
        values: Iterator[Any] = self._parallel(self._job(job) for job in jobs)
        return values

    def call(self, job: Any) -> Any:
        return next(self.stream([job], 1))


class Mpire(Contender):
    """mpire, `imap_unordered` with its automatic chunk size, workers kept alive."""

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        import mpire

        self._pool = mpire.WorkerPool(WORKERS, keep_alive=True)

    def close(self) -> None:
        self._pool.terminate()

    def stream(self, jobs: Iterable[Any], count: int) -> Iterator[Any]:
        values: Iterator[Any] = self._pool.imap_unordered(self.function, jobs, iterable_len=count)
        return values

    def call(self, job: Any) -> Any:
        return self._pool.apply(self.function, (job,))


class Pebble(Contender):
    """pebble.ProcessPool, `map` with its default chunk size, 1."""

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        import pebble

        self._pool = pebble.ProcessPool(WORKERS)

    def close(self) -> None:
        self._pool.stop()
        self._pool.join()

    def stream(self, jobs: Iterable[Any], count: int) -> Iterator[Any]:  # noqa: ARG002
        values: Iterator[Any] = self._pool.map(self.function, jobs).result()
        return values

    def call(self, job: Any) -> Any:
        return self._pool.schedule(self.function, args=[job]).result()


class Ray(Contender):
    """Ray on this machine with two CPUs; at most 1,000 tasks in flight."""

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        import ray

        ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
        self._ray = ray
        self._job = ray.remote(function)

    def close(self) -> None:
        self._ray.shutdown()

    def stream(self, jobs: Iterable[Any], count: int) -> Iterator[Any]:  # noqa: ARG002
        rest = iter(jobs)
        flying = [self._job.remote(job) for job in islice(rest, 1000)]
        while flying:
            done, flying = self._ray.wait(flying, num_returns=min(len(flying), 100))
            flying += [self._job.remote(job) for job in islice(rest, len(done))]
            yield from self._ray.get(done)

    def call(self, job: Any) -> Any:
        return self._ray.get(self._job.remote(job))


CONTENDERS: dict[str, type[Contender]] = {
    "conductor": Ours,
    "conductor-uvloop": OursUvloop,
    "conductor-run": OursRun,
    "conductor-async": OursAsync,
    "pool": Pool,
    "pool-auto": PoolAuto,
    "executor": Executor,
    "joblib": Joblib,
    "mpire": Mpire,
    "pebble": Pebble,
    "ray": Ray,
}

PLAIN = "import sys; sys.modules['uvloop'] = None\n"
"""What makes `import uvloop` fail, as where the extra is not installed."""

IMPORTS = {
    "conductor": "from okanjo_conductor import Conductor",
    "pool": "from multiprocessing import Pool",
    "executor": "from concurrent.futures import ProcessPoolExecutor",
    "joblib": "from joblib import Parallel, delayed",
    "mpire": "from mpire import WorkerPool",
    "pebble": "from pebble import ProcessPool",
    "ray": "import ray",
}

_MAIN = "from benchmarks.jobs import noop\nif __name__ == '__main__':\n    "

SCRIPTS = {
    "conductor": f"{PLAIN}{IMPORTS['conductor']}\n{_MAIN}"
    "for o in Conductor(noop, jobs_queue=range(10), worker_limit=2).outcomes(): print(o.value)",
    "conductor-uvloop": f"{IMPORTS['conductor']}\n{_MAIN}"
    "for o in Conductor(noop, jobs_queue=range(10), worker_limit=2).outcomes(): print(o.value)",
    "pool": f"{IMPORTS['pool']}\n{_MAIN}with Pool(2) as pool:\n"
    "        for value in pool.imap_unordered(noop, range(10)): print(value)",
    "executor": f"{IMPORTS['executor']}\n{_MAIN}with ProcessPoolExecutor(2) as pool:\n"
    "        for value in pool.map(noop, range(10)): print(value)",
    "joblib": f"{IMPORTS['joblib']}\n{_MAIN}"
    "for value in Parallel(2)(delayed(noop)(n) for n in range(10)): print(value)",
    "mpire": f"{IMPORTS['mpire']}\n{_MAIN}with WorkerPool(2) as pool:\n"
    "        for value in pool.imap_unordered(noop, range(10)): print(value)",
    "pebble": f"{IMPORTS['pebble']}\n{_MAIN}with ProcessPool(2) as pool:\n"
    "        for value in pool.map(noop, range(10)).result(): print(value)",
    "ray": f"{IMPORTS['ray']}\n{_MAIN}ray.init(num_cpus=2, include_dashboard=False)\n"
    "    for value in ray.get([ray.remote(noop).remote(n) for n in range(10)]): print(value)",
}
"""The whole script of ten no-op jobs, as a user would write it."""

MODULES = {"joblib": "joblib", "mpire": "mpire", "pebble": "pebble", "ray": "ray"}


def is_installed(name: str) -> bool:
    """Say whether a contender can be opened here."""
    if name == "conductor-uvloop":
        return importlib.util.find_spec("uvloop") is not None
    module = MODULES.get(name)
    return module is None or importlib.util.find_spec(module) is not None


def _choose_loop(*, has_uvloop: bool) -> None:
    """Hide uvloop from our package, or insist on it."""
    if has_uvloop:
        import uvloop  # noqa: F401 - fails here rather than being left out silently
    else:
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # as if it were not installed
