"""Nothing is left behind, here either."""

from __future__ import annotations

import builtins
import copyreg
import os

import pytest

from guards import no_leaks, nothing_is_left, own_loop

__all__ = ["no_leaks", "nothing_is_left", "own_loop"]
_REDUCERS = dict(copyreg.dispatch_table)
_PRINT = builtins.print
_BREAKPOINT = os.environ.get("PYTHONBREAKPOINT")


def pytest_collection_finish() -> None:
    """Undo what importing engines does to this process and those that it starts."""
    _restore()


@pytest.fixture(autouse=True)
def no_traces_of_engines():
    """Let other tests meet a process like any other."""
    yield
    _restore()


def _restore() -> None:
    """Dask changes how all exceptions are pickled, Ray what `breakpoint` and `print` are."""
    builtins.print = _PRINT
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(_REDUCERS)
    os.environ.pop("PYTHONBREAKPOINT", None)
    if _BREAKPOINT is not None:
        os.environ["PYTHONBREAKPOINT"] = _BREAKPOINT
