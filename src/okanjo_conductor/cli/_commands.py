"""What a worker of ``conductor exec`` does: one command per job.

Output goes into two files, which the conductor shows as a whole. The command is in the worker's
process group: whoever ends the worker by force ends the command too. SIGTERM, which comes first, is
passed on to the whole group, so that commands can clean up; the worker waits for its command, and
then goes as one that was ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

from okanjo_conductor._runtime import current_worker
from okanjo_conductor.cli._placeholders import shown, with_slot
from okanjo_conductor.errors import CommandError

if TYPE_CHECKING:
    from types import FrameType

STDOUT, STDERR = "stdout", "stderr"
"""Names of the two files in the folder of a job."""
_LAST_LINES = 10
_LAST_BYTES = 4096
_KEPT = 1 << 16
"""Bytes of output that become part of the value."""
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
"""Exit codes that shells give for commands that cannot be started."""
_running: subprocess.Popen[bytes] | None = None
_is_ending = False


def execute(job: dict[str, Any]) -> dict[str, Any]:
    """Run the command of a job and wait for it.

    Args:
        job: ``command``, a list or a text for the shell; ``seq``; ``folder`` for its output;
            ``keeps``, whether the output becomes part of the value.

    Returns:
        ``code``, 0; ``started``, in Unix time; ``seconds``; and ``stdout`` if it is kept: its text,
        or None where that is longer than 64 KiB.

    Raises:
        CommandError: it ended with another exit code, by a signal, or could not be started.
    """
    _take_signals()
    slot = current_worker().slot
    command = with_slot(job["command"], slot)
    folder: str = job["folder"]
    os.makedirs(folder, exist_ok=True)
    started, clock = time.time(), time.perf_counter()
    code = _run(
        command, folder, {"PARALLEL_SEQ": str(job["seq"]), "PARALLEL_JOBSLOT": str(slot + 1)}
    )
    seconds = time.perf_counter() - clock
    if code:
        stderr = _last_lines(os.path.join(folder, STDERR))
        name = _signal_name(-code) if code < 0 else None
        exit_code = None if name else code
        raise CommandError(shown(command), exit_code, name, stderr, started, seconds)
    value: dict[str, Any] = {"code": 0, "started": started, "seconds": seconds}
    if job["keeps"]:
        value["stdout"] = _whole(os.path.join(folder, STDOUT))
    return value


def _run(command: str | list[str], folder: str, environment: dict[str, str]) -> int:
    """Run a command to its end; return its exit code, negative for a signal."""
    global _running  # noqa: PLW0603 - one command at a time
    with (
        open(os.path.join(folder, STDOUT), "wb") as stdout,
        open(os.path.join(folder, STDERR), "wb") as stderr,
    ):
        try:
            _running = subprocess.Popen(
                ["/bin/sh", "-c", command] if isinstance(command, str) else command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **environment},
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
            stderr.write(f"{command[0]}: {getattr(error, 'strerror', None) or error}\n".encode())
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        code = _running.wait()
    _running = None
    if _is_ending:
        _leave()
    return code


# Signals


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time signal has no name


def _take_signals() -> None:
    """Take SIGTERM; and let SIGINT, which workers ignore, not be ignored by their commands."""
    if signal.getsignal(signal.SIGTERM) is not _on_term:
        signal.signal(signal.SIGTERM, _on_term)
        signal.signal(signal.SIGINT, _on_int)


def _on_int(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""


def _on_term(_number: int, _frame: FrameType | None) -> None:
    global _is_ending  # noqa: PLW0603 - one process, one end
    if _is_ending:
        return  # our own, to the group
    if _running is None:
        _leave()
    _is_ending = True
    os.killpg(os.getpgrp(), signal.SIGTERM)


def _leave() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


# What it wrote


def _last_lines(path: str) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-_LAST_LINES:])


def _whole(path: str) -> str | None:
    with open(path, "rb") as file:
        content = file.read(_KEPT + 1)
    return content.decode("utf-8", "replace") if len(content) <= _KEPT else None
