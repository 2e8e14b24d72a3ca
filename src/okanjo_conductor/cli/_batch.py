"""What ``run`` and ``exec`` share: a conductor is run, each outcome is shown, the end is told."""

from __future__ import annotations

import os
import re
import signal as signals
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from okanjo_conductor._conductor import Conductor
from okanjo_conductor._io.cpus import usable_cpus
from okanjo_conductor._plain import Frozen
from okanjo_conductor._signals import StopSignals
from okanjo_conductor._types import JobState, Report, Retry
from okanjo_conductor.cli import _errors as code
from okanjo_conductor.cli._errors import RefusedError, UsageError
from okanjo_conductor.cli._joblog import JobLog, Line, Standing
from okanjo_conductor.cli._limits import Halting, MedianTimeout
from okanjo_conductor.cli._values import Share
from okanjo_conductor.cli._writing import Output
from okanjo_conductor.clusters._base import refuse_what_it_lacks
from okanjo_conductor.errors import (
    CommandError,
    ConductorError,
    ConductorStateError,
    ConfigurationError,
    DuplicateKeyError,
    IntakeError,
    JobKeyError,
    JobTimeoutError,
    JournalChangedError,
    JournalError,
    SinkError,
    SourceError,
    TooManyFailuresError,
    WorkerStartError,
    describe_exit,
)

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from okanjo_conductor._types import Outcome

_NOW = 0.2
"""Seconds that jobs are given when a run is halted now, before SIGTERM and again before SIGKILL."""
_SIGTERM, _SIGPIPE = 15, 13
_MISTAKES = (UsageError, SourceError, ConfigurationError, DuplicateKeyError, JobKeyError)
"""What a source of jobs may raise that is nobody's fault but that of who typed."""


class Finished(Frozen):
    """What the log of jobs says of an outcome, besides how it ended."""

    seq: int
    command: str
    received: int
    """Bytes of output."""


class Batch:
    """One run of the command line.

    Args:
        options: as they were parsed.
        show: shows an outcome, and says what the log of jobs needs to know.
    """

    def __init__(self, options: Namespace, show: Callable[[Outcome], Finished]) -> None:
        self._options = options
        self._show = show
        self._halting = Halting(options.halt)
        self._median = _median_of(options.timeout)
        self._log: JobLog | None = None
        self._stderr = Output(2)
        self._conductor: Conductor

    # Making the conductor

    def options(self) -> dict[str, Any]:
        """Return what was typed as keyword arguments of a `Conductor`."""
        options = self._options
        if options.verbose:
            _log_to_stderr()
        made: dict[str, Any] = {
            "worker_limit": options.workers or usable_cpus(),
            "logging": options.verbose > 0,
            "job_timeout": None if self._median else options.timeout,
            "max_failures": options.max_failures,
        }
        if options.bar or options.eta or (options.bar is None and self._is_watched()):
            made["progress"] = True
        if options.journal is not None:
            made |= keeping(options)
        if options.retries is not None:
            made["retry"] = retry_of(options.retries)
        if options.halt is not None and options.halt.is_now:
            made["abort_grace"] = _NOW
        return made

    def _is_watched(self) -> bool:
        """Whether somebody sits before standard error, and wants to see something."""
        return os.isatty(2) and not self._options.quiet

    # Running

    def run(self, conductor: Conductor) -> int:
        """Run a conductor that was made here; return the exit code."""
        return self._ended(conductor, self._run_outcomes)

    def run_in_place(self, conductor: Conductor) -> int:
        """Run a conductor of the user's, whose listeners belong into this thread."""
        return self._ended(conductor, self._run_here)

    def _run_outcomes(self, conductor: Conductor) -> None:
        steps = (
            conductor._on_first_signal,
            conductor._on_second_signal,
            conductor._on_further_signal,
        )
        with StopSignals(*steps):
            for outcome in conductor.outcomes(ordered=bool(self._options.keep_order)):
                self._take(outcome)

    def _run_here(self, conductor: Conductor) -> None:
        broken: list[Exception] = []

        def take(outcome: Outcome) -> None:
            try:
                if not broken:
                    self._take(outcome)
            except Exception as error:  # a listener's error would not end the run
                broken.append(error)
                conductor.abort()

        conductor.on("job_done", take)
        conductor.on("job_failed", take)
        conductor.run()
        if broken:
            raise broken[0]

    def _take(self, outcome: Outcome) -> None:
        if self._median is not None and outcome.is_done and self._median.note(outcome.seconds or 0):
            with suppress(ConductorStateError):  # the run is over by now
                self._conductor.set_job_timeout(self._median.limit or 0)
        finished = self._show(outcome)
        if self._log is not None:
            self._log.add(_line(outcome, finished))
        if self._halting.note(outcome):
            is_now = self._options.halt.is_now
            (self._conductor.abort if is_now else self._conductor.drain)()

    # The end

    def _ended(self, conductor: Conductor, run: Callable[[Conductor], None]) -> int:
        self._conductor = conductor
        if self._median is not None:
            refuse_what_it_lacks(conductor._cluster, {"job_timeout": True})
        self._log = self._opened_log()
        try:
            ended = self._exit_code(conductor, run)
        finally:
            if self._log is not None:
                self._log.close()
        self._tell(conductor.report, ended)
        return ended

    def _opened_log(self) -> JobLog | None:
        options = self._options
        if options.joblog is None:
            return None
        try:
            return JobLog(options.joblog, goes_on=options.resume or options.resume_failed)
        except OSError as error:
            raise UsageError(f"--joblog {options.joblog}: {error.strerror}") from error

    def _exit_code(self, conductor: Conductor, run: Callable[[Conductor], None]) -> int:
        try:
            run(conductor)
        except KeyboardInterrupt:
            return code.SIGNAL + 2
        except SystemExit as leave:
            return leave.code if isinstance(leave.code, int) else code.FAILED
        except BrokenPipeError:
            return code.SIGNAL + _SIGPIPE
        except (
            OSError,
            IntakeError,
            JournalError,
            SinkError,
            TooManyFailuresError,
            WorkerStartError,
        ) as error:
            return self._explain(error)
        return self._of_report(conductor.report)

    def _of_report(self, report: Report | None) -> int:
        assert report is not None  # noqa: S101 - the run is over
        if report.stopped and not self._halting.is_wanted:
            return code.STOPPED
        if self._halting.is_wanted and self._options.halt.what == "success":
            return code.DONE
        return code.FAILED if report.failed or self._has_failed_before(report) else code.DONE

    def _has_failed_before(self, report: Report) -> bool:
        """Whether jobs were skipped that an earlier run has given up."""
        if self._options.journal is None or not report.skipped:
            return False
        from okanjo_conductor.journal import open_journal

        with open_journal(self._options.journal) as journal:
            counts = journal.counts()
        failed = sum(counts.values()) - counts.get(JobState.DONE, 0)
        if failed and not self._options.quiet:
            jobs = "1 job" if failed == 1 else f"{failed:,} jobs"
            say(f"{jobs} had failed before; --resume-failed executes what failed again")
        return bool(failed)

    def _explain(self, error: Exception) -> int:
        """Say what ended the run; return the exit code."""
        cause = error.__cause__ if isinstance(error, IntakeError) else None
        if isinstance(cause, _MISTAKES):
            ended: int = code.USAGE
        elif isinstance(cause, RefusedError):
            ended = code.REFUSED
        elif isinstance(error, JournalError | SinkError) and self._conductor.report is None:
            cause = error
            ended = code.REFUSED if isinstance(error, JournalError) else code.USAGE
        else:
            cause, ended = error, code.STOPPED
        if not isinstance(error, TooManyFailuresError):  # that one is the report
            self._stderr.write_line(f"conductor: {_said(cause)}")
        return ended

    def _tell(self, report: Report | None, ended: int) -> None:
        """Show the report if something is to be said, and write it where it is wanted."""
        options = self._options
        if report is not None and self._halting.is_reached:
            report.stopped = f"--halt {options.halt.text}"
        if report is None or (not report.jobs and ended in (code.USAGE, code.REFUSED)):
            return
        is_wanted = ended not in (code.DONE, code.SIGNAL + _SIGPIPE)
        with suppress(BrokenPipeError):  # nobody reads any more: there is nobody to tell
            if options.json:
                self._stderr.write_line(report.as_json())
            elif (is_wanted and not options.quiet) or options.verbose:
                self._stderr.write_line(str(report))
        if options.report is not None:
            self._write_report(options.report, report)

    def _write_report(self, path: str, report: Report) -> None:
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(report.as_json() + "\n")
        except OSError as error:
            self._stderr.write_line(f"conductor: --report {path}: {error.strerror}")


def _said(error: BaseException | None) -> str:
    """Say what an error says, with the options of the command line."""
    if isinstance(error, JournalChangedError):
        return (
            f"{error.path} was begun with another program:\n{error.differences.rstrip()}\n"
            "If its outcomes are as good, go on with --accept-changed; if not, take another journal"
        )
    if isinstance(error, DuplicateKeyError):
        return (
            f"two jobs have the key {error.key!r}: give a --key that tells them apart, or say "
            "--duplicates skip to execute the first one only, or --duplicates number to execute all"
        )
    if isinstance(error, SinkError):
        text = str(error).replace("Give the sink another", "Give another")
        return re.sub(r'exists="(\w+)"', r"--if-exists \1", text)
    return str(error)


def keeping(options: Namespace) -> dict[str, Any]:
    """Return what was typed of a journal."""
    made: dict[str, Any] = {
        "journal": options.journal,
        "accept_changed": options.accept_changed,
        "rerun": "failed" if options.resume_failed else None,
    }
    for name in ("duplicates", "durability"):
        if getattr(options, name) is not None:
            made[name] = getattr(options, name)
    return made


def _log_to_stderr() -> None:
    import logging  # only who wants to read it

    logging.basicConfig(format="conductor: %(message)s", level=logging.INFO)


def retry_of(retries: int) -> Retry:
    """Give each cause the same number of further attempts."""
    return Retry(errors=retries, crashes=retries, timeouts=retries, memory=retries)


def standing_of(options: Namespace) -> Standing | None:
    """Read what an earlier log says, if the run is to go on by it.

    Raises:
        UsageError: there is nothing to go on by.
    """
    if not (options.resume or options.resume_failed) or options.journal is not None:
        return None
    if options.joblog is None:
        raise UsageError("--resume: by what? Give the --journal, or the --joblog, of the run")
    return Standing(options.joblog, failed_too=options.resume_failed)


def say(text: str) -> None:
    """Write a line to standard error."""
    Output(2).write_line(f"conductor: {text}")


def told(error: Exception | None) -> str:
    """Say in a few words why a job was not done."""
    if isinstance(error, CommandError):
        return describe_exit(error.code, error.signal)
    lines = str(error).splitlines()
    name = type(error).__name__
    if isinstance(error, ConductorError):
        return lines[0] if lines else name
    return f"{name}: {lines[0]}" if lines else name


def _median_of(timeout: float | Share | None) -> MedianTimeout | None:
    return MedianTimeout(timeout.of) if isinstance(timeout, Share) else None


def _line(outcome: Outcome, finished: Finished) -> Line:
    error, value = outcome.error, outcome.value
    seconds = outcome.seconds or 0.0
    started = time.time() - seconds
    exit_code, signal = 0 if outcome.is_done else 1, 0
    if isinstance(error, CommandError):
        started, seconds = error.started, error.seconds
        exit_code, signal = error.code or 0, _signal_number(error.signal)
    elif isinstance(error, JobTimeoutError):
        started, seconds = time.time() - error.limit, error.limit
        exit_code, signal = -1, _SIGTERM
    elif isinstance(value, dict) and {"started", "seconds"} <= value.keys():
        started, seconds = value["started"], value["seconds"]
    return Line(
        finished.seq, started, seconds, finished.received, exit_code, signal, finished.command
    )


def _signal_number(name: str | None) -> int:
    if name is None:
        return 0
    known = getattr(signals, name, None)
    return int(known if known is not None else name.rpartition(" ")[2])
