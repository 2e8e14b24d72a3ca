"""A bar of tqdm's: in notebooks, and on terminals where rich is not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from okanjo_conductor._progress.streams import Outlet

if TYPE_CHECKING:
    from typing import TextIO

    from okanjo_conductor._snapshot import Snapshot
    from okanjo_conductor._types import Report

_PAUSE = 0.2


class _Bar(tqdm):  # type: ignore[misc]  # it has no type hints
    monitor_interval = 0
    """No thread of its own."""


class Bar:
    """Shows snapshots as a bar."""

    pause = _PAUSE

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None
        """Made with the first snapshot: a notebook's bar does not learn of a total later."""
        self._outlet = Outlet(lambda: None)
        if stream.isatty():
            self._outlet.open(stream)

    def draw(self, snapshot: Snapshot) -> None:
        """Draw the bar anew, and above it what was printed since."""
        self._print()
        ended = snapshot.finished + snapshot.skipped
        self._show(ended, snapshot.total, snapshot.failed, snapshot.workers_lost)

    def finish(self, report: Report | None) -> None:
        """Leave the bar as it is at the end."""
        self._print()
        if report is not None:
            ended = report.jobs + report.skipped
            self._show(ended, ended + report.unstarted, report.failed, report.workers_lost)
        if self._bar is not None:
            self._bar.close()
        self.close()

    def close(self) -> None:
        """Let what is printed go its own way."""
        self._outlet.close()

    def _show(self, ended: int, total: int | None, failed: int, lost: int) -> None:
        if self._bar is None:
            self._bar = _Bar(
                total=total, unit=" jobs", file=self._stream, dynamic_ncols=True, mininterval=0
            )
        bar = self._bar
        if bar.total != total:
            _set_total(bar, total)
        bar.set_postfix_str(_said(failed, lost), refresh=False)
        bar.update(ended - bar.n)
        bar.refresh()

    def _print(self) -> None:
        printed = self._outlet.take()
        if not printed:
            return
        if self._bar is None:
            self._stream.write(printed)
        else:
            self._bar.write(printed, file=self._stream, end="")


def _set_total(bar: Any, total: int | None) -> None:
    """Tell a bar how many jobs there are; `reset`, which is made for it, forgets all else."""
    bar.total = total
    container = getattr(bar, "container", None)
    if container is not None and total:  # in a notebook
        container.children[1].max = total


def _said(failed: int, lost: int) -> str:
    parts = [f"{failed:,} failed"] if failed else []
    return ", ".join([*parts, f"{lost:,} workers lost"] if lost else parts)
