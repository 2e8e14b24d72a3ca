"""Attending to workers: begun by questions that come one after another, ended by silence."""

from __future__ import annotations

import os
from collections import deque

import pytest

from okanjo_conductor._io import cells
from okanjo_conductor._io.hatch import Answerer, Asker
from okanjo_conductor.lookups._attending import Attention

STOCK = {"apple": 3}


class Link:
    """One worker's: page, hatch, and what goes ahead of an answer."""

    sent = 0
    is_heard = True

    def __init__(self):
        descriptor = cells.make_page()
        self.page = cells.map_page(descriptor)
        os.close(descriptor)
        self.hatch = Answerer(self.page, self)

    def catch_up(self, _messages, _outcomes):
        return self.is_heard

    def send_news(self):
        self.sent += 1

    @property
    def is_attended(self):
        return bool(self.page[cells.ATTENDED])

    def close(self):
        self.hatch.close()
        self.page.release()


class Attended:
    """Two workers whose questions are attended to; the test takes the turns of the loop."""

    def __init__(self):
        self.links = {1: Link(), 2: Link()}
        self.calls = deque()
        self.looked = []
        self.attention = Attention(self, self.links, self.look)

    def call_soon(self, callback):
        self.calls.append(callback)

    def look(self, name, key):
        self.looked.append((name, key))
        return (STOCK[key],) if key in STOCK else None

    def note_until_attended(self, worker_id):
        """Ask over the job link, again and again."""
        while not self.links[worker_id].is_attended:
            self.attention.note(worker_id)

    def turn(self):
        self.calls.popleft()()

    def close(self):
        for link in self.links.values():
            link.close()


@pytest.fixture
def attended():
    made = Attended()
    yield made
    made.close()


def ask(link, asker, key):
    """Leave a question; nobody answers before the loop has its turn."""
    assert asker.ask((0, 0, "stock", key)) is None
    assert link.hatch.is_asked


def test_one_question_now_and_then_is_not_attended_to(attended):
    Asker(attended.links[1].page)
    attended.attention.note(1)

    assert not attended.links[1].is_attended
    assert not attended.calls


def test_who_asks_again_and_again_is_attended_to_until_it_is_silent(attended):
    Asker(attended.links[1].page).close()
    attended.note_until_attended(1)
    assert len(attended.calls) == 1

    while attended.calls:
        attended.turn()

    assert not attended.links[1].is_attended


def test_who_has_no_use_for_the_hatch_is_not_attended_to(attended):
    Asker(attended.links[1].page).close()
    attended.note_until_attended(1)  # so questions come thick and fast

    attended.attention.note(2)

    assert not attended.links[2].is_attended


def test_questions_at_the_hatch_are_answered(attended):
    link = attended.links[1]
    asker = Asker(link.page)
    attended.note_until_attended(1)
    ask(link, asker, "apple")

    attended.turn()

    assert attended.looked == [("stock", "apple")]
    assert not link.hatch.is_asked
    assert link.sent == 1
    asker.close()


def test_a_question_waits_while_what_was_said_before_it_is_not_heard(attended):
    link = attended.links[1]
    link.is_heard = False
    asker = Asker(link.page)
    attended.note_until_attended(1)
    ask(link, asker, "apple")

    while attended.calls:
        attended.turn()

    assert attended.looked == []
    assert link.hatch.is_asked
    assert not link.is_attended
    asker.close()


def test_who_is_gone_is_not_looked_at(attended):
    link = attended.links[1]
    asker = Asker(link.page)
    attended.note_until_attended(1)
    ask(link, asker, "apple")
    attended.attention.forget(1)

    attended.turn()

    assert attended.looked == []
    assert not attended.calls
    asker.close()


def test_the_end_of_the_run_ends_it(attended):
    Asker(attended.links[1].page).close()
    attended.note_until_attended(1)

    attended.attention.close()
    attended.turn()

    assert not attended.links[1].is_attended
    assert not attended.calls
