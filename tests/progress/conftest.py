"""Fixtures: named moments, and the check that nothing is left behind."""

from __future__ import annotations

from guards import no_leaks, nothing_is_left, own_loop
from system.conftest import moment

__all__ = ["moment", "no_leaks", "nothing_is_left", "own_loop"]
