"""Tables on their way to other machines: a whole one as bytes, and a copy of it there.

A copy is a temporary table, made by who serves the workers of a machine (`clusters/_agent`); if
that is killed, the next temporary table that is made there removes it. Workers are told of copies
by an environment variable, and use one where the table itself is out of their reach.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

from okanjo_conductor._io.descriptors import write_at
from okanjo_conductor._wire import pickling
from okanjo_conductor.lookups import _building, _making, _mapped
from okanjo_conductor.lookups._large import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor.lookups.table import LookupTable

_TREE = "data.mdb"


def name_of(lookup: LookupTable) -> str:
    """Name a table as a worker's copy of it knows it."""
    return _mapped.name_of(lookup._opened().mapped.key)


def packer(lookup: LookupTable) -> Callable[[], bytes]:
    """Make what packs a table, if it comes to that."""
    return partial(pack, lookup)


def pack(lookup: LookupTable) -> bytes:
    """Make bytes of a table as it is now.

    Raises:
        TableError: it is closed.
        OSError: there is no room for a copy of its tree.
    """
    mapped = lookup._opened().mapped
    with tempfile.TemporaryDirectory(prefix="okanjo-conductor-") as folder:
        mapped.copy_tree(folder)
        tree = Path(folder, _TREE).read_bytes()
    # After the tree, which names places in it: it only grows.
    return pickling.dumps((tree, Path(mapped.path, NAME).read_bytes()), 5)


def unpack(data: bytes) -> tuple[str, int]:
    """Make a copy of a table; return its path, and the descriptor that holds its lock.

    Raises:
        OSError: there is no room.
    """
    tree, large = pickling.loads(data)
    parent, prefix = _making.temporary()
    _making.sweep(parent, prefix)
    made, directory = _making.make_directory(parent, prefix)
    try:
        _building._make_cells(directory)
        for name, content in ((_TREE, tree), (NAME, large)):
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=directory)
            try:
                write_at(descriptor, content, 0)
            finally:
                os.close(descriptor)
        _making.complete(directory)
    except BaseException:
        drop(str(made), directory)
        raise
    return str(made), directory


def drop(path: str, directory: int) -> None:
    """Remove a copy. Who has it open keeps it."""
    _making.remove(Path(path))
    os.close(directory)


def told(copies: dict[str, str]) -> dict[str, str]:
    """Make the environment that tells workers of copies: by name, where they lie."""
    pairs = [f"{name}={path}" for name, path in copies.items()]
    return {_mapped.COPIES: os.pathsep.join(pairs)} if pairs else {}
