"""What lookups leave behind: nothing, neither processes nor descriptors nor temporary tables."""

from __future__ import annotations

import pytest

from guards import no_leaks, nothing_is_left, own_loop
from okanjo_conductor.lookups import _making

__all__ = ["no_leaks", "nothing_is_left", "own_loop"]


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Let temporary tables lie where no other test looks; none may be left."""
    parent = tmp_path / "temporary"
    parent.mkdir()
    monkeypatch.setattr(_making, "_SHARED_MEMORY", parent)
    yield parent
    assert not list(parent.iterdir())
