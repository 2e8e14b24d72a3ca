"""Log records of a worker: they travel to the logging of its conductor.

`logging` takes as long to load as the rest of a worker process. So it is not loaded here; when a
job does, or the module of the worker, the handler is installed then.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # see _plain
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from okanjo_conductor._runtime import Runtime


def log() -> logging.Logger:
    """Return the logger of the worker side."""
    import logging

    return logging.getLogger("okanjo_conductor.worker")


def install(runtime: Runtime, level: int) -> None:
    """Send the records of this process through a runtime, from when `logging` is loaded."""

    def attach() -> None:
        import logging

        root = logging.getLogger()
        root.addHandler(_handler(runtime))
        root.setLevel(level)

    if "logging" in sys.modules:
        attach()
    else:
        sys.meta_path.insert(0, _Finder("logging", attach))


def _handler(runtime: Runtime) -> logging.Handler:
    import logging

    to_stderr = logging.lastResort or logging.StreamHandler()

    class LinkHandler(logging.Handler):
        """Sends log records over the job link; from a fork, prints them on the worker's stderr."""

        def emit(self, record: logging.LogRecord) -> None:
            if runtime.is_fork:
                to_stderr.emit(record)
                return
            try:
                record.message = record.msg = record.getMessage()
                record.args = None
                if record.exc_info:
                    record.exc_text = logging.Formatter().formatException(record.exc_info)
                    record.exc_info = None
                runtime.send_log(record)
            except Exception:
                self.handleError(record)

    return LinkHandler()


class _Finder:
    """Finds one module as the other finders do, once, and has something done when it is loaded."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name = name
        self._then = then

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module."""
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                loader: Any = _Loader(spec.loader, self._then)
                spec.loader = loader
                return spec
        return None


class _Loader:
    """Loads as another loader does, and does one thing more."""

    def __init__(self, loader: Any, then: Callable[[], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Make the module."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then()
