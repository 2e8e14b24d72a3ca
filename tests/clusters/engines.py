"""A cluster of an engine, for a whole module of tests, and what must be true around each test.

It runs in a process that is nobody's child, with a mark in its environment by which all that
comes of it is found: after each test no workers of ours are in it, after the last one nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

_MARK = "OKANJO_CONDUCTOR_ENGINE"
_PATIENCE = 60.0
"""Seconds: the machine may be busy, and engines are slow to end."""


class EngineProcess:
    """The process in which an engine's cluster lives.

    Args:
        script: beside this file; says its address, then obeys.
        home: folder for what the engine would put into that of the user.
    """

    def __init__(self, script: str, home: Path) -> None:
        self._mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={
                **os.environ,
                _MARK: self._mark,
                "HOME": str(home),
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(home / "token"),
                "RAY_USAGE_STATS_ENABLED": "0",
            },
        )
        self._process.wait()  # it has left its place to a child, which nobody is the parent of
        self.address = self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ANSWER "):
                return line.split()[1]
        raise AssertionError("the engine did not start")

    def ask(self, command: str) -> str:
        """Have something done."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the cluster; nothing of it may be left."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._wait_until_none(lambda _: True, "processes of the engine")
        finally:
            for pid in self.pids(lambda _: True):
                os.kill(pid, signal.SIGKILL)

    def pids(self, wanted) -> list[int]:
        """Find processes of this cluster by their command lines."""
        mark, found = f"{_MARK}={self._mark}".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if mark in environment and line and wanted(line):
                found.append(int(entry.name))
        return found

    def check_no_workers(self) -> None:
        """Nobody of ours is left in the cluster."""
        self._wait_until_none(lambda line: "okanjo_conductor._boot" in line, "workers")

    def _wait_until_none(self, wanted, what: str) -> None:
        end = time.monotonic() + _PATIENCE
        while left := self.pids(wanted):
            assert time.monotonic() < end, f"left behind: {what} {left}"
            time.sleep(0.01)


_IMPORTS = "import os, signal", "from okanjo_conductor import Conductor"


def run_program(*lines: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "\n".join([*_IMPORTS, *lines])],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, **env},
    )


def interrupted_run(journal: Path, cluster: str) -> list[str]:
    """Write a program that is killed in the middle of a run, and resumes it the next time."""
    return [
        f"journal = {str(journal)!r}",
        "is_first = not os.path.exists(journal)",
        "def work(job):",
        "    return 2 * job",
        "def note(outcome):",
        "    outcomes.append(outcome)",
        "    if is_first and len(outcomes) == 500:",
        "        os.kill(os.getpid(), signal.SIGKILL)",
        "outcomes = []",
        f"conductor = Conductor(work, jobs_queue=range(2000), cluster={cluster}, journal=journal)",
        "conductor.on('job_done', note)",
        "report = conductor.run()",
        "print(report.done + report.skipped, 'in all')",
    ]
