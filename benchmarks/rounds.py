"""Runs measurements, each in a process of its own, contender after contender, round after round.

So every contender meets the same moods of the machine, and neither memory nor modules of one
measurement are there in the next.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.contenders import CONTENDERS
from benchmarks.workloads import ROOT, WORKLOADS, Figures, Settings

_PATIENCE = 90.0
"""Seconds for one measurement. A contender that takes longer is stopped, and not tried again."""


@dataclass
class Series:
    """What one contender did with one workload, round by round."""

    rounds: list[Figures | None] = field(default_factory=list)
    """None: that round failed."""
    problem: str = ""
    """Why the last failed round failed."""

    def values(self, figure: str) -> list[float]:
        """Return one figure of the rounds that succeeded."""
        return [figures[figure] for figures in self.rounds if figures is not None]

    def median(self, figure: str) -> float:
        """Return the middle of a figure; there must be one."""
        return median(self.values(figure))


Table = dict[str, dict[str, Series]]
"""By workload, then by contender."""


def run(
    workloads: list[str],
    contenders: list[str],
    rounds: int,
    settings: Settings,
    say: Callable[[str], None],
) -> Table:
    """Measure every workload with every contender, so many times."""
    table: Table = {
        name: {c: Series() for c in WORKLOADS[name].contenders if _is_wanted(c, contenders)}
        for name in workloads
    }
    for number in range(rounds):
        for workload, row in table.items():
            names = list(row)
            turn = number % len(names) if names else 0
            for contender in names[turn:] + names[:turn]:  # nobody is always the first
                _add_round(row[contender], workload, contender, settings)
                told = _told(row[contender], workload)
                say(f"{number + 1}/{rounds} {workload} {contender}: {told}")
    return table


def _is_wanted(name: str, contenders: list[str]) -> bool:
    """Judge the further ways of one pool, such as `pool-manager`, by the pool."""
    pool = name.split("-", maxsplit=1)[0]
    return name in contenders or (name not in CONTENDERS and pool in contenders)


def _add_round(series: Series, workload: str, contender: str, settings: Settings) -> None:
    if series.problem.startswith("took"):
        series.rounds.append(None)
        return
    figures, problem = _measure(workload, contender, settings)
    series.rounds.append(figures)
    series.problem = problem or series.problem


def _measure(workload: str, contender: str, settings: Settings) -> tuple[Figures | None, str]:
    command = [sys.executable, "-m", "benchmarks.child", workload, contender]
    command += [str(settings.loops_per_second), str(settings.scale)]
    # A file, not a pipe: workers that a contender leaves behind would keep a pipe open.
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return None, f"took longer than {_PATIENCE:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        lines = output.read().splitlines()
    report: dict[str, Any] = (
        json.loads(lines[-1]) if lines else {"problem": f"exit code {process.returncode}"}
    )
    return (None, f"failed: {report['problem']}") if "problem" in report else (report, "")


def _told(series: Series, workload: str) -> str:
    figures = series.rounds[-1]
    if figures is None:
        return series.problem
    return f"{figures[WORKLOADS[workload].figure]:.5g} {WORKLOADS[workload].unit}"
