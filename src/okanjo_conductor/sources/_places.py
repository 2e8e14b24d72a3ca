"""A source that is a pattern of file names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from okanjo_conductor.sources import _opening as opening
from okanjo_conductor.sources._base import KeyOf, Source

if TYPE_CHECKING:
    from collections.abc import Iterator


class Glob(Source):
    """One job per file that matches a pattern: its path, as the pattern begins.

    ``**`` stands for any number of folders. Folders themselves are no jobs. The order is that of
    the file system.

    Args:
        pattern: such as ``"photos/**/*.jpg"``, or a URL.
        key: a function of the path; None: the path itself.
    """

    def __init__(self, pattern: str | os.PathLike[str], *, key: KeyOf | None = None) -> None:
        super().__init__(pattern, key=key)

    def __iter__(self) -> Iterator[str]:
        return self._remote() if opening.is_url(self.path) else self._local()

    def _local(self) -> Iterator[str]:
        import glob  # only who uses it

        for path in glob.iglob(self.path, recursive=True):
            if os.path.isfile(path):
                yield path

    def _remote(self) -> Iterator[str]:
        system, path = opening.filesystem(self.path)
        for name, entry in sorted(system.glob(path, detail=True).items()):
            if entry.get("type") != "directory":
                yield system.unstrip_protocol(name)
