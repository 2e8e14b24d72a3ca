"""What a run finds out about its workers by looking: stacks, each for the job it was asked for."""

from __future__ import annotations

import os

import pytest

from okanjo_conductor._core import commands as do
from okanjo_conductor._core.policy import Policy
from okanjo_conductor._io import links
from okanjo_conductor._io.conductor_link import ConductorLink
from okanjo_conductor._io.light_loop import LightLoop
from okanjo_conductor._vitals import Vitals


class Loop(LightLoop):
    """A loop whose timers the test lets run out itself."""

    def __init__(self):
        super().__init__()
        self.due = []

    def call_later(self, _delay, callback, *args):
        self.due.append(lambda: callback(*args))
        return self.call_soon(lambda: None)


class Scene:
    """A worker that writes its stack when the test says so."""

    def __init__(self, page):
        self.page = page
        self.loop = Loop()
        self.asked = []
        self.can_write = True
        self.told = []
        self.links = {}
        self.vitals = Vitals(
            self.loop,
            self.links,
            Policy(),
            post=lambda event: None,
            measure=lambda worker_id, pid: None,
            dump_stack=self.dump,
            emit=lambda name, stuck: self.told.append((stuck.key, stuck.stack)),
        )

    def dump(self, worker_id):
        if self.can_write:
            self.asked.append(worker_id)
        return self.can_write

    def ask(self, key):
        self.vitals.report_stuck(do.ReportStuck(worker_id=1, slot=0, key=key, seconds=1.0))

    def tell(self):
        due, self.loop.due = self.loop.due, []
        for tell in due:
            tell()

    def write(self, text):
        os.write(self.page, text.encode())


@pytest.fixture
def scene():
    ours, theirs = links.make()
    made = Scene(theirs.cells)
    made.links[1] = ConductorLink(1, ours, made.loop, receiver=None)
    yield made
    made.links[1].finish()
    theirs.close()
    made.loop.close()


def test_each_is_told_with_the_stack_that_was_asked_for_it(scene):
    scene.ask("first")
    scene.write("where the first was\n")
    scene.ask("second")
    scene.write("where the second was\n")

    scene.tell()

    assert scene.asked == [1, 1]
    assert scene.told == [
        ("first", "where the first was\n"),
        ("second", "where the second was\n"),
    ]
    assert not scene.links[1].take_stack()


def test_jobs_that_are_asked_about_at_once_are_told_with_the_same_stack(scene):
    scene.ask("first")
    scene.ask("second")
    scene.write("where both were\n")

    scene.tell()

    assert scene.told == [(key, "where both were\n") for key in ("first", "second")]


def test_who_cannot_write_its_stack_yet_is_told_of_without(scene):
    scene.can_write = False
    scene.ask("first")

    scene.tell()

    assert scene.told == [("first", "")]


def test_a_stack_that_is_late_is_waited_for_but_not_for_ever(scene):
    scene.ask("late")
    scene.tell()
    assert not scene.told
    scene.write("where it was\n")
    scene.tell()
    assert scene.told == [("late", "where it was\n")]

    scene.ask("silent")
    while scene.loop.due:
        scene.tell()
    assert scene.told[1:] == [("silent", "")]
