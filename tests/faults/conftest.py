"""Whatever is done to them, nothing of the tests is left behind."""

from __future__ import annotations

from leaks import event_loops, nothing_is_left

__all__ = ["event_loops", "nothing_is_left"]
