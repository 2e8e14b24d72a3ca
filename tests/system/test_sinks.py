"""Runs with sinks: what they are given, with and without a journal."""

from __future__ import annotations

import json
import sqlite3

import pytest

from okanjo_conductor import Conductor, open_journal
from okanjo_conductor.errors import ConfigurationError, SinkError
from okanjo_conductor.sinks import Csv, JsonLines, SqliteTable
from system import journaled


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(params=["with a journal", "without one"])
def options(request, tmp_path):
    given = {"journal": tmp_path / "run.db"} if request.param == "with a journal" else {}
    return {"logging": False, "worker_limit": 2, **given}


def test_every_outcome_is_there_once(tmp_path, options):
    seen = []
    sinks = [
        JsonLines(tmp_path / "o.jsonl", failures=True),
        Csv(tmp_path / "o.csv"),
        SqliteTable(tmp_path / "o.db"),
        seen.append,
    ]
    conductor = Conductor(journaled.work, jobs_queue=range(200), sink=sinks, **options)
    report = conductor.run()
    assert report.done == 200
    assert sorted(line["key"] for line in lines_of(tmp_path / "o.jsonl")) == list(range(200))
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 201
    connection = sqlite3.connect(tmp_path / "o.db")
    assert connection.execute("SELECT count(DISTINCT key) FROM outcomes").fetchone() == (200,)
    connection.close()
    assert sorted(outcome.key for outcome in seen) == list(range(200))


def test_a_sink_that_fails_ends_the_run_and_is_named(tmp_path, options):
    def refuse(outcome):
        if outcome.key == 50:
            raise RuntimeError("fifty")

    conductor = Conductor(journaled.work, jobs_queue=range(10_000), sink=refuse, **options)
    with pytest.raises(SinkError, match=r"refuse.*RuntimeError: fifty"):
        conductor.run()
    assert conductor.report.jobs < 10_000
    if "journal" in options:
        with open_journal(options["journal"]) as journal:
            assert 50 not in journal
        report = Conductor(journaled.work, jobs_queue=range(10_000), **options).run()
        assert report.done + report.skipped == 10_000


def test_a_file_that_is_there_already_is_not_touched(tmp_path, options):
    (tmp_path / "o.jsonl").write_text("mine\n")
    conductor = Conductor(
        journaled.work, jobs_queue=range(5), sink=JsonLines(tmp_path / "o.jsonl"), **options
    )
    with pytest.raises(SinkError, match="is there already"):
        conductor.run()
    assert (tmp_path / "o.jsonl").read_text() == "mine\n"


def test_what_is_no_sink_is_refused_at_once(options):
    with pytest.raises(ConfigurationError, match="is no sink"):
        Conductor(journaled.work, sink=5, **options)
