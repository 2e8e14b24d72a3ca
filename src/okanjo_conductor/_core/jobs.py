"""A job as the core sees it: an identity, and things it carries without looking at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from okanjo_conductor._types import JobId, Key


@dataclass(slots=True, eq=False)
class Job:
    """An accepted job. Never changed after it was made."""

    id: JobId
    key: Key
    payload: Any
    wire: Any
    """The payload, ready to travel: made once, sent again with each hand-out."""
    timeout: float | None = None
    """Seconds that an attempt may take; None: no limit."""
