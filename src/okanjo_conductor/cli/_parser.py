"""What can be typed: the verbs and their options.

`argparse` takes 10 ms to load and these tables 3 ms to make; whatever else a verb needs is loaded
when it runs.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NoReturn

from okanjo_conductor.__about__ import __version__
from okanjo_conductor.cli import _values as values
from okanjo_conductor.cli._errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

STATES = ("done", "failed", "quarantined", "cancelled")
_EPILOG = """\
exit codes: 0 all jobs done, 1 some failed, 2 usage, 3 stopped and resumable, 4 journal refused,
            130 and 143 after SIGINT and SIGTERM

Settings may stand in [tool.okanjo-conductor] of pyproject.toml, and in variables
OKANJO_CONDUCTOR_….
"""


_OF_PARALLEL = {
    **dict.fromkeys(("-a", "--arg-file"), "--jobs FILE"),
    **dict.fromkeys(("-P", "--max-procs"), "-j N"),
    **dict.fromkeys(("--colsep", "-C", "--header"), "--jobs FILE.csv, or --format csv or tsv"),
    "--progress": "--bar",
    "--retry-failed": "--resume-failed",
    "--memfree": "-j N",
    **dict.fromkeys(
        ("--pipe", "--pipe-part", "-S", "--sshlogin", "--tag", "-u", "--ungroup", "--lb"),
        "nothing stands for it",
    ),
    **dict.fromkeys(("-n", "-N", "-X", "-m", "--xargs"), "each job has one line, or one row"),
}
"""What stands for the options that users of GNU parallel may type."""


class Parser(argparse.ArgumentParser):
    """Says no in one line, with near matches."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        super().__init__(allow_abbrev=False, **options)
        self.instead: dict[str, str] = {}
        """What to type for options that others have, and that there are not here."""

    def error(self, message: str) -> NoReturn:
        """Refuse what was typed."""
        raise UsageError(message.removeprefix("argument "))

    def parse(self, args: Sequence[str]) -> argparse.Namespace:
        """Parse arguments; an option that there is not is named with those like it."""
        options, unknown = self.parse_known_args(args)
        if unknown:
            word = unknown[0].partition("=")[0]
            if word.startswith("-") and word != "-":
                raise UsageError(f"{word} is no option{self._hint(word)}")
            raise UsageError(f"{word!r} is one argument too many")
        return options

    def _hint(self, word: str) -> str:
        instead = self.instead.get(word)
        if instead is not None:
            return f" here: {instead}"
        return did_you_mean(word, self.option_names())

    def option_names(self) -> list[str]:
        """Name all options."""
        return list(self._option_string_actions)

    def takes_value(self, option: str) -> bool:
        """Whether an option is followed by a value, as ``-j 8`` and ``--key id`` are."""
        action = self._option_string_actions.get(option)
        return action is not None and action.nargs != 0


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in which options and what they do are side by side."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


def build() -> tuple[Parser, dict[str, Parser]]:
    """Make the parser of the whole, and those of the verbs."""
    whole = Parser(
        prog="conductor",
        description="Hand a batch of jobs to worker processes and see every one of them through.",
        epilog=_EPILOG,
    )
    whole.add_argument("--version", action="version", version=f"conductor {__version__}")
    verbs = whole.add_subparsers(metavar="verb", title="verbs", dest="verb", parser_class=Parser)
    made: dict[str, Parser] = {}
    for name, (what, add) in _VERBS.items():
        made[name] = parser = verbs.add_parser(name, help=what, description=_sentence(what))
        add(parser)
    return whole, made


def _sentence(what: str) -> str:
    return what[0].upper() + what[1:] + "."


# The verbs that run jobs


def _add_run(parser: Parser) -> None:
    parser.usage = "conductor run [options] TARGET [options]"
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="FILE.py or pkg.mod with a Conductor (named conductor, the only one, or :NAME); or, "
        "with --jobs, FILE.py:NAME or pkg.mod:NAME of a function or ConductorWorker",
    )
    _add_jobs(parser)
    group = parser.add_argument_group("results")
    group.add_argument(
        "--out",
        metavar="FILE",
        help="write values into FILE (.jsonl, .csv, .db), or a folder .parquet, instead",
    )
    group.add_argument(
        "--if-exists",
        choices=("error", "append", "overwrite"),
        help="what becomes of an --out that is there already, unless its run goes on",
    )
    _add_results(group)
    group = _add_running(parser)
    group.add_argument(
        "--cluster",
        choices=("processes", "threads", "inline"),
        help="where workers live; inline: in this thread, for debuggers",
    )
    group.add_argument(
        "--concurrency",
        type=values.positive,
        metavar="N",
        help="jobs in flight in each worker, for async functions",
    )
    _add_earlier(parser)
    _add_shown(parser)


def _add_exec(parser: Parser) -> None:
    parser.usage = (
        "conductor exec [options] [--] COMMAND [ARG…]\n"
        "       conductor exec [options] [--] COMMAND [ARG…] ::: INPUT…"
    )
    parser.epilog = """\
COMMAND is started without a shell; each job stands in for {} in its arguments, or is put at the
end. {.} {/} {//} {/.}: without extension, last part, folder, last part without extension; {#} {%}:
number of the job and of its slot; {1} {2}: inputs; {name}: field of a row; {stem}: as {/.}.

::: INPUT… are the jobs; several of them are combined each with each, or with :::+ one by one.
:::: FILE… are files of inputs. Without any of these, and without --jobs, standard input is read.
"""
    parser.instead = _OF_PARALLEL
    _add_jobs(parser)
    parser.add_argument(
        "--shell",
        action=argparse.BooleanOptionalAction,
        help="have /bin/sh run the command; inserted values are quoted",
    )
    _add_results(parser.add_argument_group("results"))
    _add_running(parser)
    _add_earlier(parser)
    _add_shown(parser)


def _add_jobs(parser: Parser) -> None:
    group = parser.add_argument_group("jobs")
    group.add_argument(
        "--jobs",
        metavar="FILE",
        help="where the jobs are: .jsonl, .csv, .tsv, .txt, .parquet, .db, a pattern with *, a "
        "URL, or - for standard input",
    )
    group.add_argument(
        "--format",
        choices=("lines", "jsonl", "csv", "tsv"),
        help="how standard input, or a file of another extension, is read",
    )
    group.add_argument("--sql", metavar="QUERY", help="the query whose rows of a .db are jobs")
    group.add_argument("--key", metavar="FIELD", help="the field that identifies a job")


def _add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-k",
        "--keep-order",
        action=argparse.BooleanOptionalAction,
        help="results in the order of the jobs",
    )
    group.add_argument(
        "--results", metavar="DIR", help="keep the output of each job in files below DIR"
    )
    group.add_argument(
        "--joblog", metavar="FILE", help="a line per finished job, in the columns of GNU parallel"
    )


def _add_running(parser: Parser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("running")
    group.add_argument(
        "-j",
        "--workers",
        type=values.workers,
        metavar="N",
        help="workers: 8, or of the usable CPUs 50%%, +2, -2; default 100%%",
    )
    group.add_argument(
        "--timeout",
        type=values.timeout,
        metavar="TIME",
        help="end a job after 10s, 2m, 1h, or 300%% of the median of the finished ones",
    )
    group.add_argument(
        "--retries", type=values.count, metavar="N", help="up to N further attempts for each job"
    )
    group.add_argument(
        "--max-failures",
        type=values.failures,
        metavar="N",
        help="stop when more than N, or 5%%, of the jobs have failed",
    )
    group.add_argument(
        "--halt",
        type=values.halt,
        metavar="RULE",
        help="stop soon or now: soon,fail=1; now,success=1; soon,fail=10%%; soon,done=50",
    )
    group.add_argument("--dry-run", action="store_true", help="show the jobs, and run none")
    return group


def _add_earlier(parser: Parser) -> None:
    group = parser.add_argument_group("earlier runs")
    group.add_argument(
        "--journal",
        metavar="FILE",
        help="note every outcome in FILE; the same command goes on where it was ended",
    )
    group.add_argument(
        "--resume", action="store_true", help="skip the jobs in the --journal or the --joblog"
    )
    group.add_argument(
        "--resume-failed",
        action="store_true",
        help="skip the done ones only; run the failed ones again",
    )
    group.add_argument(
        "--duplicates",
        choices=("error", "skip", "number"),
        help="what jobs with the key of another one are, in a journal",
    )
    group.add_argument(
        "--accept-changed",
        action="store_true",
        help="go on with a journal although the worker or its options have changed",
    )
    group.add_argument(
        "--durability", choices=("normal", "full"), help="full: survive power cuts, too"
    )


def _add_shown(parser: Parser) -> None:
    group = parser.add_argument_group("what is shown, on standard error")
    group.add_argument(
        "--bar", action=argparse.BooleanOptionalAction, help="how far it is; default on a terminal"
    )
    group.add_argument(
        "--eta", action=argparse.BooleanOptionalAction, help="the same; it tells the time left, too"
    )
    group.add_argument("--json", action="store_true", help="the report as one line of JSON")
    group.add_argument("--report", metavar="FILE", help="write the report into FILE, as JSON")
    group.add_argument("-q", "--quiet", action="store_true", help="errors only")
    group.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="the report in any case, and the lives of workers; -vv: tracebacks",
    )


# The verbs that read journals


def _add_status(parser: Parser) -> None:
    _add_journal(parser)


def _add_ls(parser: Parser) -> None:
    _add_journal(parser)
    parser.add_argument(
        "--state", action="append", choices=STATES, help="only jobs that ended so; may be repeated"
    )
    parser.add_argument("--limit", type=values.positive, metavar="N", help="only the first N")


def _add_show(parser: Parser) -> None:
    _add_journal(parser)
    parser.add_argument("key", metavar="KEY", help="the job, as ls writes it")


def _add_retry(parser: Parser) -> None:
    _add_journal(parser, json=False)
    parser.add_argument(
        "keys", metavar="KEY", nargs="*", help="jobs to run again, as ls writes them"
    )
    parser.add_argument("--failed", action="store_true", help="all that failed")
    parser.add_argument(
        "--accept-changed",
        action="store_true",
        help="although the worker has changed: it was mended",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the program, and run nothing")


def _add_export(parser: Parser) -> None:
    _add_journal(parser, json=False)
    parser.add_argument("--format", choices=("csv", "jsonl", "parquet"), help="default: by --out")
    parser.add_argument("--out", metavar="FILE", help="default: standard output")
    parser.add_argument(
        "--state", action="append", choices=STATES, help="jobs that ended so; default: done"
    )


def _add_replay(parser: Parser) -> None:
    _add_journal(parser, json=False)
    parser.add_argument("key", metavar="KEY", help="the job, as ls writes it")
    parser.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="the worker, as for run; default: that of the journal's program",
    )
    parser.add_argument("--pdb", action="store_true", help="a debugger where it fails")


def _add_completion(parser: Parser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def _add_journal(parser: Parser, *, json: bool = True) -> None:
    parser.add_argument("journal", metavar="JOURNAL", help="the file that --journal named")
    if json:
        parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("-v", "--verbose", action="count", default=0, help=argparse.SUPPRESS)


_VERBS: dict[str, tuple[str, Any]] = {
    "run": ("run jobs with a Conductor, or with a function or worker in Python", _add_run),
    "exec": ("run commands as jobs", _add_exec),
    "status": ("tell how far a run is, also while it goes on", _add_status),
    "ls": ("list the jobs of a journal", _add_ls),
    "show": ("show one job of a journal", _add_show),
    "retry": ("run jobs of a journal again", _add_retry),
    "export": ("write the values in a journal to a file", _add_export),
    "replay": ("run one job of a journal in this process", _add_replay),
    "completion": ("write the completion for a shell", _add_completion),
}
