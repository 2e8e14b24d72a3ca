"""Writing to standard output and standard error while a run goes on.

Results go to standard output, everything else to standard error: at once and whole, so that whoever
reads has every result as soon as it is there. Where a live view stands at the bottom of the same
terminal, the view is given the text, and puts it above.
"""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 1 << 18


class Output:
    """One of the two streams, by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_terminal = os.isatty(descriptor)

    def write(self, data: bytes) -> None:
        """Write all of this.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        view = self._live_view() if self._is_terminal else None
        if view is not None:
            view.write(data.decode("utf-8", "replace"))
            return
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody who shares it has made it so
                select.select([], [self._descriptor], [])

    def write_line(self, text: str) -> None:
        """Write a line of text."""
        self.write(encoded(text) + b"\n")

    def copy(self, path: str) -> int:
        """Write what a file holds; return how many bytes. No file is nothing."""
        size = 0
        for block in _blocks(path):
            self.write(block)
            size += len(block)
        return size

    def _live_view(self) -> TextIO | None:
        """Return what stands in for the streams of this terminal; None: nothing does."""
        stream = sys.stderr
        if stream is None or stream is sys.__stderr__:
            return None
        there, here = os.fstat(stream.fileno()), os.fstat(self._descriptor)
        return stream if os.path.samestat(there, here) else None


def encoded(text: str) -> bytes:
    """Encode a text; bytes that were none come out as they went in."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a character beyond the first 65,536
        return text.encode("utf-8", "backslashreplace")


def _blocks(path: str) -> Iterator[bytes]:
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return
    with file:
        while block := file.read(_BLOCK):
            yield block


def as_json(value: object) -> str:
    """Write a value as JSON on one line, as sinks do; what these refuse, by the nearest form."""
    from okanjo_conductor.sinks._rows import json_text

    try:
        return json_text(value, _nearest)
    except (TypeError, ValueError, RecursionError):  # keys that are no text; a circle
        fields: dict[Any, Any] = value if isinstance(value, dict) else {}
        if not fields or not all(isinstance(name, str) for name in fields):
            return json_text(repr(value))
        return "{" + ", ".join(f"{json_text(n)}: {as_json(v)}" for n, v in fields.items()) + "}"


def _nearest(value: object) -> object:
    """Find something that JSON has a form for."""
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "backslashreplace")
    return repr(value)
