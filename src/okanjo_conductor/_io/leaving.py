"""How a worker ends, and its process."""

from __future__ import annotations

import atexit
import os
import sys
import time
from contextlib import suppress
from threading import Thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_PATIENCE = 10.0
"""Seconds that exit handlers may take. One that waits for a process that never ends would otherwise
keep the run from ending."""


class WorkerLeft(BaseException):
    """A worker that has no process of its own ends. Not an `Exception`: no job may catch it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def leave_process(code: int) -> NoReturn:
    """End this process: run exit handlers, flush the streams, wait for no thread."""
    with suppress(RuntimeError):  # no thread can be started
        Thread(target=_leave_later, args=(code,), daemon=True).start()
    with suppress(Exception):
        _end_process_pools()
    with suppress(Exception):
        atexit._run_exitfuncs()
    with suppress(Exception):
        _end_resource_tracker()
    _flush()
    os._exit(code)


def leave_fork(error: BaseException | None) -> NoReturn:
    """End a process that a job has forked and that came back into our code; say so.

    Without exit handlers: they are the worker's, and would end what is the worker's.
    """
    code, text = 1, ""
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        import traceback  # rarely needed

        text = "".join(traceback.format_exception(error))
    else:
        text = (
            f"process {os.getpid()}, forked by a job, returned from process_job: what it returned "
            "is lost. Let it end with os._exit()\n"
        )
    with suppress(Exception):
        sys.stderr.write(text)
    _flush()
    os._exit(code)


def _leave_later(code: int) -> None:
    time.sleep(_PATIENCE)
    text = f"the exit handlers of this worker have not ended within {_PATIENCE} s; it leaves\n"
    with suppress(OSError):
        os.write(2, text.encode())
    os._exit(code)


def _end_process_pools() -> None:
    """Let executors that nobody has shut down end their processes, as the interpreter would.

    Else multiprocessing's exit handler waits for processes that wait for work.
    """
    module: Any = sys.modules.get("concurrent.futures.process")
    if module is not None:
        module._python_exit()


def _end_resource_tracker() -> None:
    """Let multiprocessing clean up what was not: its process is killed with our group."""
    module: Any = sys.modules.get("multiprocessing.resource_tracker")
    if module is not None:
        module._resource_tracker._stop()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
