"""Files of text as sources: what jobs they give, and what they say of what they cannot give."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import operator
import sys
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor.errors import ConfigurationError, SourceError
from okanjo_conductor.sources import Csv, JsonLines, Lines, _texts, by_extension


@pytest.fixture
def file(tmp_path):
    """Write a file and return its path."""

    def write(content, name="in.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def refusal(source):
    with pytest.raises(SourceError) as caught:
        list(source)
    return caught.value


# Lines


def test_lines_are_texts_without_their_ends(file):
    assert list(Lines(file("a\nb \r\n\n  \nc"))) == ["a", "b ", "c"]


def test_blank_lines_are_jobs_if_wanted(file):
    assert list(Lines(file("a\n\nb\n"), blank=True)) == ["a", "", "b"]


def test_bytes_that_are_no_text_survive(file):
    (line,) = Lines(file(b"caf\xe9\n"))

    assert line.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_a_source_is_read_as_often_as_it_is_iterated_over(file):
    source = Lines(file("a\nb\n"))

    assert list(source) == list(source) == ["a", "b"]


def test_nothing_is_opened_before_a_job_is_wanted(tmp_path):
    iterator = iter(Lines(tmp_path / "later.txt"))
    (tmp_path / "later.txt").write_text("now\n")

    assert list(iterator) == ["now"]


def test_a_missing_file_is_named(tmp_path):
    error = refusal(Lines(tmp_path / "gone.txt"))

    assert str(error) == f"{tmp_path}/gone.txt: there is no such file"


def test_reading_a_source_half_closes_its_file(file, no_leaks):
    jobs = iter(Lines(file("a\nb\n")))
    assert next(jobs) == "a"
    jobs.close()


# JSON lines


@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        )
    )
)
def test_json_lines_are_what_was_written(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("json") / "in.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))

    assert list(JsonLines(path)) == values


def test_json_that_is_none_is_said_with_line_and_column(file):
    error = refusal(JsonLines(file('{"a": 1}\n\n{"a": }\n', "in.jsonl")))

    assert (error.line, error.column) == (3, 7)
    assert str(error).endswith("in.jsonl, line 3, column 7: not JSON: Expecting value")


def test_json_over_many_lines_is_explained(file):
    error = refusal(JsonLines(file("[\n1,\n2]\n")))

    assert str(error).endswith("there must be one whole JSON value on each line")


def test_bytes_that_are_no_utf8_are_said_with_line_and_column(file):
    error = refusal(JsonLines(file(b'"a"\n"\xff"\n')))

    assert str(error).endswith("line 2, column 2: not UTF-8: byte 0xff")


def test_a_byte_order_mark_is_no_part_of_the_first_job(file):
    assert list(JsonLines(file(b"\xef\xbb\xbf1\n2\n"))) == [1, 2]


def test_the_key_is_a_field(file):
    source = JsonLines(file('{"id": "x", "n": 1}\n'), key="id")

    assert [source.key(job) for job in source] == ["x"]


def test_a_row_without_the_key_is_said_with_its_line(file):
    error = refusal(JsonLines(file('{"id": 1}\n{"ID": 2}\n'), key="id"))

    assert str(error).endswith("line 2: no field 'id'; there are: 'ID'")


def test_a_job_without_fields_has_no_key_field(file):
    error = refusal(JsonLines(file("3\n"), key="id"))

    assert str(error).endswith("line 1: no field 'id': the job is a int, not an object with fields")


def test_the_key_of_another_job_is_refused(file):
    source = JsonLines(file("{}\n"), key="id")

    with pytest.raises(ConfigurationError, match="no field 'id'"):
        source.key({})


def test_a_key_is_a_name_or_a_function():
    assert JsonLines("x", key=len).key is len
    with pytest.raises(ConfigurationError, match="key=3"):
        JsonLines("x", key=3)


# CSV


def test_rows_are_dicts_by_the_header(file):
    source = Csv(file('name,size\n"a, b",1\nc,2\n', "in.csv"))

    assert list(source) == [{"name": "a, b", "size": "1"}, {"name": "c", "size": "2"}]


def test_cells_may_hold_lines(file):
    source = Csv(file('a,b\n"1\n2",3\n'))

    assert list(source) == [{"a": "1\n2", "b": "3"}]


def test_tabs_separate_in_a_tsv_file(file):
    assert list(Csv(file("a\tb\n1\t2\n", "in.tsv"))) == [{"a": "1", "b": "2"}]


def test_a_table_without_a_header_is_given_one(file):
    assert list(Csv(file("1;2\n"), fields=["x", "y"], delimiter=";")) == [{"x": "1", "y": "2"}]


def test_a_row_of_another_length_is_said_with_its_line(file):
    error = refusal(Csv(file("a,b\n1,2\n\n3\n")))

    assert (error.line, error.column) == (4, 2)
    assert str(error).endswith("1 cell, where there are 2 columns")


def test_a_header_that_names_a_column_twice_is_refused(file):
    assert "names a column twice: 'a'" in str(refusal(Csv(file("a,b,a\n1,2,3\n"))))


def test_quotes_that_do_not_close_are_refused(file):
    error = refusal(Csv(file('a,b\n"1,2\n')))

    assert "not CSV" in str(error)
    assert error.line == 2


def test_a_header_without_the_key_is_refused(file):
    error = refusal(Csv(file("a,b\n1,2\n"), key="id"))

    assert str(error).endswith("line 1: no field 'id'; there are: 'a', 'b'")


def test_a_delimiter_is_one_character():
    with pytest.raises(ConfigurationError, match="one character"):
        Csv("x", delimiter="::")


# Compression


@pytest.mark.parametrize(
    ("ending", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)],
)
def test_compressed_files_are_read_by_their_extension(file, ending, compress):
    path = file(compress(b'{"a": 1}\n{"a": 2}\n'), "in.jsonl" + ending)

    assert list(by_extension(path)) == [{"a": 1}, {"a": 2}]
    assert operator.length_hint(by_extension(path), -1) == -1


@pytest.mark.parametrize(
    ("ending", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)],
)
def test_a_torn_compressed_file_is_said(file, ending, compress):
    whole = compress(b"".join(b"%d\n" % n for n in range(10_000)))
    error = refusal(Lines(file(whole[: len(whole) // 2], "in.txt" + ending)))

    assert "reading failed" in str(error)


def test_what_is_not_compressed_is_said(file):
    assert "line 1: reading failed" in str(refusal(Lines(file("plain\n", "in.txt.gz"))))


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="it can be read from 3.14 on")
def test_zstd_is_refused_where_python_cannot_read_it(file):
    with pytest.raises(ConfigurationError, match=r"Python 3\.14"):
        list(Lines(file("x", "in.txt.zst")))


# Lengths


def test_the_number_of_jobs_is_guessed_by_lines(file):
    assert operator.length_hint(Lines(file("a\nb\nc"))) == 3
    assert operator.length_hint(Csv(file("a\n1\n2\n", "in.csv"))) == 2
    assert operator.length_hint(Lines(file(""))) == 0
    assert operator.length_hint(Lines("gone.txt"), -1) == -1


def test_the_lines_of_a_large_file_are_extrapolated(file, monkeypatch):
    monkeypatch.setattr(_texts, "_COUNTED", 1000)
    monkeypatch.setattr(_texts, "_SAMPLE", 100)

    assert operator.length_hint(Lines(file("123456789\n" * 500))) == 500


# Choice


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", JsonLines),
        ("a.NDJSON.gz", JsonLines),
        ("a.csv", Csv),
        ("a.tsv.xz", Csv),
        ("a.txt", Lines),
        ("README", Lines),
    ],
)
def test_the_extension_tells_the_source(name, kind):
    assert type(by_extension(name)) is kind


def test_an_extension_that_tells_nothing_is_refused():
    with pytest.raises(ConfigurationError, match=r"'\.json' tells no format.*is \.jsonl"):
        by_extension("a.json")


def test_lines_have_no_fields():
    with pytest.raises(ConfigurationError, match="lines of text have no fields"):
        by_extension("a.txt", key="id")


def test_only_a_database_takes_a_query():
    with pytest.raises(ConfigurationError, match="a query is for a database"):
        by_extension("a.csv", sql="select 1")


def test_no_more_is_read_than_is_wanted(file):
    assert list(islice(JsonLines(file("1\n2\nbroken\n")), 2)) == [1, 2]
