"""Intake: where jobs come from, read lazily.

`JobsQueue` is what users see and fill. `Intake` reads it for a run, as much as the core asks for,
and turns payloads into `Job`s. A list or other container is read in place; any other iterable is
read by a thread of its own, because its ``next()`` may block for as long as it likes, and an async
iterable by a task.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from okanjo_conductor._core import events as ev
from okanjo_conductor._core.jobs import Job
from okanjo_conductor._types import JobId, Key
from okanjo_conductor._wire.byvalue import mentions_main, names_in_main
from okanjo_conductor._wire.codec import ATOMS, Encoded, encode, encode_payload
from okanjo_conductor.errors import ConfigurationError, SerialisationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PATIENCE = 0.005
"""Seconds that the reading thread collects jobs before it passes them on."""


class JobsQueue(Collection[Any]):
    """Jobs that no worker has been given yet.

    Holds what was appended and reads the iterable it was made of lazily. ``len`` and iteration
    see only the jobs that are known without reading an iterator.
    """

    def __init__(self, source: Any = ()) -> None:
        self._front: deque[Any] = deque()
        """Given back by an abort."""
        self._sequence: Sequence[Any] = ()
        self._position = 0
        self._iterator: Iterator[Any] | None = None
        self._async_iterator: AsyncIterator[Any] | None = None
        self._appended: deque[Any] = deque()
        self._on_append: Callable[[], None] | None = None
        if isinstance(source, list | tuple | range):
            self._sequence = source
        elif isinstance(source, AsyncIterable):
            self._async_iterator = aiter(source)
        elif isinstance(source, Collection) and not isinstance(source, JobsQueue):
            self._appended.extend(source)
        elif isinstance(source, Iterable):
            self._iterator = iter(source)
        else:
            message = f"jobs_queue={source!r}: give an iterable or async iterable of jobs"
            raise ConfigurationError(message)

    def __len__(self) -> int:
        rest = max(0, len(self._sequence) - self._position)
        return len(self._front) + rest + len(self._appended)

    def __iter__(self) -> Iterator[Any]:
        yield from self._front
        yield from islice(self._sequence, self._position, None)
        yield from self._appended

    def __contains__(self, job: object) -> bool:
        return any(job == known for known in self)

    def __repr__(self) -> str:
        has_more = self._iterator is not None or self._async_iterator is not None
        return f"<JobsQueue: {len(self)} jobs known{' and more to read' if has_more else ''}>"

    def append(self, job: Any) -> None:
        """Add a job at the end. Also while the run goes on, and from any thread."""
        self._appended.append(job)
        if self._on_append:
            self._on_append()

    def extend(self, jobs: Iterable[Any]) -> None:
        """Add jobs at the end."""
        self._appended.extend(jobs)
        if self._on_append:
            self._on_append()

    def clear(self) -> None:
        """Forget every job, read or not."""
        self._front.clear()
        self._appended.clear()
        self._sequence, self._position = (), 0
        self._iterator = self._async_iterator = None

    def _take(self, count: int) -> list[Any]:
        """Remove and return up to `count` jobs that are known."""
        jobs = [self._front.popleft() for _ in range(min(count, len(self._front)))]
        if len(jobs) < count:
            end = self._position + count - len(jobs)
            jobs += self._sequence[self._position : end]
            self._position = min(end, len(self._sequence))
        missing = min(count - len(jobs), len(self._appended))
        return jobs + [self._appended.popleft() for _ in range(missing)]


class Intake:
    """Reads a queue for one run."""

    def __init__(
        self,
        queue: JobsQueue,
        job_key: Callable[[Any], Key] | None,
        post: Callable[[ev.Event], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._queue = queue
        self._job_key = job_key
        self._post = post
        self._loop = loop
        self._next_id = 0
        self._thread: _ReadingThread | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self.error: BaseException | None = None
        """What the source raised."""
        self.main_names: set[str] = set()
        """Objects of ``__main__`` that payloads need."""
        queue._on_append = lambda: self._call_soon(self._on_append)

    def add(self, source: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Read this iterable too: what ``generate_jobs`` gave."""
        added = JobsQueue(source)
        queue = self._queue
        if queue._iterator is None and queue._async_iterator is None:
            queue._iterator, queue._async_iterator = added._iterator, added._async_iterator
            queue._appended.extend(added)
        else:
            message = "jobs_queue and generate_jobs() both give an iterator: which comes first?"
            raise ConfigurationError(message)

    def read(self, count: int) -> None:
        """Answer the core's `ReadJobs`."""
        if jobs := self._queue._take(count):
            self._accept(jobs)
        elif self._queue._iterator is not None:
            if self._thread is None:
                self._thread = _ReadingThread(self._queue._iterator, self._on_read)
            self._thread.request(count)
        elif self._queue._async_iterator is not None:
            self._task = self._loop.create_task(self._read_async(count))
        else:
            self._post(ev.IntakeEnded())

    def has_known(self) -> bool:
        """Whether a job waits in the queue that nobody has announced."""
        return len(self._queue) > 0

    def add_job(self, payload: Any, key: Key | None) -> None:
        """Accept one job at once, unasked."""
        self._accept([payload], None if key is None else [key], is_answer=False)

    def give_back(self, jobs: list[Job]) -> None:
        """Put jobs that were not started back in front."""
        self._queue._front.extendleft(job.payload for job in reversed(jobs))

    def stop(self) -> None:
        """Read no more; what is being read goes back to the queue."""
        self._is_closed = True
        self._queue._on_append = None

    async def close(self) -> None:
        """Wait until nothing is being read."""
        self.stop()
        if self._thread is not None:
            self._thread.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _call_soon(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return  # the loop is closed: the run is over

    def _on_append(self) -> None:
        if not self._is_closed:
            self._post(ev.IntakeReopened())
            is_reading = (self._thread and self._thread.is_reading) or self._task
            if is_reading and (jobs := self._queue._take(len(self._queue))):
                self._accept(jobs, is_answer=False)

    async def _read_async(self, count: int) -> None:
        """Read at least one job, and further ones as long as they come without waiting."""
        source = self._queue._async_iterator
        jobs: list[Any] = []
        error: BaseException | None = None
        is_over = source is None
        deadline = monotonic() + _PATIENCE
        try:
            while source is not None and len(jobs) < count and monotonic() < deadline:
                jobs.append(await anext(source))
                if len(jobs) == 1:
                    deadline = monotonic() + _PATIENCE
        except StopAsyncIteration:
            is_over = True
        except Exception as raised:
            error = raised
        self._task = None
        self._on_batch(jobs, error, is_over=is_over)

    def _on_read(self, jobs: list[Any], error: BaseException | None, is_over: bool) -> None:  # noqa: FBT001
        """Called in the reading thread."""
        self._call_soon(lambda: self._on_batch(jobs, error, is_over=is_over))

    def _on_batch(self, jobs: list[Any], error: BaseException | None, *, is_over: bool) -> None:
        if self._is_closed:
            self._queue._front.extendleft(reversed(jobs))
            return
        if is_over or error is not None:
            self._queue._iterator = self._queue._async_iterator = None
        if jobs:
            self._accept(jobs, is_answer=error is None)
        if error is not None:
            self._break(error)
        elif not jobs:
            self.read(1)  # the source is exhausted; what was appended meanwhile comes next

    def _break(self, error: BaseException) -> None:
        self.error = error
        self._queue._iterator = self._queue._async_iterator = None
        self._post(ev.IntakeEnded(is_final=True))

    def _accept(
        self, payloads: list[Any], keys: list[Key] | None = None, *, is_answer: bool = True
    ) -> None:
        first, self._next_id = self._next_id, self._next_id + len(payloads)
        ids = range(first, self._next_id)
        try:
            keys = keys or self._keys(payloads, ids)
        except Exception as error:
            self._queue._front.extendleft(reversed(payloads))
            self._break(error)
            return
        if all(map(ATOMS.__contains__, map(type, chain(payloads, keys)))):
            jobs = list(map(Job, ids, keys, payloads, payloads))  # type: ignore[arg-type]  # ids are ints
        else:
            jobs = list(self._encoded(ids, keys, payloads))
        self._post(ev.JobsAccepted(jobs=jobs, is_answer=is_answer))

    def _keys(self, payloads: list[Any], ids: Iterable[int]) -> list[Key]:
        if self._job_key is None:
            return list(ids)
        return [self._job_key(payload) for payload in payloads]

    def _encoded(self, ids: Iterable[int], keys: list[Key], payloads: list[Any]) -> Iterator[Job]:
        for number, key, payload in zip(ids, keys, payloads, strict=True):
            job = Job(JobId(number), key, payload, None)
            try:
                if type(key) not in ATOMS:
                    encode(key)  # it travels too, and must not spoil a whole hand-out
                job.wire = wire = encode_payload(payload)
                blob = wire.blob if type(wire) is Encoded else wire
                if isinstance(blob, bytes | bytearray) and mentions_main(blob):
                    self.main_names |= names_in_main(payload)
            except KeyboardInterrupt:
                raise  # more likely the user's than the payload's
            except BaseException as error:  # a class's __reduce__ may raise anything
                self._post(ev.JobRefused(job=job, error=_refusal(key, payload, error)))
            else:
                yield job


class _ReadingThread:
    """Reads a blocking iterator on request."""

    def __init__(
        self,
        iterator: Iterator[Any],
        report: Callable[[list[Any], BaseException | None, bool], None],
    ) -> None:
        self._iterator = iterator
        self._report = report
        self._requests: SimpleQueue[int] = SimpleQueue()
        self.is_reading = False
        threading.Thread(target=self._run, name="okanjo-conductor-intake", daemon=True).start()

    def request(self, count: int) -> None:
        """Have up to `count` jobs read and reported."""
        self.is_reading = True
        self._requests.put(count)

    def stop(self) -> None:
        """Let the thread end when ``next()`` returns."""
        self._requests.put(0)

    def _run(self) -> None:
        while count := self._requests.get():
            jobs: list[Any] = []
            error: BaseException | None = None
            is_over = False
            try:
                is_over = self._collect(jobs, count)
            except BaseException as raised:
                error = raised
            self.is_reading = False
            self._report(jobs, error, is_over)

    def _collect(self, jobs: list[Any], count: int) -> bool:
        """Read into `jobs`; return whether the iterator is exhausted."""
        deadline = None
        for job in islice(self._iterator, count):
            jobs.append(job)
            if deadline is None:
                deadline = monotonic() + _PATIENCE
            elif monotonic() > deadline:
                return False
        return len(jobs) < count


def _refusal(key: Key, payload: Any, error: BaseException) -> SerialisationError:
    kind = type(payload)
    message = (
        f"job {key!r}, a {kind.__module__}.{kind.__qualname__}, cannot be pickled and so cannot "
        f"be sent to a worker: {type(error).__name__}: {error}"
    )
    refusal = SerialisationError(message)
    refusal.__cause__ = error
    return refusal
