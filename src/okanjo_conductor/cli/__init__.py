"""The command line ``conductor``: thin, over the library.

    conductor run TARGET      jobs for a Conductor, a worker class or a function
    conductor exec COMMAND    commands as jobs
    conductor status, ls, show, retry, export, replay JOURNAL
    conductor completion SHELL

Results go to standard output, everything else to standard error. The verbs are loaded when they are
typed. A usage that makes no sense costs one line and exit code 2; see `_errors` for the others.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from okanjo_conductor.cli._parser import Parser

__all__ = ["main"]


def main(args: list[str] | None = None) -> int:
    """Do what is typed; return the exit code.

    Args:
        args: what follows ``conductor``; None: the arguments of this process.
    """
    from okanjo_conductor.cli import _errors as code

    args = sys.argv[1:] if args is None else args
    name = "conductor"
    try:
        if args and not args[0].startswith("-"):
            name = f"conductor {args[0]}"
        return _done(args)
    except (code.UsageError, code.RefusedError) as error:
        if _is_verbose(args):
            _show(error)
        is_usage = isinstance(error, code.UsageError)
        return _say_no(name, error, code.USAGE if is_usage else code.REFUSED)
    except BrokenPipeError:
        return code.SIGNAL + 13
    except KeyboardInterrupt:
        return code.SIGNAL + 2
    except Exception as error:
        if _is_verbose(args):
            raise
        return _say_no(name, error, _code_of(error))


def _done(args: list[str]) -> int:
    from okanjo_conductor.cli._errors import UsageError, did_you_mean
    from okanjo_conductor.cli._parser import build

    whole, verbs = build()
    if not args:
        whole.print_help(sys.stderr)
        return 2
    if args[0].startswith("-"):
        whole.parse(args)
        return 0
    parser = verbs.get(args[0])
    if parser is None:
        raise UsageError(f"{args[0]!r} is no verb" + did_you_mean(args[0], verbs))
    return _VERBS[args[0]](parser, args[1:])


def _do_run(parser: Parser, args: list[str]) -> int:
    from okanjo_conductor.cli import _run as verb
    from okanjo_conductor.cli._settings import as_arguments

    if _wants_help(args):
        parser.parse(args)
    return verb.run(parser.parse([*as_arguments(parser, os.environ, os.getcwd()), *args]))


def _do_exec(parser: Parser, args: list[str]) -> int:
    from okanjo_conductor.cli import _exec as verb
    from okanjo_conductor.cli._settings import as_arguments

    typed, command = verb.split(args, parser.takes_value)
    if _wants_help(typed):
        parser.parse(typed)
    settings = as_arguments(parser, os.environ, os.getcwd())
    return verb.run(parser.parse([*settings, *typed]), command)


def _do_completion(parser: Parser, args: list[str]) -> int:
    from okanjo_conductor.cli import _completion as verb

    return verb.run(parser.parse(args))


def _do_reading(parser: Parser, args: list[str]) -> int:
    from okanjo_conductor.cli import _reading as verbs

    options = parser.parse(args)
    verb: Callable[[Namespace], int] = getattr(verbs, parser.prog.rpartition(" ")[2])
    return verb(options)


def _do_again(parser: Parser, args: list[str]) -> int:
    from okanjo_conductor.cli import _again as verbs

    options = parser.parse(args)
    verb: Callable[[Namespace], int] = getattr(verbs, parser.prog.rpartition(" ")[2])
    return verb(options)


_VERBS = {
    "run": _do_run,
    "exec": _do_exec,
    "status": _do_reading,
    "ls": _do_reading,
    "show": _do_reading,
    "export": _do_reading,
    "retry": _do_again,
    "replay": _do_again,
    "completion": _do_completion,
}


def _wants_help(args: list[str]) -> bool:
    """Whether help is asked for, which needs no settings."""
    return bool({"-h", "--help"} & set(args))


def _is_verbose(args: list[str]) -> bool:
    """Whether tracebacks of our own are wanted."""
    return "-vv" in args or args.count("-v") + args.count("--verbose") > 1


def _show(error: Exception) -> None:
    import traceback  # only who wants to see one

    traceback.print_exception(error)


def _code_of(error: Exception) -> int:
    from okanjo_conductor.cli import _errors as code
    from okanjo_conductor.errors import (
        ConfigurationError,
        JournalError,
        SourceError,
        UnknownJobError,
    )

    if isinstance(error, ConfigurationError | SourceError | UnknownJobError):
        return code.USAGE
    return code.REFUSED if isinstance(error, JournalError) else code.INTERNAL


def _say_no(name: str, error: Exception, number: int) -> int:
    from okanjo_conductor.cli import _errors as code

    text = str(error)
    if number == code.INTERNAL:
        what = "a fault of our own (-vv shows it), please report it"
        text = f"{what}: {type(error).__name__}: {text}"
    with suppress(OSError, ValueError, AttributeError):  # closed, or none
        sys.stderr.write(f"{name}: {text}\n")
    return number
