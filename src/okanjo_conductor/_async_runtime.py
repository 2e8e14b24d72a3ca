"""The process of an async worker: many jobs in flight on one event loop.

Jobs are *started* in the order of their ordinals, by one function that nothing interrupts::

    claim ──► was it recalled? ──► a task ──► await process_job ──► pickle ──► publish
                   └─ decline

They end in any order. So CLAIM says the last one that was started, and whenever this process dies,
those were being executed whose ordinals are not beyond and whose outcomes are not in the log.
Before each step of a job RUNNING says whose it is: where one blocks the loop, that is the one.

The loop reads the job link. There is no task of our own that a job could cancel, and what a job
does to the loop, as stopping it, is undone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from functools import partial
from time import perf_counter_ns

from okanjo_conductor._async_talk import AsyncTalk
from okanjo_conductor._io.cells import CLAIM, HIGH, LOW, PARALLEL, RUNNING
from okanjo_conductor._io.leaving import WorkerLeft, leave_fork, leave_process
from okanjo_conductor._io.loops import call_soon, new_asyncio_loop
from okanjo_conductor._logs import log
from okanjo_conductor._runtime import QUIET, Batch, Runtime
from okanjo_conductor._talk import ConductorGone
from okanjo_conductor._types import LATER, JobInfo
from okanjo_conductor._wire.codec import ATOMS
from okanjo_conductor._wire.messages import Bye, Cancel, Ready
from okanjo_conductor.errors import ConductorStateError, JobCancelledError, JobTimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn

    from okanjo_conductor._runtime import Item
    from okanjo_conductor._wire.messages import Progress

_BELL = 10_000_000
"""As in `_runtime`."""
_FAREWELL = 2.0
"""Seconds that tasks which jobs have left behind may take to end, once they are cancelled."""


class _Attempt:
    """One job in flight."""

    __slots__ = (
        "_fail",
        "batch",
        "index",
        "ordinal",
        "started",
        "task",
        "verdict",
        "is_open",
        "added",
        "said_at",
        "unsaid",
    )

    def __init__(
        self, batch: Batch, index: int, fail: Callable[[_Attempt, BaseException], None]
    ) -> None:
        self._fail = fail
        self.batch = batch
        self.index = index
        self.ordinal = batch.first + index
        self.started = perf_counter_ns()
        self.task: asyncio.Task[None] | None = None
        self.verdict: Exception | None = None
        """Why we have cancelled it, if we have."""
        self.is_open = True
        """Whether its outcome was not written yet."""
        self.added = 0
        """How many jobs it has added."""
        self.said_at = 0
        """When its progress was sent last."""
        self.unsaid: Progress | None = None
        """Progress that waits for its time."""

    def on_over(self, _task: asyncio.Task[None]) -> None:
        """End it if its task was cancelled before the first step."""
        if self.is_open:
            self._fail(self, asyncio.CancelledError())


_current: ContextVar[_Attempt] = ContextVar("okanjo_conductor_job")
"""The job to which the running code belongs; tasks that it starts inherit it."""


class AsyncRuntime(Runtime):
    """The life of one async worker process."""

    talk: AsyncTalk

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._concurrency = self.worker.concurrency
        self._loop: asyncio.AbstractEventLoop
        self._attempts: dict[int, _Attempt] = {}
        """By ordinal, the jobs in flight."""
        self._next = 0
        """Position in the first batch of the next job to start."""
        self._will_ring = False
        self._is_working = False
        """Whether the loop runs for jobs, not for `setup` or `teardown`."""
        self._context: Context
        """What each job begins with: no job sees what another one has set."""
        self._is_closing = False
        """Whether it has ended, and its jobs only have to be cleared away."""
        self._broken: BaseException | None = None
        """What was raised in our own code, and ends this worker as it would any other."""

    # Life

    def attach(self) -> None:
        """Let the worker know where it is, and listen to it."""
        super().attach()
        self._context = copy_context()

    def _make_talk(self, handlers: dict[type[Any], Callable[[Any], None]]) -> AsyncTalk:
        handlers[Cancel] = self._on_cancel
        return AsyncTalk(self.worker, self._place, handlers, self._check_deadline)

    def _live(self) -> None:
        self._loop = self.talk.loop = new_asyncio_loop()
        asyncio.set_event_loop(self._loop)
        home = self._place.home
        if home.is_process:
            self._live_in_loop()
            return
        home.on_condemned = partial(call_soon, self._loop, self._leave)
        try:
            self._live_in_loop()
        finally:
            self._close_loop()

    def _leave(self) -> None:
        """End, because the worker is to leave."""
        code = self._place.home.code
        self._break(WorkerLeft(1 if code is None else code))

    def _close_loop(self) -> None:
        """End what goes on in the loop: where there is no process to end, nothing else would."""
        self._is_closing, self._broken = True, None
        try:
            self._await(self._end_tasks)
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def _live_in_loop(self) -> None:
        worker, link, loop = self.worker, self._link, self._loop
        loop.set_task_factory(self._make_task)
        self.talk.urgent = frozenset()  # all messages are handled while jobs are in flight
        loop.add_reader(link.fileno(), self._read)
        os.set_blocking(link.fileno(), True)  # uvloop has ended that; who sends waits for room
        self._await(worker.setup)
        worker.start_monitoring()
        link.cells[PARALLEL] = self._concurrency
        link.send(Ready([], self._concurrency, can_cancel=True))
        self._work()
        self._await(worker.teardown)
        loop.remove_reader(link.fileno())
        worker.stop_monitoring()
        self.report_stats()
        self._emit("completed")
        link.send(Bye())
        self._await(self._end_tasks)

    def _await(self, function: Callable[[], Any]) -> None:
        """Call a function, in the loop; if it is async, run it to its end."""
        raised: list[BaseException] = []

        async def call() -> None:
            try:
                made = function()
                if isinstance(made, Awaitable):
                    await made
            except BaseException as error:  # a SystemExit would leave the loop
                raised.append(error)

        task = self._loop.create_task(call())
        task.add_done_callback(lambda _: self._loop.stop())
        self._run_until(task.done)
        for error in raised:
            raise error

    def _work(self) -> None:
        self._is_working = True
        self.talk.deliver_posts()  # those that have come while it was set up
        self._run_until(lambda: self._is_finished)
        self._is_working = False
        self._ring()

    def _run_until(self, is_over: Callable[[], bool]) -> None:
        """Run the loop until we stop it; a job may do so as well."""
        while not is_over():
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                log().error("a task or callback raised in the event loop", exc_info=error)
            if self._broken is not None:
                raise self._broken

    @property
    def _is_finished(self) -> bool:
        return self._is_stopping and not (self._batches or self._attempts)

    async def _end_tasks(self) -> None:
        """End what jobs have left behind; wait in vain for nobody."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        tasks.add(self._loop.create_task(self._loop.shutdown_asyncgens()))
        done, _ = await asyncio.wait(tasks, timeout=_FAREWELL)
        for task in done:
            if not task.cancelled():
                task.exception()  # else asyncio complains that nobody has asked

    def _read(self) -> None:
        try:
            self.talk.read_nowait()
            if self._is_working:
                self.talk.deliver_posts()
            self._start_jobs()
        except BaseException as error:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """End this worker for what was raised in our own code: the loop would only log it."""
        if self._is_closing:
            return
        if self._place.home.is_process:
            if isinstance(error, (ConductorGone, BrokenPipeError, ConnectionResetError)):
                leave_process(1)
            if isinstance(error, OSError) and self._link.is_abandoned:
                leave_fork(None)
        self._broken = self._broken or error
        self._stop()

    def _stop(self) -> None:
        """Have the work end: there is no more of it, or something is broken."""
        self._loop.stop()

    # Starting jobs

    def _start_jobs(self) -> None:
        """Start as many as may be in flight; decline those that were recalled.

        Every start of a job comes through here. What was declined is said before something else
        is claimed.
        """
        page = self._link.cells
        while self._batches and (len(self._attempts) < self._concurrency or self._is_stopping):
            batch, index = self._batches[0], self._next
            ordinal = batch.first + index
            if ordinal > page[HIGH]:
                self._report_declined()
            page[CLAIM] = ordinal
            if self._is_stopping or (ordinal <= page[HIGH] and page[LOW] < ordinal):
                self._decline(ordinal)
            else:
                self._start(_Attempt(batch, index, self._fail))
            self._next += 1
            if self._next == len(batch.wires):
                self._batches.popleft()
                self._next = 0
        self._report_declined()
        if self._is_working and self._is_finished:
            self._stop()

    def _start(self, attempt: _Attempt) -> None:
        context = self._context.copy()
        context.run(_current.set, attempt)
        steps = _Steps(self._attempt(attempt), self._link.cells, attempt.ordinal)
        attempt.task = task = asyncio.Task(steps, loop=self._loop, context=context)
        self._attempts[attempt.ordinal] = attempt
        task.add_done_callback(attempt.on_over)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> asyncio.Task[Any]:
        """Make a task so that its steps are known as those of its job."""
        attempt = _current.get(None)
        if attempt is not None and isinstance(coro, Coroutine):
            coro = _Steps(coro, self._link.cells, attempt.ordinal)
        return asyncio.Task(coro, loop=loop, **options)

    # One attempt

    async def _attempt(self, attempt: _Attempt) -> None:
        try:
            wire = attempt.batch.wires[attempt.index]
            payload = wire if type(wire) in ATOMS else self._unpickled(wire)
            value = self.worker.process_job(payload)
            if isinstance(value, Awaitable):
                value = await value
            if value is LATER:
                _refuse("LATER")
            is_bare = type(value) is int and not self._outputs
            item: Item = value if is_bare else self._done_item(value)
        except BaseException as error:
            self._fail(attempt, error)
        else:
            self._end(attempt, item)

    def _fail(self, attempt: _Attempt, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError) and attempt.verdict is not None:
            error = attempt.verdict.with_traceback(error.__traceback__)
        try:
            item = self._failure_item(error)
        except (ConductorGone, WorkerLeft) as end:
            self._break(end)
        else:
            self._end(attempt, item)

    def _end(self, attempt: _Attempt, item: Item) -> None:
        """Publish an outcome, and go on with what waits."""
        now = perf_counter_ns()
        attempt.is_open = False
        del self._attempts[attempt.ordinal]
        attempt.batch.wires[attempt.index] = None
        try:
            self._put_down(attempt.ordinal, now - attempt.started, item)
            if self._is_heard:
                self._emit("job_done")
            self._start_jobs()
            if now - self._rung > _BELL:
                self._ring()
            elif not (self._batches or self._will_ring):
                self._will_ring = True
                self._loop.call_soon(self._ring_soon)
        except BaseException as error:
            self._break(error)

    def _wait_until_kept(self) -> None:
        """Go on: there are other jobs in flight."""

    def _ring_soon(self) -> None:
        """Tell of the outcomes of a turn of the loop together."""
        self._will_ring = False
        try:
            self._ring()
        except OSError as error:
            self._break(error)

    def job_at_hand(self) -> JobInfo | None:
        """Tell to which job the running code belongs."""
        attempt = _current.get(None)
        return self._info(attempt.batch, attempt.index) if attempt and attempt.is_open else None

    def _ordinal(self) -> int:
        attempt = _current.get(None)
        return attempt.ordinal if attempt and attempt.is_open else 0

    def _added_by(self, ordinal: int) -> int:
        attempt = self._attempts.get(ordinal)
        return attempt.added if attempt else 0

    def _note_added(self, ordinal: int, number: int) -> None:
        if ordinal in self._attempts:
            self._attempts[ordinal].added = number

    def report_progress(self, fraction: float, text: str) -> None:
        """Send how far a job is: now, or when the last time is long enough ago."""
        progress, attempt = self._progress(fraction, text), _current.get(None)
        if progress is None or attempt is None:
            return
        waits, attempt.unsaid = attempt.unsaid, progress
        left = attempt.said_at + QUIET - perf_counter_ns()
        if left <= 0:
            self._say_progress_of(attempt)
        elif waits is None:
            self._loop.call_later(left / 1e9, self._say_progress_of, attempt)

    def _say_progress_of(self, attempt: _Attempt) -> None:
        progress, attempt.unsaid = attempt.unsaid, None
        if progress is not None and attempt.is_open:
            attempt.said_at = perf_counter_ns()
            with suppress(ConductorGone, OSError):  # the loop comes across that
                self.talk.send(progress)

    def complete(self, error: Any, job: Any, value: Any) -> NoReturn:  # noqa: ARG002 - refused
        """Refuse: there is no callback style here."""
        _refuse("complete_job()")

    def next_job(self) -> NoReturn:
        """Refuse: there is no callback style here."""
        _refuse("get_next_job()")

    # Cancelling

    def _on_cancel(self, message: Cancel) -> None:
        attempt = self._attempts.get(message.ordinal)
        if attempt is None or attempt.task is None:
            return  # it has ended
        if message.limit is None:
            attempt.verdict = JobCancelledError("this job was cancelled while it was executed")
        else:
            attempt.verdict = JobTimeoutError(message.limit, _stack_of(attempt.task))
        attempt.task.cancel()


class _Steps(Coroutine):  # type: ignore[type-arg]
    """A coroutine of a job: before each step, RUNNING says whose code it is."""

    __slots__ = ("_coro", "_ordinal", "_page")

    def __init__(self, coro: Coroutine[Any, Any, Any], page: memoryview[int], ordinal: int) -> None:
        self._coro = coro
        self._page = page
        self._ordinal = ordinal

    def send(self, value: Any) -> Any:
        """Take a step."""
        self._page[RUNNING] = self._ordinal
        try:
            return self._coro.send(value)
        finally:
            self._page[RUNNING] = 0

    def throw(self, *error: Any) -> Any:
        """Take a step that begins with an exception."""
        self._page[RUNNING] = self._ordinal
        try:
            return self._coro.throw(*error)
        finally:
            self._page[RUNNING] = 0

    def close(self) -> None:
        """End it."""
        self._coro.close()

    def __await__(self) -> Any:
        """Be awaited as the coroutine itself."""
        return self._coro.__await__()

    def __getattr__(self, name: str) -> Any:
        """Look like the coroutine to who inspects it."""
        return getattr(self._coro, name)


def _refuse(what: str) -> NoReturn:
    message = (
        f"{what} is for a ConductorWorker, which waits for its job to be completed; in an async "
        "worker, process_job awaits what the job needs and returns the value"
    )
    raise ConductorStateError(message)


def _stack_of(task: asyncio.Task[Any]) -> str:
    """Tell where a task waits, innermost call first, as ``faulthandler`` does."""
    lines: list[str] = []
    waits: Any = task.get_coro()
    while waits is not None:
        frame: FrameType | None = _attribute(waits, "frame")
        if frame is not None and not _is_ours(frame):
            code = frame.f_code
            lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}')
        waits = _attribute(waits, "await") or getattr(waits, "gi_yieldfrom", None)
    return "\n".join(["Task (most recent call first):", *reversed(lines)])


def _attribute(waits: Any, name: str) -> Any:
    for kind in ("cr", "ag", "gi"):
        found = getattr(waits, f"{kind}_{name}", None)
        if found is not None:
            return found
    return None


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("okanjo_conductor._")
