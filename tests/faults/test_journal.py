"""Runs with a journal whose conductor is killed, again and again: nothing finished is lost."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from faults import jobs
from faults.harness import Watched, lines_of, start_script, wait_for_lines
from faults.moments import wait_until
from okanjo_conductor import Conductor, JobState, open_journal
from okanjo_conductor.errors import (
    ConfigurationError,
    IntakeError,
    JournalChangedError,
    JournalLockedError,
    MachineCrashError,
)

WORKERS = 2
PROGRAM = """
    import random, sys
    from faults import journaled
    from okanjo_conductor import Conductor, Retry
    from okanjo_conductor.sinks import JsonLines

    batch = list(range({jobs}))
    random.shuffle(batch)  # a resumed run may be given its jobs in any order
    conductor = Conductor(
        journaled.work,
        jobs_queue=batch,
        job_key=lambda job: f"job {{job}}",
        worker_limit=2,
        logging=False,
        retry=Retry(errors=1, crashes=1),
        journal="run.db",
        sink=JsonLines("out.jsonl", failures=True),
    )
    report = conductor.run()
    print(report.done, report.failed, report.skipped, report.recovered, file=sys.stderr)
"""


def run_to_the_end(folder, count, kill_after=None):
    """Run the program; kill it after so many seconds, if it takes longer. Return whether it did."""
    program = start_script(folder, PROGRAM.format(jobs=count))
    try:
        _, said = program.communicate(timeout=kill_after)
    except TimeoutError:
        pass
    except Exception as error:
        if type(error).__name__ != "TimeoutExpired":
            raise
        program.send_signal(signal.SIGKILL)
        program.communicate()
        return True
    assert program.returncode == 0, said
    return False


def outcomes_in(folder):
    with open_journal(folder / "run.db") as journal:
        return sorted(
            (entry.key, entry.state, entry.value if entry.state is JobState.DONE else entry.error)
            for entry in journal.outcomes()
        )


def executions_in(folder):
    return Counter(lines_of(folder / "executions"))


@pytest.mark.timeout(600)
def test_a_run_that_is_killed_a_hundred_times_ends_as_one_that_is_not(tmp_path):
    count, kills = 1500, 0
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    plain.mkdir()
    killed.mkdir()
    assert not run_to_the_end(plain, count)

    chance = random.Random(6)
    while run_to_the_end(killed, count, chance.uniform(0.1, 0.45) if kills < 100 else None):
        kills += 1

    assert outcomes_in(killed) == outcomes_in(plain)
    sorted_lines = [sorted(lines_of(folder / "out.jsonl")) for folder in (killed, plain)]
    assert sorted_lines[0] == sorted_lines[1]
    more = (executions_in(killed) - executions_in(plain)).total()
    assert more <= kills * WORKERS
    assert not list(killed.glob("run.db-live/*"))
