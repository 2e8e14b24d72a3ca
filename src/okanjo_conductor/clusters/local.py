"""Workers as processes on this machine: `LocalCluster`. What it does is in `_processes`.

This much is loaded first in every run, because the template boots while the rest is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from okanjo_conductor._io.launching import EarlyTemplate
from okanjo_conductor.clusters._base import Cluster, Launch

if TYPE_CHECKING:
    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor.clusters._base import Crew, Program, Watcher


class LocalCluster(Cluster):
    """Workers as processes on this machine; what ``cluster="processes"`` stands for."""

    name = "processes"

    def launch(self, program: Program) -> Launch:
        """Start the template."""
        return _Launch(program)


class _Launch(Launch):
    """A template that boots, where workers are forked from one."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._spawns = program.start_method == "spawn" or program.boot.target.script is not None
        self._early: EarlyTemplate | None = None
        if not self._spawns:
            try:
                self._early = EarlyTemplate(program.boot, program.env)
            except OSError:
                self._early = None  # the first worker will say so

    def open(self, loop: Loop, watcher: Watcher, arrays: int | None) -> Crew:
        """Watch the template."""
        from okanjo_conductor.clusters._processes import ProcessCrew

        early, self._early = self._early, None
        return ProcessCrew(
            loop, watcher, self._program, spawns=self._spawns, arrays=arrays, early=early
        )

    def abandon(self) -> None:
        """End the template: nobody will want it."""
        if self._early is not None:
            self._early.abandon()
