"""The README, the pages of the manual, and the examples do what they say."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "docs/async.md",
    "docs/lookups.md",
    "docs/messages.md",
    "docs/journal.md",
    "docs/sinks.md",
    "docs/sources.md",
    "docs/progress.md",
    "docs/report.md",
    "docs/scale.md",
    "docs/tables.md",
    "docs/testing.md",
)
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(
        r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL
    )
]


def run(*command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_each_python_block_of_the_pages_runs(block, tmp_path):
    (tmp_path / "block.py").write_text(block)
    done = run("block.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_squares_prints_what_the_node_example_prints(tmp_path):
    done = run(str(ROOT / "examples" / "squares.py"), cwd=tmp_path, SQUARES_SECONDS="0.01")
    assert done.returncode == 0, done.stderr
    *squares, last = done.stdout.splitlines()
    assert last == "All jobs finished processing"
    expected = {f"Job {n} => the square is {n * n}" for n in range(10)}
    assert {line.split(", ", 1)[1] for line in squares} == expected
    assert {line.split(",", 1)[0] for line in squares} <= {"Worker 1", "Worker 2"}


def test_the_census_loses_nothing_though_it_kills_a_worker(tmp_path):
    done = run(
        str(ROOT / "examples" / "census.py"), "--limit", "120", "--workers", "2", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "killing worker" in done.stdout + done.stderr
    assert "120 files, 120 outcomes, of 120 different files" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "census.jsonl").read_text().splitlines()]
    assert len(rows) <= 120


def test_the_chat_finds_what_it_looks_for(tmp_path):
    done = run(str(ROOT / "examples" / "chat.py"), "--zeros", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert last == "12 numbers found, 12 looked for"
    found = [line for line in lines if line.startswith("000")]
    assert len(found) == 12
    assert all("numbers tried: worker " in line for line in found)


@pytest.mark.parametrize("way", [(), ("--sync",)])
def test_the_crawler_reads_every_page_once(way, tmp_path):
    done = run(str(ROOT / "examples" / "crawl.py"), "--pages", "60", *way, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all were read by crawl.py" in done.stdout
    assert "60 pages, 60 different ones" in done.stdout


@pytest.fixture
def geocode(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    yield importlib.import_module("geocode")
    sys.modules.pop("geocode")


def test_geocoding_finds_the_nearest_of_all_cities(geocode, tmp_path):
    script = (str(ROOT / "examples" / "geocode.py"), "--points", "300", "--table", "cities")
    first, second = (run(*script, cwd=tmp_path) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout.startswith("built a table in")
    assert second.stdout.startswith("opened cities in")
    with (tmp_path / "geocoded.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 300
    with geocode.LookupTable(tmp_path / "cities") as table:
        cities = [city for square in table.values() for city in square]
    for latitude, longitude, _, _, kilometres in rows[:3]:
        point = float(latitude), float(longitude)
        nearest = min(geocode.distance(*point, *city[:2]) for city in cities)
        assert float(kilometres) == pytest.approx(nearest, abs=0.051)
