"""What folders of tests that start processes import into their ``conftest``."""

from __future__ import annotations

import pytest

from okanjo_conductor._io import loops
from okanjo_conductor.testing.fixtures import no_leaks

__all__ = ["no_leaks", "nothing_is_left", "own_loop"]


@pytest.fixture(autouse=True)
def own_loop(request, monkeypatch):
    """Let runs that block use the light loop, as in a script; pytest has asyncio loaded."""
    if not request.node.get_closest_marker("asyncio_loop"):
        monkeypatch.setattr(loops, "is_asyncio_loaded", lambda: False)


@pytest.fixture(autouse=True)
def nothing_is_left(no_leaks):
    pass
