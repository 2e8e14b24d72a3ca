"""Values as they stand in the journal: plain, as JSON where they are JSON, else pickled.

A value comes back as it was given, types included: what JSON would change (a tuple, keys of a dict
that are no strings, NaN, instances of subclasses) is pickled. A pickle that refers to a class or
function of ``__main__`` is refused: in the next program that reads the journal it would find
nothing there.

    kind            stored
    NULL            the value itself: int of 64 bits, float, str, None
    json            JSON text
    pickle          a pickle
    json-file, pickle-file
                    the name of a file beside the journal that holds these: what is larger than a
                    limit
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from okanjo_conductor._wire import pickling
from okanjo_conductor._wire.byvalue import mentions_main
from okanjo_conductor._wire.failures import said
from okanjo_conductor.errors import JournalError, SerialisationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    Stored = int | float | str | bytes | None

SPILL_OVER: Final = 1 << 20
"""Bytes from which a value becomes a file of its own."""
FILES: Final = ("json-file", "pickle-file")
_LEAST, _GREATEST = -(1 << 63), (1 << 63) - 1
_PROTOCOL = 5
_SCALARS = frozenset({int, float, str, type(None)})
_LEAVES = frozenset({int, float, str, bool, type(None)})
_PARTS = _LEAVES | {list, dict}
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Values:
    """Turns values into what is stored, and back.

    Args:
        folder: where large ones go; it is made when there is one.
        spill_over: bytes from which a value is large.
        is_durable: whether a file must be on the disk before its name is noted.
    """

    def __init__(
        self, folder: str, spill_over: int = SPILL_OVER, *, is_durable: bool = False
    ) -> None:
        self.folder = folder
        self._spill_over = spill_over
        self._is_durable = is_durable

    def encode(self, value: Any) -> tuple[str | None, Stored]:
        """Return a value's kind and what is stored of it.

        Raises:
            SerialisationError: it cannot be stored.
            OSError: it is large, and its file could not be written.
        """
        if _is_scalar(value) and not (type(value) is str and len(value) * 4 > self._spill_over):
            return None, value
        text = json_of(value)
        if text is not None:
            data = text.encode()
            return self._spilled("json", data) if len(data) > self._spill_over else ("json", text)
        data = _pickle_of(value)
        return self._spilled("pickle", data) if len(data) > self._spill_over else ("pickle", data)

    def are_plain(self, values: Sequence[Any]) -> bool:
        """Whether all of these are stored as they are: found out without looking at each."""
        kinds = set(map(type, values))
        if kinds == {int}:
            return bool(min(values) >= _LEAST and max(values) <= _GREATEST)
        if kinds == {type(None)}:
            return True
        if kinds == {str}:
            joined = "".join(values)
            return joined.isascii() and len(joined) * 4 <= self._spill_over
        return kinds <= _SCALARS and str not in kinds and all(map(_is_scalar, values))

    def decode(self, kind: str | None, stored: Stored) -> Any:
        """Return the value of which this was stored.

        Raises:
            JournalError: its file is missing.
            Exception: whatever unpickling it raises.
        """
        if kind in FILES:
            stored, kind = self._read(str(stored)), kind.removesuffix("-file")
        if kind == "json":
            return json.loads(stored)  # type: ignore[arg-type]  # text or bytes
        return pickling.loads(stored) if kind == "pickle" else stored  # type: ignore[arg-type]

    def _spilled(self, kind: str, data: bytes) -> tuple[str, str]:
        """Write a large value into a file of its own, whole or not at all."""
        name = f"{os.urandom(10).hex()}.{kind}"
        path = os.path.join(self.folder, name)  # noqa: PTH118 - names are all that is needed
        os.makedirs(self.folder, exist_ok=True)  # noqa: PTH103 - as above
        try:
            with open(f"{path}.new", "wb") as file:  # noqa: PTH123 - as above
                file.write(data)
                if self._is_durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.rename(f"{path}.new", path)  # noqa: PTH104 - as above
            if self._is_durable:
                sync_folder(self.folder)
        except OSError:
            with suppress(OSError):
                os.unlink(f"{path}.new")  # noqa: PTH108 - as above
            raise
        return f"{kind}-file", name

    def _read(self, name: str) -> bytes:
        path = os.path.join(self.folder, name)  # noqa: PTH118 - as above
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - as above
                return file.read()
        except OSError as error:
            message = (
                f"the value in {path} cannot be read: {error.strerror}. Files there belong to "
                "the journal: move and copy them with it"
            )
            raise JournalError(message) from error


def sync_folder(path: str) -> None:
    """Have the names of new files in a folder survive a power cut."""
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_scalar(value: Any) -> bool:
    kind = type(value)
    if kind is int:
        return bool(_LEAST <= value <= _GREATEST)
    if kind is float:
        return value == value  # type: ignore[no-any-return]  # noqa: PLR0124 - NaN would become NULL
    return value is None or (kind is str and _is_encodable(value))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_of(value: Any) -> str | None:
    """Return the JSON of a value, or None if it would come back as something else."""
    try:
        if not _is_exact(value):
            return None
        text = _JSON(value)
        text.encode()
    except (ValueError, RecursionError):  # NaN, an int too long, a lone surrogate, a circle
        return None
    return text


def _is_exact(value: Any) -> bool:
    """Whether JSON has all the types in this; whole levels are looked at together."""
    level = [value]
    for _ in range(_DEEPEST):
        kinds = set(map(type, level))
        if kinds <= _LEAVES:
            return True
        if not kinds <= _PARTS:
            return False
        below: list[Any] = []
        for part in level:
            if type(part) is list:
                below.extend(part)
            elif type(part) is dict:
                if part and set(map(type, part)) != {str}:
                    return False
                below.extend(part.values())
        level = below
    return False


_DEEPEST = 200
"""Levels of lists in lists: far below what a decoder can take, and a circle has no end."""


def _pickle_of(value: Any) -> bytes:
    try:
        data = pickling.dumps(value, _PROTOCOL)
    except BaseException as error:  # a class may raise anything
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _refused(value, f"pickling it raised {said(error)}") from error
    if mentions_main(data):
        from okanjo_conductor._wire.byvalue import names_in_main

        if names := names_in_main(value):
            which = ", ".join(sorted(names))
            why = (
                f"it needs {which} of the script itself, where no other program that reads the "
                "journal would find it. Move it into a module of its own and import it"
            )
            raise _refused(value, why)
    return data


def _refused(value: Any, why: str) -> SerialisationError:
    message = f"the value, a {type(value).__qualname__}, cannot be kept in the journal: {why}"
    return SerialisationError(message)
