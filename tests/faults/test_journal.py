"""Runs with a journal whose conductor is killed, again and again: nothing finished is lost."""

from __future__ import annotations

import random
import re
import signal
import sqlite3
import subprocess
from collections import Counter
from contextlib import contextmanager

import pytest

from faults.harness import lines_of, start_script, wait_for_lines
from okanjo_conductor import Conductor, open_journal
from okanjo_conductor.errors import JournalChangedError

KILLS, WORKERS = 100, 2


@contextmanager
def closing(program):
    """End a program in any case."""
    try:
        yield program
    finally:
        if program.returncode is None:
            program.kill()
            program.communicate()


PROGRAM = """
    import random
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
    conductor.run()
"""


def is_killed(folder, jobs, after=None):
    """Start the program, and kill it after so many seconds if it is not done before."""
    program = start_script(folder, PROGRAM.format(jobs=jobs))
    try:
        _, said = program.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        program.send_signal(signal.SIGKILL)
        program.communicate()
        return True
    assert program.returncode == 0, said
    return False


def outcomes_in(folder):
    with open_journal(folder / "run.db") as journal:
        return sorted(
            (entry.key, entry.state, entry.value if entry.is_done else entry.error_type)
            for entry in journal.outcomes()
        )


def lines_in(folder):
    """The lines of the sink, sorted; which worker died of a job is not the same in each run."""
    return sorted(re.sub(r"worker \d+", "worker", line) for line in lines_of(folder / "out.jsonl"))


def executions_in(folder):
    return Counter(lines_of(folder / "executions"))


@pytest.mark.timeout(900)
def test_a_run_that_is_killed_a_hundred_times_ends_as_one_that_is_not(tmp_path):
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    plain.mkdir()
    killed.mkdir()
    assert not is_killed(plain, jobs=6000)

    kills, chance = 0, random.Random(6)
    while is_killed(killed, 6000, chance.uniform(0.1, 0.45) if kills < KILLS else None):
        kills += 1

    assert outcomes_in(killed) == outcomes_in(plain)
    assert lines_in(killed) == lines_in(plain)
    more = (executions_in(killed) - executions_in(plain)).total()
    assert more <= kills * WORKERS, "only what was executing is executed again"
    assert not (killed / "run.db-live").exists()


SUSPECT = """
    from faults import journaled
    from okanjo_conductor import Conductor

    conductor = Conductor(
        journaled.tell, jobs_queue=[0, 1, 2, 3], worker_limit=2, logging=False, journal="run.db"
    )
    report = conductor.run()
"""


def start_and_kill(folder):
    """Kill the program when two of its jobs are being executed; say which."""
    program = start_script(folder, SUSPECT)
    executing = wait_for_lines(folder / "executions", WORKERS)
    program.send_signal(signal.SIGKILL)
    program.communicate()
    (folder / "executions").unlink()
    return {int(line) for line in executing}


def let_the_machine_have_gone_down(folder):
    with sqlite3.connect(folder / "run.db") as connection:
        connection.execute("UPDATE runs SET machine = 'another'")
    connection.close()


def test_who_was_executing_when_the_machine_went_down_is_executed_alone(tmp_path):
    suspects = start_and_kill(tmp_path)
    let_the_machine_have_gone_down(tmp_path)
    others = {0, 1, 2, 3} - suspects
    told, ends = tmp_path / "executions", [tmp_path / f"end {job}" for job in range(4)]
    with closing(start_script(tmp_path, SUSPECT)) as program:
        assert {int(line) for line in wait_for_lines(told, 2)} == others
        with open_journal(tmp_path / "run.db") as journal:
            assert {s.key: s.times for s in journal.suspects()} == dict.fromkeys(suspects, 1)
        for job in others:
            ends[job].touch()
        first = int(wait_for_lines(told, 3)[-1])
        ends[first].touch()
        second = int(wait_for_lines(told, 4)[-1])
        ends[second].touch()
        assert {first, second} == suspects
        program.communicate()

    with open_journal(tmp_path / "run.db") as journal:
        assert journal.counts() == {"done": 4}
        assert not journal.suspects()


def test_whose_conductor_was_killed_while_the_machine_lived_on_is_no_suspect(tmp_path):
    start_and_kill(tmp_path)
    for job in range(4):
        (tmp_path / f"end {job}").touch()
    with closing(start_script(tmp_path, SUSPECT)) as program:
        _, said = program.communicate()
    assert program.returncode == 0, said
    with open_journal(tmp_path / "run.db") as journal:
        assert journal.counts() == {"done": 4}
        assert not journal.suspects()


def test_what_a_dead_conductor_had_not_read_yet_is_not_executed_again(tmp_path):
    """A stopped conductor cannot read what its workers do; then it is killed."""
    text = """
        from faults import journaled
        from okanjo_conductor import Conductor

        Conductor(
            journaled.work,
            jobs_queue=range(100_000),
            worker_limit=2,
            logging=False,
            journal="run.db",
        ).run()
    """
    program = start_script(tmp_path, text)
    wait_for_lines(tmp_path / "executions", 200)
    program.send_signal(signal.SIGSTOP)
    wait_until_quiet(tmp_path / "executions")
    program.send_signal(signal.SIGKILL)
    program.communicate()
    before = executions_in(tmp_path)

    again = start_script(tmp_path, text.replace("100_000", str(max(map(int, before)) + 1)))
    _, said = again.communicate()
    assert again.returncode == 0, said
    twice = {job for job, count in executions_in(tmp_path).items() if count > before[job] > 0}
    killers = {job for job in before if int(job) % 301 == 11}
    assert len(twice - killers) <= WORKERS


def wait_until_quiet(path):
    """Return when no job has been executed for a moment: the workers have nothing left."""
    count = -1
    while count != (now := len(lines_of(path))):
        count = now
        signal.sigtimedwait([], 0.3)


# The disk


def test_where_there_is_no_room_the_run_stops_and_loses_nothing(tmp_path):
    text = """
        import resource
        from faults import journaled
        from okanjo_conductor import Conductor
        from okanjo_conductor.errors import JournalError

        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
        conductor = Conductor(
            journaled.grow, jobs_queue=range(1000), worker_limit=2, logging=False, journal="run.db"
        )
        seen = []
        conductor.on("job_done", lambda outcome: seen.append(outcome.key))
        try:
            conductor.run()
        except JournalError as error:
            print(len(seen), error)
    """
    program = start_script(tmp_path, text, stdout=subprocess.PIPE)
    said, errors = program.communicate()
    assert program.returncode == 0, errors
    seen, _, what = said.partition(" ")
    assert "run.db" in what

    with open_journal(tmp_path / "run.db") as journal:
        kept = journal.counts()["done"]
    assert 0 < int(seen) <= kept < 1000
    program = start_script(tmp_path, text.replace("3_000_000", "-1"), stdout=subprocess.PIPE)
    said, errors = program.communicate()
    assert (program.returncode, said) == (0, ""), errors
    with open_journal(tmp_path / "run.db") as journal:
        assert journal.counts() == {"done": 1000}


# Changed code


def test_a_run_is_not_resumed_with_another_program(tmp_path):
    def conductor(source, **options):
        names = {}
        exec(source, names)
        return Conductor(
            names["work"], jobs_queue=[1, 2], logging=False, journal=tmp_path / "run.db", **options
        )

    source = "def work(job):\n    return job\n"
    conductor(source, version="1").run()
    with pytest.raises(JournalChangedError, match="version"):
        conductor(source, version="2").run()
    assert conductor(source, version="2", accept_changed=True).run().skipped == 2


READING = """
    import os, signal, sys
    from okanjo_conductor import Conductor, open_journal

    def square(number):
        return number * number

    conductor = Conductor(square, jobs_queue=range(1000), journal="run.db", logging=False)
    if not os.path.exists("run.db"):
        for outcome in conductor.outcomes():
            os.kill(os.getpid(), signal.SIGKILL)
    print(conductor.run().skipped)
    with open_journal("run.db") as journal:
        print(sum(entry.value for entry in journal.outcomes("done")))
"""


def test_values_that_nobody_had_seen_before_a_kill_are_read_from_the_journal(tmp_path):
    """As docs/journal.md says; the loop was told of one outcome when more were committed."""
    for code in (-signal.SIGKILL, 0):
        program = start_script(tmp_path, READING, stdout=subprocess.PIPE)
        said, _ = program.communicate()
        assert program.returncode == code
    skipped, total = map(int, said.split())
    assert skipped > 0
    assert total == sum(number * number for number in range(1000))
