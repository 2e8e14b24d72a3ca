"""The thread that draws, and that nothing it does harms the run."""

from __future__ import annotations

import io
import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest

from okanjo_conductor import Conductor, JobState, Report
from okanjo_conductor._progress import screens, view
from okanjo_conductor._progress.plain import PlainLines, write_line
from okanjo_conductor._progress.view import View
from okanjo_conductor.errors import ConfigurationError

from .examples import snapshot

REPORT = Report(counts={JobState.DONE: 3}, seconds=1.0)


class FakeScreen:
    """Notes what it is told."""

    pause = 0.001

    def __init__(self, problem=None):
        self.problem = problem
        self.drawn = threading.Event()
        self.is_closed = threading.Event()
        self.reports = []

    def draw(self, _):
        self.drawn.set()
        if self.problem is not None:
            raise self.problem

    def finish(self, report):
        self.reports.append(report)

    def close(self):
        self.is_closed.set()


@pytest.fixture
def show_on(monkeypatch):
    """Make a view that shows something on this screen."""
    monkeypatch.setattr(view, "_SHORT", 0.001)

    def make(screen, look=snapshot):
        monkeypatch.setattr(screens, "choose", lambda *_: screen)
        return View(look, None)

    return make


def test_a_view_draws_until_the_run_ends_and_then_the_end(show_on):
    screen = FakeScreen()
    shown = show_on(screen)
    assert screen.drawn.wait(10)
    shown.close(REPORT)
    assert screen.reports == [REPORT]
    assert screen.is_closed.is_set()


@pytest.mark.parametrize("problem", [OSError("gone"), ValueError("closed"), RuntimeError("bug")])
def test_a_screen_that_fails_is_closed_and_nothing_else_happens(show_on, caplog, problem):
    screen = FakeScreen(problem)
    shown = show_on(screen)
    assert screen.is_closed.wait(10)
    shown.close(REPORT)
    assert screen.reports == []
    assert len(caplog.records) == isinstance(problem, RuntimeError)


def test_a_snapshot_that_fails_ends_the_view_only(show_on, caplog):
    screen = FakeScreen()
    shown = show_on(screen, look=lambda: 1 // 0)
    assert screen.is_closed.wait(10)
    shown.close(REPORT)
    assert "the progress of the run cannot be shown" in caplog.text


def test_a_screen_that_hangs_is_left_behind(show_on, monkeypatch):
    monkeypatch.setattr(view, "_PATIENCE", 0.01)
    go_on, screen = threading.Event(), FakeScreen()
    screen.draw = lambda _: (screen.drawn.set(), go_on.wait(10))
    shown = show_on(screen)
    assert screen.drawn.wait(10)
    shown.close(REPORT)
    assert screen.reports == []
    assert screen.is_closed.is_set()
    go_on.set()


def test_a_short_run_has_its_last_line_only(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(view, "_SHORT", 60.0)
    View(snapshot, None).close(REPORT)
    assert sys.stderr.getvalue() == "3 jobs in 1.00 s, 3.0 jobs/s: 3 done\n"


def test_without_a_standard_error_there_is_nothing_to_show(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    View(snapshot, None).close(REPORT)


# Plain lines


def test_plain_lines_come_ever_more_seldom():
    stream = io.StringIO()
    lines, pauses = PlainLines(stream), []
    for _ in range(8):
        pauses.append(lines.pause)
        lines.draw(snapshot())
    assert pauses == [3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 60.0, 60.0]
    lines.finish(None)
    assert stream.getvalue().count("\n") == 8


def test_plain_lines_come_in_the_interval_asked_for():
    lines = PlainLines(io.StringIO(), 7.0)
    lines.draw(snapshot())
    assert lines.pause == 7.0


def test_a_line_is_written_whatever_the_stream_can_encode():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    write_line(stream, "schön …")
    assert stream.buffer.getvalue() == b"sch?n ?\n"


# The choice


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def without(monkeypatch, *names):
    """Let these modules not be installed."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)
    for module in ("live", "bars"):
        monkeypatch.delitem(sys.modules, f"okanjo_conductor._progress.{module}", raising=False)


def chosen(stream):
    screen = screens.choose(stream, None)
    screen.close()
    return type(screen).__name__


def test_a_terminal_gets_the_best_there_is(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert chosen(Tty()) == "LiveView"
    without(monkeypatch, "rich.console")
    assert chosen(Tty()) == "Bar"
    without(monkeypatch, "tqdm.auto")
    assert chosen(Tty()) == "PlainLines"


def test_a_dumb_terminal_and_a_file_get_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert chosen(Tty()) == "PlainLines"
    assert chosen(io.StringIO()) == "PlainLines"


def test_a_notebook_gets_a_bar(monkeypatch):
    shell = type("ZMQInteractiveShell", (), {})()
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert chosen(io.StringIO()) == "Bar"
    without(monkeypatch, "tqdm.auto")
    assert chosen(io.StringIO()) == "PlainLines"


def test_a_bar_follows_its_total(monkeypatch):
    from okanjo_conductor._progress import bars

    stream = io.StringIO()
    bar = bars.Bar(stream)
    bar.draw(snapshot(total=None))
    widget = SimpleNamespace(max=1)
    bar._bar.container = SimpleNamespace(children=[None, widget, None])  # as a notebook's has
    bar.draw(snapshot(total=5_000, workers_lost=2))
    assert widget.max == 5_000
    bar.finish(Report(counts={JobState.DONE: 4_990, JobState.FAILED: 10}))
    *_, last = stream.getvalue().replace("\r", "\n").strip().splitlines()
    assert "4213 jobs [" in stream.getvalue()
    assert "4213/5000" in stream.getvalue()
    assert "3 failed, 2 workers lost" in stream.getvalue()
    assert last.startswith("100%|")
    assert "10 failed" in last


def test_an_interactive_shell_is_no_notebook(monkeypatch):
    ipython = SimpleNamespace(get_ipython=lambda: None)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not screens.is_notebook()


@pytest.mark.parametrize("progress", ["yes", 0, -1, None])
def test_what_makes_no_sense_is_refused(progress):
    with pytest.raises(ConfigurationError, match=r"progress=.*seconds between lines"):
        Conductor(print, progress=progress)
