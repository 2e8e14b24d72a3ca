"""NumPy arrays in shared memory: one copy for all workers of a run, which nobody can change.

All arrays lie in one piece of memory without a name, made when the run begins. Its descriptor
travels to each worker with its links, so it is gone when the last of them and the conductor are,
whatever became of them; there is nothing in ``/dev/shm`` to be left behind, and no tracker that
would take it away when one worker dies. On Linux it is sealed.
"""

from __future__ import annotations

import mmap
import os
import sys

from okanjo_conductor._io.descriptors import make_nameless, write_at
from okanjo_conductor._plain import Frozen
from okanjo_conductor.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_ALIGNMENT = 64
"""Bytes: a cache line, and what the widest vector registers want."""
_maps: dict[int, mmap.mmap] = {}
"""This process's map of a descriptor."""


def forget(descriptor: int) -> None:
    """Let go of the map of a descriptor that is about to be closed: its number may be reused."""
    _maps.pop(descriptor, None)


class Layout(Frozen):
    """Where an array lies, and how it is read."""

    offset: int
    shape: tuple[int, ...]
    dtype: Any
    order: str
    """``"C"`` or ``"F"``."""

    def view(self, descriptor: int) -> Any:
        """Return the array itself, read-only."""
        import numpy as np

        shared = _maps.get(descriptor)
        if shared is None:
            # Private, because old kernels refuse a shared map of what is sealed, even to read. As
            # nobody can write to it, its pages are shared all the same.
            shared = mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
            _maps[descriptor] = shared
        order: Any = self.order
        return np.ndarray(self.shape, self.dtype, shared, self.offset, order=order)


class Arena:
    """The arrays of one run.

    Raises:
        ConfigurationError: an array holds objects, or there is no room.
    """

    def __init__(self, arrays: dict[str, Any]) -> None:
        self._arrays = arrays
        """As they were given, by name."""
        self._layouts: dict[str, Layout] = {}
        size = 0
        for name, array in arrays.items():
            _check(name, array)
            offset = -(-size // _ALIGNMENT) * _ALIGNMENT
            order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
            self._layouts[name] = Layout(offset, array.shape, array.dtype, order)
            size = offset + array.nbytes
        self.descriptor = _make(max(size, 1))
        try:
            for name, array in arrays.items():
                _write(self.descriptor, self._layouts[name], array)
            _seal(self.descriptor)
        except OSError as error:
            self.close()
            raise _no_room(size, error) from error

    def layout_of(self, name: str, lookup: Any) -> Layout | None:
        """Find where a lookup lies, if it is one of these arrays."""
        return self._layouts[name] if lookup is self._arrays.get(name, _NOBODY) else None

    def close(self) -> None:
        """Let go of it; it is gone when the workers have done so, too."""
        os.close(self.descriptor)


_NOBODY = object()


def place(lookups: Mapping[str, Any]) -> Arena | None:
    """Put the arrays among these lookups into shared memory, if there are any.

    Raises:
        ConfigurationError: see `Arena`.
    """
    numpy = sys.modules.get("numpy")  # who has an array has loaded it
    if numpy is None:
        return None
    # Other subclasses are more than their elements: a mask, a unit.
    kinds = numpy.ndarray, numpy.memmap
    arrays = {name: lookup for name, lookup in lookups.items() if type(lookup) in kinds}
    return Arena(arrays) if arrays else None


def _check(name: str, array: Any) -> None:
    if array.dtype.hasobject:
        message = (
            f"lookups[{name!r}] is an array of dtype {array.dtype}: Python objects cannot be "
            "shared between processes. Use numbers or fixed-width text (dtype 'U20' or 'S20'), "
            "or give array.tolist(), which workers reach by messages"
        )
        raise ConfigurationError(message)


def _make(size: int) -> int:
    try:
        descriptor = make_nameless("okanjo-conductor-arrays", sealable=True)
    except OSError as error:
        raise _no_room(size, error) from error
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        os.close(descriptor)
        raise _no_room(size, error) from error
    return descriptor


def _no_room(size: int, error: OSError) -> ConfigurationError:
    message = (
        f"the arrays among the lookups, {size:,} bytes, cannot be placed in shared memory: "
        f"{error}. Raise the limit on the size of files (ulimit -f), or give fewer of them"
    )
    return ConfigurationError(message)


def _write(descriptor: int, layout: Layout, array: Any) -> None:
    """Write an array by system calls: a full disk or memory is then an error, and no signal."""
    if not array.nbytes:
        return
    import numpy as np

    upright = array.T if layout.order == "F" else np.ascontiguousarray(array)
    octets: Any = upright.reshape(-1).view(np.uint8)
    write_at(descriptor, memoryview(octets), layout.offset)


def _seal(descriptor: int) -> None:
    """Have the kernel refuse every change, also by who opens the memory anew."""
    import fcntl

    if hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS"):
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
