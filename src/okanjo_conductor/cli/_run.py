"""``conductor run``: jobs for a Conductor, a worker class or a function."""

from __future__ import annotations

import os
import sys
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from okanjo_conductor._conductor import Conductor
from okanjo_conductor.cli import _errors as code
from okanjo_conductor.cli import _targets as targets
from okanjo_conductor.cli._batch import Batch, Finished, keeping, told
from okanjo_conductor.cli._commands import STDERR, STDOUT
from okanjo_conductor.cli._errors import UsageError
from okanjo_conductor.cli._folders import SEQ, folder_for
from okanjo_conductor.cli._input import shown_input, source_of
from okanjo_conductor.cli._outputs import sink_for
from okanjo_conductor.cli._writing import Output, as_json
from okanjo_conductor.clusters._base import find_cluster, refuse_what_it_lacks
from okanjo_conductor.errors import ConfigurationError
from okanjo_conductor.sources import Glob, Lines

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Generator, Hashable

    from okanjo_conductor._types import Key, Outcome
    from okanjo_conductor.cli._targets import Target
    from okanjo_conductor.sources import Source
    from okanjo_conductor.sources._base import KeyOf


def run(options: Namespace) -> int:
    """Run jobs; return the exit code."""
    if (options.resume or options.resume_failed) and options.journal is None:
        raise UsageError("--resume: by what? Give the --journal of the run")
    source = source_of(options)
    target = targets.find(options.target)
    if target.conductor is not None:
        return _run_conductor(options, target, target.conductor, source)
    if source is None:
        message = f"{target.name} is to be run on what? Give --jobs FILE, or - for standard input"
        raise UsageError(message)
    if options.dry_run:
        return _show_jobs(source)
    if isinstance(source, Lines | Glob):
        source.key = _itself
    numbers = Numbers(source.key)
    shower = Shower(options, target.name, numbers)
    batch = Batch(options, shower.show)
    made = batch.options()
    try:
        if options.out is not None:
            made["sink"] = sink_for(options.out, options.if_exists)
        conductor = Conductor(
            target.worker,
            jobs_queue=source,
            job_key=numbers if source.key else None,
            concurrency=options.concurrency,
            cluster=options.cluster or "processes",
            **made,
        )
    except ConfigurationError as error:
        raise UsageError(str(error)) from error
    with _prints_aside(aside=shower.has_stdout):
        return batch.run(conductor)


def _itself(job: str) -> str:
    """Identify a line, or a file, by itself."""
    return job


class Numbers:
    """Numbers jobs by their order in the input, from 1."""

    def __init__(self, key_of: KeyOf | None) -> None:
        self._key_of = key_of
        self._count = 0
        self._numbers: dict[Hashable, deque[int]] = {}
        """By key, of the jobs that have been read and are not finished."""

    def __repr__(self) -> str:  # the journal compares it
        return repr(self._key_of)

    def __call__(self, job: Any) -> Key:
        """Return the key of the next job of the input."""
        assert self._key_of is not None  # noqa: S101 - the caller has looked
        key = self._key_of(job)
        self._count += 1
        self._numbers.setdefault(key, deque()).append(self._count)
        return key

    def take(self, key: Key) -> int:
        """Return the number of a finished job."""
        numbers = self._numbers.get(key)
        if numbers:
            number = numbers.popleft()
            if not numbers:
                del self._numbers[key]
            return number
        return key + 1 if isinstance(key, int) else 0  # the key is the number, from 0


class Shower:
    """Shows the values of jobs: a line of JSON each."""

    def __init__(self, options: Namespace, name: str, numbers: Numbers) -> None:
        self._name = name
        self._numbers = numbers
        self._root: str | None = options.results
        self._quiet: bool = options.quiet
        self.has_stdout = options.out is None
        """Whether values go to standard output."""
        self._stdout, self._stderr = Output(1), Output(2)

    def show(self, outcome: Outcome) -> Finished:
        """Show a value, or how a job failed."""
        seq, line = self._numbers.take(outcome.key), ""
        if outcome.is_done and self.has_stdout:
            line = as_json({"key": outcome.key, "value": outcome.value})
            self._stdout.write_line(line)
        if not outcome.is_done and not self._quiet:
            self._stderr.write_line(f"conductor: job {outcome.key!r}: {told(outcome.error)}")
        if self._root is not None:
            self._keep(self._root, outcome, seq)
        return Finished(seq, f"{self._name} {shown_input(outcome.key)}", len(line))

    def _keep(self, root: str, outcome: Outcome, seq: int) -> None:
        folder = folder_for(root, shown_input(outcome.key), seq)
        os.makedirs(folder, exist_ok=True)
        value = as_json(outcome.value) + "\n" if outcome.is_done else ""
        for name, text in ((STDOUT, value), (STDERR, _trace_of(outcome)), (SEQ, str(seq))):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)


def _trace_of(outcome: Outcome) -> str:
    import traceback  # failures only

    error = outcome.error
    return "" if error is None else "".join(traceback.format_exception(error))


def _run_conductor(
    options: Namespace, target: Target, conductor: Conductor, source: Source | None
) -> int:
    """Run a Conductor of the user's, with what was typed instead of what it was made with."""
    if options.dry_run:
        raise UsageError(f"--dry-run: the jobs of {target.name} are known to it alone")
    numbers = Numbers(source.key if source else None)
    shower = Shower(options, target.name, numbers)
    takes_care = bool(conductor.listeners("job_done")) or conductor._keeping.sink is not None
    shower.has_stdout = shower.has_stdout and not takes_care
    batch = Batch(options, shower.show)
    try:
        override(conductor, options, batch, source)
    except ConfigurationError as error:
        raise UsageError(str(error)) from error
    with _prints_aside(aside=shower.has_stdout):
        return batch.run(conductor) if options.keep_order else batch.run_in_place(conductor)


def override(conductor: Conductor, options: Namespace, batch: Batch, source: Source | None) -> None:
    """Let a conductor have what was typed."""
    typed = batch.options()
    if options.cluster is not None:
        conductor._cluster = find_cluster(options.cluster)
        conductor._worker_limit = conductor._limited(conductor.worker_limit)
    if options.workers is not None:
        conductor.resize(options.workers)
    if options.concurrency is not None:
        conductor._concurrency = options.concurrency
    if options.timeout is not None:
        conductor._job_timeout = typed["job_timeout"]
    policy: dict[str, Any] = {
        name: typed[name] for name in ("retry", "abort_grace") if name in typed
    }
    if options.max_failures is not None:
        policy["max_failures"] = options.max_failures
    conductor._policy = conductor._policy._replace(**policy)
    conductor._progress = typed.get("progress", conductor._progress)
    kept: dict[str, Any] = {}
    if options.journal is not None:
        kept = keeping(options)
        kept["path"] = kept.pop("journal")
    if options.out is not None:
        kept["sink"] = sink_for(options.out, options.if_exists)
    conductor._keeping = conductor._keeping._replace(**kept)
    refuse_what_it_lacks(conductor._cluster, conductor._asked())
    if source is not None:
        conductor.jobs_queue = source


@contextmanager
def _prints_aside(*, aside: bool) -> Generator[None]:
    """Have what workers and handlers print go to standard error: results have the other one."""
    if not aside:
        yield
        return
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = stdout


def _show_jobs(source: Source) -> int:
    stdout = Output(1)
    for job in source:
        stdout.write_line(shown_input(job))
    return code.DONE
