"""Opening files to read: compressed ones by their extension, URLs through fsspec."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any

from okanjo_conductor.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

STDIN = "-"
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


def is_url(path: str) -> bool:
    """Whether this is for fsspec: ``s3://bucket/key``, ``simplecache::https://…``."""
    return "://" in path


def extension(path: str) -> str:
    """Return the extension that tells the format, in small letters: ``.csv`` of ``A.CSV.gz``."""
    stem, last = os.path.splitext(path.lower())
    return os.path.splitext(stem)[1] if last in COMPRESSED else last


def is_compressed(path: str) -> bool:
    """Whether the extension says so."""
    return path.lower().endswith(COMPRESSED)


def open_binary(path: str) -> IO[bytes]:
    """Open a file or URL to read what it holds, decompressed.

    Raises:
        SourceError: it cannot be opened.
        ConfigurationError: a package is missing for it.
    """
    decompress = _decompressor(path)
    raw = _opened(path)
    try:
        opened: IO[bytes] = raw if decompress is None else decompress(raw)
    except BaseException:
        raw.close()
        raise
    return opened


def _opened(path: str) -> Any:
    try:
        if path == STDIN:  # not `sys.stdin`, which Python closes at its end, whoever waits in it
            return open(0, "rb", closefd=False)
        if is_url(path):
            return _fsspec().open(path, "rb").open()
        return open(path, "rb")
    except ConfigurationError:
        raise  # a ValueError as well
    except (OSError, ValueError, ImportError) as error:  # fsspec: unknown protocol, missing driver
        raise SourceError(path, _why(error)) from error


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it."""
    fsspec = _fsspec()
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(url, _why(error)) from error
    return found


def _fsspec() -> Any:
    try:
        import fsspec  # an extra
    except ImportError:
        message = "URLs are read through fsspec: pip install 'okanjo-conductor[sources]'"
        raise ConfigurationError(message) from None
    return fsspec


def _decompressor(path: str) -> Callable[[IO[bytes]], Any] | None:
    last = os.path.splitext(path.lower())[1]
    if last == ".gz":
        import gzip

        return lambda raw: _Owned(gzip.GzipFile(fileobj=raw), raw)
    if last == ".bz2":
        import bz2

        return lambda raw: _Owned(bz2.BZ2File(raw), raw)
    if last == ".xz":
        import lzma

        return lambda raw: _Owned(lzma.LZMAFile(raw), raw)
    return _zstd() if last == ".zst" else None


def _zstd() -> Callable[[IO[bytes]], Any]:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # from 3.14 on
    except ImportError:
        message = "a .zst file needs Python 3.14 or newer: decompress it, or use .gz or .xz"
        raise ConfigurationError(message) from None
    return lambda raw: _Owned(zstd.ZstdFile(raw), raw)


class _Owned:
    """A decompressing file that closes the file beneath it too."""

    def __init__(self, file: Any, raw: IO[bytes]) -> None:
        self._file = file
        self._raw = raw

    def __iter__(self) -> Any:
        return iter(self._file)

    def read(self, size: int = -1) -> bytes:
        return bytes(self._file.read(size))

    def close(self) -> None:
        self._file.close()
        self._raw.close()


def _why(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):  # fsspec says its path, and nothing else
        return "there is no such file"
    return getattr(error, "strerror", None) or str(error)
