"""Jobs as the core sees them: identities, and things they carry without being looked at.

There are millions of them, so they travel in columns (`Jobs`), of which runs are cut off and joined
without touching each; a `Job` is made where one is looked at by itself.
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from okanjo_conductor._types import JobId, Key


class Job:
    """One accepted job. Two of the same id are the same."""

    __slots__ = ("id", "key", "payload", "timeout", "wire")

    def __init__(
        self, number: JobId, key: Key, payload: Any, wire: Any, timeout: float | None = None
    ) -> None:
        self.id = number
        self.key = key
        self.payload = payload
        self.wire = wire
        """The payload, ready to travel: made once, sent again with each hand-out."""
        self.timeout = timeout
        """Seconds that an attempt may take; None: no limit."""

    def __repr__(self) -> str:
        return f"Job({self.id}, {self.key!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


class Jobs:
    """Jobs in columns of equal length. Never changed after they were made.

    A column may be any sequence. Where two are the same object, as ids and keys by default, or the
    payloads and what travels of them, they are cut once.
    """

    __slots__ = ("ids", "keys", "payloads", "timeouts", "wires")

    def __init__(
        self,
        ids: Sequence[JobId],
        keys: Sequence[Key],
        payloads: Sequence[Any],
        wires: Sequence[Any],
        timeouts: Sequence[float | None] | None = None,
    ) -> None:
        self.ids = ids
        self.keys = keys
        self.payloads = payloads
        self.wires = wires
        self.timeouts = timeouts
        """Seconds that an attempt may take; None: no limit, or no limits at all."""

    @classmethod
    def of(cls, jobs: Iterable[Job]) -> Jobs:
        """Put single jobs into columns."""
        made = list(jobs)
        return cls(
            [job.id for job in made],
            [job.key for job in made],
            [job.payload for job in made],
            [job.wire for job in made],
            [job.timeout for job in made],
        )

    def __repr__(self) -> str:
        return f"<Jobs {list(self.ids)}>"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Job:
        timeout = self.timeouts[index] if self.timeouts else None
        return Job(
            self.ids[index], self.keys[index], self.payloads[index], self.wires[index], timeout
        )

    def __iter__(self) -> Iterator[Job]:
        timeouts = self.timeouts or repeat(None)
        return map(Job, self.ids, self.keys, self.payloads, self.wires, timeouts)

    def cut(self, start: int, stop: int) -> Jobs:
        """Return the jobs from index `start` up to `stop`."""
        if start == 0 and stop == len(self.ids):
            return self
        ids, payloads = self.ids[start:stop], self.payloads[start:stop]
        return Jobs(
            ids,
            ids if self.keys is self.ids else self.keys[start:stop],
            payloads,
            payloads if self.wires is self.payloads else self.wires[start:stop],
            self.timeouts[start:stop] if self.timeouts else None,
        )


def joined(parts: Sequence[Jobs]) -> Jobs:
    """Return the jobs of all these, in order."""
    if len(parts) == 1:
        return parts[0]
    ids = list(chain.from_iterable(part.ids for part in parts))
    payloads = list(chain.from_iterable(part.payloads for part in parts))
    has_own_keys = any(part.keys is not part.ids for part in parts)
    has_own_wires = any(part.wires is not part.payloads for part in parts)
    has_timeouts = any(part.timeouts for part in parts)
    return Jobs(
        ids,
        list(chain.from_iterable(part.keys for part in parts)) if has_own_keys else ids,
        payloads,
        list(chain.from_iterable(part.wires for part in parts)) if has_own_wires else payloads,
        [job.timeout for part in parts for job in part] if has_timeouts else None,
    )
