"""The shared memory of one worker: who may start which ordinal, and its last words.

    CLAIM     written by the worker: the last ordinal it has started
    FIRST, DECLINED  written by the worker: the last run of ordinals it skipped
    REGISTERED  written by the worker: whether the conductor's barrier acts on it
    RUNNING   written by a worker that executes several jobs at a time: whose code it is in, or 0
    PARALLEL  written by a worker that executes several jobs at a time: how many at most
    DUMPS     written by the worker: 1 when a SIGUSR1 has it write its stack; before that, it kills
    LOW, HIGH written by the conductor: ordinals in (LOW, HIGH] are revoked
    EXPIRED   written by the conductor: the ordinal that has passed its time limit
    LIMIT     written by the conductor: that limit, in nanoseconds
    KEPT      written by the conductor: 0, or 1 + how many large outcomes are where they outlive it
    HEAD, SKIPPED, TAIL   of the outcome log; see `outcome_log`
    HATCH, ASKED, ATTENDED, ANSWERED   of the hatch; see there

Behind the cells lie the *hatch*, the ring of the *outcome log*, and the *black box*: what
``faulthandler`` writes about the worker's threads, at a fatal signal or when asked. The last two
need no reader, nor the worker's life, to be kept.

Aligned 8-byte stores and loads are atomic on every platform CPython runs on. The one race is a
worker storing CLAIM and then loading LOW and HIGH while the conductor stores those and then loads
CLAIM: each side's store must be visible before its load. ``membarrier(2)`` issued by the conductor
does that for both sides (a worker registers when it has been at work for a moment, because that
takes it as long as a small run), so the worker pays nothing per job. Where it is missing, or not
registered for yet, the conductor waits a moment before it loads CLAIM; store buffers drain in well
under a microsecond. The protocol and a torture test of it were prototyped before this was written.
"""

from __future__ import annotations

import mmap
import os
import sys
from functools import cache

from okanjo_conductor._io.descriptors import make_nameless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from okanjo_conductor._types import Ordinal

CLAIM: Final = 0
DECLINED: Final = 1
REGISTERED: Final = 4
LOW: Final = 16
"""On another cache line than what the worker writes."""
HIGH: Final = 17
EXPIRED: Final = 18
LIMIT: Final = 19
KEPT: Final = 21
HEAD: Final = 2
SKIPPED: Final = 3
FIRST: Final = 5
RUNNING: Final = 6
DUMPS: Final = 7
PARALLEL: Final = 8
HATCH: Final = 9
ASKED: Final = 10
TAIL: Final = 20
ATTENDED: Final = 22
ANSWERED: Final = 23
_CELLS = 512
"""Bytes of cells."""
_RING = 4096
"""Where the hatch ends and the ring begins, where there is room for a hatch."""
_BOX = 1 << 20
"""Where the ring ends and the black box begins."""
SIZE: Final = _BOX + (1 << 18)
"""Room for the stacks of about a hundred dumps; memory is used when it is written to."""
_SMALLEST = 4096
"""Of everything, where files may not be larger: a small ring, neither hatch nor black box."""

_MEMBARRIER_NUMBERS = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365}
"""The system call's number, from the kernel's tables; libc has no wrapper."""
_QUERY, _GLOBAL_EXPEDITED, _REGISTER_GLOBAL_EXPEDITED = 0, 2, 4


def make_page(path: str | None = None) -> int:
    """Make the memory of one worker; return its descriptor, which stands at the black box.

    Args:
        path: where it is to be a file, which outlives this process; None: it has no name.

    Raises:
        OSError: there is no room for it, or there are no descriptors left.
    """
    if path is None:
        descriptor = make_nameless("okanjo-conductor-cells")
    else:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if path is None:
            _enlarge(descriptor)
        else:  # who writes where a full disk has no room is killed by SIGBUS: take it all now
            os.posix_fallocate(descriptor, 0, SIZE)
        os.lseek(descriptor, _BOX, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _enlarge(descriptor: int) -> None:
    try:
        os.ftruncate(descriptor, SIZE)
    except OSError:
        os.ftruncate(descriptor, _SMALLEST)


def map_page(descriptor: int) -> memoryview[int]:
    """Map the memory of a worker; the mapping outlives the descriptor and ends with the view."""
    return memoryview(mmap.mmap(descriptor, 0)).cast("Q")


def ring_of(cells: memoryview[int]) -> memoryview[int]:
    """The bytes of the outcome log."""
    size = cells.nbytes
    return cells.cast("B")[_RING:_BOX] if size > _SMALLEST else cells.cast("B")[_CELLS:size]


def hatch_of(cells: memoryview[int]) -> memoryview[int] | None:
    """The bytes of the hatch; None: there is no room for it."""
    return cells.cast("B")[_CELLS:_RING] if cells.nbytes > _SMALLEST else None


def black_box(cells: memoryview[int], begin: int = 0) -> str:
    """Read what the black box holds from the `begin`th byte on."""
    box = cells.cast("B")[_BOX + begin :]
    with box:
        if not box or not box[0]:  # memory that is read is there from then on, which takes a while
            return ""
        return bytes(box).partition(b"\0")[0].decode("ascii", "replace")


def revoke(cells: memoryview[int], last: int) -> None:
    """Revoke everything after the claimed ordinal, up to `last`, the last one sent.

    Follow it with `barrier()`, or a wait, and then ask `last_kept()`.
    """
    claimed = cells[CLAIM]
    if claimed >= last:
        return
    is_skipping = cells[LOW] < claimed <= cells[HIGH]
    if not is_skipping:
        cells[LOW] = claimed
    cells[HIGH] = last


def last_kept(cells: memoryview[int]) -> Ordinal:
    """The last ordinal that the worker may still execute after `revoke`.

    It is the one in the race: the worker will execute it or decline it. All later ones are free.
    """
    return max(cells[LOW], cells[CLAIM])  # type: ignore[return-value]  # an ordinal is an int


def decline(cells: memoryview[int], ordinal: int) -> None:
    """Take note, as the worker, that it skips an ordinal.

    Before it skips one that does not follow the last, it has said so of all earlier ones.
    """
    if cells[DECLINED] != ordinal - 1 or not cells[FIRST]:
        cells[FIRST] = ordinal
    cells[DECLINED] = ordinal


def last_started(cells: memoryview[int]) -> Ordinal | None:
    """The ordinal that a worker has started last and not skipped, or None."""
    claimed = cells[CLAIM]
    if claimed == cells[DECLINED]:
        claimed = max(cells[FIRST], 1) - 1
    return claimed or None  # type: ignore[return-value]  # an ordinal is an int


def last_skipped(cells: memoryview[int]) -> tuple[Ordinal, Ordinal] | None:
    """The last run of ordinals that a dead worker has skipped: it may not have said so."""
    first, last = cells[FIRST], cells[DECLINED]
    return (first, last) if 0 < first <= last else None  # type: ignore[return-value]


def running(cells: memoryview[int]) -> Ordinal | None:
    """Whose code a worker is in, or None if it is in nobody's or does not say."""
    return cells[RUNNING] or None  # type: ignore[return-value]


@cache
def membarrier() -> Callable[[], None] | None:
    """Find the conductor's barrier, or None where the platform has none."""
    call = _membarrier_call()
    if call is None or call(_QUERY) < 0 or not call(_QUERY) & _GLOBAL_EXPEDITED:
        return None
    return lambda: _require(call(_GLOBAL_EXPEDITED))


def barrier_for(cells: memoryview[int]) -> Callable[[], None] | None:
    """Find the barrier that acts on this worker, or None."""
    return membarrier() if cells[REGISTERED] else None


def register_for_membarrier(cells: memoryview[int]) -> None:
    """Let the conductor's barrier act on this process. Called once by each worker."""
    call = _membarrier_call()
    if call is not None and call(_REGISTER_GLOBAL_EXPEDITED) == 0:
        cells[REGISTERED] = 1


def _membarrier_call() -> Callable[[int], int] | None:
    number = _MEMBARRIER_NUMBERS.get(os.uname().machine)
    if not sys.platform.startswith("linux") or number is None:
        return None
    import ctypes  # takes 2 ms to load

    syscall = ctypes.CDLL(None, use_errno=True).syscall
    return lambda command: int(syscall(number, command, 0, 0))


def _require(result: int) -> None:
    if result < 0:
        import ctypes

        raise OSError(ctypes.get_errno(), "membarrier(GLOBAL_EXPEDITED) failed")
