"""Fixtures: named moments, and the check that nothing is left behind."""

from __future__ import annotations

import os

import pytest

from okanjo_conductor._io import loops
from okanjo_conductor.testing.fixtures import no_leaks

from .moments import Moment

__all__ = ["moment", "no_leaks"]


@pytest.fixture(autouse=True)
def _own_loop(request, monkeypatch):
    """Let runs that block use the light loop, as in a script; pytest has asyncio loaded."""
    if not request.node.get_closest_marker("asyncio_loop"):
        monkeypatch.setattr(loops, "is_asyncio_loaded", lambda: False)


@pytest.fixture(autouse=True)
def nothing_is_left(no_leaks):
    pass


@pytest.fixture
def moment(tmp_path):
    """Make moments by name."""
    held = []

    def make(name: str) -> Moment:
        path = tmp_path / name
        os.mkfifo(path)
        held.append(os.open(path, os.O_RDWR))
        return Moment(path)

    yield make
    for descriptor in held:
        os.close(descriptor)
