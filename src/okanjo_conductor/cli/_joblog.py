"""The log of jobs in the columns of GNU parallel, written and read again.

    Seq  Host  Starttime  JobRuntime  Send  Receive  Exitval  Signal  Command

One line per finished job, separated by tabs. ``Host`` is ``:``, this machine.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Literal, TextIO

from okanjo_conductor._plain import Frozen
from okanjo_conductor.cli._errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = (
    "Seq",
    "Host",
    "Starttime",
    "JobRuntime",
    "Send",
    "Receive",
    "Exitval",
    "Signal",
    "Command",
)


class Line(Frozen):
    """What a job has come to."""

    seq: int
    """Number of the job in the order of the input, from 1."""
    started: float
    """Unix time."""
    seconds: float
    received: int
    """Bytes of its output."""
    code: int
    """Exit code; -1 where it was ended for its time limit."""
    signal: int
    """The signal that ended it, or 0."""
    command: str

    @property
    def is_done(self) -> bool:
        """Whether the job succeeded."""
        return self.code == self.signal == 0


class JobLog:
    """Appends lines to a log, each of them at once."""

    def __init__(self, path: str, *, goes_on: bool) -> None:
        mode: Literal["a", "w"] = "a" if goes_on else "w"
        self._file: TextIO = open(path, mode, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 - `close` closes it
        if not self._file.tell():
            self._put(COLUMNS)

    def add(self, line: Line) -> None:
        """Write down how a job went."""
        self._put(
            (
                str(line.seq),
                ":",
                f"{line.started:.3f}",
                f"{line.seconds:10.3f}",
                "0",
                str(line.received),
                str(line.code),
                str(line.signal),
                _on_one_line(line.command),
            )
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _put(self, cells: tuple[str, ...]) -> None:
        self._file.write("\t".join(cells) + "\n")
        self._file.flush()


class Standing:
    """What an earlier log says of each job: done, failed, or nothing.

    Raises:
        RefusedError: the file is no such log.
    """

    def __init__(self, path: str, *, failed_too: bool) -> None:
        self._path = path
        self._commands: dict[int, str] = {}
        """Of the jobs that are not to be executed, by number."""
        if not os.path.exists(path):
            return
        _cut_torn_line(path)
        for line in read(path):
            if line.is_done or not failed_too:
                self._commands[line.seq] = line.command
            else:
                self._commands.pop(line.seq, None)

    def settles(self, seq: int, command: str) -> bool:
        """Whether a job is not to be executed again.

        Raises:
            RefusedError: another job had that number then.
        """
        logged = self._commands.get(seq)
        if logged is None:
            return False
        if logged != _on_one_line(command):
            message = (
                f"{self._path}: job {seq} was {logged!r}, and is {_on_one_line(command)!r} now: "
                "the input or the command has changed. Numbers tell jobs apart here; a --journal "
                "knows them by what they are"
            )
            raise RefusedError(message)
        return True


def read(path: str) -> Iterator[Line]:
    """Read a log.

    Raises:
        RefusedError: the file is no such log.
    """
    with closing(open(path, encoding="utf-8", errors="surrogateescape", newline="\n")) as file:
        for number, text in enumerate(file, 1):
            cells = text.rstrip("\n").split("\t", len(COLUMNS) - 1)
            if number == 1 and cells == list(COLUMNS):
                continue
            try:
                seq, _, started, seconds, _, received, code, signal, command = cells
                yield Line(
                    int(seq),
                    float(started),
                    float(seconds),
                    int(received),
                    int(code),
                    int(signal),
                    command,
                )
            except ValueError:
                message = f"{path}, line {number}: no line of a --joblog"
                raise RefusedError(message) from None


def _cut_torn_line(path: str) -> None:
    """Remove a last line that was not written to its end."""
    with open(path, "rb+") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def _on_one_line(command: str) -> str:
    return command.replace("\n", "\\n")
