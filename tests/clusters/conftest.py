"""Nothing is left behind, here either."""

from __future__ import annotations

import copyreg

import pytest

from guards import no_leaks, nothing_is_left, own_loop

__all__ = ["no_leaks", "nothing_is_left", "own_loop"]
_REDUCERS = dict(copyreg.dispatch_table)


def pytest_collection_finish() -> None:
    """Undo what importing Dask does to the pickling of all exceptions in this process."""
    _restore_reducers()


@pytest.fixture(autouse=True)
def own_reducers():
    """Let other tests pickle exceptions as any program does."""
    yield
    _restore_reducers()


def _restore_reducers() -> None:
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(_REDUCERS)
