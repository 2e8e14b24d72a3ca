"""Resuming: a journal is opened, seen to be of this program, and completed by what was left lying.

Everything here happens before the run, in its thread.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from okanjo_conductor._journaling import JournalPlan
from okanjo_conductor._types import JobState
from okanjo_conductor.journal._fingerprint import Fingerprint
from okanjo_conductor.journal._keys import text_of
from okanjo_conductor.journal._recovery import recover
from okanjo_conductor.journal._store import Standing, Store
from okanjo_conductor.sinks import as_sinks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from okanjo_conductor._core.policy import Policy
    from okanjo_conductor._options import Keeping

RETRY = "OKANJO_CONDUCTOR_RETRY"
"""Variable by which ``conductor retry`` tells a program which jobs it is to execute again: JSON,
the path of the journal, the texts of their keys, and whether a changed worker is accepted."""


def open_journal(
    keeping: Keeping, program: tuple[Any, dict[str, Any], Any], policy: Policy
) -> JournalPlan:
    """Open a journal for a run, and note in it that the run begins.

    Args:
        program: the worker, its options, and the function that makes keys.

    Raises:
        JournalError: it cannot be used: see its subclasses.
    """
    asked = _asked_by_retry(keeping.path)
    reruns = _choice_of(keeping.rerun) if asked is None else _among(asked["keys"])
    accept_changed = keeping.accept_changed or bool(asked and asked["accept_changed"])
    store = Store(keeping.path, durability=keeping.durability)
    try:
        fingerprint = Fingerprint.of(*program, keeping.version)
        store.check(fingerprint, accept_changed=accept_changed)
        recovered = recover(store, policy)
        store.begin()
        return JournalPlan(
            store, as_sinks(keeping.sink), keeping.duplicates, reruns, recovered.outcomes
        )
    except BaseException:
        store.close()
        raise


def _choice_of(rerun: Any) -> Callable[[Standing], bool]:
    """Make a function that says whether a job that has ended is executed again."""
    if rerun is None:
        return lambda _: False
    if rerun == "failed":
        return lambda standing: standing.state is not JobState.DONE
    if callable(rerun):
        return lambda standing: bool(rerun(standing.entry()))
    return _among(map(text_of, rerun))


def _among(keys: Iterable[str]) -> Callable[[Standing], bool]:
    """Make one that says yes to these keys."""
    texts = set(keys)
    return lambda standing: standing.key in texts


def _asked_by_retry(path: Any) -> dict[str, Any] | None:
    """Return what ``conductor retry`` asks for; None: nothing, of this journal."""
    asked: dict[str, Any] = json.loads(os.environ.get(RETRY, "{}"))
    is_meant = bool(asked) and asked["journal"] == os.path.abspath(path)  # noqa: PTH100 - it may be a str
    return asked if is_meant else None
