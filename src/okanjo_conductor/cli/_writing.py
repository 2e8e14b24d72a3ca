"""Writing to standard output and standard error while a run goes on.

Results go to standard output, everything else to standard error. Where one of them is a terminal,
it is written through Python's stream, so that a live view can keep below; elsewhere at once and
whole, by its descriptor, so that whoever reads has every result as soon as it is there.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

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
        if self._is_terminal:
            stream = self._stream()
            stream.write(data.decode("utf-8", "replace"))
            stream.flush()
            return
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def write_line(self, text: str) -> None:
        """Write a line of text."""
        self.write(text.encode("utf-8", "surrogateescape") + b"\n")

    def copy(self, path: str) -> int:
        """Write what a file holds; return how many bytes. No file is nothing."""
        size = 0
        for block in _blocks(path):
            self.write(block)
            size += len(block)
        return size

    def _stream(self) -> TextIO:
        """Return Python's stream for it, which a live view may have replaced."""
        stream = sys.stdout if self._descriptor == 1 else sys.stderr
        assert stream is not None  # noqa: S101 - a terminal is there
        return stream


def _blocks(path: str) -> Iterator[bytes]:
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return
    with file:
        while block := file.read(_BLOCK):
            yield block


def as_json(value: object) -> str:
    """Write a value as JSON on one line; what JSON has no form for, by the nearest one."""
    import json

    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "), default=_plainer)


def _plainer(value: object) -> object:
    """Find something that JSON has a form for."""
    for method in ("tolist", "isoformat", "as_dict", "_asdict"):
        made = getattr(value, method, None)
        if callable(made):
            return made()
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, set | frozenset):
        return list(value)
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is not None:
        return {name: getattr(value, name) for name in fields}
    return str(value) if isinstance(value, os.PathLike) else repr(value)
