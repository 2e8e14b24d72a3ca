"""Nothing of the tests is left behind."""

from __future__ import annotations

import pytest

from okanjo_conductor.testing.fixtures import no_leaks

__all__ = ["no_leaks"]


@pytest.fixture(autouse=True)
def nothing_is_left(no_leaks):
    pass
