"""The benchmarks can be run. How fast anything is, is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[2]


def bench(*options: str, module: str = "benchmarks") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *options],
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


def test_a_table_of_simulated_workers_takes_its_place_in_the_page(tmp_path):
    page = tmp_path / "scale.md"
    page.write_text((ROOT / "docs" / "scale.md").read_text())
    cases = ["--workers", "8,16", "--only", "100ms,10s", "--page", str(page)]
    done = bench(*cases, module="benchmarks.scale")
    assert done.returncode == 0, done.stderr
    written = page.read_text()
    assert done.stdout.strip() in written
    assert written.count("| 16 | 10s | 160 |") == 1
    assert written.endswith((ROOT / "docs" / "scale.md").read_text()[-1000:])


def test_real_workers_are_set_beside_simulated_ones():
    code = (
        "from functools import partial\n"
        "from benchmarks import nodes\n"
        "worker = partial(nodes.nap, seconds=0.01)\n"
        "print(*nodes.row('10 ms', worker, jobs=100, workers=2, nodes=1), sep='|')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    workers, name, real, simulated, *_ = done.stdout.split("|")
    assert (workers, name) == ("2", "10 ms")
    assert 0 < float(real) <= float(simulated) <= 200
