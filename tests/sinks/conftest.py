from __future__ import annotations

from guards import no_leaks, nothing_is_left, own_loop

__all__ = ["no_leaks", "nothing_is_left", "own_loop"]
