"""The conductor's logger. `logging` is loaded when something is logged: it takes 5 ms."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from typing import Any


def log() -> logging.Logger:
    """Return the logger of the conductor's side."""
    import logging

    return logging.getLogger("okanjo_conductor.conductor")


def pass_on(entry: dict[str, Any]) -> None:
    """Log what a worker has logged: the fields of its record."""
    import logging  # the worker has loaded it, too

    record = logging.makeLogRecord(entry)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
