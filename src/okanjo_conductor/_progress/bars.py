"""A bar of tqdm's: in notebooks, and on terminals where rich is not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        self._outlet = Outlet(lambda: None)
        self._bar = _Bar(
            unit=" jobs", file=stream, dynamic_ncols=True, mininterval=0, smoothing=0.1
        )
        if stream.isatty():
            self._outlet.open(stream)

    def draw(self, snapshot: Snapshot) -> None:
        """Draw the bar anew, and above it what was printed since."""
        self._print()
        bar = self._bar
        bar.total = snapshot.total
        bar.set_postfix_str(_said(snapshot.failed, snapshot.workers_lost), refresh=False)
        bar.update(snapshot.finished + snapshot.skipped - bar.n)
        bar.refresh()

    def finish(self, report: Report | None) -> None:
        """Leave the bar as it is at the end."""
        self._print()
        if report is not None:
            bar = self._bar
            bar.set_postfix_str(_said(report.failed, report.workers_lost), refresh=False)
            bar.update(report.jobs + report.skipped - bar.n)
        self.close()

    def close(self) -> None:
        """Let the bar be."""
        self._bar.close()
        self._outlet.close()

    def _print(self) -> None:
        printed = self._outlet.take()
        if printed:
            self._bar.write(printed, file=self._bar.fp, end="")


def _said(failed: int, lost: int) -> str:
    parts = [f"{failed:,} failed"] if failed else []
    return ", ".join([*parts, f"{lost:,} workers lost"] if lost else parts)
