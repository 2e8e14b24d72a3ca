"""The soak, some seconds of it."""

from __future__ import annotations

from soak.soak import Options, Soak


def test_jobs_survive_a_killer_and_the_books_agree(tmp_path):
    verdict = Soak(Options(jobs=3_000, is_quiet=True), tmp_path).run()

    assert verdict.is_good, str(verdict)
    assert verdict.jobs == 3_000
    assert verdict.kills > 5
