"""Sinks by themselves: what they write, and how they go back to a position."""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import enum
import json
import math
import os
import sqlite3
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from journal.stores import done, failed, retried
from okanjo_conductor import sinks
from okanjo_conductor._types import Attempt, Cause, JobState, Outcome
from okanjo_conductor.errors import ConfigurationError, SinkError
from okanjo_conductor.sinks import Csv, EachOutcome, Feed, JsonLines, Sink, SqliteTable, as_sinks


def outcome(key, value=None, error=None):
    state = JobState.FAILED if error else JobState.DONE
    cause = Cause.ERROR if error else None
    history = (Attempt(1, Cause.ERROR, error, 1, 0.1),) if error else ()
    return Outcome(key, None, state, value, error, cause, 1, history, 1, 0, 0.1)


def some(begin, end):
    return [outcome(n, {"n": n, "text": f'number, {n}\n"{n}"'}) for n in range(begin, end)]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


class Journal:
    """Stands in for the journal: opens a sink, and says what it was given."""

    def __init__(self, sink):
        self.sink = sink
        self.position = None
        self.given = []

    def open(self, **options):
        self.position = self.sink.open(self.position, self._since, **options)
        return self

    def _since(self, seq):
        return iter(self.given[seq:])

    def write(self, outcomes, *, commits=True):
        position = self.sink.write(outcomes, len(self.given) + len(outcomes))
        assert position == json.loads(json.dumps(position))
        if commits:
            self.position = position
            self.given += outcomes

    def close(self):
        self.position = self.sink.close()


def read_json_lines(path):
    return [json.loads(line)["value"]["n"] for line in path.read_text().splitlines()]


def read_csv(path):
    with path.open(newline="") as file:
        return [int(row["n"]) for row in csv.DictReader(file)]


def read_table(path):
    connection = sqlite3.connect(path)
    try:
        return [n for (n,) in connection.execute("SELECT n FROM outcomes ORDER BY rowid")]
    finally:
        connection.close()


KINDS = {
    "JsonLines": (JsonLines, read_json_lines),
    "Csv": (Csv, read_csv),
    "SqliteTable": (SqliteTable, read_table),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out"


@pytest.mark.parametrize("is_durable", [False, True])
def test_what_was_given_is_there(kind, path, is_durable):
    make, read = kind
    journal = Journal(make(path)).open(is_durable=is_durable)
    journal.write(some(0, 3))
    journal.write(some(3, 5))
    journal.close()
    assert read(path) == [0, 1, 2, 3, 4]
    assert names_in(path.parent) == ["out"]


def test_what_was_not_committed_is_forgotten_at_the_next_start(kind, path):
    make, read = kind
    journal = Journal(make(path)).open()
    journal.write(some(0, 3))
    journal.write(some(3, 5), commits=False)
    journal.sink.close()  # as if it had been killed
    journal.sink = make(path)
    journal.open()
    journal.write(some(3, 6))
    journal.close()
    assert read(path) == [0, 1, 2, 3, 4, 5]


def test_what_cannot_be_committed_is_forgotten_at_once(kind, path):
    make, read = kind
    journal = Journal(make(path)).open()
    journal.write(some(0, 3))
    journal.write(some(3, 5), commits=False)
    journal.sink.rewind(journal.position)
    assert read(path) == [0, 1, 2]


def test_a_kill_before_the_first_commit_leaves_nothing(kind, path):
    make, read = kind
    journal = Journal(make(path)).open()
    journal.write(some(0, 3), commits=False)
    journal.sink.close()
    journal.sink = make(path)
    journal.open()
    journal.write(some(0, 2))
    journal.close()
    assert read(path) == [0, 1]


def filled(kind, path):
    """Leave something there that a run did not write which goes on."""
    journal = Journal(kind[0](path)).open()
    journal.write(some(10, 12))
    journal.close()


def test_what_is_there_already_is_not_touched_unless_asked_to(kind, path):
    make, read = kind
    filled(kind, path)
    with pytest.raises(SinkError, match=r'exists="append"'):
        make(path).open(None, lambda _: iter(()))
    assert read(path) == [10, 11]
    for exists, found in (("append", [10, 11, 0]), ("overwrite", [0])):
        journal = Journal(make(path, exists=exists)).open()
        journal.write(some(0, 1))
        journal.close()
        assert read(path) == found
    with pytest.raises(ConfigurationError, match="exists"):
        make(path, exists="strange")


def test_appending_is_not_cut_short_by_a_kill_before_the_first_commit(kind, path):
    make, read = kind
    filled(kind, path)
    journal = Journal(make(path, exists="append")).open()
    journal.write(some(0, 1), commits=False)
    journal.sink.close()
    journal.sink = make(path, exists="append")
    journal.open().write(some(0, 1))
    journal.close()
    assert read(path) == [10, 11, 0]


def test_a_file_that_is_gone_shortened_or_changed_is_named(path):
    for damage, match in (
        (path.unlink, "is gone"),
        (lambda: os.truncate(path, 5), "has 5 bytes and should have"),
        (lambda: path.write_bytes(b"x" * 1000), "has been changed"),
    ):
        journal = Journal(JsonLines(path, exists="overwrite")).open()
        journal.write(some(0, 3))
        journal.close()
        damage()
        with pytest.raises(SinkError, match=f"{match}.*give the sink another path"):
            journal.open()


def test_a_table_that_has_lost_rows_is_named(path):
    journal = Journal(SqliteTable(path)).open()
    journal.write(some(0, 3))
    journal.close()
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM outcomes WHERE n = 2")
    connection.commit()
    connection.close()
    with pytest.raises(SinkError, match="has lost rows"):
        journal.open()


def test_a_last_line_without_an_end_is_ended_before_more_is_appended(path):
    path.write_text('{"value": {"n": 7}}')
    journal = Journal(JsonLines(path, exists="append")).open()
    journal.write(some(0, 1))
    journal.close()
    assert read_json_lines(path) == [7, 0]


# Rows


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: int


def written(sink, path, *outcomes):
    journal = Journal(sink).open()
    journal.write(list(outcomes))
    journal.close()
    return path.read_text().splitlines()


def test_common_types_beyond_json_are_written_as_what_comes_closest(path):
    values = {
        "array": np.arange(3),
        "number": np.float32(1.5),
        "day": dt.date(2026, 1, 2),
        "path": Path("a/b"),
        "money": decimal.Decimal("1.50"),
        "id": uuid.UUID(int=1),
        "colour": Colour.RED,
        "set": {2, 1},
        "point": Point(1),
        "pair": (1, 2),
        "bad name": "\udcff",
        "text": "Zürich",
    }
    (line,) = written(JsonLines(path), path, outcome(("a", Path("b")), values))
    row = json.loads(line)
    assert row["key"] == ["a", "b"]
    assert row["value"] == {
        "array": [0, 1, 2],
        "number": 1.5,
        "day": "2026-01-02",
        "path": "a/b",
        "money": "1.50",
        "id": "00000000-0000-0000-0000-000000000001",
        "colour": "Colour.RED",
        "set": [1, 2],
        "point": {"x": 1},
        "pair": [1, 2],
        "bad name": "\udcff",
        "text": "Zürich",
    }
    assert math.isnan(
        json.loads(*written(JsonLines(path, exists="overwrite"), path, outcome(1, math.nan)))[
            "value"
        ]
    )


@pytest.mark.parametrize("make", [JsonLines, Csv, SqliteTable])
def test_what_cannot_be_written_is_named_with_its_job(path, make):
    journal = Journal(make(path)).open()
    with pytest.raises((SinkError, TypeError), match="row="):
        journal.write([outcome("a", [object()])])
    journal.sink.rewind(journal.position)


def test_failures_are_written_where_they_are_wanted(path):
    bad = outcome("b", error=ValueError("oh"))
    lines = written(JsonLines(path, failures=True), path, outcome("a", 1), bad)
    assert [json.loads(line) for line in lines] == [
        {"key": "a", "value": 1},
        {"key": "b", "state": "failed", "cause": "error", "error": "ValueError: oh"},
    ]


def test_a_row_may_be_made_by_a_function(path):
    sink = JsonLines(path, row=lambda o: [o.key, o.seconds])
    assert written(sink, path, outcome("a", 1)) == ['["a", 0.1]']


def test_columns_are_those_of_the_first_row_or_those_given(path):
    lines = written(Csv(path), path, outcome("a", {"x": 1, "y": [1]}), outcome("b", {"y": None}))
    assert lines == ["key,x,y", "a,1,[1]", "b,,"]
    sink = Csv(path, exists="overwrite", columns=["y", "key", "z"], delimiter=";")
    assert written(sink, path, outcome("a", {"y": 1.5})) == ["y;key;z", "1.5;a;"]
    assert written(Csv(path, exists="overwrite"), path, outcome("a", 3)) == ["key,value", "a,3"]


@pytest.mark.parametrize("make", [Csv, SqliteTable])
def test_a_field_without_a_column_is_named(path, make):
    journal = Journal(make(path)).open()
    journal.write([outcome("a", {"x": 1})])
    with pytest.raises(SinkError, match=r"job 'b' has fields .* no column: y, z\..*columns="):
        journal.write([outcome("b", {"x": 1, "y": 2, "z": 3})])
    other = Journal(make(path.with_name("other"), row=lambda _: [1])).open()
    with pytest.raises(SinkError, match="let it return a dict"):
        other.write([outcome("a", 1)])
    other.close()
    journal.sink.rewind(journal.position)


def test_a_csv_file_keeps_its_columns_when_the_run_goes_on(path):
    journal = Journal(Csv(path)).open()
    journal.write([outcome("a", {"x": 1})])
    journal.close()
    journal.sink = Csv(path)
    journal.open()
    journal.write([outcome("b", {"x": 2})])
    journal.close()
    assert path.read_text() == "key,x\na,1\nb,2\n"


def test_a_table_takes_any_value_and_any_name(path):
    sink = SqliteTable(path, 'odd "name"')
    values = {'a "b"': True, "big": 1 << 70, "blob": b"x", "list": [1], "bad": "\udcff"}
    journal = Journal(sink).open()
    journal.write([outcome("a", values)])
    journal.close()
    connection = sqlite3.connect(path)
    rows = connection.execute('SELECT * FROM "odd ""name"""').fetchall()
    connection.close()
    assert rows == [("a", 1, str(1 << 70), b"x", "[1]", "\\udcff")]


def test_many_rows_go_into_a_table_at_once(path):
    journal = Journal(SqliteTable(path)).open()
    journal.write(some(0, 2500))
    journal.close()
    assert read_table(path) == list(range(2500))


# Parquet


@pytest.fixture
def read_parts(path):
    dataset = pytest.importorskip("pyarrow.dataset")
    return lambda: dataset.dataset(path).to_table().to_pydict()["n"]


def test_parts_are_written_whole_and_the_rest_at_the_end(path, read_parts):
    journal = Journal(sinks.ParquetParts(path, rows=10)).open(is_durable=True)
    for begin in range(0, 25, 5):
        journal.write(some(begin, begin + 5))
    assert len(names_in(path)) == 2
    journal.close()
    assert names_in(path) == [f"part-0000{n}.parquet" for n in range(3)]
    assert read_parts() == list(range(25))


def test_rows_that_were_held_back_come_from_the_journal(path, read_parts):
    journal = Journal(sinks.ParquetParts(path, rows=10)).open()
    journal.write(some(0, 12))
    journal.write(some(12, 15))
    (path / "part-00001.parquet").write_bytes(b"was not committed")
    (path / "part-00002.parquet.new").write_bytes(b"was not finished")
    journal.sink = sinks.ParquetParts(path, rows=10)
    journal.open()
    assert names_in(path) == ["part-00000.parquet"]
    journal.write(some(15, 17))
    journal.close()
    assert read_parts() == list(range(17))
    journal.sink.rewind({"part": 1, "seq": 12})
    assert read_parts() == list(range(12))


def test_folders_of_parts_are_looked_after(path, read_parts):
    journal = Journal(sinks.ParquetParts(path, rows=2)).open()
    journal.write(some(0, 4))
    journal.close()
    with pytest.raises(SinkError, match="holds parts"):
        sinks.ParquetParts(path).open(None, lambda _: iter(()))
    (path / "part-00000.parquet").unlink()
    with pytest.raises(SinkError, match=r"part-00000\.parquet is gone"):
        journal.open()
    again = Journal(sinks.ParquetParts(path, exists="overwrite")).open()
    again.write(some(7, 8))
    again.close()
    assert read_parts() == [7]
    for options in ({"rows": 0}, {"exists": "append"}):
        with pytest.raises(ConfigurationError):
            sinks.ParquetParts(path, **options)


def test_types_of_parts_are_widened_to_agree(path):
    parquet = pytest.importorskip("pyarrow.parquet")
    journal = Journal(sinks.ParquetParts(path, rows=1)).open()
    for key, value in enumerate([{"n": None}, {"n": 1}, {"n": 2.5, "m": "x"}]):
        journal.write([outcome(key, value)])
    assert str(parquet.read_schema(path / "part-00002.parquet").field("n").type) == "double"
    with pytest.raises(SinkError, match="schema="):
        journal.write([outcome(9, {"n": object()})])


def test_a_schema_may_be_given(path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    schema = arrow.schema([("key", arrow.int16()), ("n", arrow.int8())])
    journal = Journal(sinks.ParquetParts(path, schema=schema)).open()
    journal.write(some(0, 3))
    journal.close()
    assert parquet.read_schema(path / "part-00000.parquet").equals(schema)


# What sink= takes


def test_sinks_may_be_one_or_several_or_functions(path):
    seen = []
    sink = JsonLines(path)
    assert as_sinks(None) == []
    assert as_sinks(sink) == [sink]
    made = as_sinks([sink, seen.append])
    assert [type(one) for one in made] == [JsonLines, EachOutcome]
    assert as_sinks(print)[0].name == "function:builtins.print"


def test_print_keeps_its_name_when_another_takes_its_place(monkeypatch):
    """A journal would take it for a new sink, and tell it everything again."""
    monkeypatch.setattr("builtins.print", lambda *_: None)
    assert as_sinks(print)[0].name == "function:builtins.print"


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("out.jsonl", r"sinks\.JsonLines\('out\.jsonl'\)"),
        (Path("out.csv"), "for a file"),
        (JsonLines, "give an instance"),
        (5, "is no sink"),
        ([print, print], "has the name of another"),
        (Sink(), "has no name"),
    ],
)
def test_what_is_no_sink_is_refused(given, match):
    with pytest.raises(ConfigurationError, match=match):
        as_sinks(given)


def test_without_a_journal_sinks_are_fed_as_outcomes_come(path):
    seen = []
    feed = Feed([JsonLines(path), *as_sinks(seen.append)])
    feed.write([done([{"n": 1}, {"n": 2}]), failed("a"), retried("b")])
    feed.write([failed("c")])
    feed.close()
    assert read_json_lines(path) == [1, 2]
    assert [one.value["n"] for one in seen] == [1, 2]


def test_a_sink_that_raises_is_named(path):
    def refuse(_):
        message = "no"
        raise RuntimeError(message)

    feed = Feed(as_sinks(refuse))
    with pytest.raises(SinkError, match=r"refuse.*writing to it failed: RuntimeError: no"):
        feed.write([done([1])])
    feed.close()
    path.write_text("mine")
    with pytest.raises(SinkError, match="is there already"):
        Feed([*as_sinks(print), JsonLines(path)])
