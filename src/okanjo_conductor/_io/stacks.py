"""What ``faulthandler`` writes about a worker's threads, made readable."""

from __future__ import annotations

import re

_THREAD = re.compile(r"^(?:Current thread|Thread) 0x", re.MULTILINE)
_LOOP = re.compile(
    r'^  File ".*okanjo_conductor/'
    r'(?:_runtime\.py", line \d+ in _run_batch|'
    r'_async_runtime\.py", line \d+ in (?:_attempt|send))$',
    re.MULTILINE,
)
_OWN_THREAD = re.compile(
    r'^  File ".*okanjo_conductor/_basis\.py", .* in _report_repeatedly$', re.MULTILINE
)


def tidy(text: str) -> str:
    """Put the thread of the job first; leave out what is ours: its callers, our other thread."""
    starts = [match.start() for match in _THREAD.finditer(text)]
    if not starts:
        return text
    ends = [*starts[1:], len(text)]
    threads = [text[start:end].rstrip() for start, end in zip(starts, ends, strict=True)]
    shown = [_without_callers(thread) for thread in threads if not _OWN_THREAD.search(thread)]
    shown.sort(key=lambda thread: not thread.startswith("Current"))
    return "\n\n".join(filter(None, (text[: starts[0]].strip(), *shown)))


def _without_callers(thread: str) -> str:
    loop = _LOOP.search(thread)
    return thread if loop is None else thread[: loop.start()].rstrip()
