"""Workers that make files."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

from okanjo_conductor import AsyncConductorWorker, ConductorWorker, current_job


def act(job, folder, name):
    """Do to an output what the job asks for."""
    path = Path(job.output(f"{folder}/{name}.txt"))
    assert job.output(f"{folder}/{name}.txt") == str(path)
    what = name.split("-", 1)[0]
    if what == "never":
        return name
    path.write_text(f"attempt {job.attempt}")
    if what == "bad":
        raise ValueError(name)
    if what == "killed" and job.attempt == 1:
        os.kill(os.getpid(), 9)
    if what == "always":
        os.kill(os.getpid(), 9)
    if what == "unpicklable":
        return threading.Lock()
    if what == "int":
        return 5
    return name


def work(payload):
    return act(current_job(), *payload)


class Maker(ConductorWorker):
    def process_job(self, payload):
        return act(self.job, *payload)


class AsyncMaker(AsyncConductorWorker):
    async def process_job(self, payload):
        await asyncio.sleep(0)
        found = act(self.job, *payload)
        await asyncio.sleep(0)
        return found


class Keeper(ConductorWorker):
    """Keeps what it knew of an earlier job."""

    kept = None

    def process_job(self, name):
        if Keeper.kept is None:
            Keeper.kept = self.job
            return None
        return Keeper.kept.output(name)
