"""Queries, Parquet files, patterns and URLs as sources."""

from __future__ import annotations

import sqlite3

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from okanjo_conductor import Conductor
from okanjo_conductor.errors import ConfigurationError, IntakeError, SourceError
from okanjo_conductor.sources import Csv, Glob, JsonLines, Lines, Parquet, SqliteQuery, by_extension


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "in.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table jobs (id integer, name text)")
        connection.executemany("insert into jobs values (?, ?)", [(1, "a"), (2, "b"), (3, None)])
    connection.close()
    return path


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"id": [1, 2, 3], "name": ["a", "b", None]}), path)
    return path


ROWS = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": None}]


def refusal(source):
    with pytest.raises(SourceError) as caught:
        list(source)
    return str(caught.value)


def test_the_only_table_of_a_database_is_read(database, no_leaks):
    assert list(SqliteQuery(database)) == list(by_extension(database)) == ROWS


def test_a_query_gives_rows(database):
    source = SqliteQuery(database, "select id * 2 as twice from jobs where id > ?", [1])

    assert list(source) == [{"twice": 4}, {"twice": 6}]


def test_the_key_of_a_row_is_a_column(database):
    source = SqliteQuery(database, key="id")

    assert [source.key(row) for row in source] == [1, 2, 3]
    assert "no field 'no'; there are: 'id', 'name'" in refusal(SqliteQuery(database, key="no"))


def test_a_database_of_many_tables_needs_a_query(database):
    with sqlite3.connect(database) as connection:
        connection.execute("create table others (n)")
    connection.close()

    assert "which table? There are: 'jobs', 'others'" in refusal(SqliteQuery(database))


def test_what_sqlite_says_is_told_with_the_file(database, tmp_path):
    assert f"{database}: no such table: nope" in refusal(
        SqliteQuery(database, "select * from nope")
    )
    assert "unable to open database file" in refusal(SqliteQuery(tmp_path / "gone.db"))
    assert "readonly" in refusal(SqliteQuery(database, "delete from jobs"))
    assert not (tmp_path / "gone.db").exists()


def test_parquet_rows_and_their_number(table, no_leaks):
    source = Parquet(table, batch=2, key="id")

    assert list(source) == list(by_extension(table)) == ROWS
    assert len(source) == 3
    assert source.key(ROWS[1]) == 2


def test_some_columns_of_parquet(table):
    assert next(iter(Parquet(table, columns=["name"]))) == {"name": "a"}
    assert "no field 'no'; there are: 'id', 'name'" in refusal(Parquet(table, columns=["no"]))
    assert "no field 'key'" in refusal(Parquet(table, key="key"))


def test_what_is_not_parquet_is_said(tmp_path):
    (tmp_path / "in.parquet").write_text("id,name\n")

    assert "not a Parquet file" in refusal(Parquet(tmp_path / "in.parquet"))


def test_a_pattern_gives_files(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "folder.txt").mkdir()
    for name in ("a.txt", "deep/b.txt", "deep/er/c.txt", "d.csv"):
        (tmp_path / name).touch()

    found = set(by_extension(f"{tmp_path}/**/*.txt"))
    assert found == {f"{tmp_path}/{name}" for name in ("a.txt", "deep/b.txt", "deep/er/c.txt")}
    assert list(Glob(f"{tmp_path}/*.none")) == []


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def test_urls_are_read_through_fsspec(memory):
    memory.pipe("/jobs/in.csv", b"a\n1\n")
    memory.pipe("/jobs/in.txt", b"x\ny\n")

    assert list(Csv("memory://jobs/in.csv")) == [{"a": "1"}]
    assert list(Lines("memory://jobs/in.txt")) == ["x", "y"]
    assert list(Glob("memory://jobs/*.csv")) == ["memory:///jobs/in.csv"]


def test_parquet_from_a_url(memory, table):
    memory.pipe("/in.parquet", table.read_bytes())

    assert list(Parquet("memory://in.parquet")) == ROWS


def test_a_url_that_cannot_be_had_is_said(memory):
    assert refusal(JsonLines("memory://gone.jsonl")).startswith(
        "memory://gone.jsonl: there is no such file"
    )
    assert "nosuch" in refusal(JsonLines("nosuch://x.jsonl"))
    assert "nosuch" in refusal(Glob("nosuch://*.jsonl"))


def test_missing_packages_are_named(monkeypatch, table):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)

    with pytest.raises(ConfigurationError, match=r"okanjo-conductor\[sources\]"):
        list(Lines("memory://x"))
    with pytest.raises(ConfigurationError, match=r"okanjo-conductor\[parquet\]"):
        list(Parquet(table))


def test_a_conductor_reads_a_source_and_names_what_is_wrong_with_it(tmp_path, no_leaks):
    path = tmp_path / "in.jsonl"
    path.write_text("1\n2\n{\n")
    values = []
    conductor = Conductor(lambda job: job * 10, jobs_queue=JsonLines(path), worker_limit=1)
    conductor.on("job_done", lambda outcome: values.append(outcome.value))

    with pytest.raises(IntakeError, match=r"in\.jsonl, line 3, column 2: not JSON"):
        conductor.run()
    assert sorted(values) == [10, 20]


def test_a_conductor_takes_the_key_of_its_source(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": "x"}\n{"id": "y"}\n')
    source = JsonLines(path, key="id")

    def keys(**options):
        conductor = Conductor(lambda job: job, jobs_queue=source, worker_limit=1, **options)
        return [outcome.key for outcome in conductor.outcomes(ordered=True)]

    assert keys() == ["x", "y"]
    assert keys(job_key=lambda job: job["id"] * 2) == ["xx", "yy"]
