"""The writer is killed at each boundary of a commit: what was told is kept, and sinks agree."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from journal.victim import POINTS
from okanjo_conductor import open_journal

TESTS = Path(__file__).parents[1]


def run(folder, point="", count=0):
    code = "import sys; sys.path.insert(0, sys.argv[1]); from journal import victim; "
    argv = [
        sys.executable,
        "-c",
        f"{code} victim.program(*sys.argv[2:])",
        TESTS,
        folder,
        point,
        count,
    ]
    return subprocess.run([*map(str, argv)], stdout=subprocess.PIPE, text=True, check=False)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("count", [1, 3])
def test_a_kill_loses_nothing_that_was_told_and_doubles_nothing(tmp_path, point, count):
    told = []
    first = run(tmp_path, point, count)
    assert first.returncode == -signal.SIGKILL
    told += [key for line in first.stdout.splitlines() for key in json.loads(line)]
    with open_journal(tmp_path / "run.db") as journal:
        assert set(told) <= {entry.key for entry in journal}
    second = run(tmp_path, point, count)
    assert second.returncode == -signal.SIGKILL
    last = run(tmp_path)
    assert last.returncode == 0
    for done in (second, last):
        told += [key for line in done.stdout.splitlines() for key in json.loads(line)]
    assert len(told) == len(set(told))
    everything = list(range(40))
    with open_journal(tmp_path / "run.db") as journal:
        assert sorted(entry.key for entry in journal) == everything
        assert [run.state for run in journal.runs()] == ["killed", "killed", "done"]
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert sorted(line["value"]["n"] for line in lines) == everything
    header, *rows = (tmp_path / "o.csv").read_text().splitlines()
    assert header == "key,n"
    assert sorted(rows) == sorted(f"{key},{key}" for key in everything)
    connection = sqlite3.connect(tmp_path / "o.db")
    found = connection.execute("SELECT n FROM outcomes ORDER BY n").fetchall()
    connection.close()
    assert found == [(key,) for key in everything]
