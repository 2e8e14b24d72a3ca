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

_ROUNDING = 1e-9


@dataclass(eq=False)
class Force:
    """What one worker has done and suffered."""

    handed: dict[int, Job]
    over: set[int] = field(default_factory=set)
    """Ordinals of which the core knows that they have ended or will not be executed."""
    seen: tuple[int, float] | None = None
    """What the core saw it execute last, and since when."""
    measured: int | None = None
    """What it executed when it was beyond its memory."""
    left: int | None = None
    """What the last recall has left with it."""
    meant: tuple[int, Cause] | None = None
    """The ordinal for which it is to be ended."""
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
        return self.meant is not None and self.meant[0] not in self.over

    @property
    def is_ended(self) -> bool:
        """Whether we sent SIGTERM or SIGKILL."""
        return self.is_killed or self.terminated_at is not None

    def get_over(self, ordinals: Iterable[int]) -> None:
        """Take note that the core has heard the end of these."""
        self.over.update(ordinals)

    def goes_on(self, ordinal: int | None) -> bool:
        """Whether the core must believe that this is being executed."""
        return ordinal in self.handed and ordinal not in self.over


class ForceBook:
    """What may be done to the workers of a run, by its policy and its phase."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._leave_by: float | None = None
        """When workers may be made to leave; None: never yet."""
        self._phase = Phase.NEW
        self.drain_seconds: float | None = None
        self.is_aborted = False

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
        require(force.seen is not None, "only who was seen is ended for its time")
        ordinal, since = force.seen or (0, 0.0)
        limit = force.handed[ordinal].timeout
        is_late = limit is not None and now >= since + limit - _ROUNDING
        require(is_late, "time limits are kept", ordinal, since, limit, now)
        require(force.goes_on(ordinal), "a job that has ended is not ended", ordinal)
        require(not (force.is_doomed or force.is_ended), "a worker is ended once", force)
        self._require_alone(force)
        force.meant, force.dumped_at, force.interrupted_at = (ordinal, Cause.TIMEOUT), now, None

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
        if force.is_doomed and not (is_unwanted and left != force.meant[0]):  # type: ignore[index]
            self._require_turn(force, now)
        elif is_unwanted:
            force.meant = left or 0, Cause.PREEMPTED
        else:
            require(self.may_end_all(now), "a worker that was spared is not harmed later", force)
            require(is_asked, "a worker is asked before it is terminated", force)
        force.terminated_at = now

    def _require_turn(self, force: Force, now: float) -> None:
        due = force.dumped_at + STACK_TIME
        if self._policy.soft_timeout:
            require(force.interrupted_at is not None, "a soft limit interrupts first", force)
            due += self._policy.timeout_grace / 2
        require(now >= due - _ROUNDING, "a worker has its grace", force, now)

    def kill(self, force: Force, now: float) -> None:
        """Judge SIGKILL."""
        require(not force.is_killed, "a worker is killed once", force)
        self._require_alone(force)
        if force.terminated_at is None:
            require(force.goes_on(force.measured), "only memory kills without warning", force)
            force.meant = force.measured or 0, Cause.MEMORY
        else:
            grace = self._policy.timeout_grace / (2 if force.interrupted_at is not None else 1)
            due = force.terminated_at + grace
            require(now >= due - _ROUNDING, "SIGTERM is given its time", force, now)
        force.is_killed = True

    def report_stuck(self, force: Force, now: float, seconds: float) -> None:
        """Judge the word about a job that takes long."""
        ordinal, since = force.seen or (0, now)
        patience = self._policy.stuck_after
        is_stuck = patience is not None and seconds >= patience - _ROUNDING
        require(is_stuck and seconds == now - since, "patience is kept", force, seconds)
        require(force.goes_on(ordinal), "a job that has ended is not stuck", force)
        require(ordinal not in force.stuck, "a job is called stuck once", force)
        force.stuck.add(ordinal)

    @staticmethod
    def _require_alone(force: Force) -> None:
        is_alone = not any(ordinal > force.recalled for ordinal in force.handed.keys() - force.over)
        require(is_alone, "the other jobs are taken back before a worker is harmed", force)

    # What a death means

    def cause_of_death(self, force: Force, executing: int, *, is_oom: bool) -> Cause:
        """Say what a job is charged with that was being executed."""
        if force.is_ended:
            is_meant = force.is_doomed and force.meant is not None and force.meant[0] == executing
            return force.meant[1] if is_meant and force.meant else Cause.PREEMPTED
        if self.is_aborted:
            return Cause.PREEMPTED
        return Cause.MEMORY if is_oom else Cause.CRASH
