"""Fixtures: named moments, and the check that nothing is left behind."""

from __future__ import annotations

import os

import pytest

from guards import no_leaks, nothing_is_left, own_loop

from .moments import Moment

__all__ = ["moment", "no_leaks", "nothing_is_left", "own_loop"]


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
