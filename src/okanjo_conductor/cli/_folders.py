r"""Where the output of jobs is kept: ``--results DIR`` in the layout of GNU parallel.

    DIR/1/<input>/stdout          and beside it stderr and seq
    DIR/1/<input>/2/<input>/…     with several inputs
    DIR/<field>/<value>/…         with rows

A ``/`` in an input becomes ``\_``, a backslash ``\\``, a tab ``\t``. A job whose input makes no
file name has ``DIR/seq/<number>``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from okanjo_conductor.cli._placeholders import inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

SEQ = "seq"
_LONGEST = 250
"""Bytes of a file name that every file system takes."""
_ESCAPES = str.maketrans({"/": "\\_", "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\0": "\\0"})


def folder_for(root: str, job: Any, seq: int) -> str:
    """Return the folder for the output of a job."""
    parts = list(_parts(job))
    if not all(0 < len(os.fsencode(part)) <= _LONGEST for part in parts):
        parts = [SEQ, str(seq)]
    return os.path.join(root, *parts)


def _parts(job: Any) -> Iterator[str]:
    for name, value in inputs(job):
        yield _escaped(name)
        yield _escaped(value)


def _escaped(text: str) -> str:
    escaped = text.translate(_ESCAPES)
    return "\\." + escaped[1:] if escaped in (".", "..") else escaped
