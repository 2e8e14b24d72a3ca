"""Runs with a journal, and the verbs that read it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
from contextlib import closing

import pytest
from pyarrow import parquet

from .conftest import DEADLINE

WORK = """
import os
from okanjo_conductor import Conductor, ConductorWorker

class Wrong(Exception):
    pass

def work(text):
    with open("ran", "a") as file:
        file.write(text + "\\n")
    if text == "bad" and not os.path.exists("good"):
        raise Wrong("a bad text\\nof two lines")
    if text == "gate":
        with open("gate") as file:
            file.read()
    return {"text": text, "length": len(text)}

async def later(text):
    if text == "bad":
        raise Wrong(text)
    return text * 2

class Worker(ConductorWorker):
    def __init__(self, times=2):
        super().__init__()
        self.times = times
    def setup(self):
        self.word = "set up"
    def process_job(self, job):
        if not os.path.exists("good"):
            raise Wrong(job)
        return [self.word, job * self.times]
"""


@pytest.fixture
def work(conductor):
    conductor.write("work.py", WORK)
    conductor.write("in.txt", "a\nbad\nccc\n")
    return ("run", "work.py:work", "--jobs", "in.txt", "--journal", "run.db")


def ran(conductor):
    path = conductor.folder / "ran"
    names = sorted(path.read_text().splitlines()) if path.exists() else []
    path.unlink(missing_ok=True)
    return names


# Runs


def test_the_same_command_goes_on(conductor, work):
    done = conductor(*work)
    assert (done.returncode, ran(conductor)) == (1, ["a", "bad", "ccc"])

    conductor.write("in.txt", "new\nccc\nbad\na\n")
    done = conductor(*work)
    assert (done.returncode, ran(conductor)) == (1, ["new"])
    assert "1 job had failed before; --resume-failed executes what failed again" in done.stderr
    conductor.write("good", "")
    done = conductor(*work, "--resume-failed")
    assert (done.returncode, ran(conductor), done.stderr) == (0, ["bad"], "")
    assert conductor.out(*work, "--resume") == []


def test_a_killed_run_goes_on(conductor, work):
    os.mkfifo(conductor.folder / "gate")
    conductor.write("in.txt", "a\nb\ngate\nc\n")
    process = conductor.start(*work, "-j1")
    gate = os.open(conductor.folder / "gate", os.O_WRONLY)
    process.kill()
    process.communicate(timeout=DEADLINE)
    os.close(gate)
    assert ran(conductor) == ["a", "b", "gate"]
    (conductor.folder / "gate").unlink()
    conductor.write("gate", "")

    status = json.loads(conductor.out("status", "run.db", "--json")[0])
    assert status["state"] == "killed"
    conductor.out(*work, "-j1")
    assert ran(conductor) == ["c", "gate"]
    assert len(conductor.out("export", "run.db")) == 4


def test_changed_code_is_refused_with_what_has_changed(conductor, work):
    conductor.write("good", "")
    conductor.out(*work)
    conductor.write("work.py", WORK.replace("len(text)}", "len(text) * 2}"))
    conductor.write("in.txt", "a\nnew\n")

    done = conductor(*work)
    assert (done.returncode, done.stdout) == (4, "")
    assert '+    return {"text": text, "length": len(text) * 2}' in done.stderr
    assert "go on with --accept-changed" in done.stderr
    assert len(conductor.out(*work, "--accept-changed")) == 1


def test_a_journal_in_use_is_refused(conductor, work):
    os.mkfifo(conductor.folder / "gate")
    conductor.write("in.txt", "gate\n")
    process = conductor.start(*work)
    gate = os.open(conductor.folder / "gate", os.O_WRONLY)
    try:
        assert f"in use by process {process.pid}" in conductor.no(*work, code=4)
        assert "its run goes on" in conductor.no("retry", "run.db", "--failed", code=4)
        lines = conductor.out("status", "run.db")
        assert lines[0].endswith("run.db: a run goes on")
    finally:
        os.close(gate)
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0


def test_a_file_that_is_no_journal_is_refused(conductor, work):
    (conductor.folder / "run.db").write_bytes(b"something else, and quite long" * 100)
    before = (conductor.folder / "run.db").read_bytes()

    done = conductor(*work)
    assert (done.returncode, done.stdout) == (4, "")
    assert "run.db" in done.stderr
    assert (conductor.folder / "run.db").read_bytes() == before
    for verb in (["status", "run.db"], ["ls", "run.db"], ["show", "run.db", "a"]):
        assert "is damaged, or no journal" in conductor.no(*verb, code=4)


def test_jobs_of_the_same_key(conductor, work):
    conductor.write("in.txt", "a\na\n")

    done = conductor(*work)
    assert done.returncode == 2
    assert "two jobs have the key 'a': give a --key that tells them apart" in done.stderr
    assert len(conductor.out(*work[:-1], "2.db", "--duplicates", "number")) == 2
    assert len(conductor.out(*work[:-1], "3.db", "--duplicates", "skip")) == 1


def test_a_first_signal_leaves_a_run_that_goes_on(conductor, work):
    """What waits in the worker behind the job at hand may be quicker than the drain."""
    os.mkfifo(conductor.folder / "gate")
    names = sorted(f"job {number}" for number in range(100))
    conductor.write("in.txt", "\n".join(["gate", *names]))
    process = conductor.start(*work, "-j1")
    gate = os.open(conductor.folder / "gate", os.O_WRONLY)
    process.send_signal(signal.SIGINT)
    process.stderr.readline()
    os.close(gate)
    process.communicate(timeout=DEADLINE)

    assert process.returncode == 130
    assert "the last run was stopped" in conductor.out("status", "run.db")[0]
    first = ran(conductor)
    assert first.pop(0) == "gate"
    conductor.out(*work)
    second = ran(conductor)
    assert second
    assert sorted(first + second) == names


NOTE = ("sh", "-c", "echo $0 | tee -a ran; test $0 != bad -o -e good", ":::")


def test_commands_with_a_journal(conductor):
    done = conductor("exec", "--journal", "run.db", *NOTE, "a", "bad")
    assert (done.returncode, ran(conductor)) == (1, ["a", "bad"])

    done = conductor("exec", "--journal", "run.db", *NOTE, "bad", "c", "a", "a")
    assert (done.returncode, ran(conductor)) == (1, ["a", "c"])  # the second a is another job
    conductor.write("good", "")
    assert conductor.out("exec", "--resume-failed", "--journal", "run.db", *NOTE, "bad") == ["bad"]
    done = conductor("exec", "--journal", "run.db", "true", ":::", "a")
    assert done.returncode == 4
    assert 'version: "sh -c' in done.stderr
    rows = [json.loads(line) for line in conductor.out("export", "run.db")]
    assert {row["key"]: row["value"]["stdout"] for row in rows}["bad"] == "bad\n"


def test_rows_and_combined_inputs_are_keys(conductor):
    conductor.write("in.csv", "n,m\n1,2\n")
    for _ in range(2):
        conductor.out("exec", "--journal", "rows.db", "--jobs", "in.csv", "touch", "{n}{m}")
        conductor.out("exec", "--journal", "two.db", "true", ":::", "a", ":::", "1", "2")
        key = ("--journal", "key.db", "--key", "m")
        conductor.out("exec", *key, "--jobs", "in.csv", "true", "{n}")

    keys = [conductor.out("ls", f"{name}.db", "--json") for name in ("rows", "two", "key")]
    assert [sorted(str(json.loads(line)["key"]) for line in lines) for lines in keys] == [
        ['{"m": "2", "n": "1"}'],
        ["['a', '1']", "['a', '2']"],
        ["2"],
    ]


def test_a_conductor_of_a_file_with_a_journal(conductor):
    conductor.write("own.py", WORK + "conductor = Conductor(work, jobs_queue=['a', 'b'])\n")

    assert len(conductor.out("run", "own.py", "--journal", "run.db")) == 2
    assert conductor.out("run", "own.py", "--journal", "run.db") == []


# status, ls, show


def test_the_status_of_a_run(conductor, work):
    conductor(*work)
    lines = conductor.out("status", "run.db")

    assert lines[0] == f"{conductor.folder}/run.db: all jobs of the last run have their outcome"
    assert lines[1] == "3 jobs have their outcome: 2 done, 1 failed"
    assert lines[2].startswith("run 1: began 2")
    facts = json.loads(conductor.out("status", "run.db", "--json")[0])
    assert facts["counts"] == {"done": 2, "failed": 1, "quarantined": 0, "cancelled": 0}
    assert (facts["jobs"], facts["state"], facts["suspects"]) == (3, "done", [])
    assert facts["runs"][0]["argv"][-6:] == list(work)
    assert facts["rate"] > 0


def test_the_status_of_a_run_that_goes_on(conductor, work):
    """Jobs that were skipped are not waited for; how many there are, the source says."""
    os.mkfifo(conductor.folder / "gate")
    conductor(*work)
    conductor.write("in.txt", "a\nbad\nccc\nd\ne\ngate\n")
    process = conductor.start(*work, "-j1")
    gate = os.open(conductor.folder / "gate", os.O_WRONLY)
    try:
        while (facts := json.loads(conductor.out("status", "run.db", "--json")[0]))["finished"] < 2:
            assert facts["state"] == "live"
        lines = conductor.out("status", "run.db")
    finally:
        os.close(gate)
        process.communicate(timeout=DEADLINE)
    assert (facts["read"], facts["skipped"], facts["expected"]) == (6, 3, 6)
    assert facts["eta"] == pytest.approx(1 / facts["rate"])
    assert lines[3] == "  3 skipped: earlier runs had done them"
    assert re.fullmatch(
        r"  2 of 3 finished in .* s, .* jobs/s; the rest takes .* at that rate", lines[4]
    )


def test_the_status_of_a_run_whose_source_does_not_say_how_many_there_are(conductor, work):
    os.mkfifo(conductor.folder / "gate")
    process = conductor.start(*work[:3], "-", *work[4:], "-j1")
    process.stdin.write("a\nb\ngate\n")
    process.stdin.flush()
    gate = os.open(conductor.folder / "gate", os.O_WRONLY)
    try:
        facts = {"finished": 0, "read": 0}
        while (facts["finished"], facts["read"]) != (2, 3):
            (line,) = conductor.out("status", "run.db", "--json")
            facts = json.loads(line)
            assert (facts["state"], facts["expected"], facts["eta"]) == ("live", None, None)
        assert "2 of the 3 read so far finished" in conductor.out("status", "run.db")[-1]
    finally:
        os.close(gate)
        process.communicate(timeout=DEADLINE)


def test_the_status_of_a_run_that_was_killed_ends_with_its_last_outcome(conductor, work):
    os.mkfifo(conductor.folder / "gate")
    conductor.write("in.txt", "a\ngate\n")
    process = conductor.start(*work, "-j1")
    gate = os.open(conductor.folder / "gate", os.O_WRONLY)
    process.kill()
    process.communicate(timeout=DEADLINE)
    os.close(gate)

    first, second = (json.loads(conductor.out("status", "run.db", "--json")[0]) for _ in "ab")
    assert first["state"] == "killed"
    assert first["seconds"] == second["seconds"]
    assert first["suspects"] == []
    with closing(sqlite3.connect(conductor.folder / "run.db")) as connection, connection:
        connection.execute("UPDATE runs SET machine = 'before it was started again'")
    lines = conductor.out("status", "run.db")
    assert "run.db: the machine went down, and the last run with it" in lines[0]
    assert lines[-1] == "suspect, executing when the machine went down, once: gate"


def test_the_status_of_a_run_that_could_not_go_on_says_why(conductor, work):
    conductor(*work)
    with closing(sqlite3.connect(conductor.folder / "run.db")) as connection, connection:
        connection.execute("UPDATE runs SET state = 'broken', error = 'there was no room'")

    lines = conductor.out("status", "run.db")
    assert "run.db: the last run could not go on" in lines[0]
    assert lines[1] == "  there was no room"


def test_the_jobs_of_a_journal(conductor, work):
    conductor(*work)
    lines = conductor.out("ls", "run.db")

    assert lines[0].split() == ["STATE", "ATTEMPTS", "SECONDS", "KEY"]
    assert sorted((line.split()[0], line.split()[3]) for line in lines[1:]) == [
        ("done", "a"),
        ("done", "ccc"),
        ("failed", "bad"),
    ]
    (failed,) = [line for line in lines if line.startswith("failed")]
    assert failed.endswith("bad  Wrong: a bad text")
    assert len(conductor.out("ls", "run.db", "--state", "failed")) == 2
    states = ("--state", "failed", "--state", "done", "--limit", "2")
    assert len(conductor.out("ls", "run.db", *states)) == 3
    (row,) = map(json.loads, conductor.out("ls", "run.db", "--state", "failed", "--json"))
    assert (row["key"], row["cause"], row["attempts"]) == ("bad", "error", 1)
    assert row["error_type"] == "work.Wrong"


def test_a_job_of_a_journal(conductor, work):
    conductor(*work)

    lines = conductor.out("show", "run.db", "bad")
    assert lines[:2] == ["key:         bad", "state:       failed"]
    assert "payload:     bad" in lines
    assert "  work.Wrong: a bad text" in lines
    row = json.loads(conductor.out("show", "run.db", "ccc", "--json")[0])
    assert row["value"] == {"text": "ccc", "length": 3}
    assert row["history"] == []


def test_a_job_that_is_not_there_is_named_with_one_like_it(conductor, work):
    conductor.write("in.txt", "first\nsecond\n")
    conductor(*work)

    answer = conductor.no("show", "run.db", "frist")
    assert answer.endswith("the journal holds no job with the key 'frist'; it holds 'first'")


def test_keys_that_are_no_plain_text_are_found_as_they_are_listed(conductor):
    conductor.write(
        "odd.py",
        """
        from okanjo_conductor import Conductor
        def same(job): return job
        jobs = [1, "1", (2, "x"), "two\\nlines", ""]
        conductor = Conductor(same, jobs_queue=jobs, journal="run.db")
        """,
    )
    conductor("run", "odd.py")
    keys = [line.split(maxsplit=3)[3] for line in conductor.out("ls", "run.db")[1:]]

    assert sorted(keys) == ['""', '"two\\nlines"', "1", "1", '[2,"x"]']
    values = [json.loads(conductor.out("show", "run.db", k, "--json")[0])["value"] for k in keys]
    assert [2, "x"] in values
    assert "two\nlines" in values


@pytest.mark.parametrize("verb", ["status", "ls", "show", "export", "retry", "replay"])
def test_a_journal_that_is_not_there_is_named_with_one_like_it(conductor, work, verb):
    conductor(*work)
    key = ["x"] if verb in ("show", "retry", "replay") else []

    answer = conductor.no(verb, "rum.db", *key)
    assert answer == f"conductor {verb}: rum.db: there is no such journal; did you mean run.db?"
    assert not (conductor.folder / "rum.db").exists()


# export


def test_values_are_exported(conductor, work):
    conductor(*work)
    rows = [json.loads(line) for line in conductor.out("export", "run.db")]
    assert {row["key"]: row["value"]["length"] for row in rows} == {"a": 1, "ccc": 3}

    lines = conductor.out("export", "run.db", "--format", "csv")
    assert sorted(csv.DictReader(lines), key=lambda row: row["key"]) == [
        {"key": "a", "text": "a", "length": "1"},
        {"key": "ccc", "text": "ccc", "length": "3"},
    ]
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        assert conductor.out("export", "run.db", "--out", name) == []
    assert (conductor.folder / "out.csv").read_text().splitlines() == lines
    table = parquet.read_table(conductor.folder / "out.parquet").to_pylist()
    assert {row["text"]: row["length"] for row in table} == {"a": 1, "ccc": 3}
    assert not list(conductor.folder.glob("*.part"))


def test_values_look_alike_wherever_they_are_written(conductor):
    conductor.write(
        "odd.py",
        """
        from datetime import datetime, timedelta
        from decimal import Decimal
        from enum import Enum
        from pathlib import Path
        from uuid import UUID
        class Colour(Enum): RED = 1
        def odd(_):
            return {
                "when": datetime(2026, 2, 3, 4, 5), "took": timedelta(1), "much": Decimal("1.50"),
                "red": Colour.RED, "some": {2, 1}, "path": Path("a/b"), "id": UUID(int=1),
                "yes": True, "none": None, "nested": {"at": [Decimal(1)]}, "text": "\u00e4",
            }
        """,
    )
    run = ("run", "odd.py:odd", "--jobs", "-", "--journal")
    lines = conductor.out(*run, "0.db", stdin="1\n")
    for number, form in enumerate(("jsonl", "csv"), 1):
        conductor.out(*run, f"{number}.db", "--out", f"out.{form}", stdin="1\n")
        exported = conductor.out("export", f"{number}.db", "--format", form)
        assert (conductor.folder / f"out.{form}").read_text().splitlines() == exported
        assert (lines == exported) == (form == "jsonl")


def test_failures_are_exported_where_they_are_asked_for(conductor, work):
    conductor(*work)
    (row,) = map(json.loads, conductor.out("export", "run.db", "--state", "failed"))

    assert row == {
        "key": "bad",
        "state": "failed",
        "cause": "error",
        "error": "a bad text\nof two lines",
    }


def test_done_and_failed_jobs_make_one_table(conductor, work):
    conductor(*work)
    states = ("--state", "failed", "--state", "done")
    rows = list(csv.DictReader(conductor.out("export", "run.db", *states, "--format", "csv")))

    assert sorted((row["key"], row["state"], row["length"]) for row in rows) == [
        ("a", "done", "1"),
        ("bad", "failed", ""),
        ("ccc", "done", "3"),
    ]
    conductor.out("export", "run.db", *states, "--out", "out.parquet")
    table = parquet.read_table(conductor.folder / "out.parquet").to_pylist()
    assert {row["key"]: row["cause"] for row in table} == {"a": None, "bad": "error", "ccc": None}


def test_a_failed_job_far_down_is_in_the_table_too(conductor):
    conductor.write(
        "odd.py", "def odd(text):\n    return {'half': 20_000 // (int(text) - 12_000)}\n"
    )
    numbers = "".join(f"{number}\n" for number in range(12_001))
    conductor("run", "odd.py:odd", "--jobs", "-", "--journal", "run.db", "-q", stdin=numbers)
    states = ("--state", "failed", "--state", "done")
    conductor.out("export", "run.db", *states, "--out", "out.parquet")
    table = parquet.read_table(conductor.folder / "out.parquet").to_pylist()

    assert len(table) == 12_001
    assert [row["cause"] for row in table if row["key"] == "12000"] == ["error"]


def test_values_that_make_no_table_are_refused(conductor):
    conductor.write(
        "odd.py",
        """
        from okanjo_conductor import Conductor
        def odd(n): return {"n": n} if n < 2 else {"other": n}
        conductor = Conductor(odd, jobs_queue=[1, 2], journal="run.db", worker_limit=1)
        """,
    )
    conductor("run", "odd.py")
    for name in ("out.csv", "out.parquet"):
        answer = conductor.no("export", "run.db", "--out", name)
        assert "job 2 has 'other', which the first one has not: no table" in answer
        assert not (conductor.folder / name).exists()


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (["--out", "x.doc"], "--out x.doc: its extension tells no format; give --format"),
        (["--format", "parquet"], "give --out FILE"),
        (["--out", "no/x.csv"], "--out no/x.csv: No such file or directory"),
    ],
)
def test_an_export_that_makes_no_sense(conductor, work, typed, answer):
    conductor(*work)

    assert answer in conductor.no("export", "run.db", *typed)


# retry, replay


def test_failed_jobs_are_run_again_by_their_program(conductor, work):
    conductor(*work)
    ran(conductor)
    conductor.write("good", "")
    (conductor.folder / "below").mkdir()
    journal = conductor.folder / "run.db"

    lines = conductor.out("retry", journal, "--failed", cwd=conductor.folder / "below")
    assert [json.loads(line)["key"] for line in lines] == ["bad"]
    assert ran(conductor) == ["bad"]
    done = conductor("retry", journal, "--failed")
    assert (done.returncode, done.stderr) == (0, "conductor: no job has failed\n")


def test_jobs_are_run_again_by_their_keys(conductor, work):
    conductor.write("good", "")
    conductor(*work)
    ran(conductor)

    conductor.out("retry", "run.db", "ccc", "a")
    assert ran(conductor) == ["a", "ccc"]
    assert "no job with the key 'x'" in conductor.no("retry", "run.db", "x")


def test_a_script_of_the_users_is_run_again(conductor):
    conductor.write(
        "script.py",
        WORK + "Conductor(work, jobs_queue=['a', 'bad'], journal='run.db', logging=False).run()\n",
    )
    script = [conductor.argv()[0], "script.py"]
    subprocess.run(script, cwd=conductor.folder, env=conductor.env, check=True)
    ran(conductor)
    conductor.write("good", "")

    (line,) = conductor.out("retry", "run.db", "--failed", "--dry-run")
    assert line == f"cd {conductor.folder} && {' '.join(script)}"
    conductor.out("retry", "run.db", "--failed")
    assert ran(conductor) == ["bad"]


def test_a_program_that_is_no_file_cannot_be_run_again(conductor):
    code = (
        "from okanjo_conductor import Conductor\n"
        "Conductor(lambda n: 1 / n, jobs_queue=[0], journal='run.db').run()\n"
    )
    script = [conductor.argv()[0], "-W", "error", "-c", code]
    subprocess.run(script, cwd=conductor.folder, env=conductor.env, check=True)

    assert "cannot be started again from here" in conductor.no("retry", "run.db", "--failed")


def test_a_retry_with_mended_code(conductor, work):
    conductor(*work)
    ran(conductor)
    conductor.write("work.py", WORK.replace('text == "bad"', 'text == "worse"'))

    done = conductor("retry", "run.db", "--failed")
    assert (done.returncode, ran(conductor)) == (4, [])
    assert "go on with --accept-changed" in done.stderr
    assert len(conductor.out("retry", "run.db", "--failed", "--accept-changed")) == 1
    assert ran(conductor) == ["bad"]


def test_a_retry_says_which_jobs(conductor, work):
    conductor(*work)

    assert "which jobs: --failed, or their keys?" in conductor.no("retry", "run.db")
    assert "which jobs" in conductor.no("retry", "run.db", "a", "--failed")


def test_a_failed_job_is_replayed_in_this_process(conductor, work):
    conductor(*work)
    ran(conductor)
    done = conductor("replay", "run.db", "bad")

    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()[:2]
    assert first == "Traceback (most recent call last):"
    assert second.startswith(f'  File "{conductor.folder}/work.py"')
    assert done.stderr.endswith("work.Wrong: a bad text\nof two lines\n")
    assert ran(conductor) == ["bad"]
    conductor.write("good", "")
    done = conductor("replay", "run.db", "bad")
    assert json.loads(done.stdout) == {"key": "bad", "value": {"text": "bad", "length": 3}}
    assert done.stderr == "conductor: job bad is done here; the journal is unchanged\n"
    assert "1 failed" in conductor.out("status", "run.db")[1]


def test_a_failed_job_is_debugged_where_it_failed(conductor, work):
    conductor(*work)
    done = conductor("replay", "run.db", "bad", "--pdb", stdin="p text * 2\nq\n")

    assert done.returncode == 1
    assert "'badbad'" in done.stdout


@pytest.mark.parametrize("target", ["work.py:Worker", "own.py"])
def test_a_worker_class_is_replayed_after_its_setup(conductor, target):
    conductor.write("work.py", WORK)
    conductor.write(
        "own.py",
        """
        from work import *
        options = {"times": 3}
        conductor = Conductor(Worker, jobs_queue=["x"], journal="run.db", worker_options=options)
        """,
    )
    conductor("run", "own.py")
    conductor.write("good", "")

    done = conductor("replay", "run.db", "x", *([] if target == "own.py" else [target]))
    times = 3 if target == "own.py" else 2
    assert json.loads(done.stdout)["value"] == ["set up", "x" * times]


def test_a_replayed_job_has_its_conductor(conductor):
    conductor.write(
        "own.py",
        """
        import os
        from okanjo_conductor import Conductor, ConductorWorker
        class Worker(ConductorWorker):
            def process_job(self, job):
                found = self.lookup("names", job), self.request("twice", job)
                if not os.path.exists("good"):
                    raise ValueError(found)
                return found
        names = {"x": "Xaver"}
        conductor = Conductor(
            Worker, jobs_queue=["x"], job_key=str, journal="run.db", lookups={"names": names}
        )
        @conductor.command("twice")
        def twice(message): return message.data * 2
        """,
    )
    conductor("run", "own.py")

    done = conductor("replay", "run.db", "x", "--pdb", stdin="p found[0] * 2\nq\n")
    assert done.returncode == 1
    assert "'XaverXaver'" in done.stdout
    assert "ValueError: ('Xaver', 'xx')" in done.stderr
    conductor.write("good", "")
    done = conductor("replay", "run.db", "x")
    assert json.loads(done.stdout)["value"] == ["Xaver", "xx"]


def test_an_async_function_is_replayed(conductor, work):
    conductor(*work)
    done = conductor("replay", "run.db", "bad", "work.py:later")

    assert done.returncode == 1
    assert done.stderr.endswith("work.Wrong: bad\n")


def test_a_job_of_a_script_is_replayed(conductor):
    conductor.write(
        "script.py",
        """
        from okanjo_conductor import Conductor
        class Point:
            def __init__(self, x): self.x = x
        def invert(point): return 1 / point.x
        jobs = [Point(0)]
        conductor = Conductor(invert, jobs_queue=jobs, job_key=lambda p: p.x, journal="run.db")
        if __name__ == "__main__":
            conductor.run()
        """,
    )
    script = [conductor.argv()[0], "script.py"]
    subprocess.run(script, cwd=conductor.folder, env=conductor.env, check=True)
    done = conductor("replay", "run.db", "0")

    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_command_is_replayed(conductor):
    conductor("exec", "--journal", "run.db", *NOTE, "bad")
    ran(conductor)
    done = conductor("replay", "run.db", "bad")

    assert (done.returncode, done.stdout) == (1, "bad\n")
    assert done.stderr.endswith("conductor: exit code 1\n")


def test_what_cannot_be_replayed_is_said(conductor, work):
    conductor(*work)

    assert "the payloads of done jobs are not kept" in conductor.no("replay", "run.db", "a")
    assert "no job with the key" in conductor.no("replay", "run.db", "nosuch")


def test_reading_changes_nothing(conductor, work):
    def content():
        with closing(sqlite3.connect(conductor.folder / "run.db")) as connection:
            return list(connection.iterdump())

    conductor(*work)
    before = content()
    for verb in ("status", "ls", "export"):
        conductor.out(verb, "run.db")
    conductor.out("show", "run.db", "a")
    conductor("replay", "run.db", "bad")
    assert content() == before
