"""The hatch: answered while somebody attends, given up when nobody does, and never out of turn."""

from __future__ import annotations

import os
import threading

import pytest

from okanjo_conductor._io import cells
from okanjo_conductor._io.hatch import Answerer, Asker

QUESTION = (3, 7, "stock", "apple")
"""After three messages and seven outcomes."""


class Link:
    """Keeps what it is asked for."""

    def __init__(self):
        self.sent = 5
        self.is_heard = True
        self.caught_up = []
        self.tell = 0

    def catch_up(self, messages, outcomes):
        self.caught_up.append((messages, outcomes))
        return self.is_heard

    def send_news(self):
        self.sent, self.tell = self.sent + self.tell, 0


class Hatch:
    """Both sides of one hatch, each with a mapping of its own, as in two processes."""

    def __init__(self, size=cells.SIZE):
        descriptor = cells.make_page()
        os.ftruncate(descriptor, size)
        self.pages = [cells.map_page(descriptor) for _ in range(2)]
        os.close(descriptor)
        self.link = Link()
        self.asker = Asker(self.pages[0])
        self.answerer = Answerer(self.pages[1], self.link)

    def close(self):
        self.asker.close()
        self.answerer.close()
        for page in self.pages:
            page.release()

    def ask(self, question, answer, *, otherwise=()):
        """Ask until there is an answer, which another thread gives: it may be late with some."""
        is_over = threading.Event()

        def attend():
            while not is_over.is_set():
                if self.answerer.is_asked:
                    self.asked = self.answerer.question()
                    self.answerer.answer(answer, otherwise)
                os.sched_yield()

        self.answerer.attend(is_attentive=True)
        thread = threading.Thread(target=attend)
        thread.start()
        while (answered := self.asker.ask(question)) is None:
            pass
        is_over.set()
        thread.join()
        return answered


@pytest.fixture
def hatch():
    made = Hatch()
    yield made
    made.close()


def test_a_question_is_answered_with_how_much_was_said_before(hatch):
    assert hatch.ask(QUESTION, ("red",)) == (5, ("red",))
    assert hatch.asked == ("stock", "apple")
    assert set(hatch.link.caught_up) == {(3, 7)}


def test_news_goes_ahead_of_the_answer(hatch):
    hatch.link.tell = 2

    assert hatch.ask(QUESTION, None) == (7, None)


def test_an_answer_that_is_too_long_is_told_otherwise(hatch):
    assert hatch.ask(QUESTION, ("x" * 5000,), otherwise=()) == (5, ())


def test_nobody_is_asked_who_does_not_attend(hatch):
    assert hatch.asker.ask(QUESTION) is None
    assert not hatch.answerer.is_asked

    hatch.answerer.attend(is_attentive=True)
    hatch.answerer.attend(is_attentive=False)

    assert hatch.asker.ask(QUESTION) is None
    assert not hatch.answerer.is_asked


def test_a_question_that_is_too_long_is_not_asked(hatch):
    hatch.answerer.attend(is_attentive=True)

    assert hatch.asker.ask((0, 0, "stock", "x" * 5000)) is None
    assert not hatch.answerer.is_asked


def test_a_late_answer_is_for_nobody_and_the_next_question_waits_for_it(hatch):
    hatch.answerer.attend(is_attentive=True)
    assert hatch.asker.ask(QUESTION) is None  # in vain: nobody looks
    assert hatch.answerer.is_asked

    assert hatch.asker.ask((9, 9, "other", 1)) is None
    assert hatch.answerer.question() == ("stock", "apple")
    hatch.answerer.answer(("late",), ())

    assert hatch.ask((9, 9, "other", 1), ("new",)) == (5, ("new",))
    assert hatch.asked == ("other", 1)


def test_a_question_waits_for_what_was_said_before_it(hatch):
    hatch.link.is_heard = False
    hatch.answerer.attend(is_attentive=True)
    assert hatch.asker.ask(QUESTION) is None

    assert hatch.answerer.question() is None
    assert hatch.answerer.is_asked

    hatch.link.is_heard = True
    assert hatch.answerer.question() == ("stock", "apple")


def test_one_thread_asks_at_a_time_and_others_are_not_held_up(hatch):
    hatch.answerer.attend(is_attentive=True)
    hatch.asker._asking.acquire()  # as another thread that asks

    assert hatch.asker.ask(QUESTION) is None
    assert not hatch.answerer.is_asked


def test_a_hatch_that_was_closed_is_not_asked_at(hatch):
    hatch.answerer.attend(is_attentive=True)
    hatch.asker.close()

    assert hatch.asker.ask(QUESTION) is None
    assert not hatch.answerer.is_asked


def test_attending_to_a_hatch_that_was_closed_means_nothing(hatch):
    hatch.answerer.close()
    hatch.answerer.attend(is_attentive=True)

    assert hatch.asker.ask(QUESTION) is None


def test_there_is_none_where_memory_is_too_small():
    small = Hatch(size=4096)

    assert not small.answerer.is_used
    assert small.asker.ask(QUESTION) is None
    small.close()


def test_it_says_that_it_is_used(hatch):
    assert hatch.answerer.is_used
