"""Running a conductor and keeping what it told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.moments import wait_until
from okanjo_conductor import Conductor, Outcome, Report, WorkerExit

_HERE = Path(__file__).parents[1]


class Watched:
    """A conductor, its outcomes and its exits."""

    def __init__(self, worker: Any, jobs: Any, **options: Any) -> None:
        self.conductor = Conductor(worker, jobs_queue=jobs, logging=False, **options)
        self.outcomes: list[Outcome] = []
        self.exits: list[WorkerExit] = []
        self.pids: dict[int, int] = {}
        self.ends = 0
        self.report = Report()
        listeners: dict[str, Callable[..., Any]] = {
            "job_done": self.outcomes.append,
            "job_failed": self.outcomes.append,
            "worker_exit": self.exits.append,
            "worker_start": self.pids.__setitem__,
            "error": lambda _: None,
            "end": self._on_end,
        }
        for event, listener in listeners.items():
            self.conductor.on(event, listener)

    def _on_end(self) -> None:
        self.ends += 1

    def run(self) -> Watched:
        self.report = self.conductor.run()
        return self

    @property
    def by_key(self) -> dict[Any, Outcome]:
        """The outcomes; fails if a job has two."""
        found = {outcome.key: outcome for outcome in self.outcomes}
        assert len(found) == len(self.outcomes)
        return found


def start_script(folder: Path, text: str, **options: Any) -> subprocess.Popen[str]:
    """Start a script of its own that can import what the tests can."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(text))
    path = os.pathsep.join([str(_HERE), str(folder), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def wait_for_lines(path: Path, count: int) -> list[str]:
    wait_until(lambda: len(lines_of(path)) >= count, f"{path.name} has {count} lines")
    return lines_of(path)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
