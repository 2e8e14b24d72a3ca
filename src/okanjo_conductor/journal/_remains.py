"""What a dead conductor has left beside its journal, as it lies there: nothing here changes it.

In its folder are, of each worker, the log of its outcomes, and notes of which ordinals were which
jobs. What is noted in the journal of the same run tells what of that is over.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from okanjo_conductor._io import cells
from okanjo_conductor._io.loggers import log
from okanjo_conductor._io.outcome_log import Reader
from okanjo_conductor._plain import Frozen
from okanjo_conductor._types import WorkerId
from okanjo_conductor._wire import records
from okanjo_conductor.errors import ProtocolError
from okanjo_conductor.journal import _handouts as handouts
from okanjo_conductor.journal._keys import safe_text_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from okanjo_conductor._types import Key


class Log(Frozen):
    """What one worker has left: outcomes by ordinal, and what it was doing."""

    worker_id: WorkerId
    keys: dict[int, Key]
    """Of all ordinals that it was handed, as far as they are still noted."""
    results: dict[int, tuple[int, Any]]
    """Nanoseconds and result by ordinal, in the order in which they were written."""
    started: int
    """The last ordinal that it has started."""
    is_parallel: bool
    """Whether it may have been executing others, too."""


class Remains:
    """What a run has left.

    Args:
        connection: by which the journal is read.
        folder: where it lies.
        run: the run.
        was_up: whether the machine is up since then; if not, the logs are not believed.
    """

    def __init__(
        self, connection: sqlite3.Connection, folder: Path, run: int, *, was_up: bool
    ) -> None:
        self._connection = connection
        self._run = run
        self.logs = [_log_of(folder, number, was_up) for number in _workers_in(folder)]

    def executing(self) -> set[str]:
        """Return the keys of the jobs that may have been executed at the end, as texts."""
        return {key for log in self.logs for key in self._executing(log)}

    def _executing(self, log: Log) -> Iterator[str]:
        """Yield the keys that a worker may have been executing, as texts.

        What it has started last need not have reached the disk: then it is the next one that has
        no outcome. A parallel worker may execute whatever has none up to there.
        """
        unfinished = [
            (ordinal, safe_text_of(key))
            for ordinal, key in sorted(log.keys.items())
            if not (self.has_outcome(key) or self.has_ended(log.worker_id, ordinal))
        ]
        if log.is_parallel:
            yield from (key for ordinal, key in unfinished if ordinal <= log.started)
        elif log.started:
            yield from [key for ordinal, key in unfinished if ordinal >= log.started][:1]

    def has_outcome(self, key: Key) -> bool:
        """Whether the run that has left this has noted an outcome of this job."""
        return self._is_there(
            "SELECT 1 FROM jobs WHERE key = ? AND run = ?", safe_text_of(key), self._run
        )

    def has_ended(self, worker_id: int, ordinal: int) -> bool:
        """Whether it has noted that this execution was followed by another one."""
        return self._is_there(
            "SELECT 1 FROM attempts WHERE run = ? AND worker_id = ? AND ordinal = ?",
            self._run,
            worker_id,
            ordinal,
        )

    def _is_there(self, statement: str, *given: Any) -> bool:
        return self._connection.execute(statement, given).fetchone() is not None


def _workers_in(folder: Path) -> list[WorkerId]:
    if not folder.is_dir():
        return []
    heads = {path.name.split(".", 1)[0] for path in folder.iterdir()}
    return [WorkerId(number) for number in sorted(int(head) for head in heads if head.isdigit())]


def _log_of(folder: Path, worker_id: WorkerId, was_up: bool) -> Log:  # noqa: FBT001 - of a constructor
    keys: dict[int, Key] = {}
    with suppress(Exception):  # a key's class may raise anything; who goes down may leave anything
        for first, some in handouts.read(folder, worker_id):
            keys.update(enumerate(some, first))
    page = _mapped(folder / f"{worker_id}.page")
    if page is None:
        return Log(worker_id, keys, {}, 0, is_parallel=False)
    with page:
        results = _results_in(page, worker_id) if was_up else {}
        known = {ordinal: result for ordinal, result in results.items() if ordinal in keys}
        if len(known) < len(results):
            log().warning(
                "%d outcomes of worker %d of the last run cannot be saved: nothing says whose they "
                "are. These jobs are executed again",
                len(results) - len(known),
                worker_id,
            )
        started = cells.last_started(page) or 0
        return Log(worker_id, keys, known, started, is_parallel=page[cells.PARALLEL] > 1)


def _mapped(path: Path) -> memoryview[int] | None:
    """Map a page; None: there is none, or only a part of it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_size < cells.SIZE:
            return None
        return cells.map_page(descriptor)
    finally:
        os.close(descriptor)


def _results_in(page: memoryview[int], worker_id: int) -> dict[int, tuple[int, Any]]:
    reader = Reader(page, keeps=True)
    try:
        if not 0 <= page[cells.HEAD] - page[cells.TAIL] <= cells.SIZE:
            return {}
        ordinals, nanoseconds, results = records.unpack(reader.read())
    except ProtocolError as error:
        log().warning(
            "outcomes of worker %d of the last run cannot be read, these jobs are executed "
            "again: %s",
            worker_id,
            error,
        )
        return {}
    finally:
        reader.close()
    return dict(zip(ordinals, zip(nanoseconds, results, strict=True), strict=True))
