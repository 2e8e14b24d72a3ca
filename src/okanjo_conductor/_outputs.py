"""Files that a job makes: they appear under their names when the job is done, whole, or not at all.

`JobInfo.output` gives the path of a hidden file beside the final one. When ``process_job`` has
returned, and before its outcome is written, the worker renames it; when the attempt has failed, it
removes it. What an attempt has left whose worker was killed is removed by the next attempt of the
same job, when that asks for the same name: the job's key is part of the hidden name, and no job is
executed twice at a time.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MARK = ".part"
"""In the names of hidden files, before the extension: many programs go by that."""


class Outputs:
    """The files of one attempt.

    Args:
        key: of the job.
    """

    def __init__(self, key: Any) -> None:
        from hashlib import sha256  # only for jobs that make files

        self._label = sha256(repr(key).encode("utf-8", "backslashreplace")).hexdigest()[:12]
        self._paths: dict[str, str] = {}
        """Hidden path by final path."""

    def path(self, name: str) -> str:
        """Return the path to write to for a file that is to have this name; make its folder.

        Raises:
            OSError: the folder cannot be made.
        """
        final = os.path.abspath(name)  # noqa: PTH100 - `pathlib` takes 3 ms to load
        if final not in self._paths:
            os.makedirs(os.path.dirname(final), exist_ok=True)  # noqa: PTH103, PTH120 - as above
            self._remove_left_behind(final)
            unique = f"{os.getpid()}-{os.urandom(3).hex()}"
            start, extension = self._around(final)
            self._paths[final] = f"{start}{unique}{_MARK}{extension}"
        return self._paths[final]

    def _around(self, final: str) -> tuple[str, str]:
        """Return what hidden paths of this job begin with, for this file, and end with."""
        folder, base = os.path.split(final)
        stem, extension = os.path.splitext(base)  # noqa: PTH122 - as above
        return os.path.join(folder, f".{stem}.{self._label}."), extension  # noqa: PTH118 - as above

    def _remove_left_behind(self, final: str) -> None:
        start, extension = self._around(final)
        folder, begin = os.path.split(start)
        for name in os.listdir(folder):  # noqa: PTH208 - as above
            if name.startswith(begin) and name.endswith(f"{_MARK}{extension}"):
                _remove(os.path.join(folder, name))  # noqa: PTH118 - as above

    def keep(self) -> None:
        """Give all files their names.

        Raises:
            FileNotFoundError: one was not made; then none is kept.
            OSError: one cannot be renamed; it and those after it are not kept.
        """
        for final, hidden in self._paths.items():
            if not os.path.lexists(hidden):
                self.drop()
                message = "process_job has returned without making the file it took output() for"
                raise FileNotFoundError(errno.ENOENT, message, final)
        try:
            for final, hidden in self._paths.items():
                os.replace(hidden, final)  # noqa: PTH105 - as above
        except OSError:
            self.drop()
            raise

    def drop(self) -> None:
        """Remove what there is of them."""
        for hidden in self._paths.values():
            _remove(hidden)


def _remove(path: str) -> None:
    with suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114 - as above
            import shutil  # rarely needed

            shutil.rmtree(path)
        else:
            os.unlink(path)  # noqa: PTH108 - as above
