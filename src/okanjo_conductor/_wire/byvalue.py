"""Classes and functions of ``__main__``: sent by value, once per worker.

A script, notebook or REPL defines its classes in ``__main__``, a module that no other process can
import. Two things follow.

*The worker itself* (a class or function) travels as a cloudpickle unless its module can be
imported elsewhere: `is_importable` tells.

*Payloads* may hold instances of such classes. `MainPickler` pickles them by reference like any
other and notes which objects of ``__main__`` the pickle needs; the conductor sends each of those
once to each worker, which puts it into its own ``__main__``. It is slower than plain pickle, so
`mentions_main` first asks whether a pickle needs it at all.
"""

from __future__ import annotations

import io
import sys
from types import FunctionType

from okanjo_conductor._wire import pickling
from okanjo_conductor._wire.codec import Encoded, checked, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_MAIN = "__main__"
_MAIN_BYTES = _MAIN.encode()


def is_importable(obj: Any) -> bool:
    """Whether another process could find a class or function by its module and name."""
    module, path = getattr(obj, "__module__", None), getattr(obj, "__qualname__", "<nameless>")
    if module is None or module == _MAIN or "<" in path:  # <locals>, <lambda>
        return False
    if not has_spec(module):
        return False
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return found is obj


def mentions_main(blob: bytes | bytearray) -> bool:
    """Whether a pickle may refer to something in ``__main__``."""
    return _MAIN_BYTES in blob


def names_in_main(value: Any) -> set[str]:
    """Name what a pickle of `value` needs of ``__main__``, at the module's top level."""
    pickler = _MainPickler(io.BytesIO())
    pickler.dump(value)
    return pickler.names


def define(name: str) -> bytes:
    """Pickle one object of this process's ``__main__`` by value."""
    import cloudpickle  # only scripts need it

    return bytes(cloudpickle.dumps(getattr(sys.modules[_MAIN], name), protocol=5))


def encode_worker(worker: Any) -> bytes:
    """Pickle a worker class or function by value.

    A module that was loaded in a way no other process can repeat is taken along as well.
    """
    import cloudpickle  # only for workers that cannot be imported

    module = sys.modules.get(getattr(worker, "__module__", None) or "")
    is_stray = module is not None and module.__name__ != _MAIN and not has_spec(module.__name__)
    if is_stray:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(worker, protocol=5))
    finally:
        if is_stray:
            cloudpickle.unregister_pickle_by_value(module)


def has_spec(module: str) -> bool:
    """Whether a module of this name could be imported."""
    import importlib.util  # takes 3 ms to load

    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def encode_by_value(value: Any) -> Encoded:
    """Pickle a value, its classes included where pickle cannot refer to them by name.

    Raises:
        SerialisationError: it takes too much.
        Exception: whatever pickling this value raises.
    """
    try:
        return encode(value)
    except (pickling.PicklingError, AttributeError, TypeError):
        import cloudpickle  # rarely needed

        return checked(Encoded(bytes(cloudpickle.dumps(value, protocol=5)), []))


def reducers() -> Any:
    """Return a pickler that knows how `encode_by_value` takes things apart."""
    import cloudpickle  # rarely needed

    return cloudpickle.Pickler(io.BytesIO(), protocol=5)


def share_main(worker: Any) -> None:
    """Make what came along with a worker sent by value findable in this ``__main__``.

    The globals its code uses came with it, as did the classes it inherits from; instances of
    classes among them can then be pickled by reference, as on the conductor's side.
    """
    main = sys.modules[_MAIN].__dict__
    for name, obj in _came_with(worker):
        if isinstance(obj, type | FunctionType) and obj.__module__ == _MAIN:
            main.setdefault(name, obj)


def _came_with(worker: Any) -> Iterator[tuple[str, Any]]:
    owner = getattr(worker, "__self__", worker)  # a bound method brings its object along
    if isinstance(owner, FunctionType):
        yield owner.__name__, owner
        yield from owner.__globals__.items()
        return
    for kind in (owner if isinstance(owner, type) else type(owner)).__mro__:
        yield kind.__name__, kind
        for member in vars(kind).values():
            function = getattr(member, "__func__", member)  # inside static and class methods
            if isinstance(function, FunctionType):
                yield from function.__globals__.items()


class _MainPickler(pickling.Pickler):
    """Notes which objects of ``__main__`` a pickle refers to."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5, buffer_callback=lambda _: None)
        self.names: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | FunctionType) and obj.__module__ == _MAIN:
            self.names.add(obj.__qualname__.split(".", 1)[0])
        return NotImplemented
