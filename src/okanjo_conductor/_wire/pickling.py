"""`pickle`, without the part of it that is written in Python.

That part loads `re` and more, 5 ms in every new process, and adds only what nobody here uses.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see _plain
if TYPE_CHECKING:
    from pickle import Pickler, PicklingError, dumps, loads
else:
    try:
        from _pickle import Pickler, PicklingError, dumps, loads
    except ImportError:  # pragma: no cover - not CPython
        from pickle import Pickler, PicklingError, dumps, loads

__all__ = ["Pickler", "PicklingError", "dumps", "loads"]
