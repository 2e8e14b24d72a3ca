"""What a person sees who runs a script with ``progress=True``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from .terminals import Terminal

HEAD = """
import logging, os, sys, threading
sys.path.insert(0, {tests!r})
from okanjo_conductor import Conductor, Retry
from system.moments import Moment
go_on = Moment({path!r})
"""
WAITING = """
def job(number):
    if number >= 6:
        go_on.wait()
    if number == 5:
        raise ValueError("no fives")
    return number
class Jobs:
    # Six that end, and then four that wait: none of the six may come to wait behind these.
    def __init__(self):
        self.outcomes = []
        self.are_over = threading.Event()
    def __len__(self):
        return 10
    def __iter__(self):
        yield from range(6)
        self.are_over.wait()
        yield from range(6, 10)
    def note(self, outcome):
        self.outcomes.append(outcome.job)
        if len(self.outcomes) == 6:
            self.are_over.set()
def conductor(progress=True, **options):
    options = {"worker_limit": 2, "job_key": "page-{}".format, **options}
    jobs = Jobs()
    made = Conductor(job, jobs_queue=jobs, progress=progress, **options)
    made.on("job_done", jobs.note)
    made.on("job_failed", jobs.note)
    return made
"""


@pytest.fixture
def go_on(moment):
    """The moment that jobs wait for."""
    return moment("go on")


@pytest.fixture
def script(tmp_path, go_on):
    """Write a script whose jobs may wait for the moment."""
    tests = str(Path(__file__).parents[1])

    def write(text):
        path = tmp_path / "script.py"
        path.write_text(HEAD.format(tests=tests, path=go_on.path) + WAITING + text)
        return str(path)

    return write


def is_at_work(text):
    return "workers: 2 working" in text and text.count("page-") >= 2


def test_the_view_shows_what_goes_on_and_leaves_a_line(script, go_on):
    with Terminal(script("print('before')\nconductor().run()\nprint('after')\n")) as terminal:
        middle = terminal.until(lambda text: is_at_work(text) and "page-6 " in text)
        go_on.happen()
        end = terminal.end()
    assert middle.startswith("before\n━━━━")
    assert "6 of 10 jobs (60 %)" in middle
    assert "1 failed · workers: 2 working" in middle
    assert re.search(r"^ 0  page-\d +[\d.]+ s +[\d.]+ MB +\d jobs$", middle, re.MULTILINE)
    assert middle.endswith("failed page-5: ValueError: no fives")
    before, summary, after = end.splitlines()
    assert (before, after) == ("before", "after")
    assert re.fullmatch(r"10 jobs in [\d.]+ s, [\d.]+ jobs/s: 9 done, 1 failed", summary)
    assert not terminal.screen.cursor.hidden
    assert b"\x1b[?25l" not in terminal.raw


PRINTING = """
logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
is_shown = Moment(go_on.path + " too")
is_told = Moment(go_on.path + " three")
def job(number):
    if number == 5:
        is_shown.wait()
    if number == 6:
        print("a job prints")
        logging.info("a job logs")
    if number == 7:
        print("a job complains", file=sys.stderr)
    if number == 8:
        is_told.wait()
    if number == 9:
        go_on.wait()
    return number
conductor = Conductor(
    job, jobs_queue=range(10), worker_limit=1, progress=True, logging=False
)
@conductor.on("job_done")
def tell(outcome):
    if outcome.job == 8:
        print("the conductor prints", end="")
        print(", and goes on")
        logging.warning("the conductor logs")
        print("Sure", end="? ")
conductor.run()
"""


def test_what_is_printed_and_logged_stands_above_the_view(script, go_on, moment):
    is_shown, is_told = moment("go on too"), moment("go on three")
    by_jobs = ["a job prints", "INFO a job logs", "a job complains"]
    with Terminal(script(PRINTING)) as terminal:
        terminal.until(lambda text: "5 of 10 jobs" in text)
        is_shown.happen()
        terminal.until(lambda text: all(line in text for line in by_jobs))
        is_told.happen()
        middle = terminal.until(lambda text: "Sure?" in text and "━" in text)
        go_on.happen()
        end = terminal.end()
    lines = end.splitlines()
    assert sorted(lines[:3]) == sorted(by_jobs)
    assert lines[3:5] == ["the conductor prints, and goes on", "WARNING the conductor logs"]
    assert "WARNING the conductor logs\nSure?\n━" in middle
    assert lines[5] == "Sure?"
    assert lines[6].startswith("10 jobs in")


def test_a_worker_that_is_killed_is_told(script, go_on):
    text = """
made = conductor(retry=Retry(crashes=3))
made.on("worker_start", lambda worker_id, pid: print(f"worker {worker_id} is {pid}"))
made.run()
"""
    with Terminal(script(text)) as terminal:
        middle = terminal.until(lambda text: is_at_work(text) and "worker 2 is" in text)
        os.kill(int(re.search(r"worker 1 is (\d+)", middle)[1]), signal.SIGKILL)
        told = terminal.until(lambda text: "1 lost" in text and "worker 3 is" in text)
        go_on.happen()
        end = terminal.end()
    assert re.search(
        r"^lost worker 1 in slot 0: SIGKILL \(crash\), executing job page-\d$", told, re.MULTILINE
    )
    assert re.search(r"9 done, 1 failed; 1 of \d workers lost$", end.splitlines()[-1])


def test_ctrl_c_drains_and_the_terminal_is_as_it_was(script, go_on):
    text = """
try:
    conductor().run()
except KeyboardInterrupt:
    print("interrupted")
"""
    with Terminal(script(text)) as terminal:
        terminal.until(lambda text: is_at_work(text) and "page-6 " in text)
        terminal.type(b"\x03")
        draining = terminal.until(lambda text: "\nfinishing the jobs in execution · " in text)
        go_on.happen()
        end = terminal.end()
    assert "SIGINT: finishing the jobs in execution; once more aborts them" in draining
    *_, last = end.splitlines()
    assert last == "interrupted"
    whole = end.replace("\n", "")  # the line is longer than the terminal is wide
    assert re.search(r"stopped early \(SIGINT received\)(; \d not started)?interrupted$", whole)
    assert "━" not in end
    assert not terminal.screen.cursor.hidden


def test_a_conductor_that_is_killed_leaves_a_cursor(script):
    with Terminal(script("conductor().run()\n")) as terminal:
        terminal.until(is_at_work)
        terminal.process.kill()
        terminal.end()
    assert not terminal.screen.cursor.hidden


def test_without_colour_there_is_none(script, go_on):
    with Terminal(script("conductor().run()\n"), env={"NO_COLOR": "1"}) as terminal:
        terminal.until(is_at_work)
        go_on.happen()
        terminal.end()
    assert not re.search(rb"\x1b\[(\d+;)*[34]\d", terminal.raw)


def test_a_dumb_terminal_gets_lines(script, go_on):
    text = script("conductor(0.3).run()\n")
    with Terminal(text, env={"TERM": "dumb"}) as terminal:
        terminal.until(lambda text: "] 6 of 10 jobs (60 %), 1 failed" in text)
        go_on.happen()
        terminal.end()
    assert b"\x1b" not in terminal.raw


def test_results_that_go_to_a_file_are_left_alone(script, go_on, tmp_path):
    path = tmp_path / "results"
    text = "for outcome in conductor().outcomes(ordered=True):\n    print(outcome.value)\n"
    with path.open("wb") as file, Terminal(script(text), stdout=file) as terminal:
        terminal.until(is_at_work)
        go_on.happen()
        terminal.end()
    assert path.read_text().split() == ["0", "1", "2", "3", "4", "None", "6", "7", "8", "9"]
    assert "10 jobs in" in terminal.text


def test_without_rich_there_is_a_bar(script, go_on):
    text = "sys.modules['rich.console'] = None\nconductor().run()\nprint('after')\n"
    with Terminal(script(text)) as terminal:
        middle = terminal.until(lambda text: "6/10" in text)
        go_on.happen()
        end = terminal.end()
    assert "60%|" in middle
    assert "1 failed" in middle
    assert "100%|" in end
    assert "10/10" in end
    assert end.splitlines()[-1] == "after"


# Where nobody watches


def is_settled(line):
    return "] 6 of 10 jobs" in line and "2 working" in line


def run_piped(path, **options):
    return subprocess.run(
        [sys.executable, "-W", "error", path],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
        **options,
    )


def test_through_a_pipe_there_are_plain_lines(script, go_on):
    path = script("print(conductor(0.26).run().done)\n")
    command = [sys.executable, "-W", "error", path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        lines = iter(process.stderr.readline, "")
        first, second = islice((line for line in lines if is_settled(line)), 2)
        go_on.happen()
        *_, last = lines
        assert process.stdout.read() == "9\n"
    pattern = r"\[[\d.]+ s\] 6 of 10 jobs \(60 %\), 1 failed, .*, workers: 2 working\n"
    assert re.fullmatch(pattern, first)
    assert re.fullmatch(pattern, second)
    assert re.fullmatch(r"10 jobs in .*: 9 done, 1 failed\n", last)


def test_a_short_run_writes_its_last_line(script, go_on):
    go_on.happen()
    done = run_piped(script("conductor().run()\n"), stderr=subprocess.PIPE)
    assert re.fullmatch(r"10 jobs in .*: 9 done, 1 failed\n", done.stderr)


def test_a_standard_error_that_is_closed_does_no_harm(script, go_on):
    go_on.happen()
    text = "sys.stderr.close()\nprint(conductor(0.01).run().done)\n"
    assert run_piped(script(text)).stdout == "9\n"


def test_a_standard_error_that_nobody_reads_does_no_harm(script, go_on):
    go_on.happen()
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        assert run_piped(script("print(conductor().run().done)\n"), stderr=theirs).stdout == "9\n"
    finally:
        os.close(theirs)
