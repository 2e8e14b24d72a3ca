"""Workers of runs with a journal."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np

from okanjo_conductor import AsyncConductorWorker, ConductorWorker, current_job, current_worker


def work(job):
    """Double it, or do what its name says."""
    if job == "bad":
        message = "it is bad"
        raise ValueError(message)
    if job == "deadly":
        os._exit(9)
    if job == "large":
        return np.arange(100_000)
    if job == "a class of a script":
        return type("Odd", (), {})()
    return job * 2


def pad(job):
    """Make bytes of the size that comes first in its name."""
    return bytes(int(job.partition("/")[0]))


def number_of(order):
    return order["number"] if isinstance(order, dict) else order.number


def count_attempts(job):
    """Fail while there is no file of that name; say which attempt this is."""
    if not Path(job).exists():
        message = f"attempt {current_job().attempt}"
        raise ValueError(message)
    return [end.cause.value for end in current_job().history]


def add_one_more(job):
    if job < 3:
        current_worker().add_job(job + 1)
    return job


class Slow(AsyncConductorWorker):
    async def process_job(self, job):
        await asyncio.sleep(0.001)
        return job


class Keeper(ConductorWorker):
    """Looks things up, so that other messages travel between outcomes."""

    def process_job(self, job):
        return self.lookup("names", job)
