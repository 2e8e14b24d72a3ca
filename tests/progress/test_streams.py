"""What is printed while a view stands at the bottom of the terminal."""

from __future__ import annotations

import io
import logging
import sys
import threading

import pytest

from okanjo_conductor._progress import streams
from okanjo_conductor._progress.streams import Outlet


class FakeTerminal(io.StringIO):
    """What several streams write to."""

    encoding = "utf-8"


@pytest.fixture
def stand_in(monkeypatch):
    """Let stdout and stderr be two streams of one terminal, and have an outlet stand in for them.

    Within the test: pytest sets them anew before it.
    """
    made = []

    def stand_in(on_full=lambda: None):
        monkeypatch.setattr(streams, "_is_same", lambda stream, _: isinstance(stream, FakeTerminal))
        for name in ("stdout", "stderr"):
            if not isinstance(getattr(sys, name), io.StringIO):
                monkeypatch.setattr(sys, name, FakeTerminal())
        originals = sys.stdout, sys.stderr
        outlet = Outlet(on_full)
        outlet.open(sys.stderr)
        made.append(outlet)
        return outlet, *originals

    yield stand_in
    for outlet in made:
        outlet.close()


def test_lines_of_both_streams_come_in_order(stand_in):
    outlet, _, stderr = stand_in()
    print("one")
    print("two", file=sys.stderr)
    print("three")
    assert outlet.take() == "one\ntwo\nthree\n"
    assert outlet.take() == ""
    assert stderr.getvalue() == ""


def test_a_line_that_has_not_ended_waits_and_is_told(stand_in):
    outlet, *_ = stand_in()
    print("Really", end="? ")
    assert outlet.take() == ""
    assert outlet.begun == ["Really? "]
    print("whole", file=sys.stderr)
    print("yes")
    assert outlet.take() == "whole\nReally? yes\n"
    assert outlet.begun == []


def test_afterwards_the_streams_are_themselves_and_nothing_is_lost(stand_in):
    outlet, stdout, stderr = stand_in()
    kept = sys.stdout
    print("ended")
    print("begun", end="")
    assert outlet.take() == "ended\n"
    print(" and", end="")
    outlet.close()
    assert (sys.stdout, sys.stderr) == (stdout, stderr)
    print(" gone on", file=kept)
    kept.flush()
    assert stdout.getvalue() == "begun and gone on\n"


def test_a_stand_in_is_otherwise_like_the_stream(stand_in):
    outlet, *_ = stand_in()
    assert sys.stdout.encoding == "utf-8"
    sys.stdout.writelines(["a\n", "b\n"])
    sys.stdout.flush()
    assert outlet.take() == "a\nb\n"


def test_who_replaces_a_stream_meanwhile_keeps_it(stand_in, monkeypatch):
    outlet, *_ = stand_in()
    own = io.StringIO()
    monkeypatch.setattr(sys, "stdout", own)
    outlet.close()
    assert sys.stdout is own


def test_streams_that_go_elsewhere_are_left_alone(stand_in, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    _, stdout, stderr = stand_in()
    assert sys.stdout is stdout is file
    assert sys.stderr is not stderr


def test_log_handlers_that_hold_the_stream_write_above_too(stand_in, monkeypatch):
    monkeypatch.setattr(sys, "stderr", FakeTerminal())
    logger = logging.getLogger("tests.streams")
    handler, other = logging.StreamHandler(sys.stderr), logging.StreamHandler(io.StringIO())
    logger.addHandler(handler)
    logger.addHandler(other)
    logger.propagate = False
    try:
        outlet, _, stderr = stand_in()
        logger.warning("careful")
        assert outlet.take() == "careful\n"
        assert other.stream.getvalue() == "careful\n"
        outlet.close()
        assert handler.stream is stderr
    finally:
        logger.removeHandler(handler)
        logger.removeHandler(other)


def test_who_prints_very_much_makes_room_himself(stand_in, monkeypatch):
    monkeypatch.setattr(streams, "_MOST_WAITING", 10)
    shown = []
    outlet, stdout, _ = stand_in(lambda: shown.append(outlet.take()))
    for number in range(100):
        print(number)
    outlet.close()
    expected = "".join(f"{number}\n" for number in range(100))
    assert "".join(shown) + stdout.getvalue() == expected
    assert len(shown) >= 9


def test_threads_may_print_at_the_same_time(stand_in):
    outlet, *_ = stand_in()

    def write(name):
        for _ in range(200):
            sys.stdout.write(f"{name}\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    taken = ""
    while any(thread.is_alive() for thread in threads):
        taken += outlet.take()
    taken += outlet.take()
    assert sorted(taken) == sorted("abcd\n\n\n\n" * 200)


def test_a_stream_that_is_closed_meanwhile_does_no_harm(stand_in):
    outlet, stdout, _ = stand_in()
    print("begun", end="")
    stdout.close()
    outlet.close()


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_what_is_no_file_is_no_terminal(stream):
    assert not streams._is_same(stream, io.StringIO())
