"""Messages to draw, and a stream to push them through in pieces."""

from __future__ import annotations

import random
from itertools import chain, cycle
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from okanjo_conductor._wire import messages as m
from okanjo_conductor._wire.codec import Encoded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from okanjo_conductor._wire.connection import Connection

# Noise, so that bytes in the wrong place are noticed; slices of it, so that drawing stays cheap.
_NOISE = random.Random(0).randbytes(1 << 18)

numbers = st.integers(-(1 << 70), 1 << 70)
texts = st.text(st.characters(), max_size=20)  # lone surrogates included
atoms = st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | texts
short_bytes = st.binary(max_size=50)


def noise(least: int, most: int) -> st.SearchStrategy[bytes]:
    """Draw bytes of a length within bounds."""
    return st.builds(
        lambda start, size: _NOISE[start : start + size],
        st.integers(0, len(_NOISE) - most),
        st.integers(least, most),
    )


def messages_with(values: st.SearchStrategy[Encoded]) -> dict[type, st.SearchStrategy]:
    """Give a strategy for every type of message, with such values."""
    errors = st.none() | short_bytes
    callbacks = st.none() | texts
    bad_end = st.tuples(numbers, texts, texts, texts, numbers, st.none() | st.floats(0, 1e9))
    history = st.lists(bad_end, max_size=2)
    histories = st.lists(st.tuples(numbers, history), max_size=3)
    wires = st.lists(atoms | short_bytes, max_size=5)
    return {
        m.Ready: st.builds(m.Ready, st.lists(texts, max_size=3), numbers, st.booleans()),
        m.Bell: st.builds(m.Bell),
        m.LargeOutcome: st.builds(m.LargeOutcome, numbers, numbers, st.booleans(), values),
        m.Declined: st.builds(m.Declined, numbers, numbers),
        m.Ask: st.builds(m.Ask, texts, callbacks, values),
        m.Response: st.builds(m.Response, numbers, errors, values),
        m.AddJob: st.builds(
            m.AddJob, numbers, numbers, errors, st.none() | st.floats(0, 1e9), values
        ),
        m.Progress: st.builds(m.Progress, numbers, st.floats(0, 1), texts),
        m.AbortRun: st.builds(m.AbortRun, texts),
        m.LookUp: st.one_of(
            st.builds(m.LookUp, numbers, texts, st.lists(atoms | short_bytes), st.none()),
            st.builds(m.LookUp, numbers, texts, st.none(), values),
        ),
        m.OpenLookup: st.builds(m.OpenLookup, numbers, texts),
        m.ChangeLookup: st.builds(m.ChangeLookup, numbers, texts, texts, values),
        m.Loaded: st.builds(m.Loaded, numbers, errors, values),
        m.Forget: st.builds(m.Forget, numbers),
        m.Stats: st.builds(
            m.Stats,
            st.dictionaries(texts, atoms, max_size=4),
            st.floats(allow_nan=False),
        ),
        m.Log: st.builds(m.Log, values),
        m.LastWords: st.builds(m.LastWords, texts),
        m.Bye: st.builds(m.Bye),
        m.Jobs: st.builds(m.Jobs, numbers, wires, short_bytes, histories),
        m.LargeJob: st.builds(m.LargeJob, numbers, short_bytes, history, values),
        m.Define: st.builds(m.Define, texts, short_bytes),
        m.Post: st.builds(m.Post, texts, callbacks, errors, values),
        m.Request: st.builds(m.Request, numbers, texts, values),
        m.Cancel: st.builds(m.Cancel, numbers, st.none() | st.floats(0, 1e9)),
        m.Answer: st.one_of(
            st.builds(m.Answer, numbers, errors, st.lists(atoms, max_size=1), st.none()),
            st.builds(m.Answer, numbers, errors, st.none(), values),
        ),
        m.Load: st.builds(m.Load, numbers, st.lists(numbers, max_size=4), values),
        m.Invalidate: st.builds(
            m.Invalidate, texts, st.none() | st.lists(atoms | short_bytes, max_size=4)
        ),
        m.Stop: st.builds(m.Stop),
    }


_small_values = st.builds(Encoded, short_bytes, st.lists(noise(0, 100), max_size=3))
_large_values = st.builds(Encoded, noise(0, 100_000), st.lists(noise(0, 100_000), max_size=4))

by_type = messages_with(_small_values)
small_messages = st.one_of(*by_type.values())
large_messages = st.one_of(
    st.builds(m.LargeJob, numbers, short_bytes, st.just([]), _large_values),
    st.builds(m.LargeOutcome, numbers, numbers, st.booleans(), _large_values),
    st.builds(m.Define, texts, noise(50_000, 150_000)),  # large without a buffer
)
outcome_counts = st.integers(0, (1 << 64) - 1)


def stream_of(connection: Connection) -> bytes:
    """Take everything that a connection wants written."""
    written = bytearray()
    while connection.outbox:
        views = connection.outbox.views()
        for view in views:
            written += view
        connection.outbox.sent(sum(map(len, views)))
    return bytes(written)


def receive(connection: Connection, stream: bytes, sizes: Iterable[int]) -> list:
    """Give a stream to a connection in pieces of at most these sizes, the last one repeated."""
    first = list(sizes)
    left, got = memoryview(stream), []
    for size in chain(first, cycle(first[-1:] or [1 << 20])):
        if not left:
            return got
        room = connection.room()
        piece = left[: min(size, len(room))]
        room[: len(piece)] = piece
        got.extend(connection.received(len(piece)))
        left = left[len(piece) :]
    raise AssertionError
