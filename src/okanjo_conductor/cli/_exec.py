"""``conductor exec``: commands as jobs."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

from okanjo_conductor._conductor import Conductor
from okanjo_conductor._types import JobState
from okanjo_conductor.cli import _errors as code
from okanjo_conductor.cli._batch import Batch, Finished, standing_of, told
from okanjo_conductor.cli._commands import STDERR, STDOUT, execute
from okanjo_conductor.cli._errors import UsageError
from okanjo_conductor.cli._folders import SEQ, folder_for
from okanjo_conductor.cli._input import combined, has_stdin, source_of, split_marks
from okanjo_conductor.cli._placeholders import Template, shown
from okanjo_conductor.cli._writing import Output
from okanjo_conductor.errors import CommandError, JobTimeoutError
from okanjo_conductor.sources._base import UNKNOWN_LENGTH

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator

    from okanjo_conductor._types import Outcome
    from okanjo_conductor.cli._joblog import Standing
    from okanjo_conductor.sources._base import KeyOf


def split(args: list[str], takes_value: Any) -> tuple[list[str], list[str]]:
    """Part the options of ``exec`` from the command, which begins with the first other word.

    Args:
        takes_value: whether an option is followed by a value.
    """
    index = 0
    while index < len(args):
        word = args[index]
        if word == "--":
            return args[:index], args[index + 1 :]
        if not word.startswith("-") or word == "-":
            break
        index += 2 if takes_value(word) else 1
    return args[:index], args[index:]


def run(options: Namespace, words: list[str]) -> int:
    """Run commands as jobs; return the exit code."""
    words, arguments = split_marks(words)
    if not options.shell:
        _refuse_lines(words)
    template = Template(words, shell=bool(options.shell))
    jobs, key = _input_of(options, arguments)
    commands = Commands(template, jobs, options.results, standing_of(options))
    if options.dry_run:
        return _show_commands(commands)
    commands.keeps_output = options.journal is not None
    shower = Shower(keeps=options.results is not None, quiet=options.quiet)
    batch = Batch(options, shower.show)
    made = batch.options()
    if options.journal is not None:
        made["version"] = str(template)
        made.setdefault("duplicates", "number")
    with commands:
        conductor = Conductor(
            execute,
            jobs_queue=commands,
            job_key=InputKey(key),
            stuck_after=None,  # a command may take its time
            worker_type="command",
            **made,
        )
        return batch.run(conductor)


def _refuse_lines(words: list[str]) -> None:
    """Refuse a line for a shell, where there is none: GNU parallel has one."""
    if len(words) == 1 and " " in words[0].strip() and not os.path.exists(words[0]):
        message = (
            f"{words[0]!r} is a line for a shell, and no program has that name: say --shell; or "
            "leave the quotes away, and each word is one argument"
        )
        raise UsageError(message)


class Commands:
    """The jobs: commands made of inputs, read lazily. Within it, there is a folder for output.

    Args:
        root: where the output is kept, or None.
    """

    def __init__(
        self, template: Template, jobs: Iterable[Any], root: str | None, standing: Standing | None
    ) -> None:
        self._template = template
        self._jobs = jobs
        self._root = root
        self._standing = standing
        self._temporary = ""
        self.keeps_output = False

    def __enter__(self) -> None:
        if self._root is None:
            self._temporary = tempfile.mkdtemp(prefix="conductor-")

    def __exit__(self, *_error: object) -> None:
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def __length_hint__(self) -> int:
        from operator import length_hint

        hint = length_hint(self._jobs, -1)
        return UNKNOWN_LENGTH if hint < 0 else hint

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for seq, job in enumerate(self._jobs, 1):
            command = self._template.render(job, seq)
            if self._standing is not None and self._standing.settles(seq, shown(command)):
                continue
            yield {
                "seq": seq,
                "input": job,
                "command": command,
                "folder": self._folder(job, seq),
                "keeps": self.keeps_output,
            }

    def _folder(self, job: Any, seq: int) -> str:
        if self._root is not None:
            return folder_for(os.path.abspath(self._root), job, seq)
        return os.path.join(self._temporary, str(seq))


class Shower:
    """Shows the output of each job as a whole.

    Args:
        keeps: whether the files stay.
        quiet: whether failures are not mentioned.
    """

    def __init__(self, *, keeps: bool, quiet: bool) -> None:
        self._keeps = keeps
        self._quiet = quiet
        self._stdout, self._stderr = Output(1), Output(2)

    def show(self, outcome: Outcome) -> Finished:
        """Show what a job wrote, and how it failed."""
        job: dict[str, Any] = outcome.job
        folder, command = job["folder"], shown(job["command"])
        try:
            received = self._stdout.copy(os.path.join(folder, STDOUT))
            self._stderr.copy(os.path.join(folder, STDERR))
        finally:
            self._put_away(folder, job["seq"])
        if not outcome.is_done and not self._quiet:
            self._stderr.write_line(f"conductor: job {job['seq']} {_end(outcome)}: {command}")
        return Finished(job["seq"], command, received)

    def _put_away(self, folder: str, seq: int) -> None:
        if not self._keeps:
            shutil.rmtree(folder, ignore_errors=True)
        elif os.path.isdir(folder):
            with open(os.path.join(folder, SEQ), "w", encoding="ascii") as file:
                file.write(str(seq))


def _end(outcome: Outcome) -> str:
    error = outcome.error
    if isinstance(error, JobTimeoutError):
        return f"took longer than {error.limit:g} s"
    if isinstance(error, CommandError):
        return told(error)
    if outcome.state is JobState.CANCELLED:
        return "was ended"
    return f"failed: {told(error)}"


def _input_of(options: Namespace, arguments: list[Any]) -> tuple[Iterable[Any], KeyOf | None]:
    """Find the inputs, and what identifies each."""
    if arguments and options.jobs is not None:
        raise UsageError("the jobs are behind ::: or in --jobs, not in both")
    if arguments:
        if options.key is not None:
            raise UsageError(f"--key {options.key}: arguments behind ::: have no fields")
        return combined(arguments), None
    if options.jobs is None:
        if not has_stdin():
            raise UsageError("no jobs: give --jobs FILE, arguments behind :::, or pipe them in")
        options.jobs = "-"
    source = source_of(options)
    assert source is not None  # noqa: S101 - there is a name for it
    return source, source.key


class InputKey:
    """Identifies a job by its input: by the key that this has, or by all of it.

    Args:
        key: what identifies an input, or None.
    """

    def __init__(self, key: KeyOf | None) -> None:
        self._key = key

    def __repr__(self) -> str:  # the journal compares it
        return f"input by {self._key!r}"

    def __call__(self, job: dict[str, Any]) -> Any:
        given = job["input"]
        if self._key is not None:
            return self._key(given)
        # A row is no key: it has no hash, and the order of its fields means nothing.
        return json.dumps(given, sort_keys=True, default=str) if type(given) is dict else given


def _show_commands(commands: Commands) -> int:
    stdout = Output(1)
    for job in commands:
        stdout.write_line(shown(job["command"]))
    return code.DONE
