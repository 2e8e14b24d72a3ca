"""Workers in the thread of the run: each does one thing at a time, when its crew has it do so.

    begin   made and set up
    turn    what has arrived is handled, and one job executed; or it leaves

An async worker has its jobs in flight on the loop of the run itself, which goes on meanwhile.
"""

from __future__ import annotations

from okanjo_conductor import _boot
from okanjo_conductor._hosting import GuestHome, let_go, raise_interrupt, worker_of
from okanjo_conductor._io import assignment
from okanjo_conductor._runtime import Runtime
from okanjo_conductor._talk import Talk
from okanjo_conductor.errors import ConductorStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from okanjo_conductor._basis import Basis
    from okanjo_conductor._io.bootstrap import Start
    from okanjo_conductor.clusters._base import Program

INTERRUPTED = 130
"""Exit code of a worker whose job was interrupted from the keyboard, as shells give it."""


class InlineTalk(Talk):
    """A conversation in which an answer is there at once, or never."""

    def wait_for(self, is_met: Callable[[], bool], timeout: float | None) -> None:  # noqa: ARG002
        """Handle what lies ready.

        Raises:
            ConductorStateError: that does not meet the condition, and waiting would not help.
        """
        while not is_met():
            self._check()
            if not self._link.has_news:  # type: ignore[attr-defined]  # an `InlineWorkerLink`
                message = (
                    'cluster="inline": the answer would never come. Whoever gives it needs the '
                    "event loop, which stands still while this job is executed; it is async, or "
                    "another thread has asked. Make the handler, or the function that makes "
                    'entries, a plain one; or use an AsyncConductorWorker, or cluster="threads"'
                )
                raise ConductorStateError(message)
            self.read_nowait()

    def wait_for_threads(self, is_met: Callable[[], bool]) -> None:
        """Wait for what another thread of the job does."""
        super().wait_for(is_met, None)


class InlineRuntime(Runtime):
    """The life of a worker in the thread of the run."""

    talk: InlineTalk

    def begin(self, _host: InlineHost) -> None:
        """Set up."""
        self.attach()
        self.talk.urgent = frozenset()  # no thread is free to handle anything during a job
        self.set_up()

    def turn(self) -> int | None:
        """Handle what has arrived, and execute one job; return the exit code at the end."""
        self.talk.read_nowait()
        self.talk.deliver_posts()
        if self._batches:
            self._run_batch(self._batches.popleft())
            self._report_declined()
            self._ring()
        elif self._is_stopping:
            self.tear_down()
            return 0
        return None

    @property
    def has_work(self) -> bool:
        """Whether there is something to do in a turn."""
        return self._is_wanted()

    def clear_up(self, then: Callable[[], None]) -> None:
        """Call `then`: between two turns nothing goes on."""
        then()

    def _make_talk(self, handlers: dict[type[Any], Callable[[Any], None]]) -> InlineTalk:
        return InlineTalk(self.worker, self._place, handlers, self._check_deadline)

    def _await_completion(self, is_completed: Callable[[], bool]) -> None:
        self.talk.wait_for_threads(is_completed)

    def _failure_item(self, error: BaseException) -> Any:
        raise_interrupt(error)
        return super()._failure_item(error)


class InlineHost:
    """One worker in the thread of the run.

    Args:
        link: its end of its link.
        loop: that of the run.
        on_end: called with the exit code, where the worker ends other than in its turn.
    """

    def __init__(
        self,
        program: Program,
        order: Start,
        link: Any,
        arrays: int | None,
        loop: Any,
        on_end: Callable[[int | None], None],
    ) -> None:
        self._program = program
        self._order = order
        self.loop = loop
        self._on_end = on_end
        self.link = link
        self._home = GuestHome(link)
        self._place = assignment.Assignment(
            order.worker_id,
            order.slot,
            order.master_id,
            order.log_level,
            link,
            arrays,
            self._home,
        )
        self._runtime: Any = None
        self._worker: Basis | None = None
        self._interrupt: KeyboardInterrupt | None = None
        self.is_at_work = False
        """Whether code of the worker's is on the stack."""

    @property
    def has_work(self) -> bool:
        """Whether there is something for it to do."""
        return bool(self._runtime is not None and (self.link.has_news or self._runtime.has_work))

    def begin(self) -> int | None:
        """Make the worker and set it up; return its exit code if that was its end."""
        return self._call(self._begin)

    def turn(self) -> int | None:
        """Have it do one thing; return its exit code if that was its end."""
        return self._call(self._runtime.turn)

    def finish(self, conclude: Callable[[], int]) -> None:
        """End outside of a turn, with what this returns or raises."""
        self._on_end(self._call(conclude))
        self.raise_interrupt()

    def condemn(self) -> None:
        """Have it leave when it waits next, or when its job has ended."""
        self._home.condemn()

    @property
    def is_condemned(self) -> bool:
        """Whether it is to leave."""
        return self._home.is_condemned

    @property
    def code(self) -> int | None:
        """Its exit code, if it has decided to leave by itself."""
        return self._home.code

    def clear_up(self) -> None:
        """Let go of what a process would take with it."""
        let_go(self._worker, self._place.arrays)
        if self._runtime is not None:
            self._runtime.clear_up(self.link.close)
        else:
            self.link.close()

    def _begin(self) -> int | None:
        self._worker = worker = _boot.construct(worker_of(self._program), self._order)
        kind: Any = InlineRuntime
        if worker._is_async:
            from okanjo_conductor._inline_async import InlineAsyncRuntime

            kind = InlineAsyncRuntime
        self._runtime = kind(worker, self._place)
        assignment.settle(self._runtime)
        self._runtime.begin(self)
        return None

    def _call(self, function: Callable[[], int | None]) -> int | None:
        def call() -> int | None:
            try:
                return function()
            except KeyboardInterrupt as interrupt:
                self._interrupt = interrupt
                return INTERRUPTED
            except OSError:
                if not self.link.is_abandoned:
                    raise
                self._home.return_from_fork(None)

        self.is_at_work = True
        try:
            with assignment.at_home(self._place, self._runtime):
                return _boot.live(call, self.link)
        finally:
            self.is_at_work = False

    def raise_interrupt(self) -> None:
        """Raise what has interrupted a job from the keyboard, if anything has."""
        if self._interrupt is not None:
            raise self._interrupt
