"""Who is handed what: jobs to workers, recalls, new workers for jobs that wait, successors.

The dealer looks at ledger, fleet and board after each event, while the run goes on, and makes true
what shall hold: no job waits beside an idle worker or an empty slot, here or behind another job.
"""

from __future__ import annotations

from collections import deque
from itertools import chain, islice
from typing import TYPE_CHECKING

from okanjo_conductor._core import commands as do
from okanjo_conductor._core.endings import steps_of_start
from okanjo_conductor._types import Ordinal

if TYPE_CHECKING:
    from okanjo_conductor._core.board import Board
    from okanjo_conductor._core.fleet import Fleet, SlotState, Worker
    from okanjo_conductor._core.jobs import Jobs
    from okanjo_conductor._core.ledger import Ledger
    from okanjo_conductor._core.policy import Policy

_BATCHES_HELD = 2
"""Per worker: one at work, one waiting while word of the first travels."""
_COMPARED = 16
"""Among how many workers, at least, the emptiest is given a job and the fullest asked for some."""


class Dealer:
    """Deals jobs and starts workers.

    Args:
        ledger: where every job stands.
        fleet: slots and workers.
        board: who wants jobs. Whatever is done to a worker here, it is touched there.
        policy: what the user has laid down.
    """

    def __init__(self, ledger: Ledger, fleet: Fleet, board: Board, policy: Policy) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._board = board
        self._policy = policy
        self._set_aside: list[Worker] = []
        """Workers that are handed nothing, so that they can be handed suspects."""
        self._ages: deque[tuple[float, Worker]] = deque()
        """When workers will have lived long enough, in order."""
        self._has_more = True
        self._is_loner_out = False
        """Whether a job that must be executed alone may still be."""
        self.commands: list[do.Command] = []
        """Of the step under construction."""

    def deal(self, now: float, *, has_more: bool) -> None:
        """Hand out and recall jobs, start workers.

        Args:
            now: the time.
            has_more: whether the source may have more jobs.
        """
        self._has_more = has_more
        self._ledger.queue_due(now)
        while self._ages and self._ages[0][0] <= now:
            self._note_old(self._ages.popleft()[1])
        self._board.refresh()
        self._hand_out(now)
        self._board.refresh()
        self._recall()
        self._start_workers(now)
        self._recycle(now)

    def next_deadline(self) -> float | None:
        """When to deal again if nothing happens before, or None."""
        times = [] if self._ledger.next_due is None else [self._ledger.next_due]
        if self._ages and self._is_anything_waiting:
            ages = (time for time, w in self._ages if w in self._fleet and _may_retire(w))
            times += islice(ages, 1)
        if self._board.spent:
            times += [worker.slot.not_before for worker in self._worn()]
        if self._fleet.vacant and self._wants_workers():
            times += [slot.not_before for slot in self._fleet.vacant.values()]
        return min(times, default=None)

    def note_ready(self, worker: Worker, now: float) -> None:
        """Take note that a worker was set up."""
        if (seconds := self._policy.recycle.seconds) is not None:
            self._ages.append((now + seconds, worker))

    def _note_old(self, worker: Worker) -> None:
        if worker in self._fleet:
            worker.is_old = True
            self._board.touch(worker)

    def recall_from(self, worker: Worker) -> None:
        """Take back what a worker has not started, unless that is under way."""
        if worker.is_recalled or not worker.was_ready:
            return
        worker.is_recalled = True
        self._board.touch(worker)
        last = Ordinal(worker.next_ordinal - 1)
        self.commands.append(do.RecallJobs(worker_id=worker.id, last=last))

    def recall_waiting(self, worker: Worker) -> None:
        """Take back what waits in a worker behind another job, if anything does."""
        if self._board.waiting_in(worker):
            self.recall_from(worker)

    def _hand_out(self, now: float) -> None:
        ledger = self._ledger
        self._is_loner_out = self._is_loner_out and ledger.has_held
        if self._is_loner_out:
            return
        if ledger.aside:
            self._hand_out_suspects()
        elif self._set_aside:
            self._release()
            self._board.refresh()
        if not ledger.queued:
            self._hand_out_loner()
            return
        if workers := self._takers_of(ledger.queued, now):
            self._fill([w for w in workers if w.concurrency > 1])
            self._hand_batches_to(workers)
        if ledger.aside and not ledger.queued:  # now also who has found nothing else
            self._hand_out_suspects()

    def _takers_of(self, count: int, now: float) -> list[Worker]:
        """Choose who is handed so many jobs: not many more than that, and first who is idle."""
        idle, hungry = self._board.idle, self._board.hungry
        some = islice(chain(idle.values(), hungry.values()), max(count, _COMPARED))
        return sorted((w for w in [*some] if not self._is_blocked(w, now)), key=lambda w: w.id)

    def _is_blocked(self, worker: Worker, now: float) -> bool:
        """Whether no job shall wait in a worker by now: nobody looked while none did."""
        if worker.watches and worker.concurrency == 1:
            worker.note_blocks(now)
            self._board.touch(worker)
        return worker.is_blocked

    def _hand_batches_to(self, workers: list[Worker]) -> None:
        ledger, board = self._ledger, self._board
        for _ in range(_BATCHES_HELD):
            for worker in sorted(workers, key=lambda w: ledger.held_by(w.id)):
                share = -(-ledger.queued // board.sharers)
                count = min(worker.sizer.batch, share, board.jobs_left(worker))
                if count and ledger.held_by(worker.id) <= worker.most_at_once:
                    self._hand_to(worker, count)

    def _fill(self, workers: list[Worker]) -> None:
        """Let workers that execute several jobs at a time have those, before any job waits."""
        ledger = self._ledger
        while ledger.queued and (hungry := [w for w in workers if self._room(w) > 0]):
            share = -(-ledger.queued // len(hungry))
            for worker in sorted(hungry, key=lambda w: ledger.held_by(w.id)):
                if count := min(share, ledger.queued, self._room(worker)):
                    self._hand_to(worker, count)

    def _room(self, worker: Worker) -> int:
        """How many jobs a worker would execute besides those it has."""
        room = min(worker.concurrency - self._ledger.held_by(worker.id), worker.sizer.largest)
        return min(room, self._board.jobs_left(worker))

    def _hand_to(self, worker: Worker, count: int) -> None:
        first = worker.take_ordinals(count)
        self._send(worker, first, self._ledger.hand_out(worker.id, first, count))

    def _send(self, worker: Worker, first: Ordinal, jobs: Jobs) -> None:
        self._board.touch(worker)
        histories = self._ledger.histories_of(jobs)
        self.commands.append(
            do.HandOut(worker_id=worker.id, first=first, jobs=jobs, histories=histories)
        )

    def _hand_out_loner(self) -> None:
        """Give a job that must be executed alone to a worker, when everything else is done."""
        ledger = self._ledger
        has_more = ledger.aside or ledger.has_held or self._has_more
        if has_more or not ledger.alone:
            return
        if worker := next(iter(self._board.idle.values()), None):
            first = worker.take_ordinals(1)
            self._send(worker, first, ledger.hand_out_loner(worker.id, first))
            self._is_loner_out = True

    # Suspects: each is executed by a worker that has nothing else

    def _hand_out_suspects(self) -> None:
        """Give suspects to workers that have nothing, and see that there are such workers.

        While other jobs wait too, they are for half of the workers, and suspects for the rest.
        """
        takers, board = self._fleet.takers(), self._board
        others = [w for w in takers if board.jobs_left(w) > 0 and not board.is_alone(w)]
        alone = sum(map(board.is_alone, takers))
        wanted = max(1, (len(others) + alone) // 2) - alone
        for worker in [w for w in others if self._is_empty(w)]:
            if self._ledger.aside and (wanted > 0 or not self._ledger.queued):
                wanted -= 1
                others.remove(worker)
                self._hand_suspect_to(worker)
        self._put_aside(others, wanted)
        board.refresh()

    def _hand_suspect_to(self, worker: Worker) -> None:
        worker.is_set_aside = False
        worker.suspect = first = worker.take_ordinals(1)
        self._send(worker, first, self._ledger.hand_out_suspect(worker.id, first))

    def _put_aside(self, workers: list[Worker], count: int) -> None:
        """Let some workers finish what they have, so that they can be handed suspects."""
        count = min(count, self._ledger.aside)
        ledger = self._ledger
        workers.sort(key=lambda w: (not w.is_set_aside, ledger.held_by(w.id)))
        chosen = workers[:count]
        new = [w for w in chosen if not w.is_set_aside]
        self._release()
        self._set_aside = chosen
        for worker in chosen:
            worker.is_set_aside = True
            self._board.touch(worker)
        for worker in new:
            self.recall_from(worker)

    def _release(self) -> None:
        """Set nobody aside."""
        for worker in filter(self._fleet.__contains__, self._set_aside):
            worker.is_set_aside = False
            self._board.touch(worker)
        self._set_aside = []

    def _is_empty(self, worker: Worker) -> bool:
        return not (worker.is_recalled or self._ledger.held_by(worker.id))

    def _recall(self) -> None:
        """Let idle workers have what others hold and have not started."""
        board, ledger = self._board, self._ledger
        if ledger.queued:
            return
        while board.givers and board.coming < len(board.idle):
            some = islice(board.givers.values(), _COMPARED)
            self.recall_from(max(some, key=lambda w: ledger.held_by(w.id)))
            board.refresh()

    def _start_workers(self, now: float) -> None:
        if not (self._fleet.vacant and self._wants_workers()):
            return
        for _, slot in sorted(self._fleet.vacant.items()):
            if slot.not_before <= now and self._wants_workers():
                self._start_in(slot, now)

    def _start_in(self, slot: SlotState, now: float) -> None:
        worker = self._fleet.fill(slot)
        worker.steps = deque(steps_of_start(worker.id, slot.number, self._policy, now))
        self._ledger.enrol(worker.id)
        self._board.touch(worker)
        self.commands.append(do.StartWorker(worker_id=worker.id, slot=slot.number))

    def _recycle(self, now: float) -> None:
        """Order a successor for each worker that has done enough, while jobs wait."""
        if self._board.spent:
            for worker in self._worn():
                if worker.slot.not_before <= now and self._is_missed(worker):
                    self._start_in(worker.slot, now)

    def _worn(self) -> list[Worker]:
        """Return the workers that have done enough and are missed."""
        if not (self._is_anything_waiting or self._wants_workers()):
            return []
        spent = self._board.spent.values()
        return [w for w in spent if _may_retire(w) and self._is_missed(w)]

    @property
    def _is_anything_waiting(self) -> bool:
        return bool(self._ledger.queued or self._ledger.aside or self._ledger.alone)

    def _is_missed(self, worker: Worker) -> bool:
        """Whether a job waits that a successor would be given."""
        if self._is_anything_waiting:
            return True
        return self._is_used_up(worker) and self._wants_workers()

    def _is_used_up(self, worker: Worker) -> bool:
        """Whether a worker has nothing to do and may be handed nothing more."""
        return self._board.jobs_left(worker) <= 0 and not self._ledger.held_by(worker.id)

    def _wants_workers(self) -> bool:
        """Whether a job waits, here or behind another one, for which nobody is on the way."""
        ledger = self._ledger
        waiting = ledger.queued + ledger.aside + bool(ledger.alone)
        return waiting + self._board.spare > self._fleet.starting


def _may_retire(worker: Worker) -> bool:
    """Whether a successor can be put beside a worker."""
    return worker.takes_jobs and worker.slot.worker is worker and worker.slot.living == 1
