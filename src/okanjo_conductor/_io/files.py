"""Small files of the kernel's. Without `pathlib`, which takes 3 ms to load."""

from __future__ import annotations


def text_of(path: str) -> str:
    """Read a file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path) as file:  # noqa: PTH123 - see above
        return file.read()
