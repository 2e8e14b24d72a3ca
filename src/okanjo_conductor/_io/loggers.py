"""The conductor's logger. `logging` is loaded when something is logged: it takes 5 ms."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


def log() -> logging.Logger:
    """Return the logger of the conductor's side."""
    import logging

    return logging.getLogger("okanjo_conductor.conductor")
