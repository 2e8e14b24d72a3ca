"""What every engine does that is asked which nodes there are: a thread connects, and looks."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from okanjo_conductor._io.loops import call_soon
from okanjo_conductor.clusters._agent import BEAT

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor.clusters._remote import Events, Node

_LOOK = 0.5
"""Seconds between looks at which nodes there are."""


class WatchingEngine:
    """The part of an `Engine` that finds nodes, and lets go of everything at the end.

    Args:
        name: of the engine, for its threads.
        most: how many nodes are used; None: all.
    """

    def __init__(self, name: str, most: int | None) -> None:
        self._name = name
        self._most = most
        self._known: tuple[list[Node], str] | None = None
        self._rooms: dict[str, int] = {}
        """By name of a node that is used, how many workers it has room for."""
        self._stop = threading.Event()

    def open(self, loop: Loop, events: Events) -> None:
        """Connect, and look which nodes there are, in a thread."""
        self._loop, self._events = loop, events
        self._thread = threading.Thread(
            target=self._look, name=f"okanjo-conductor-{self._name}", daemon=True
        )
        self._thread.start()

    def beat(self, agent_id: int) -> None:
        """Call the agent with nothing."""
        self.put(agent_id, BEAT)

    def close(self, then: Callable[[], None]) -> None:
        """Look no more, and let go of everything."""
        name = f"okanjo-conductor-{self._name}-end"
        threading.Thread(target=self._close, args=(then,), name=name).start()

    # What an engine does in its own way

    def put(self, agent_id: int, packet: bytes) -> None:
        """Call the agent."""
        raise NotImplementedError

    def _connect(self) -> None:
        """Connect with the cluster; called once, in the thread."""
        raise NotImplementedError

    def _why_not(self, error: Exception) -> str:
        """Say why that was impossible, and what to do."""
        raise NotImplementedError

    def _find(self) -> tuple[list[Node], str]:
        """Return the nodes that can be used, and what was asked for beside what there is."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """End the agents; disconnect, if we have connected. Called when the thread has ended."""
        raise NotImplementedError

    # In threads

    def _look(self) -> None:
        try:
            self._connect()
        except Exception as error:
            call_soon(self._loop, self._events.on_failed, self._why_not(error))
            return
        while True:
            with suppress(Exception):  # its head may be away for a moment
                self._tell_nodes()
            if self._stop.wait(_LOOK):
                return

    def _tell_nodes(self) -> None:
        found, facts = self._find()
        # Those in use first, so that a node that joins does not take the place of one of them.
        found.sort(key=lambda node: (node.name not in self._rooms, node.name))
        found = found[: self._most]
        if (found, facts) != self._known:
            self._known = found, facts
            self._rooms = {node.name: node.room for node in found}
            call_soon(self._loop, self._events.on_nodes, found, facts)

    def _close(self, then: Callable[[], None]) -> None:
        self._stop.set()
        self._thread.join()
        self._let_go()
        call_soon(self._loop, then)
