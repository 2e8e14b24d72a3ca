"""The jobs of runs with a journal: each tells that it is executed."""

from __future__ import annotations

import os
import time
from pathlib import Path


def say(job):
    descriptor = os.open("executions", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{job}\n".encode())
    os.close(descriptor)


def tell(job):
    """Say that this is being executed, and go on until there is a file that says to end."""
    say(job)
    while not Path(f"end {job}").exists():
        time.sleep(0.01)
    return job


def grow(job):
    """Give a value that takes some room."""
    return f"{job}" * 10_000


def work(job):
    """Double a number; some numbers fail, and some kill their worker."""
    say(job)
    time.sleep(job % 5 / 1000)
    if job % 101 == 7:
        message = f"{job} is one of those"
        raise ValueError(message)
    if job % 301 == 11:
        os._exit(7)
    return {"double": 2 * job, "text": "x" * (job % 50)}
