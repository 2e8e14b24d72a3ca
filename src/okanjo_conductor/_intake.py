"""Intake: where jobs come from, read lazily.

`JobsQueue` is what users see and fill. `Intake` reads it for a run, as much as the core asks for,
and turns payloads into `Job`s. A list or other container is read in place; any other iterable is
read by a thread of its own, because its ``next()`` may block for as long as it likes, and an async
iterable by a task.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import (
    AsyncIterable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
    Sized,
)
from contextlib import suppress
from itertools import groupby, islice, repeat
from operator import length_hint
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Protocol

from okanjo_conductor._core import events as ev
from okanjo_conductor._core.jobs import Job, Jobs
from okanjo_conductor._io.loops import call_soon
from okanjo_conductor._largest import WORTH_WEIGHING, Largest
from okanjo_conductor._options import checked_seconds
from okanjo_conductor._types import Cause, JobId, JobState, Key
from okanjo_conductor._wire.byvalue import mentions_main, names_in_main
from okanjo_conductor._wire.codec import (
    ATOMS,
    Encoded,
    Wire,
    decode,
    encode,
    encode_payload,
    size_of,
)
from okanjo_conductor.errors import ConfigurationError, SerialisationError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from okanjo_conductor._io.loops import Loop, Timer
    from okanjo_conductor._journaling import Admission

    class Gate(Protocol):
        """Who decides which jobs are executed; see `Journaling.admit`."""

        def admit(
            self,
            payloads: list[Any],
            keys: Sequence[Key],
            limits: Sequence[float | None] | None,
        ) -> Admission: ...


_READ_ON = 1000
"""How many jobs are read at once where those before them were all done in an earlier run."""
_PATIENCE = 0.005
"""Seconds that jobs are collected before they are passed on."""


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
        key = getattr(source, "key", None)
        self._key: Callable[[Any], Key] | None = key if callable(key) else None
        """What identifies a job, as its source has it; see `okanjo_conductor.sources`."""
        self._sized: Any = None
        """The iterable, if it may say how many jobs there are and was not asked yet."""
        self._hint: int | None = None
        """How many jobs the iterator gives in all; None: it is not known."""
        if isinstance(source, list | tuple | range):
            self._sequence = source
        elif isinstance(source, AsyncIterable):
            self._async_iterator = aiter(source)
            self._sized = source if isinstance(source, Sized) else None
        elif isinstance(source, Collection) and not isinstance(source, JobsQueue):
            self._appended.extend(source)
        elif isinstance(source, Iterable):
            self._iterator = iter(source)
            if isinstance(source, Sized):
                self._sized = source
            elif self._iterator is source:  # it tells what is left, and must be asked first
                self._hint = _hint_of(self._iterator)
            elif hasattr(source, "__length_hint__"):
                self._sized = source
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

    def _length(self) -> int | None:
        """How many jobs the iterator gives in all, as its source says; None: it does not.

        Asks the source once, in this thread: its code may take its time, or raise anything.
        """
        sized, self._sized = self._sized, None
        if sized is not None:
            self._hint = _hint_of(sized)
        return self._hint

    def _take(self, count: int) -> list[Any]:
        """Remove and return up to `count` jobs that are known."""
        jobs = [self._front.popleft() for _ in range(min(count, len(self._front)))]
        if len(jobs) < count:
            end = self._position + count - len(jobs)
            jobs += self._sequence[self._position : end]
            self._position = min(end, len(self._sequence))
        missing = min(count - len(jobs), len(self._appended))
        if missing == len(self._appended):
            jobs += self._appended
            self._appended.clear()
            return jobs
        return jobs + [self._appended.popleft() for _ in range(missing)]


class Intake:
    """Reads a queue for one run."""

    def __init__(
        self,
        queue: JobsQueue,
        job_key: Callable[[Any], Key] | None,
        job_timeout: float | Callable[[Any], float | None] | None,
        post: Callable[[ev.Event], None],
        loop: Loop,
        gate: Gate | None = None,
    ) -> None:
        self._queue = queue
        self._gate = gate
        self._job_key = job_key or queue._key
        self._job_timeout = job_timeout
        self._post = post
        self._loop = loop
        self._next_id = 0
        self._asked = 0
        """How many jobs the core has asked for last."""
        self.is_expecting: Callable[[], bool] = lambda: False
        """Whether somebody is at work who may add jobs: the intake is not over before."""
        self._owes_answer = False
        self._reader: _ReadingThread | _ReadingTask | None = None
        self._posted: deque[tuple[Any, Key | None, float | None]] = deque()
        """Jobs, with key and limit, that other threads have added."""
        self._posting = threading.Lock()
        """Held while a job is posted, and while it is decided that none can be any more."""
        self._is_closed = False
        self.error: BaseException | None = None
        """What the source raised."""
        self.payloads = Largest(WORTH_WEIGHING)
        """Bytes of payloads."""
        self.length: int | None = None
        """How many jobs the iterator gives in all; None: it does not say, or was not asked."""
        self.main_names: set[str] = set()
        """Objects of ``__main__`` that payloads need."""
        queue._on_append = lambda: call_soon(loop, self._on_append)

    def add(self, source: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Read this iterable too: what ``generate_jobs`` gave."""
        added = JobsQueue(source)
        queue = self._queue
        if queue._iterator is None and queue._async_iterator is None:
            queue._iterator, queue._async_iterator = added._iterator, added._async_iterator
            queue._sized, queue._hint = added._sized, added._hint
            queue._appended.extend(added)
        else:
            message = "jobs_queue and generate_jobs() both give an iterator: which comes first?"
            raise ConfigurationError(message)

    def read(self, count: int) -> None:
        """Answer the core's `ReadJobs`."""
        if self._is_closed:
            return
        self._asked = count
        if jobs := self._queue._take(count):
            self._accept(jobs)
        elif self._queue._iterator is not None or self._queue._async_iterator is not None:
            self._reader = self._reader or self._make_reader()
            self._reader.request(count)
        elif self.is_expecting():
            self._owes_answer = True
        else:
            self._post(ev.IntakeEnded())

    def go_on(self) -> None:
        """Answer what could not be answered while somebody might add jobs."""
        if self._owes_answer and not self._is_closed:
            self._owes_answer = False
            self.read(self._asked)

    def _make_reader(self) -> _ReadingThread | _ReadingTask:
        queue, keep = self._queue, self._queue._front.append
        if queue._iterator is not None:
            return _ReadingThread(queue._iterator, self._loop, self._on_batch, keep)
        assert queue._async_iterator is not None  # noqa: S101 - the caller has looked
        return _ReadingTask(queue._async_iterator, self._loop, self._on_batch, keep)

    def known(self) -> int:
        """Count the jobs that wait in the queue, as far as they are known."""
        return len(self._queue)

    def ask_length(self) -> None:
        """Ask the source how many jobs it gives."""
        self.length = self._queue._length()

    def unread(self, length: int | None) -> int | None:
        """Count the jobs that are still to be accepted; None: only the source knows.

        Args:
            length: how many the iterator gives in all, or None.
        """
        known = len(self._queue) + len(self._posted)
        if self._queue._iterator is None and self._queue._async_iterator is None:
            return known
        if length is None:
            return None
        reader = self._reader
        read, kept = (0, 0) if reader is None else (reader.read, reader.buffered)
        return known + kept + max(length - read, 0)

    def add_job(self, payload: Any, key: Key | None, timeout: float | None) -> None:
        """Accept one job at once, unasked."""
        self._accept_each([(payload, key, timeout)])

    def add_encoded(self, added: list[tuple[Encoded, bytes | None, float | None]]) -> None:
        """Accept jobs that workers add: payload, key and limit of each.

        One that cannot be unpickled here is refused.
        """
        jobs = []
        for value, key, timeout in added:
            thing: Literal["key", "payload"] = "key"
            made: Any = None
            try:
                made = key if key is None else decode(Encoded(key, []))
                thing = "payload"
                jobs.append((decode(value), made, timeout))
            except KeyboardInterrupt:
                raise  # more likely the user's than the payload's
            except BaseException as error:  # a class's __setstate__ may raise anything
                encoded = key if thing == "key" and key is not None else value
                self._refuse_added(made, thing, encoded, error)
        self._accept_each(jobs)

    def _refuse_added(
        self,
        key: Any,
        thing: Literal["key", "payload"],
        encoded: Encoded | bytes,
        error: BaseException,
    ) -> None:
        from okanjo_conductor._wire import refusals  # rarely needed

        number, self._next_id = JobId(self._next_id), self._next_id + 1
        shown = key if type(key) in ATOMS - {type(None)} else number
        refusal = refusals.unloadable(shown, thing, encoded, error, "the conductor")
        self._post(ev.JobRefused(job=Job(number, shown, None, None), error=refusal))

    def post_job(self, payload: Any, key: Key | None, timeout: float | None) -> bool:
        """Have one job accepted soon, from any thread.

        Returns:
            Whether it will be: False when the run takes no more.
        """
        with self._posting:
            if self._is_closed:
                return False
            self._posted.append((payload, key, timeout))
            is_first = len(self._posted) == 1
        if is_first:
            call_soon(self._loop, self._accept_posted)
        return True

    def _accept_posted(self) -> None:
        with self._posting:
            posted = tuple(self._posted)
            self._posted.clear()
        self._accept_each(posted)

    def _accept_each(self, added: Iterable[tuple[Any, Key | None, float | None]]) -> None:
        """Accept jobs with key and limit of each, unasked, as many at once as is possible."""
        if self._is_closed:  # the run is over: they have not been started
            self._queue._appended.extend(payload for payload, _, _ in added)
            return
        for is_plain, jobs in groupby(added, lambda job: job[1:] == (None, None)):
            if is_plain:
                self._accept([payload for payload, _, _ in jobs], is_answer=False)
            else:
                for payload, key, timeout in jobs:
                    keys = None if key is None else [key]
                    limits = None if timeout is None else [timeout]
                    self._accept([payload], keys, limits, is_answer=False)

    def give_back(self, jobs: list[Job]) -> None:
        """Put jobs that were not started back in front."""
        self._queue._front.extendleft(job.payload for job in reversed(jobs))

    def stop(self) -> None:
        """Read no more; what is being read goes back to the queue."""
        with self._posting:
            self._is_closed = True
            self._queue._appended.extend(payload for payload, _, _ in self._posted)
            self._posted.clear()
        self._queue._on_append = None
        if self._reader is not None:
            self._reader.stop()

    def close(self, then: Callable[[], None]) -> None:
        """Call `then` when nothing is being read any more."""
        self.stop()
        if isinstance(self._reader, _ReadingTask):
            self._reader.end(then)
        else:
            then()

    def _on_append(self) -> None:
        if self._owes_answer:
            self.go_on()
        elif not self._is_closed:
            self._post(ev.IntakeReopened())
            reader = self._reader
            is_reading = reader is not None and reader.is_asked
            if reader is not None and is_reading and (jobs := self._queue._take(self._asked)):
                reader.relieve()
                self._accept(jobs)

    def _on_batch(self, jobs: list[Any], error: BaseException | None, *, is_over: bool) -> None:
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
        self._owes_answer = False
        self._queue._iterator = self._queue._async_iterator = None
        self._post(ev.IntakeEnded(is_final=True))

    def _accept(
        self,
        payloads: list[Any],
        keys: Sequence[Key] | None = None,
        limits: Sequence[float | None] | None = None,
        *,
        is_answer: bool = True,
    ) -> None:
        given, admission = payloads, None
        try:
            if self._gate is not None:
                admission = self._gate.admit(payloads, keys or self._own_keys(payloads), limits)
                payloads, keys, limits = admission.payloads, admission.keys, admission.limits
            ids = self._take_ids(len(payloads))
            keys = keys or self._keys(payloads, ids)
            limits = limits or self._limits(payloads)
        except Exception as error:
            self._queue._front.extendleft(reversed(given))
            self._break(error)
            return
        if admission is not None:
            self._refuse_condemned(admission)
            if not payloads:
                if is_answer:  # it wants jobs; there may be as many before them as there were done
                    self._loop.call_soon(self.read, _READ_ON)
                return
        if _are_atoms(payloads) and (keys is ids or _are_atoms(keys)):
            jobs = Jobs(ids, keys, payloads, payloads, limits)
        else:
            jobs = self._encoded(ids, keys, payloads, limits or [None] * len(payloads))
        accepted = ev.JobsAccepted(jobs=jobs, is_answer=is_answer)
        if admission is not None and (admission.histories or admission.loners):
            accepted = ev.JobsAccepted(
                jobs=jobs,
                is_answer=is_answer,
                histories={ids[index]: past for index, past in admission.histories.items()},
                loners=frozenset(ids[index] for index in admission.loners),
            )
        self._post(accepted)

    def _refuse_condemned(self, admission: Admission) -> None:
        ids = self._take_ids(len(admission.condemned))
        for job_id, (key, payload, error) in zip(ids, admission.condemned, strict=True):
            job = Job(job_id, key, payload, None)
            state, cause = JobState.QUARANTINED, Cause.CRASH
            self._post(ev.JobRefused(job=job, error=error, state=state, cause=cause))

    def _own_keys(self, payloads: list[Any]) -> list[Key]:
        """Find keys that are the same in every run."""
        if self._job_key is not None:
            return [self._job_key(payload) for payload in payloads]
        from okanjo_conductor.journal._keys import default_keys  # only a journal needs them

        return default_keys(payloads)

    def _take_ids(self, count: int) -> Sequence[JobId]:
        first, self._next_id = self._next_id, self._next_id + count
        return range(first, self._next_id)  # type: ignore[return-value]  # job ids are ints

    def _keys(self, payloads: list[Any], ids: Sequence[JobId]) -> Sequence[Key]:
        if self._job_key is None:
            return ids
        return [self._job_key(payload) for payload in payloads]

    def _limits(self, payloads: list[Any]) -> Sequence[float | None] | None:
        """Find the jobs' time limits; None: they have none."""
        limit = self._job_timeout
        if callable(limit):
            return [checked_seconds("job_timeout(job)", limit(payload)) for payload in payloads]
        return None if limit is None else [limit] * len(payloads)

    def _encoded(
        self,
        ids: Sequence[JobId],
        keys: Sequence[Key],
        payloads: list[Any],
        limits: Sequence[float | None],
    ) -> Jobs:
        """Make jobs ready to travel; refuse those that cannot."""
        made = []
        for job in map(Job, ids, keys, payloads, repeat(None), limits):
            refusal = self._encode(job)
            if refusal is None:
                made.append(job)
            else:
                self._post(ev.JobRefused(job=job, error=refusal))
        return Jobs.of(made)

    def _encode(self, job: Job) -> SerialisationError | None:
        """Make a job ready to travel, or say why it cannot."""
        if type(job.key) not in ATOMS and (refusal := self._refusal_of(job.key)):
            return refusal
        try:
            job.wire = wire = encode_payload(job.payload)
            if (size := _size_of(wire)) > self.payloads.floor:
                self.payloads.note(size, job.id, job.key)
            self._note_main(wire, job.payload)
        except KeyboardInterrupt:
            raise  # more likely the user's than the payload's
        except BaseException as error:  # a class's __reduce__ may raise anything
            from okanjo_conductor._wire import refusals  # rarely needed

            return refusals.unpicklable(job.key, "payload", job.payload, error)
        return None

    def _refusal_of(self, key: Key) -> SerialisationError | None:
        """Try a key: it travels with others, and must not spoil a whole hand-out."""
        encoded = None
        try:
            encoded = encode(key)
            decode(encoded)
            self._note_main(encoded, key)
        except KeyboardInterrupt:
            raise  # more likely the user's than the key's
        except BaseException as error:  # as above
            from okanjo_conductor._wire import refusals  # rarely needed

            if encoded is None:
                return refusals.unpicklable(key, "key", key, error)
            return refusals.unloadable(key, "key", encoded, error)
        return None

    def _note_main(self, wire: Wire, value: Any) -> None:
        blob = wire.blob if type(wire) is Encoded else wire
        if isinstance(blob, bytes | bytearray) and mentions_main(blob):
            self.main_names |= names_in_main(value)


class _Reader:
    """Reads an iterator on request, and answers with what there is when the next job is late.

    An iterator may wait for outcomes of the very jobs it gave: none may be withheld until it gives
    more. The state belongs to the loop; the reading side only appends to the buffer, counts, and
    says how it ended.
    """

    def __init__(
        self,
        loop: Loop,
        report: Callable[..., None],
        keep: Callable[[Any], None],
    ) -> None:
        self._loop = loop
        self._report = report
        self._keep = keep
        self._buffer: deque[Any] = deque()
        self.read = 0
        """How many jobs the iterator has given."""
        self._goal = 0
        """Jobs to have read in all; set back when a request was answered early."""
        self._ending: tuple[BaseException | None] | None = None
        """How the iterator ended, set after its last job is in the buffer."""
        self._timer: Timer | None = None
        self._is_stopped = False
        self.is_asked = False
        """Whether a request waits for its answer."""

    @property
    def buffered(self) -> int:
        """How many of these were not reported yet."""
        return len(self._buffer)

    def request(self, count: int) -> None:
        """Have up to `count` jobs read and reported."""
        self.is_asked = True
        if self._buffer or self._ending:
            self._loop.call_soon(self._answer)
        else:
            self._goal = self.read + count
            self._wake()

    def relieve(self) -> None:
        """Forget the request: it was answered with other jobs. What is being read is kept."""
        self.is_asked = False
        self._goal = 0
        self._disarm()

    def _wake(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """Read no more; keep what is read already."""
        self._is_stopped = True
        self.is_asked = False
        self._goal = 0
        self._disarm()
        self._keep_buffered()
        self._wake()

    def _keep_buffered(self) -> None:
        with suppress(IndexError):
            while True:
                self._keep(self._buffer.popleft())

    def _arm(self) -> None:
        if self._timer is None and not self._is_stopped:
            self._timer = self._loop.call_later(_PATIENCE, self._answer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _answer(self) -> None:
        self._disarm()
        ending = self._ending
        if not self.is_asked or not (self._buffer or ending):
            return
        self.is_asked = False
        self._goal = 0
        jobs = [self._buffer.popleft() for _ in range(len(self._buffer))]
        error = ending[0] if ending else None
        self._report(jobs, error, is_over=ending is not None)


class _ReadingThread(_Reader):
    """Reads a blocking iterator."""

    def __init__(
        self,
        iterator: Iterator[Any],
        loop: Loop,
        report: Callable[..., None],
        keep: Callable[[Any], None],
    ) -> None:
        super().__init__(loop, report, keep)
        self._iterator = iterator
        from queue import SimpleQueue  # only who has blocking iterators needs it

        self._wakes: SimpleQueue[None] = SimpleQueue()
        threading.Thread(target=self._run, name="okanjo-conductor-intake", daemon=True).start()

    def _wake(self) -> None:
        self._wakes.put(None)

    def _run(self) -> None:
        while not self._is_stopped and self._ending is None:
            self._wakes.get()
            try:
                self._collect()
            except StopIteration:
                self._ending = (None,)
            except BaseException as error:
                self._ending = (error,)
            call_soon(self._loop, self._answer)
        if self._is_stopped:
            self._keep_buffered()

    def _collect(self) -> None:
        deadline = monotonic() + _PATIENCE
        while self.read < self._goal:
            self._buffer.append(next(self._iterator))
            self.read += 1
            if len(self._buffer) == 1:
                deadline = monotonic() + _PATIENCE
                call_soon(self._loop, self._arm)
            elif monotonic() > deadline:
                return


class _ReadingTask(_Reader):
    """Reads an async iterator."""

    def __init__(
        self,
        iterator: AsyncIterator[Any],
        loop: Loop,
        report: Callable[..., None],
        keep: Callable[[Any], None],
    ) -> None:
        super().__init__(loop, report, keep)
        self._iterator = iterator
        import asyncio  # only who has async iterators needs it

        self._wakes = asyncio.Event()
        self._task = loop.create_task(self._run())

    def end(self, then: Callable[[], None]) -> None:
        """Cancel what is being awaited; call `then` when it is."""

        def on_done(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                task.exception()  # it was asked for: nobody is missing it
            then()

        self._task.cancel()
        self._task.add_done_callback(on_done)

    def _wake(self) -> None:
        self._wakes.set()

    async def _run(self) -> None:
        while not self._is_stopped and self._ending is None:
            await self._wakes.wait()
            self._wakes.clear()
            try:
                await self._collect()
            except StopAsyncIteration:
                self._ending = (None,)
            except Exception as error:
                self._ending = (error,)
            self._answer()

    async def _collect(self) -> None:
        deadline = monotonic() + _PATIENCE
        while self.read < self._goal:
            job = await anext(self._iterator)
            self._buffer.append(job)
            self.read += 1
            if len(self._buffer) == 1:
                deadline = monotonic() + _PATIENCE
                self._arm()
            elif monotonic() > deadline:
                return


def _hint_of(source: Any) -> int | None:
    """How many items an iterable says it has, or an iterator it has left, or None."""
    with suppress(Exception):  # its class may raise anything
        hint = length_hint(source, -1)
        return None if hint < 0 else hint
    return None


def _size_of(wire: Wire) -> int:
    """Bytes of a payload, unless it is plain."""
    if type(wire) is bytes:
        return len(wire)
    return size_of(wire) if type(wire) is Encoded else 0


def _are_atoms(values: Iterable[Any]) -> bool:
    return ATOMS.issuperset(map(type, values))
