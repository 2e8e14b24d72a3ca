"""What is shown while a run goes on, and where: results on one stream, all else on the other."""

from __future__ import annotations

import json
import os
import re
import select
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest

from okanjo_conductor.cli import _writing

from .conftest import DEADLINE

ROWS = [{"key": text, "value": text * 2} for text in "abc"]


@pytest.fixture
def watched(conductor):
    """Run it with a terminal as its standard error; return exit code, results and screen."""
    conductor.write("work.py", "def twice(text): return text * 2\n")
    conductor.write("in.txt", "a\nb\nc\n")

    def run(*options, **env):
        conductor.env |= {"TERM": "xterm", "COLUMNS": "90", "LINES": "30", **env}
        ours, theirs = os.openpty()
        command = ("run", "work.py:twice", "-k", "--jobs", "in.txt", *options)
        process = conductor.start(*command, stderr=theirs)
        os.close(theirs)
        screen = b""
        try:
            while block := os.read(ours, 4096):
                screen += block
        except OSError:  # that is how Linux says that nobody has it open any more
            pass
        os.close(ours)
        out, _ = process.communicate(timeout=DEADLINE)
        return process.returncode, list(map(json.loads, out.splitlines())), screen.decode()

    return run


def test_a_terminal_shows_how_far_it_is(watched):
    code, rows, screen = watched()

    assert (code, rows) == (0, ROWS)
    assert re.search(r"3 jobs in .* 3 done", screen)
    assert screen.count("3 done") == 1  # one line is enough where all went well


def test_who_wants_it_quiet_has_it_quiet(watched):
    assert watched("-q") == (0, ROWS, "")
    assert watched("--no-bar") == (0, ROWS, "")


def test_no_colours_where_none_are_wanted(watched):
    coloured, plain = watched()[2], watched(NO_COLOR="1")[2]

    assert re.search(r"\x1b\[[0-9;]*3[0-7]m", plain) is None
    assert "3 jobs in" in coloured
    assert "3 jobs in" in plain


def test_plain_lines_go_where_no_terminal_is(conductor):
    for option in ("--bar", "--eta"):
        done = conductor("exec", option, "echo", ":::", "a")
        assert (done.returncode, done.stdout) == (0, "a\n")
        assert re.search(r"1 job.* in .*1 done", done.stderr)


def test_a_terminal_for_everything_keeps_whole_lines(conductor):
    conductor.env |= {"TERM": "xterm", "COLUMNS": "90", "LINES": "30"}
    ours, theirs = os.openpty()
    process = conductor.start("exec", "-k", "echo", ":::", "first", "second", stdout=theirs, stderr=theirs)  # fmt: skip  # noqa: E501
    os.close(theirs)
    screen = b""
    try:
        while block := os.read(ours, 4096):
            screen += block
    except OSError:
        pass
    os.close(ours)
    process.communicate(timeout=DEADLINE)

    assert process.returncode == 0
    assert b"first\r\n" in screen
    assert b"second\r\n" in screen
    assert b"2 jobs in" in screen


def test_a_pipe_that_does_not_block_is_waited_for(monkeypatch):
    waited = threading.Event()

    def select_and_say(*args):
        waited.set()
        return select.select(*args)

    monkeypatch.setattr(_writing, "select", SimpleNamespace(select=select_and_say))
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)  # whoever else has it may make it so
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += os.write(theirs, b"x" * 4096)

    def write():
        _writing.Output(theirs).write(b"y" * 300_000)
        os.close(theirs)

    writer = threading.Thread(target=write)
    writer.start()
    assert waited.wait(DEADLINE)
    with os.fdopen(ours, "rb") as file:
        assert file.read() == b"x" * filled + b"y" * 300_000
    writer.join()
