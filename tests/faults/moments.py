"""Waiting for named moments, with a deadline. Light: jobs use it in workers as well."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE = 60.0
"""Seconds. Far beyond what any moment takes: only a fault reaches it."""
_TURN = 0.002


def wait_until(condition: Callable[[], object], what: str, deadline: float = DEADLINE) -> None:
    """Return once the condition holds; fail, and say what did not happen, at the deadline."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            message = f"not within {deadline} s: {what}"
            raise AssertionError(message)
        time.sleep(_TURN)


def touch(path: str | Path) -> None:
    Path(path).touch()


def wait_for_file(path: str | Path) -> None:
    wait_until(Path(path).exists, f"{path} is there")


def note(path: str | Path, line: object) -> None:
    """Append a line, whole, whoever else does so."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def is_first(path: str | Path) -> bool:
    """Whether nobody has asked this before for that path."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def state_of(pid: int) -> str:
    """Return the letter of a process's state, as ``ps`` shows it; ``""`` if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
