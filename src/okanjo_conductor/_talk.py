"""What a worker process and its conductor say besides jobs, as the worker sees it.

Any thread that waits for something reads the job link meanwhile, one at a time. Replies are handed
over at once; other messages wait for the end of the job; what is about jobs goes to the runtime.

A worker with handlers that are marked ``during_job`` has a thread more, for which the conductor
rings a bell. It sleeps until then, reads the link as anybody else who waits, and runs those
handlers. So there is one link still, and one order on it.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import count
from time import monotonic

from okanjo_conductor._logs import log
from okanjo_conductor._types import Message
from okanjo_conductor._wire import failures
from okanjo_conductor._wire.byvalue import encode_by_value
from okanjo_conductor._wire.codec import decode, encode
from okanjo_conductor._wire.messages import (
    UNSEEN,
    Answer,
    Ask,
    Forget,
    Invalidate,
    Load,
    Post,
    Request,
    Response,
)
from okanjo_conductor.errors import SerialisationError, UnknownCommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from okanjo_conductor._basis import Basis
    from okanjo_conductor._io.assignment import Assignment
    from okanjo_conductor._io.worker_link import WorkerLink
    from okanjo_conductor._wire.codec import Encoded
    from okanjo_conductor._wire.messages import AnyMessage

_TURN = 0.05
"""Seconds that a thread reads the link at a time."""
_IDLE_TURN = 0.25
"""Seconds that the main thread waits for the link without holding it: another thread that waits may
be woken in its place, once in a while."""


class ConductorGone(BaseException):
    """Nobody is left to work for. Not an `Exception`: no job may catch it."""


class Reply:
    """The reply to a request, to come: a small future.

    Waiting for it handles what else arrives meanwhile.
    """

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.name = ""
        """The callback id of the request; queries have none."""
        self._is_done = False
        self._error: BaseException | None = None
        self._value: Any = None

    def done(self) -> bool:
        """Whether the reply is here."""
        return self._is_done

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the reply.

        Args:
            timeout: seconds; None waits as long as the conductor lives.

        Raises:
            TimeoutError: it did not come in time.
            Exception: what the conductor's handler raised.
        """
        self._talk.wait_for(self.done, timeout)
        if self._error is not None:
            raise self._error
        return self._value

    def resolve(self, error: BaseException | None, value: Any) -> None:
        """Let the waiting end."""
        self._error, self._value = error, value
        self._is_done = True


class Query(Reply):
    """An answer about a lookup, to come.

    Args:
        take: is given the answer by the thread that reads, before it handles what came after it.
        load: makes entries, in the thread that waits, where the conductor wants them made here.
    """

    def __init__(
        self,
        talk: Talk,
        number: int,
        take: Callable[[Any], None] | None,
        load: Callable[[Load], None] | None,
    ) -> None:
        super().__init__(talk)
        self._number = number
        self._take = take
        self._load = load
        self._loads: deque[Load] = deque()
        """Orders to make entries."""

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer. Whoever stops waiting will get none, and makes no entries."""
        try:
            if self._load is not None:
                self._make_entries(timeout)
            return super().result(timeout)
        except BaseException:
            if not self.done():
                self._talk.forget(self._number)
            raise

    def _make_entries(self, timeout: float | None) -> None:
        while True:
            self._talk.wait_for(lambda: self._is_done or bool(self._loads), timeout)
            if not self._loads:
                return
            self._load(self._loads.popleft())  # type: ignore[misc]  # there is one

    def ordered(self, load: Load) -> None:
        """Take an order to make entries."""
        self._loads.append(load)

    def answered(self, error: BaseException | None, value: Any) -> None:
        """Take the answer."""
        if error is None and self._take is not None:
            try:
                self._take(value)
            except BaseException as raised:  # a key's __hash__ or __eq__ may raise anything
                error = raised
        self.resolve(error, value)


class Talk:
    """One worker's conversation with its conductor.

    Args:
        handlers: by message type, who takes what is about jobs.
        check: called at each turn of a wait; it may raise.
    """

    def __init__(
        self,
        worker: Basis,
        place: Assignment,
        handlers: Mapping[type[Any], Callable[[Any], None]],
        check: Callable[[], None],
    ) -> None:
        self._worker = worker
        self._place = place
        self._link: WorkerLink = place.link
        self._check = check
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            Answer: self._on_answer,
            Load: self._on_load,
            Invalidate: self._on_invalidate,
            Post: self._on_post,
            Request: self._on_request,
            **handlers,
        }
        self.posts: deque[Post | Request] = deque()
        """Messages that wait for the end of the job."""
        self.urgent: frozenset[str] = frozenset()
        """Commands whose messages do not wait."""
        self._urgent_posts: deque[Post | Request] = deque()
        """Messages for the thread that the bell wakes: it alone handles them, in their order."""
        self._urgent_thread = 0
        self._broken: BaseException | None = None
        """What ended that thread: an end for the whole worker, as if the main thread met it."""
        self._arrived: deque[Post] = deque()
        """Replies to hand over: not while reading, because who gets one may ask for another."""
        self._reading = threading.Lock()
        """Held by the thread that reads the link."""
        self._replies: dict[str, tuple[Reply, Callable[..., Any] | None]] = {}
        self._queries: dict[int, Query] = {}
        self._numbers = count(1)
        self._heard = 0
        """How many messages were handled."""

    # Reading the link

    def wait_for(self, is_met: Callable[[], bool], timeout: float | None) -> None:
        """Handle what arrives until a condition is met, from any thread.

        Raises:
            TimeoutError: it was not met in time.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not is_met():
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                message = f"no reply within {timeout} s"
                raise TimeoutError(message)
            if threading.get_ident() != self._urgent_thread:
                self._check()
            if not (self._reading.acquire(blocking=False) or self._reading.acquire(timeout=_TURN)):
                continue
            try:
                if not is_met() and self._link.wait(_TURN if left is None else min(left, _TURN)):
                    self._handle(self._received(self._link.receive_nowait))
            finally:
                self._reading.release()
            if self._arrived:
                self._deliver_replies()

    def read_unless(self, is_met: Callable[[], bool]) -> None:
        """Block until something arrives, unless a condition is met, and handle it."""
        if self.urgent:
            self._read_beside_the_bell(is_met)
            return
        with self._reading:
            if not (is_met() or self._arrived):
                self._handle(self._received(self._link.receive))
        self._deliver_replies()

    def _read_beside_the_bell(self, is_met: Callable[[], bool]) -> None:
        """Wait without the lock: who answers the bell must get at the link meanwhile."""
        if not (is_met() or self._arrived):
            self._link.wait(_IDLE_TURN)
        self.read_nowait()

    def read_nowait(self) -> None:
        """Handle what has arrived."""
        with self._reading:
            self._handle(self._received(self._link.receive_nowait))
        self._deliver_replies()

    def serve_urgent(self) -> None:
        """Handle urgent messages during jobs, in a thread for that, if there may be any."""
        if self.urgent:
            self._link.on_abandoned = self._reset_lock
            self._link.share()
            threading.Thread(target=self._handle_urgent, name="urgent", daemon=True).start()

    def _handle_urgent(self) -> None:
        self._urgent_thread = threading.get_ident()
        try:
            while True:
                self._link.await_bell()
                with self._reading:
                    self._handle(self._received(self._link.receive_all))
                self._link.wake()  # what was read besides is for the main thread
                while self._urgent_posts:
                    self._hand_over(self._urgent_posts.popleft())
        except EOFError:
            return  # the conductor is gone, or a job has closed the bell
        except BaseException as error:
            self._broken = error
        finally:
            self._link.close()

    def _reset_lock(self) -> None:
        self._reading = threading.Lock()  # a thread that is not in this fork may have held it

    def _received(self, read: Callable[[], list[AnyMessage]]) -> list[AnyMessage]:
        try:
            messages = read()
        except (EOFError, ConnectionResetError) as error:
            raise ConductorGone from error
        if self._broken is not None:
            raise self._broken
        return messages

    def _handle(self, messages: list[AnyMessage]) -> None:
        for message in messages:
            self._handlers[type(message)](message)
            self._heard += 1

    def _on_answer(self, message: Answer) -> None:
        query = self._queries.pop(message.request, None)
        if query is None:
            return
        if message.plain is not None and message.error is None:
            query.answered(None, message.plain[0])
        else:
            query.answered(*_decoded(message))

    def _on_load(self, message: Load) -> None:
        query = self._queries.get(message.request)
        if query is not None:  # else the conductor has been told that nobody waits
            query.ordered(message)

    def _on_invalidate(self, message: Invalidate) -> None:
        self._worker._lookups.forget(message.name, message.keys)

    def _on_post(self, message: Post) -> None:
        if message.callback is None:
            self._on_request(message)
        else:
            self._arrived.append(message)

    def _on_request(self, message: Post | Request) -> None:
        is_urgent = message.cmd in self.urgent
        (self._urgent_posts if is_urgent else self.posts).append(message)

    def _message(self, post: Post | Request, data: Any) -> Message:
        callback = post.callback if isinstance(post, Post) else None
        return Message(post.cmd, data, callback, self._place.worker_id, self._place.master_id)

    def _deliver_replies(self) -> None:
        """Hand over the replies that have arrived."""
        while self._arrived:
            try:
                reply = self._arrived.popleft()
            except IndexError:
                return  # another thread was faster
            self._deliver_reply(reply)

    def _deliver_reply(self, reply: Post) -> None:
        callback = reply.callback or ""
        error, data = _decoded(reply)
        if error is not None:
            if callback in self._replies:
                self.fire(callback, error, None)
            return
        message = self._message(reply, data)
        try:
            handled = self._worker.on_master_message(message)
        except (Exception, SystemExit):
            log().exception("on_master_message raised for the reply to %r", reply.cmd)
            handled = None
        self._finish_reply(callback, message, handled)

    def _finish_reply(self, callback: str, message: Message, _handled: Any) -> None:
        """Fire the callback of a reply, unless `on_master_message` has done so."""
        if callback in self._replies:
            self.fire(callback, None, message)

    def deliver_posts(self) -> None:
        """Let the worker handle the messages that waited."""
        while self.posts:
            self._hand_over(self.posts.popleft())

    def _hand_over(self, post: Post | Request) -> None:
        """Let the worker handle a message; answer it if it is a request."""
        error, data = _decoded(post)
        handled = None
        if error is None:
            try:
                handled = self._worker._handle(self._message(post, data))
            except (Exception, SystemExit) as raised:
                error = raised
        self._answer(post, error, handled)

    def _answer(self, post: Post | Request, error: BaseException | None, handled: Any) -> None:
        """Answer a message that was handled, if it is a request; complain if it was in vain."""
        reply = _NOTHING
        if error is None:
            try:
                reply = self._encoded(post.cmd, handled)
            except (SerialisationError, SystemExit) as raised:
                error = raised
        if isinstance(post, Request):
            packed = failures.pack(failures.take_apart(error)) if error else None
            self.send(Response(post.request, packed, reply))
        elif isinstance(error, UnknownCommandError):
            log().warning("%s", error)
            return
        if error is not None and not isinstance(error, UnknownCommandError):
            log().error("the handler of command %r raised", post.cmd, exc_info=error)

    def _encoded(self, cmd: str, reply: Any) -> Encoded:
        try:
            return encode_by_value(reply)
        except Exception as error:
            text = (
                f"what worker {self._place.worker_id} replied to {cmd!r} cannot be pickled: "
                f"{failures.said(error)}"
            )
            raise SerialisationError(text) from error

    # Saying something

    def tell(self, command: str, data: Any) -> None:
        """Send a custom message that nobody replies to."""
        self.send(Ask(command, None, encode_by_value(data)))

    def ask(self, command: str, data: Any, callback: Callable[..., Any] | None) -> Reply:
        """Send a custom message."""
        reply: Reply = self._make_reply()
        name = f"{self._place.worker_id}-{next(self._numbers)}"
        reply.name = name
        self._replies[name] = reply, callback
        try:
            self.send(Ask(command, name, encode_by_value(data)))
        except BaseException:
            del self._replies[name]
            raise
        return reply

    def drop(self, name: str) -> None:
        """Take note that nobody waits for this reply any more, unless it has a callback."""
        _, callback = self._replies.get(name, (None, None))
        if callback is None:
            self._replies.pop(name, None)

    def fire(self, name: str, error: BaseException | None, data: Any) -> None:
        """Resolve the request that carried this callback id."""
        reply, callback = self._replies.pop(name, (None, None))
        if reply is None:
            log().warning("nobody waits for callback %r; ignored", name)
            return
        reply.resolve(error, data)
        if callback is not None:
            try:
                callback(error, data)
            except (Exception, SystemExit):
                log().exception("the callback of a request raised")

    def query(
        self,
        take: Callable[[Any], None] | None = None,
        load: Callable[[Load], None] | None = None,
    ) -> tuple[int, Query]:
        """Expect the answer to a request about a lookup, of this number, which is sent next."""
        number = next(self._numbers)
        query = self._queries[number] = self._make_query(number, take, load)
        return number, query

    def glance(self, name: str, key: Any) -> tuple[Any, ...] | None:
        """Ask for an entry of a lookup at the hatch, while the conductor attends to it.

        The key must be plain data.

        Returns:
            ``(value,)``, or None where there is no entry; `UNSEEN`: it is to be asked for.
        """
        link = self._link
        if link.hatch is None:
            return UNSEEN
        answer = link.hatch.ask((link.sent, link.log.count, name, key))
        if answer is None:
            return UNSEEN
        said, hit = answer
        if said > self._heard:
            self.wait_for(lambda: self._heard >= said, None)
        return hit  # type: ignore[no-any-return]  # of an answer

    def forget(self, number: int) -> None:
        """Wait no more for the answer to a request."""
        self._queries.pop(number, None)
        self.send(Forget(number))

    def _make_reply(self) -> Any:
        return Reply(self)

    def _make_query(
        self,
        number: int,
        take: Callable[[Any], None] | None,
        load: Callable[[Load], None] | None,
    ) -> Query:
        return Query(self, number, take, load)

    def send(self, message: AnyMessage) -> None:
        """Send any message."""
        try:
            self._link.send(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ConductorGone from error


_NOTHING = encode(None)


def _decoded(message: Answer | Post | Request) -> tuple[BaseException | None, Any]:
    """Read the error and the value of a reply, or the value of a request."""
    if not isinstance(message, Request) and message.error is not None:
        return failures.rebuild(failures.unpack(message.error)), None
    try:
        return None, decode(message.value)  # type: ignore[arg-type]  # no plain data: see `Answer`
    except BaseException as error:  # a class's __setstate__ may raise anything
        text = f"data from the conductor cannot be unpickled: {failures.said(error)}"
        return SerialisationError(text), None
