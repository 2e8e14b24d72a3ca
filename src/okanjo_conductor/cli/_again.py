"""``retry`` and ``replay``: jobs of a journal once more, by their program or in this process."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

from okanjo_conductor._resuming import RETRY
from okanjo_conductor.cli import _targets as targets
from okanjo_conductor.cli._batch import say
from okanjo_conductor.cli._errors import DONE, FAILED, RefusedError, UsageError
from okanjo_conductor.cli._placeholders import shown, with_slot
from okanjo_conductor.cli._reading import opened, typed
from okanjo_conductor.cli._replaying import replay_inline
from okanjo_conductor.cli._writing import Output
from okanjo_conductor.errors import ConductorError

if TYPE_CHECKING:
    from argparse import Namespace

    from okanjo_conductor.cli._targets import Target
    from okanjo_conductor.journal import JournalEntry, JournalReader, RunInfo

_NO_FILES = ("-", "-c")
"""Programs that Python was given in another way than by a file: they cannot be had again."""
_WITH_VALUE = ("-W", "-X")


# conductor retry


def retry(options: Namespace) -> int:
    """Run the program of a journal again, and have it execute these jobs once more."""
    if bool(options.keys) == options.failed:
        raise UsageError("which jobs: --failed, or their keys?")
    with opened(options.journal) as journal:
        if journal.is_live:
            raise RefusedError(f"{journal.path}: its run goes on; retry when it is over")
        run = _last_run(journal)
        keys = _keys_of(journal, options.keys)
    if not keys:
        say("no job has failed")
        return DONE
    argv = _again(run)
    if options.dry_run:
        Output(1).write_line(f"cd {shlex.quote(run.cwd)} && {shlex.join(argv)}")
        return DONE
    wanted = {
        "journal": journal.path,
        "keys": keys,
        "accept_changed": options.accept_changed,
    }
    return _become(argv, run.cwd, wanted)


def _keys_of(journal: JournalReader, keys: list[str]) -> list[str]:
    """Return the texts of the keys of the jobs that are meant."""
    if keys:
        return [journal.find(key).key_text for key in keys]
    return [entry.key_text for entry in journal.outcomes() if not entry.is_done]


def _last_run(journal: JournalReader) -> RunInfo:
    runs = journal.runs()
    if not runs:
        raise UsageError(f"{journal.path}: nothing was run yet")
    return runs[-1]


def _again(run: RunInfo) -> list[str]:
    argv = list(run.argv)
    if not _is_a_file(argv):
        message = (
            f"the program was {' '.join(argv[:2])} …, which cannot be started again from here. "
            'Start it yourself, with Conductor(rerun="failed")'
        )
        raise UsageError(message)
    return argv


def _is_a_file(argv: list[str]) -> bool:
    """Whether Python was given a program that is still there: a file or a module."""
    words = iter(argv[1:])
    for word in words:
        if word in _NO_FILES:
            return False
        if word == "-m" or not word.startswith("-"):
            return True
        if word in _WITH_VALUE:
            next(words, None)
    return False


def _become(argv: list[str], folder: str, wanted: dict[str, Any]) -> NoReturn:
    """Become the program."""
    try:
        os.chdir(folder)
    except OSError as error:
        message = f"the program was started in {folder}, which is not there: {error.strerror}"
        raise UsageError(message) from error
    program = shutil.which(argv[0]) or sys.executable
    os.execve(program, argv, {**os.environ, RETRY: json.dumps(wanted)})  # noqa: S606 - as it was


# conductor replay


def replay(options: Namespace) -> int:
    """Run one job in this process; return the exit code."""
    with opened(options.journal) as journal:
        entry = journal.find(options.key)
        run = _last_run(journal)
        if os.path.isdir(run.cwd):
            os.chdir(run.cwd)
        target = _target_of(options.target, run)
        payload = _payload_of(entry)
        if target is None:
            return _run_command(payload)
        return replay_inline(target, entry, payload, debugs=options.pdb)


def _payload_of(entry: JournalEntry) -> Any:
    if entry.is_done:
        message = f"job {typed(entry)} is done, and the payloads of done jobs are not kept"
        raise UsageError(message)
    try:
        return entry.payload
    except ConductorError as error:
        raise UsageError(str(error)) from error


def _target_of(text: str | None, run: RunInfo) -> Target | None:
    """Find the worker; None: the jobs are commands."""
    if text is not None:
        return targets.find(text)
    words = list(run.argv)
    verb = _verb_of(words)
    if verb == "exec":
        return None
    if verb == "run":
        from okanjo_conductor.cli._parser import build

        _, verbs = build()
        rest = words[words.index("run") + 1 :]
        return targets.find(verbs["run"].parse(rest).target)
    script = next((word for word in words[1:] if word.endswith(".py")), None)
    if script is None:
        raise UsageError(f"the program was {shlex.join(words)}: name the worker, FILE.py:NAME")
    target = targets.find(script)
    _share_with_main(script)
    return target


def _verb_of(words: list[str]) -> str:
    """Return the verb, if a program is this command line."""
    for program, verb in pairwise(words):
        name = os.path.basename(program)
        is_ours = name in ("conductor", "okanjo_conductor")
        if is_ours and verb in ("run", "exec"):
            return verb
    return ""


def _share_with_main(script: str) -> None:
    """Let payloads find the classes of a script that ran as ``__main__``."""
    module = sys.modules.get(os.path.basename(script).removesuffix(".py"))
    main = vars(sys.modules["__main__"])
    for name, value in vars(module).items() if module else ():
        main.setdefault(name, value)


def _run_command(job: dict[str, Any]) -> int:
    """Run the command of a job, with the terminal as its input and output."""
    command = with_slot(job["command"], 0)
    say(shown(command))
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else command
    try:
        code = subprocess.call(words)
    except OSError as error:
        raise UsageError(f"{words[0]}: {error.strerror}") from error
    say(f"exit code {code}" if code >= 0 else f"ended by signal {-code}")
    return FAILED if code else DONE
