"""``conductor completion SHELL``: what a shell needs to complete the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from okanjo_conductor.cli._errors import UsageError
from okanjo_conductor.cli._parser import build
from okanjo_conductor.cli._writing import Output

if TYPE_CHECKING:
    from argparse import Namespace

_FILES = ("jobs", "out", "joblog", "journal", "report", "target")
_FOLDERS = ("results",)


def run(options: Namespace) -> int:
    """Write the completion; return the exit code."""
    try:
        import shtab  # an extra
    except ImportError:
        message = "this needs shtab: pip install 'okanjo-conductor[cli]'"
        raise UsageError(message) from None
    whole, verbs = build()
    for parser in verbs.values():
        for action in parser._actions:
            kind = _kind_of(action.dest, shtab)
            if kind is not None:
                action.complete = kind  # type: ignore[attr-defined]  # it looks there
    Output(1).write_line(shtab.complete(whole, options.shell))
    return 0


def _kind_of(dest: str, shtab: Any) -> Any:
    if dest in _FILES:
        return shtab.FILE
    return shtab.DIRECTORY if dest in _FOLDERS else None
