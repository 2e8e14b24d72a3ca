"""Jobs for a Conductor, a worker class or a function in Python."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from pyarrow import parquet

from okanjo_conductor.testing.fixtures import processes_of_this_test

from .conftest import DEADLINE

WORK = """
import os
import time
from dataclasses import dataclass
from okanjo_conductor import Conductor, ConductorWorker

@dataclass
class Found:
    text: str
    length: int

def length(text):
    print("looking at", text)
    if text == "bad":
        raise ValueError("a bad text\\nof two lines")
    return len(text)

def find(text):
    return Found(text, len(text))

def fields(text):
    return {"text": text, "length": len(text)}

def crash(text):
    os.abort()

def wait(path):
    open(path).read()

async def meet(text):
    return text.upper()

class Worker(ConductorWorker):
    def setup(self):
        self.count = 0

    def process_job(self, job):
        self.count += 1
        return {"id": job["id"], "nth": self.count}
"""


@pytest.fixture
def work(conductor):
    return conductor.write("work.py", WORK)


def values(lines):
    return [json.loads(line) for line in lines]


# Functions and worker classes


def test_a_function_of_a_file(conductor, work):
    done = conductor("run", "-k", "work.py:length", "--jobs", "-", stdin="a\nbcd\n")

    assert done.returncode == 0
    assert values(done.stdout.splitlines()) == [
        {"key": "a", "value": 1},
        {"key": "bcd", "value": 3},
    ]
    assert sorted(done.stderr.splitlines()) == ["looking at a", "looking at bcd"]


def test_a_worker_class_of_a_module(conductor, work):
    conductor.write("pkg/__init__.py", "")
    work.rename(conductor.folder / "pkg" / "mod.py")
    conductor.write("in.jsonl", '{"id": "x"}\n{"id": "y"}\n')
    jobs = ("--jobs", "in.jsonl", "--key", "id", "-j1", "-k")

    expected = [{"key": key, "value": {"id": key, "nth": n}} for n, key in enumerate("xy", 1)]
    for target in ("pkg.mod:Worker", "pkg/mod.py:Worker"):
        assert values(conductor.out("run", target, *jobs)) == expected


def test_a_file_in_a_package_may_import_from_it(conductor):
    conductor.write("pkg/__init__.py", "")
    conductor.write("pkg/sub/__init__.py", "")
    conductor.write("pkg/other.py", "factor = 3\n")
    conductor.write(
        "pkg/sub/mod.py", "from ..other import factor\ndef f(job): return job * factor\n"
    )

    assert values(conductor.out("run", "pkg/sub/mod.py:f", "--jobs", "-", stdin="ab\n")) == [
        {"key": "ab", "value": "ababab"}
    ]


def test_a_file_whose_name_is_no_word(conductor):
    conductor.write("my-work.py", "def f(job): return job\n")

    assert len(conductor.out("run", "my-work.py:f", "--jobs", "-", stdin="ab\n")) == 1


def test_values_that_json_has_no_form_for_are_written_in_the_nearest_one(conductor, work):
    conductor.write(
        "odd.py",
        """
        import datetime, pathlib
        def f(job):
            return [{1}, (2,), datetime.date(2020, 1, 2), pathlib.Path("x"), b"y\\xff", 1j]
        """,
    )
    (line,) = conductor.out("run", "odd.py:f", "--jobs", "-", stdin="a\n")
    assert json.loads(line)["value"] == [[1], [2], "2020-01-02", "x", "y\\xff", "1j"]
    (line,) = conductor.out("run", "work.py:find", "--jobs", "-", stdin="abc\n")
    assert json.loads(line)["value"] == {"text": "abc", "length": 3}


def test_an_async_function_has_many_in_flight(conductor, work):
    conductor.write(
        "crowd.py",
        """
        import asyncio
        everybody = asyncio.Event()
        count = 0
        async def join(job):
            global count
            count += 1
            if count == 3: everybody.set()
            await everybody.wait()
            return count
        """,
    )
    options = ("--jobs", "-", "-j1", "--concurrency", "3")

    assert len(conductor.out("run", "crowd.py:join", *options, stdin="a\nb\nc\n")) == 3
    answer = conductor.no("run", "work.py:length", *options, stdin="a\n")
    assert "concurrency=3" in answer


def test_a_query_of_a_database_gives_jobs(conductor, work):
    with sqlite3.connect(conductor.folder / "in.db") as connection:
        connection.execute("create table t (id, n)")
        connection.executemany("insert into t values (?, ?)", [("a", 1), ("b", 2), ("c", 3)])
    connection.close()
    jobs = ("--jobs", "in.db", "--sql", "select id from t where n > 1 order by n", "--key", "id")

    lines = conductor.out("run", "work.py:Worker", *jobs, "-k")
    assert [row["key"] for row in values(lines)] == ["b", "c"]


def test_files_of_a_pattern_are_jobs(conductor):
    conductor.write("work.py", "import os\ndef size(path): return os.stat(path).st_size\n")
    conductor.write("in/a.txt", "1")
    conductor.write("in/b/c.txt", "123")

    lines = conductor.out("run", "work.py:size", "--jobs", "in/**/*.txt")
    found = {row["key"]: row["value"] for row in values(lines)}
    assert found == {"in/a.txt": 1, "in/b/c.txt": 3}
    done = conductor("run", "work.py:size", "--jobs", "in/*.tx")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "conductor: --jobs in/*.tx: no file matches this\n"
    assert conductor.out("run", "work.py:size", "-q", "--jobs", "in/*.tx") == []


def test_jobs_are_read_as_they_are_wanted(conductor):
    conductor.write("work.py", "def same(text): return text\n")
    process = conductor.start("run", "work.py:same", "--jobs", "-")
    try:
        for word in ("first", "second"):
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["value"] == word
    finally:
        _, said = process.communicate(timeout=DEADLINE)
    assert (said, process.returncode) == ("", 0)


def test_json_lines_from_standard_input(conductor, work):
    stdin = '{"id": "a"}\n'
    options = ("--jobs", "-", "--format", "jsonl", "--key", "id")

    (line,) = conductor.out("run", "work.py:Worker", *options, stdin=stdin)
    assert json.loads(line) == {"key": "a", "value": {"id": "a", "nth": 1}}


# Sinks


@pytest.mark.parametrize("journal", [(), ("--journal", "run.db")])
def test_values_go_to_a_file(conductor, work, journal):
    jobs = ("run", "work.py:fields", "--jobs", "-", *journal)
    expected = [{"key": text, "text": text, "length": len(text)} for text in ("a", "bcd")]
    for name in ("out.jsonl", "out.csv", "out.db", "out.parquet"):
        assert conductor.out(*jobs, "--out", name, stdin="a\nbcd\n") == []
        for path in conductor.folder.glob("run.db*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    rows = values((conductor.folder / "out.jsonl").read_text().splitlines())
    assert sorted(({"key": row["key"]} | row["value"] for row in rows), key=str) == expected
    with (conductor.folder / "out.csv").open() as file:
        assert sorted(row["key"] for row in csv.DictReader(file)) == ["a", "bcd"]
    with closing(sqlite3.connect(conductor.folder / "out.db")) as connection:
        rows = connection.execute("select key, length from outcomes order by key").fetchall()
    assert rows == [("a", 1), ("bcd", 3)]
    parts = parquet.read_table(conductor.folder / "out.parquet").to_pylist()
    assert sorted(row["text"] for row in parts) == ["a", "bcd"]


def test_a_file_that_is_there_is_kept_unless_one_says_otherwise(conductor, work):
    jobs = ("run", "work.py:find", "--jobs", "-", "--journal", "run.db", "--out", "out.jsonl")
    conductor.write("out.jsonl", "1\n")

    done = conductor(*jobs, stdin="a\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "out.jsonl is there already" in done.stderr
    assert "Give another path, --if-exists append or --if-exists overwrite" in done.stderr
    conductor.out(*jobs, "--if-exists", "append", stdin="a\n")
    assert len((conductor.folder / "out.jsonl").read_text().splitlines()) == 2
    conductor.out(*jobs, stdin="a\nb\n")  # its run goes on
    assert len((conductor.folder / "out.jsonl").read_text().splitlines()) == 3
    answer = conductor.no("run", "work.py:find", "--jobs", "-", "--out", "out.doc", stdin="a\n")
    assert "--out out.doc: the extension '.doc' tells no format" in answer


def test_a_conductor_of_the_users_with_a_file_for_its_values(conductor, work):
    conductor.write("own.py", "from work import *\nconductor = Conductor(find, jobs_queue=['a'])\n")

    assert conductor.out("run", "own.py", "--journal", "run.db", "--out", "out.jsonl") == []
    assert len((conductor.folder / "out.jsonl").read_text().splitlines()) == 1


# Failures


def test_a_job_that_fails_is_told_in_a_line_and_in_the_report(conductor, work):
    done = conductor("run", "work.py:length", "--jobs", "-", "--joblog", "log", stdin="bad\nok\n")

    assert done.returncode == 1
    assert values(done.stdout.splitlines()) == [{"key": "ok", "value": 2}]
    assert "conductor: job 'bad': ValueError: a bad text\n" in done.stderr
    assert "2 jobs: 1 done, 1 failed" in done.stderr
    lines = [line.split("\t") for line in (conductor.folder / "log").read_text().splitlines()]
    assert {(line[0], line[6], line[8]) for line in lines[1:]} == {
        ("1", "1", "work.py:length bad"),
        ("2", "0", "work.py:length ok"),
    }


def test_a_worker_that_dies_is_replaced_and_its_job_given_up(conductor, work):
    done = conductor("run", "work.py:crash", "--jobs", "-", "--retries", "1", stdin="a\n")

    assert done.returncode == 1
    assert "1 quarantined" in done.stderr
    assert "1 retr" in done.stderr


def test_a_job_that_takes_too_long(conductor, work):
    os.mkfifo(conductor.folder / "gate")
    done = conductor("run", "work.py:wait", "--jobs", "-", "--timeout", "0.2", stdin="gate\n")

    assert done.returncode == 1
    assert "the job took longer than its limit of 0.2 s" in done.stderr


def test_results_are_kept_in_files(conductor, work):
    conductor("run", "work.py:length", "--jobs", "-", "--results", "kept", stdin="bad\nok\n")
    kept = conductor.folder / "kept" / "1"

    assert (kept / "ok" / "stdout").read_text() == "2\n"
    assert "ValueError: a bad text" in (kept / "bad" / "stderr").read_text()
    assert (kept / "ok" / "seq").read_text() == "2"


def test_a_run_that_is_halted_can_be_told_from_one_that_failed(conductor, work):
    done = conductor(
        "run", "work.py:length", "-j1", "--halt", "now,fail=1", "--jobs", "-", stdin="bad\n" * 99
    )

    assert done.returncode == 3


def test_a_dry_run_shows_the_jobs(conductor, work):
    conductor.write("in.csv", "id,n\na,1\n")

    lines = conductor.out("run", "work.py:Worker", "--jobs", "in.csv", "--dry-run")
    assert lines == ['{"id": "a", "n": "1"}']


@pytest.mark.parametrize("cluster", ["threads", "inline"])
@pytest.mark.parametrize("target", ["pids.py:pid", "pids.py:conductor"])
def test_workers_in_this_process(conductor, cluster, target):
    conductor.write(
        "pids.py",
        """
        import os
        from okanjo_conductor import Conductor
        def pid(text): print("printed"); return os.getpid()
        conductor = Conductor(pid)
        main = os.getpid()
        """,
    )
    conductor.write("in.txt", "a\nb\n")
    process = conductor.start("run", target, "--jobs", "in.txt", "--cluster", cluster)
    out, said = process.communicate(timeout=DEADLINE)
    assert {row["value"] for row in values(out.splitlines())} == {process.pid}
    assert said == "printed\n" * 2
    for limit in ("1s", "200%"):
        options = ("--jobs", "in.txt", "--cluster", cluster, "--timeout", limit)
        assert "cannot do that" in conductor.no("run", target, *options)


# Conductors


@pytest.mark.parametrize("name", ["conductor", "mine"])
def test_a_conductor_of_a_file(conductor, name):
    conductor.write(
        "squares.py",
        f"""
        from okanjo_conductor import Conductor
        def square(number): return number ** 2
        {name} = Conductor(square, jobs_queue=range(3), worker_limit=2)
        if __name__ == "__main__":
            {name}.run()
        """,
    )
    for target in ("squares.py", "squares", f"squares.py:{name}"):
        lines = conductor.out("run", target)
        assert sorted(lines) == [f'{{"key": {n}, "value": {n * n}}}' for n in range(3)]


def test_a_conductor_has_what_was_typed(conductor):
    conductor.write(
        "meeting.py",
        """
        from okanjo_conductor import Conductor
        def meet(path): open(path, "a").write("x"); print(len(open(path).read())); return path
        def broken(job): raise ValueError(job)
        one = Conductor(meet, jobs_queue=["none"], worker_limit=1, job_key=str)
        two = Conductor(broken, jobs_queue=range(50))
        """,
    )
    conductor.write("in.txt", "a\nb\n")
    done = conductor("run", "meeting.py:one", "--jobs", "in.txt", "-j2", "-k", "-v")
    assert [row["key"] for row in values(done.stdout.splitlines())] == ["a", "b"]
    assert "2 workers started" in done.stderr
    done = conductor("run", "meeting.py:two", "--max-failures", "2", "--retries", "1")
    assert done.returncode == 3
    assert done.stderr.count("1\n") < 50
    done = conductor("run", "meeting.py:two", "-j1", "--retries", "1", "--halt", "now,done=1", "-v")
    assert "ValueError" in done.stderr


def test_a_conductor_that_shows_its_results_itself(conductor):
    conductor.write(
        "own.py",
        """
        import threading
        from okanjo_conductor import Conductor
        def square(number): return number ** 2
        conductor = Conductor(square, jobs_queue=range(3), worker_limit=1)
        @conductor.on("job_done")
        def show(outcome):
            assert threading.current_thread() is threading.main_thread()
            print("own", outcome.value)
        """,
    )

    assert conductor.out("run", "own.py") == ["own 0", "own 1", "own 4"]


GUARD = 'Write: if __name__ == "__main__": conductor.run()'


def test_a_conductor_that_runs_when_it_is_imported(conductor):
    conductor.write("other.py", "def square(number): return number ** 2\n")
    conductor.write(
        "eager.py",
        """
        from okanjo_conductor import Conductor
        conductor = Conductor("other:square", jobs_queue=range(3), logging=False)
        conductor.run()
        """,
    )
    conductor.write(
        "own.py",
        """
        from okanjo_conductor import Conductor
        def square(number): return number ** 2
        conductor = Conductor(square, jobs_queue=range(3), logging=False)
        conductor.run()
        """,
    )

    assert conductor.no("run", "eager.py").endswith(f"its conductor when it was imported. {GUARD}")
    done = conductor("run", "own.py")
    assert done.returncode == 2
    assert done.stderr.endswith(f"it runs its conductor when it is imported. {GUARD}\n")


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        (
            "work.py",
            "work.py has no Conductor; say what is to be run: work.py:length, work.py:find",
        ),
        ("work.py:lenght", "there is no 'lenght' in work; did you mean length?"),
        ("work.py:Worker.proces_job", "did you mean process_job?"),
        (
            "work.py:WORKERS",
            "work.py:WORKERS is a int: a Conductor, a function or a Cond",
        ),
        ("work.py:", "write FILE.py:NAME or pkg.mod:NAME"),
        ("two.py", "two.py has more than one Conductor; say what is to be run: two.py:a, two.py:b"),
        ("nothing.py", "nothing.py has no Conductor; say what is to be run"),
        ("broken.py", "broken.py cannot be loaded: ZeroDivisionError: division by zero (/"),
        ("syntax.py", "syntax.py cannot be loaded: SyntaxError: '(' was never closed"),
        ("absent.py", "cannot be loaded: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("json.py", "its name is that of the module 'json', which is in use; rename it"),
        ("a.b.py", "a file name with a dot cannot be imported; rename it"),
        ("work", "work has no Conductor; say what is to be run: work:length"),
        ("pkg/work", "a module is written pkg.mod, and a file pkg/work.py"),
        ("wrk.mod", "no module is named 'wrk'"),
        ("work.mod", "no module is named 'work.mod'"),
        ("work.py:length", "work.py:length is to be run on what? Give --jobs FILE, or - for"),
        ("work.py:Found", "a class must be a ConductorWorker"),
    ],
)
def test_a_target_that_cannot_be_run_is_refused(conductor, work, target, answer):
    conductor.write("work.py", WORK + "\nWORKERS = 3\n")
    conductor.write("two.py", "from work import *\na = Conductor(find)\nb = Conductor(find)\n")
    conductor.write("nothing.py", "")
    conductor.write("broken.py", "x = 1 / 0\n")
    conductor.write("syntax.py", "x = (\n")
    conductor.write("absent.py", "import nosuchmodule\n")
    for name in ("json.py", "a.b.py", "pkg/work.py"):
        conductor.write(name, "")
    jobs = () if "is to be run" in answer else ("--jobs", "-")

    assert answer in conductor.no("run", target, *jobs, stdin="a\n")


def test_the_traceback_of_what_cannot_be_loaded_is_shown_to_who_wants_it(conductor):
    conductor.write("broken.py", "x = 1 / 0\n")
    done = conductor("run", "broken.py", "-vv")

    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "x = 1 / 0" in done.stderr


def test_a_signal_to_a_conductor_of_the_users(conductor, work):
    os.mkfifo(conductor.folder / "gate")
    conductor.write(
        "own.py", "from work import *\nconductor = Conductor(wait, jobs_queue=['gate'])"
    )
    process = conductor.start("run", "own.py")
    gate = os.open(conductor.folder / "gate", os.O_WRONLY)
    process.send_signal(signal.SIGTERM)
    assert "finishing the jobs in execution" in process.stderr.readline()
    os.close(gate)
    process.communicate(timeout=DEADLINE)

    assert process.returncode == 143
    assert not processes_of_this_test()


@pytest.mark.parametrize("target", ["work.py:same", "work.py:conductor"])
def test_a_reader_that_leaves_ends_the_run_quietly(conductor, target):
    conductor.write(
        "work.py",
        """
        from okanjo_conductor import Conductor
        def same(text): return text
        conductor = Conductor(same)
        """,
    )
    conductor.write("in.txt", "".join(f"{n}\n" for n in range(200_000)))
    process = conductor.start("run", target, "--jobs", "in.txt")
    process.stdout.readline()
    process.stdout.close()
    process.stdin.close()
    said = process.stderr.read()
    process.stderr.close()

    assert (process.wait(DEADLINE), said) == (141, "")


@pytest.mark.parametrize("target", ["odd.py:odd", "odd.py:conductor"])
def test_values_that_are_no_json_are_shown_all_the_same(conductor, target):
    conductor.write(
        "odd.py",
        """
        from okanjo_conductor import Conductor
        def odd(text):
            circle = []
            circle.append(circle)
            return {"tuple": {(1, 2): 3}, "circle": circle, "half": "\\ud800", "more": 1}
        conductor = Conductor(odd, jobs_queue=["a"])
        """,
    )
    jobs = ("--jobs", "-") if target.endswith("odd") else ()
    (line,) = conductor.out("run", target, *jobs, stdin="a\n")

    assert json.loads(line)["value"] == {
        "tuple": "{(1, 2): 3}",
        "circle": "[[...]]",
        "half": "\ud800",
        "more": 1,
    }


@pytest.mark.parametrize("target", ["work.py:same", "work.py:conductor"])
def test_a_full_disk_stops_the_run(conductor, target):
    conductor.write(
        "work.py",
        """
        from okanjo_conductor import Conductor
        def same(text): return text
        conductor = Conductor(same)
        """,
    )
    conductor.write("in.txt", "a\n" * 1000)
    with Path("/dev/full").open("w") as full:
        process = conductor.start("run", target, "--jobs", "in.txt", stdout=full)
        _, said = process.communicate(timeout=DEADLINE)

    assert process.returncode == 3
    assert "conductor: [Errno 28] No space left on device" in said
