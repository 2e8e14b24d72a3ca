"""Async jobs under test. A job is a tuple: the name of a function here and its arguments."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from faults.moments import is_first, note
from okanjo_conductor import (
    LATER,
    AsyncConductorWorker,
    Message,
    command,
    current_job,
    current_worker,
)

_TURN = 0.002
_setting: ContextVar[Any] = ContextVar("setting", default=None)
_counts = {"arrived": 0, "in flight": 0, "most": 0}


async def perform(job: tuple[Any, ...]) -> Any:
    name, *arguments = job
    return await globals()[name](*arguments)


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def until_there(path: str) -> None:
    while not Path(path).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(_TURN)


async def together(count: int) -> None:
    """Wait until so many jobs of this process are here."""
    _counts["arrived"] += 1
    while _counts["arrived"] < count:  # noqa: ASYNC110 - no event is bound to two loops
        await asyncio.sleep(_TURN)


def is_first_attempt() -> bool:
    job = current_job()
    assert job is not None
    return job.attempt == 1


async def beside(count: int, then: str = "waits") -> str:
    """Wait for the others; then do something that meets them all, or wait to be met."""
    if is_first_attempt():
        await together(count)
        if then == "waits":
            await asyncio.Event().wait()
    if then == "exits":
        os._exit(3)
    if then == "blocks the loop":
        time.sleep(3600)  # noqa: ASYNC251 - that is what is tested
    if then == "swells":
        held = bytearray(400 << 20)
        await asyncio.Event().wait()
        return str(len(held))
    return "done"


async def make_bytes(count: int) -> bytes:
    await asyncio.sleep(0)
    return bytes(count)


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def refuse_to_be_cancelled() -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


async def tidy_up_when_cancelled(path: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        note(path, "tidied up")


async def noted(path: str, go: str, number: int) -> int:
    """Leave a trace, and wait for a file."""
    note(path, number)
    await until_there(go)
    return number


async def count_in_flight() -> int:
    """Return how many were in flight at most, this one included."""
    _counts["in flight"] += 1
    _counts["most"] = max(_counts["most"], _counts["in flight"])
    await asyncio.sleep(_TURN)
    _counts["in flight"] -= 1
    return _counts["most"]


async def misbehave(how: str) -> None:
    loop = asyncio.get_running_loop()
    if how == "sys.exit":
        sys.exit(3)
    if how == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if how == "cancels itself":
        this = asyncio.current_task()
        assert this is not None
        this.cancel()
        await asyncio.sleep(0)
    if how == "exits in a task":
        await asyncio.create_task(misbehave("sys.exit"))
    if how == "exits in a callback":
        loop.call_soon(sys.exit, 3)
        await asyncio.sleep(_TURN)
        raise ValueError(how)
    if how == "stops the loop":
        loop.stop()
        await asyncio.sleep(_TURN)
        raise ValueError(how)
    if how == "LATER":
        return LATER
    if how == "unpicklable":
        return loop
    return None


async def cancel_everything(count: int) -> None:
    """Cancel every task there is, also those that have not begun."""
    await together(count)
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0)


async def grow(depth: int) -> int:
    """Add two jobs, one step deeper, while others do the same."""
    for _ in range(2 if depth else 0):
        await asyncio.sleep(0)
        current_worker().add_job(("grow", depth - 1))
    return depth


async def add_and_then(count: int, then: str = "waits") -> None:
    """Add two jobs beside others that do so, and only then meet what is to be met."""
    for number in range(2):
        current_worker().add_job(("double", number))
        await asyncio.sleep(0)
    await beside(count, then)


async def make_progress() -> None:
    worker = current_worker()
    worker.progress(0.1, "a")
    worker.progress(0.5, "b")
    worker.progress(0.9, "c")
    await asyncio.sleep(0.3)  # longer than the time between two reports


async def set_what_the_next_might_see(number: int) -> Any:
    """Set something of this context; return what it was before."""
    before = _setting.get()
    _setting.set(number)
    await asyncio.sleep(0)
    return before


async def leave_behind(what: str) -> None:
    """Start a task that nobody waits for, and let it begin."""
    asyncio.create_task(_LEFT[what]())  # noqa: RUF006
    await asyncio.sleep(0)


async def exit_when_cancelled() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        sys.exit(3)


async def stop_the_loop_again_and_again() -> None:
    while True:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)


async def forget_the_loop() -> None:
    asyncio.set_event_loop(None)


_LEFT: dict[str, Any] = {
    "waits": wait_for_ever,
    "refuses": refuse_to_be_cancelled,
    "exits": exit_when_cancelled,
    "stops the loop": stop_the_loop_again_and_again,
    "forgets the loop": forget_the_loop,
}


class Talker(AsyncConductorWorker):
    """Does what a job names, with what is awaited."""

    concurrency = 4

    async def setup(self) -> None:
        self.seen = [await self.lookup("squares", 3)]
        self.arrived = asyncio.Event()
        self.seeing = asyncio.Event()

    async def teardown(self) -> None:
        self.seen.append(await self.lookup("squares", 4))
        note(self.log, self.seen)

    def __init__(self, log: str = os.devnull, **options: Any) -> None:
        super().__init__(**options)
        self.log = log

    async def process_job(self, job: str) -> Any:
        return await getattr(self, job)()

    async def on_master_message(self, msg: Message) -> None:
        if msg.cmd == "double" and msg.data == 100:  # that is a reply
            await self.see(msg)
        if msg.cmd == "hello":
            await asyncio.sleep(0)
            self.arrived.set()
        if msg.cmd == "raise":
            raise ValueError(msg.cmd)

    async def see(self, _msg: Message) -> None:
        """Be cancelled by a job while a reply is seen."""
        self.seeing.set()
        await asyncio.Event().wait()

    @command("cancelled")
    def be_cancelled(self, _msg: Message) -> None:
        raise asyncio.CancelledError

    @command("triple")
    async def triple(self, msg: Message) -> int:
        await asyncio.sleep(0)
        return 3 * int(msg.data)

    async def look_up(self) -> Any:
        return await self.lookup("squares", 5), await self.lookup("squares", -1, "none")

    async def look_many_up(self) -> Any:
        return await self.lookup_many("squares", [1, 2, -1])

    async def set_and_look_up(self) -> Any:
        await self.set_lookup("squares", "a", 7)
        return await self.lookup("squares", "a")

    async def count_up(self) -> Any:
        await self.update_lookup("squares", {"n": 1})
        counts = await asyncio.gather(*(self.increment("squares", "n") for _ in range(5)))
        return sorted(counts), await self.compare_and_set("squares", "n", 6, 0)

    async def look_up_nowhere(self) -> Any:
        return await self.lookup("cubes", 1)

    async def ask(self) -> Any:
        return await asyncio.gather(*(self.request("double", number) for number in range(5)))

    async def ask_and_be_refused(self) -> Any:
        return await self.request("refuse")

    async def ask_in_vain(self) -> Any:
        return await self.request("never", timeout=0.01)

    async def ask_many_in_vain(self) -> int:
        """Return how many replies are still waited for."""
        for _ in range(20):
            with suppress(TimeoutError):
                await self.request("never", timeout=0)
            for waits in (self.request("never"), _wait_for(self.send_request_to_master("never"))):
                task = asyncio.create_task(waits)
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task})
        return len(self._live.talk._replies)

    async def ask_and_let_nobody_see_the_reply(self) -> Any:
        """Cancel what handles the reply, as a job that cancels every task does."""
        asked = asyncio.create_task(self.request("double", 50))
        await self.seeing.wait()
        for task in asyncio.all_tasks() - {asked, asyncio.current_task()}:
            task.cancel()
        return await asked

    async def look_up_what_exits(self) -> Any:
        return await self.lookup("made here", 1)

    async def ask_with_a_callback(self) -> Any:
        told: list[Any] = []
        reply = await self.send_request_to_master("double", 4, lambda *args: told.append(args))
        return reply.data, told[0][1].data

    async def await_a_message(self) -> Any:
        self.notify("in flight")
        await self.arrived.wait()
        return "arrived"

    async def complete(self) -> Any:
        self.complete_job(value=1)

    async def get_next(self) -> Any:
        return self.get_next_job()

    async def tell_job(self) -> Any:
        await asyncio.sleep(0)
        job, seen = self.job, []

        async def inner() -> None:
            seen.append(current_job())

        await asyncio.create_task(inner())
        return job, seen[0]

    async def give_up(self) -> Any:
        self.crash("no use")


async def _wait_for(reply: Any) -> Any:
    return await reply


class Interrupted(AsyncConductorWorker):
    """Is interrupted while it takes a reply, once."""

    def __init__(self, once: str) -> None:
        super().__init__(logging=False)
        self.once = once

    def on_master_message(self, _msg: Message) -> None:
        if is_first(self.once):
            raise KeyboardInterrupt

    async def process_job(self, job: Any) -> Any:
        return await self.request("double", job)


class BadSetup(AsyncConductorWorker):
    async def setup(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("not today")

    async def process_job(self, job: Any) -> Any:
        return job
