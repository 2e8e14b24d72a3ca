"""The books about force: who may be done what to, when, and for which job.

The core names no job when it has a worker terminated or killed. `ForceBook` works out for itself
which one is meant, from what the core was told: the job that was seen for longer than its limit,
the one that was executed when too much memory was measured, the cancelled one that a recall has
left with its worker. A worker with no such job may be ended only when the run is, after its grace.
So a worker that was spared, because its job has ended meanwhile, must not be harmed later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from okanjo_conductor._core.endings import STACK_TIME
from okanjo_conductor._core.state import LEAVE_GRACE, Phase
from okanjo_conductor._types import Cause
from okanjo_conductor.testing._promises import require

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from okanjo_conductor._core import commands as do
    from okanjo_conductor._core.jobs import Job
    from okanjo_conductor._core.policy import Policy
    from okanjo_conductor._types import JobId
    from okanjo_conductor.testing._world import SimWorker

_ROUNDING = 1e-9


@dataclass(eq=False)
class Force:
    """What one worker has done and suffered."""

    worker: SimWorker
    over: set[int] = field(default_factory=set)
    """Ordinals of which the core knows that they have ended or will not be executed."""
    seen: dict[int, float] = field(default_factory=dict)
    """What the core saw it execute, and since when; of one at a time, the last."""
    measured: list[int] = field(default_factory=list)
    """What it executed when it was beyond its memory."""
    left: int | None = None
    """The last one that the last recall has left with it."""
    pleas: dict[int, tuple[Cause, float]] = field(default_factory=dict)
    """What it was asked to end itself: why, and when."""
    meant: tuple[int, Cause] = (0, Cause.PREEMPTED)
    """The ordinal for which it is to be ended; 0: it is not."""
    is_unsure: bool = False
    """That one is the first of several that may be meant."""
    recalled: int = 0
    """The last ordinal that was ever recalled."""
    dumped_at: float = 0.0
    interrupted_at: float | None = None
    terminated_at: float | None = None
    is_killed: bool = False
    stuck: set[int] = field(default_factory=set)

    @property
    def is_doomed(self) -> bool:
        """Whether it is to be ended for a job that goes on still."""
        return self.meant[0] != 0 and self.meant[0] not in self.over

    @property
    def is_late(self) -> bool:
        """Whether it was killed because it did not get set up."""
        return self.is_killed and not (self.worker.is_ready or self.worker.is_stopping)

    @property
    def is_ended(self) -> bool:
        """Whether we sent SIGTERM or SIGKILL."""
        return self.is_killed or self.terminated_at is not None

    def get_over(self, ordinals: Iterable[int]) -> None:
        """Take note that the core has heard the end of these."""
        gone = set(ordinals)
        self.over |= gone
        for ordinal in gone & self.pleas.keys():
            del self.pleas[ordinal]

    @property
    def handed(self) -> dict[int, Job]:
        """Everything it was ever handed."""
        return self.worker.handed

    def goes_on(self, ordinal: int | None) -> bool:
        """Whether the core must believe that this has not ended."""
        return ordinal in self.handed and ordinal not in self.over

    def executing(self, claimed: int | None) -> list[int]:
        """What the core must believe to be executed: one, or all up to the claimed one."""
        if claimed is None:
            return []
        first = claimed if self.worker.concurrency == 1 else 1
        return [o for o in range(first, claimed + 1) if self.goes_on(o)]

    def left_executing(self) -> list[int]:
        """Of what the last recall has left with it, what the core must believe to be executed."""
        return self.executing(self.left)

    def see(self, ordinals: Iterable[int], since: float) -> None:
        """Take note of what the core is told about for the first time."""
        for ordinal in ordinals:
            if self.goes_on(ordinal):
                if self.worker.concurrency == 1 and ordinal not in self.seen:
                    self.seen.clear()
                self.seen.setdefault(ordinal, since)


class ForceBook:
    """What may be done to the workers of a run, by its policy and its phase."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._leave_by: float | None = None
        """When workers may be made to leave; None: never yet."""
        self._phase = Phase.NEW
        self.drain_seconds: float | None = None
        self.is_aborted = False
        self.limits: list[float] = []
        """Time limits that were set for jobs without one."""

    def limits_of(self, job: Job) -> list[float]:
        """Return the time limits that a job may have."""
        return self.limits if job.timeout is None else [job.timeout]

    def note_phase(self, phase: Phase, now: float) -> None:
        """Take note of where the run stands."""
        if phase is self._phase:
            return
        self._phase = phase
        self.is_aborted |= phase is Phase.ABORTING
        grace = {
            Phase.ENDING: LEAVE_GRACE,
            Phase.DRAINING: self.drain_seconds,
            Phase.ABORTING: self._policy.abort_grace,
        }.get(phase)
        if grace is not None:
            self._leave_by = min(now + grace, self._leave_by or now + grace)

    def may_end_all(self, now: float) -> bool:
        """Whether the grace of the whole run is over."""
        return self._leave_by is not None and now >= self._leave_by - _ROUNDING

    # Commands

    def dump_stack(self, force: Force, now: float) -> None:
        """Judge the first thing that is done at a time limit."""
        if not force.worker.is_ready:
            self._require_late_start(force, now, 0.0)
            return
        if force.worker.can_cancel:
            ordinal = self._unheeded(force, now)
            require(ordinal, "a worker that may answer yet is not harmed", force)
            require(force.pleas[ordinal][0] is Cause.TIMEOUT, "stacks are for late jobs", force)
        else:
            require(force.seen, "only who was seen is ended for its time")
            ordinal = next(iter(force.seen))
            self._require_late(force, ordinal, now)
        require(not (force.is_doomed or force.is_ended), "a worker is ended once", force)
        self._require_alone(force)
        force.meant, force.dumped_at, force.interrupted_at = (ordinal, Cause.TIMEOUT), now, None

    def _require_late_start(self, force: Force, now: float, extra: float) -> None:
        limit, since = self._policy.start_timeout, force.worker.started_at
        is_late = limit is not None and now >= since + limit + extra - _ROUNDING
        require(is_late, "a start has its time", force, now)

    def _require_late(self, force: Force, ordinal: int, now: float) -> None:
        require(ordinal in force.seen, "only who was seen is late", ordinal)
        limits, since = self.limits_of(force.handed[ordinal]), force.seen[ordinal]
        is_late = any(now >= since + limit - _ROUNDING for limit in limits)
        require(is_late, "time limits are kept", ordinal, since, limits, now)
        require(force.goes_on(ordinal), "a job that has ended is not ended", ordinal)

    def _unheeded(self, force: Force, now: float) -> int:
        """Find the first job that a worker should have ended itself by now, or 0."""
        grace = self._policy.timeout_grace / 2
        due = (o for o, (_, at) in force.pleas.items() if now >= at + grace - _ROUNDING)
        return next(due, 0)

    def cancel(
        self, force: Force, command: do.CancelJob, cancelled: Container[JobId], now: float
    ) -> None:
        """Judge that a worker is asked to end a job itself."""
        ordinal, job = command.ordinal, force.handed[command.ordinal]
        require(force.worker.can_cancel, "only who can is asked to", command)
        require(ordinal not in force.pleas, "a worker is asked once", command)
        require(not (force.is_doomed or force.is_ended), "who is ended is not asked", command)
        require(force.goes_on(ordinal), "a job that has ended is not ended", command)
        if command.limit is None:
            require(job.id in cancelled, "nothing is cancelled but what was to be", command)
            require(ordinal in force.left_executing(), "it cannot be taken back", command)
        else:
            is_known = command.limit in self.limits_of(job)
            require(is_known, "a job is told its own limit, or one that was set", command)
            self._require_late(force, ordinal, now)
        cause = Cause.PREEMPTED if command.limit is None else Cause.TIMEOUT
        force.pleas[ordinal] = cause, now

    def interrupt(self, force: Force, command: do.InterruptJob, now: float) -> None:
        """Judge the exception within a job."""
        require(self._policy.soft_timeout, "only soft limits interrupt", command)
        require(force.is_doomed and not force.is_ended, "only a doomed one is interrupted", force)
        require(force.meant == (command.ordinal, Cause.TIMEOUT), "the late one is meant", command)
        require(now >= force.dumped_at + STACK_TIME - _ROUNDING, "its stack is first", command)
        require(force.interrupted_at is None, "a job is interrupted once", command)
        force.interrupted_at = now

    def terminate(
        self, force: Force, cancelled: Container[JobId], now: float, *, is_asked: bool
    ) -> None:
        """Judge SIGTERM."""
        require(not force.is_ended, "a worker is terminated once", force)
        self._require_alone(force)
        left = force.left
        is_unwanted = force.goes_on(left) and force.handed[left or 0].id in cancelled
        if force.worker.can_cancel:
            left = self._unheeded(force, now)
            is_unwanted = left != 0 and force.pleas[left][0] is Cause.PREEMPTED
        is_other = is_unwanted and left != force.meant[0] and not force.worker.can_cancel
        if force.is_doomed and not is_other:
            self._require_turn(force, now)
        elif is_unwanted:
            force.meant = left or 0, Cause.PREEMPTED
        else:
            require(self.may_end_all(now), "a worker that was spared is not harmed later", force)
            require(is_asked, "a worker is asked before it is terminated", force)
        force.terminated_at = now

    def _require_turn(self, force: Force, now: float) -> None:
        due = force.dumped_at + STACK_TIME
        if self._policy.soft_timeout and not force.worker.can_cancel:
            require(force.interrupted_at is not None, "a soft limit interrupts first", force)
            due += self._policy.timeout_grace / 2
        require(now >= due - _ROUNDING, "a worker has its grace", force, now)

    def kill(self, force: Force, now: float) -> None:
        """Judge SIGKILL."""
        require(not force.is_killed, "a worker is killed once", force)
        self._require_alone(force)
        if force.terminated_at is None and not force.worker.is_ready:
            self._require_late_start(force, now, STACK_TIME)
        elif force.terminated_at is None:
            first = next(iter(force.measured), None)
            require(force.goes_on(first), "only memory kills without warning", force)
            force.meant = first or 0, Cause.MEMORY
            force.is_unsure = len(force.measured) > 1
        else:
            was_asked = force.interrupted_at is not None or force.worker.can_cancel
            grace = self._policy.timeout_grace / (2 if was_asked else 1)
            due = force.terminated_at + grace
            require(now >= due - _ROUNDING, "SIGTERM is given its time", force, now)
        force.is_killed = True

    def report_stuck(self, force: Force, now: float, command: do.ReportStuck) -> None:
        """Judge the word about a job, or a start, that takes long."""
        if command.key is None:
            require(not force.worker.is_ready, "only who starts is stuck in that", force)
            is_stuck = now >= force.worker.started_at + command.seconds - _ROUNDING
            is_right = is_stuck and command.seconds == self._policy.stuck_after
            require(is_right, "patience is kept", force, now)
            require(0 not in force.stuck, "a start is called stuck once", force)
            force.stuck.add(0)
            return
        found = [o for o in force.seen if force.goes_on(o) and force.handed[o].key == command.key]
        require(found, "only who was seen is stuck", command)
        ordinal, seconds = found[0], command.seconds
        since, patience = force.seen[ordinal], self._policy.stuck_after
        is_stuck = patience is not None and seconds >= patience - _ROUNDING
        require(is_stuck and seconds == now - since, "patience is kept", force, seconds)
        require(ordinal not in force.stuck, "a job is called stuck once", force)
        force.stuck.add(ordinal)

    @staticmethod
    def _require_alone(force: Force) -> None:
        is_alone = not any(ordinal > force.recalled for ordinal in force.handed.keys() - force.over)
        require(is_alone, "the other jobs are taken back before a worker is harmed", force)

    # What a death means

    def cause_of_death(self, force: Force, executing: list[int], *, is_oom: bool) -> Cause:
        """Say why a worker died that was executing these."""
        if force.is_late:
            return Cause.TIMEOUT
        if force.is_ended:
            is_meant = force.is_unsure or (force.is_doomed and force.meant[0] in executing)
            return force.meant[1] if is_meant else Cause.PREEMPTED
        if self.is_aborted:
            return Cause.PREEMPTED
        return Cause.MEMORY if is_oom else Cause.CRASH

    def judge(self, force: Force, executing: list[int], cause: Cause) -> dict[int, Cause]:
        """Say what the death of a worker means for those that it was executing."""
        if cause is Cause.PREEMPTED:
            return dict.fromkeys(executing, cause)
        if force.is_ended and not force.is_unsure:
            culprit, running = force.meant[0], force.worker.running
            late = [o for o in executing if force.pleas.get(o, (None, 0.0))[0] is Cause.TIMEOUT]
            if cause is Cause.TIMEOUT and running is None and len(late) > 1:
                return {o: Cause.SUSPECT if o in late else Cause.PREEMPTED for o in executing}
            is_late = force.pleas.get(running or 0, (None, 0.0))[0] is Cause.TIMEOUT
            if cause is Cause.TIMEOUT and is_late:
                culprit = running or 0
            return {o: cause if o == culprit else Cause.PREEMPTED for o in executing}
        is_unsure = force.is_unsure if force.is_ended else len(executing) > 1
        return dict.fromkeys(executing, Cause.SUSPECT if is_unsure else cause)
