"""The crash matrix: at every moment every fault, each with the outcome that this table says.

    R    the victim is refused as unserialisable: no worker ever had it
    U    the victim fails: what is unserialisable; no worker is lost
    E    the victim fails with the error; no worker is lost
    C    one worker is lost, the victim is charged with a crash and done at its second attempt
    L    one worker is lost and nobody is charged
    S    one worker is lost and all that were in flight are suspects; the victim does it again when
         it is executed alone, is charged with that crash, and done at its third attempt
    K    the same with its memory, where `max_rss` is given
    P    the victim fails with a timeout, where `job_timeout` is given; the rest is preempted
    ok   nothing comes of it
    X    the conductor's own process was told to exit: an abort, and run() raises SystemExit
    T    the victim fails with a timeout, where `job_timeout` is given     a/b: b where the package
    M    the victim is charged with its memory, where `max_rss` is given        has it, a before
    -    makes no sense: see `SENSELESS`

The last rows are those of an async worker. In every cell all other jobs are done, and the run ends:
at their first attempt, or at their second if they were in flight beside the victim of S, K or P.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from faults.moments import state_of, touch, wait_until
from okanjo_conductor import Cause, Conductor, JobState
from okanjo_conductor._core import fleet

from .matrix import (
    ASYNC,
    COMPANIONS,
    FAULTS,
    IN_FLIGHT,
    KEPT,
    LARGE,
    MOST_MEMORY,
    NEIGHBOURS,
    VICTIM,
    Answerer,
    AsyncAnswerer,
    AsyncStruck,
    Mine,
    Struck,
    struck,
)

TABLE = """
moment              | exception | sys.exit | os._exit(0) | SIGKILL | SIGSEGV | SIGSTOP | memory | socket cut
pickling the job    | R         | R        | -           | -       | -       | -       | R      | -
sending             | E         | E        | C           | C       | C       | C/T     | E/M    | L
unpickling          | U         | U        | C           | C       | C       | C/T     | U/M    | L
setup               | L         | L        | L           | L       | L       | L       | L      | L
looking up          | E         | X        | C           | C       | C       | C/T     | E      | C
requesting          | E         | X        | C           | C       | C       | C/T     | E      | C
answering           | ok        | ok       | C           | C       | C       | C/T     | ok     | L
after adding        | E         | E        | C           | C       | C       | C/T     | E/M    | L
running             | E         | E        | C           | C       | C       | C/T     | E/M    | L
pickling the result | U         | U        | C           | C       | C       | C/T     | U/M    | L
sending the result  | -         | -        | C           | C       | C       | C/T     | -      | C
after sending       | ok        | ok       | L           | L       | L       | L       | ok     | L
idle                | ok        | ok       | L           | L       | L       | L       | ok     | L
exiting             | L         | L        | ok          | L       | L       | L       | L      | L
beside others       | E         | E        | S           | S       | S       | S/P     | E/K    | S
awaiting a lookup   | E         | X        | S           | S       | S       | S       | E      | S
awaiting a reply    | E         | X        | S           | S       | S       | S       | E      | S
"""  # noqa: E501 - a table
SENSELESS = {
    "pickling the job": "the conductor's own process: its end is the end of the run, and its "
    "workers go with it (tests/faults/test_conductor_death.py); there is no link yet to cut",
    "sending the result": "no code of the user's runs there that could raise",
}
HAS_TIMEOUT, HAS_MEMORY = "TIMEOUT" in Cause.__members__, "MEMORY" in Cause.__members__
DONE, FAILED = JobState.DONE, JobState.FAILED
ENDS = {
    "R": (FAILED, "UNSERIALISABLE", 0, []),
    "U": (FAILED, "UNSERIALISABLE", 1, ["UNSERIALISABLE"]),
    "E": (FAILED, "ERROR", 1, ["ERROR"]),
    "C": (DONE, None, 2, ["CRASH"]),
    "T": (FAILED, "TIMEOUT", 1, ["TIMEOUT"]),
    "M": (DONE, None, 2, ["MEMORY"]),
    "L": (DONE, None, 1, []),
    "S": (DONE, None, 3, ["SUSPECT", "CRASH"]),
    "K": (DONE, None, 3, ["SUSPECT", "MEMORY"]),
    "P": (FAILED, "TIMEOUT", 1, ["TIMEOUT"]),
    "ok": (DONE, None, 1, []),
}
"""Of the victim: state, cause, attempts, and the causes in its history."""
COMPANY = {"S": ["SUSPECT"], "K": ["SUSPECT"], "P": ["PREEMPTED"]}
"""The causes in the histories of those that were in flight beside it; none charges anybody."""


def cells():
    head, *rows = (line.split("|") for line in TABLE.strip().splitlines())
    faults = [name.strip() for name in head[1:]]
    assert faults == list(FAULTS)
    for moment, *row in rows:
        for fault, cell in zip(faults, row, strict=True):
            yield moment.strip(), fault, cell.strip()


@pytest.fixture(autouse=True)
def _others_wait(monkeypatch):
    """Let the next job wait behind the victim as long as it takes to come to the moment."""
    monkeypatch.setattr(fleet, "_PATIENCE", 3600.0)


def expected(cell):
    before, _, after = cell.partition("/")
    has_it = HAS_TIMEOUT if after in {"T", "P"} else HAS_MEMORY and after in {"M", "K"}
    return after if has_it else before


CELLS = {f"{moment}: {fault}": (moment, fault, cell) for moment, fault, cell in cells()}


class Scene:
    """One cell: a conductor, its jobs, and who helps the fault along."""

    def __init__(self, moment, fault, end, folder):
        if end in {"M", "K"}:
            fault = KEPT
        self.moment, self.fault, self.end, self.folder = moment, fault, end, folder
        self.exits = []
        options = {"moment": moment, "fault": fault, "folder": str(folder)}
        answerer = (AsyncAnswerer if moment in ASYNC else Answerer)(fault, folder)
        self.conductor = Conductor(
            AsyncStruck if moment in ASYNC else Struck,
            jobs_queue=self.jobs(),
            worker_limit=2 if moment == "idle" else 1,
            worker_options=options,
            abort_grace=0.05,
            lookups={"table": answerer},
            logging=False,
            **self.limits(),
        )
        self.conductor.on("error", lambda _: None)
        self.conductor.on("worker_exit", self.exits.append)
        self.conductor.on("worker_exit", lambda _: touch(folder / "release"))
        self.conductor.on("job_done", self.on_done)
        self.asked = []
        self.conductor.command("ask me")(self.ask)
        self.conductor.command("table")(lambda msg: answerer[msg.data])

    def ask(self, msg):
        self.asked.append(self.conductor.request_worker(msg.worker_id, "answer"))

    def limits(self):
        if self.end in {"T", "P"}:
            return {"job_timeout": 1.0, "timeout_grace": 0.1}
        return {"max_rss": MOST_MEMORY} if self.end in {"M", "K"} else {}

    def jobs(self):
        folder = str(self.folder)
        victims = {
            "pickling the job": [Mine(self.fault, folder, when="pickled")],
            "unpickling": [Mine(self.fault, folder, when="unpickled")],
            "sending": [VICTIM, bytes(LARGE)],
            "sending the result": ["who", VICTIM],
            "idle": ["wait", "who", VICTIM],
        }
        return [*victims.get(self.moment, [*COMPANIONS, VICTIM]), *NEIGHBOURS[5:]]

    @property
    def victim(self):
        return next(
            key for key, job in enumerate(self.jobs()) if job == VICTIM or isinstance(job, Mine)
        )

    def on_done(self, outcome):
        if outcome.job != "who":
            return
        if self.moment == "idle":
            for command in ("strike", "release"):
                self.conductor.send_message_to_worker(outcome.worker_id, command)
        if self.moment == "sending the result":
            touch(self.folder / "reached")
            wait_until(lambda: state_of(outcome.value) in "ZXT", "the sender is struck")

    def run(self):
        helper = threading.Thread(target=self.finish_off)
        helper.start()
        try:
            return {outcome.key: outcome for outcome in self.conductor.outcomes()}
        finally:
            touch(self.folder / "over")
            helper.join()

    def finish_off(self):
        """Kill the process that was stopped, where nobody watches the time."""
        if self.fault != "SIGSTOP" or self.end in {"T", "P"}:
            return
        over, ended = Path(self.folder, "over"), 0

        def pids():
            return struck(self.folder)[ended:]

        while not over.exists():
            wait_until(lambda: pids() or over.exists(), "the fault has struck")
            for pid in pids():
                wait_until(lambda: state_of(pid) in "TZX", "the worker stands still")  # noqa: B023
                if state_of(pid) == "T":
                    os.kill(pid, signal.SIGKILL)
                ended += 1


def check_exit_of_the_program(scene):
    """Nothing is lost: what has no outcome is back in the queue."""
    with pytest.raises(SystemExit):
        scene.run()
    report = scene.conductor.report
    assert report.jobs + len(scene.conductor.jobs_queue) == len(scene.jobs())
    assert report.counts[JobState.CANCELLED] == (IN_FLIGHT if scene.moment in ASYNC else 1)


@pytest.mark.parametrize(("moment", "fault", "cell"), CELLS.values(), ids=CELLS)
def test_each_fault_at_each_moment_has_the_outcome_of_the_table(moment, fault, cell, tmp_path):
    if cell == "-":
        assert moment in SENSELESS
        return
    end = expected(cell)
    scene = Scene(moment, fault, end, tmp_path)

    if end == "X":
        check_exit_of_the_program(scene)
        return
    outcomes = scene.run()

    assert len(outcomes) == len(scene.jobs()) + (moment == "after adding")
    assert len(scene.asked) == (moment == "answering") * ENDS[end][2]
    assert all(reply.done() for reply in scene.asked), "it has ended, one way or the other"
    state, cause, attempts, charged = ENDS[end]
    victim = outcomes.pop(scene.victim)
    assert (victim.state, victim.attempts) == (state, attempts), victim
    assert victim.cause == (Cause[cause] if cause else None)
    assert [attempt.cause.name for attempt in victim.history] == charged
    for outcome in outcomes.values():
        causes = COMPANY.get(end, []) if outcome.job in COMPANIONS else []
        assert (outcome.state, outcome.attempts) == (DONE, 1 + len(causes)), outcome
        assert [attempt.cause.name for attempt in outcome.history] == causes
    lost = [e for e in scene.exits if e.cause is not None]
    assert [e.key for e in lost] == {
        "C": [scene.victim],
        "T": [scene.victim],
        "M": [scene.victim],
        "L": [None],
        "S": [None, scene.victim],
        "K": [None, scene.victim],
        "P": [None],
    }.get(end, [])
