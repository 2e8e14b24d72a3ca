"""The soaks, some seconds of each."""

from __future__ import annotations

from soak.soak import AsyncSoak, Options, Soak
from soak.talk import Talk


def test_jobs_survive_a_killer_and_the_books_agree(tmp_path):
    verdict = Soak(Options(jobs=3_000, is_quiet=True), tmp_path).run()

    assert verdict.is_good, str(verdict)
    assert verdict.jobs == 3_000
    assert verdict.kills > 5


def test_jobs_in_flight_survive_a_killer_and_nobody_innocent_is_charged(tmp_path):
    verdict = AsyncSoak(Options(jobs=5_000, concurrency=10, is_quiet=True), tmp_path).run()

    assert verdict.is_good, str(verdict)
    assert verdict.jobs == 5_000
    assert verdict.kills > 5
    assert verdict.suspected > 5


def test_each_request_ends_once_though_workers_are_killed():
    verdict = Talk(1_500, Options(is_quiet=True)).run()

    assert verdict.is_good, str(verdict)
    assert min(verdict.from_workers, verdict.to_workers) >= 1_500
    assert verdict.kills > 5
    assert verdict.gone > 0
