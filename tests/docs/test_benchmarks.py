"""`make bench` in small: that it measures, judges and draws; how fast anything is, no test says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[2]
PAGE = (
    "# Figures\n\n<!-- figures: begin, written by `make bench` -->\n<!-- figures: end -->\n\nend\n"
)


def test_the_benchmark_measures_judges_and_draws(tmp_path):
    figures, drawing, page = tmp_path / "f.json", tmp_path / "f.svg", tmp_path / "page.md"
    page.write_text(PAGE)
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "noop,roundtrip"]
    command += ["--rivals", "pool", "--json", str(figures), "--svg", str(drawing)]
    done = subprocess.run(
        [*command, "--page", str(page)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    report = json.loads(figures.read_text())
    assert set(report["workloads"]) == {"noop", "roundtrip"}
    for contender in ("conductor", "pool"):
        (round_,) = report["workloads"]["noop"][contender]["rounds"]
        assert round_["jobs_per_second"] > 0
    assert {target["workload"] for target in report["targets"]} == {"noop", "roundtrip"}
    assert ET.fromstring(drawing.read_text()).tag.endswith("svg")
    text = page.read_text()
    assert "no-op jobs" in text
    assert text.endswith("end\n")
