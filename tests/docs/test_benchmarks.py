"""The benchmarks can be run. How fast anything is, is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[2]


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_quick_run_writes_its_figures_a_drawing_and_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text())
    figures, drawing = tmp_path / "figures.json", tmp_path / "drawing.svg"
    files = ["--json", str(figures), "--svg", str(drawing), "--page", str(page)]
    done = bench("--quick", "--only", "noop", "--rivals", "pool", *files)
    assert done.returncode == 0, done.stderr
    report = json.loads(figures.read_text())
    for contender in ("conductor", "conductor-run", "pool"):
        series = report["workloads"]["noop"][contender]
        assert series["problem"] == ""
        assert series["rounds"][0]["jobs_per_second"] > 0
    assert report["targets"][0]["is_met"] in (True, False)
    assert ET.parse(drawing).getroot().tag.endswith("svg")
    assert done.stdout.strip() in page.read_text()


def test_a_contender_that_fails_does_not_end_the_run():
    done = bench("--quick", "--only", "replacement", "--rivals", "executor")
    assert done.returncode == 0, done.stderr
    assert "failed: BrokenProcessPool" in done.stdout


def test_what_is_unknown_is_refused_with_what_is_known():
    done = bench("--only", "nop")
    assert done.returncode == 2
    assert "'nop': choose among noop, cpu100us" in done.stderr
