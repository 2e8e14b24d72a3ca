"""Values to bytes and back."""

from __future__ import annotations

import mmap
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from okanjo_conductor._wire import codec
from okanjo_conductor._wire.byvalue import encode_by_value
from okanjo_conductor._wire.codec import (
    ATOMS,
    OUT_OF_BAND,
    Encoded,
    decode,
    decode_payload,
    encode,
    encode_payload,
)
from okanjo_conductor._wire.connection import Connection
from okanjo_conductor._wire.frames import MAX_BUFFERS
from okanjo_conductor._wire.messages import Jobs, LargeJob
from okanjo_conductor.errors import SerialisationError

from .streams import atoms, noise, receive, stream_of

hashables = atoms | st.floats() | st.binary(max_size=20)
plain_values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


class Text(str):
    """An almost-atom: its type must survive."""

    __slots__ = ()


class Number(int):
    """As `Text`."""


def travelled(payload):
    """Send a payload as a conductor would, one way or the other."""
    wire = encode_payload(payload)
    sender = Connection()
    if type(wire) is Encoded:
        sender.send(LargeJob(1, b"", 1, wire))
        [(_, job)] = receive(Connection(), stream_of(sender), [40, 5000])
        return decode_payload(job.value)
    sender.send(Jobs(1, [wire], b"", []))
    [(_, jobs)] = receive(Connection(), stream_of(sender), [40, 5000])
    return decode_payload(jobs.wires[0])


def same(a, b) -> bool:
    """Compare values and their types; NaN is NaN here, and 0.0 is not -0.0."""
    return type(a) is type(b) and repr(a) == repr(b)


@settings(max_examples=50)
@given(plain_values)
def test_payloads_come_back_as_they_were(payload):
    assert same(travelled(payload), payload)


@given(atoms | st.floats())
def test_atoms_travel_bare(atom):
    assert type(atom) in ATOMS
    assert encode_payload(atom) is atom


@pytest.mark.parametrize("value", [Text("x"), Number(7), b"raw", b"", [1, True, 1.0, None]])
def test_what_is_almost_an_atom_keeps_its_type(value):
    assert type(encode_payload(value)) is bytes
    assert same(travelled(value), value)


@given(noise(0, 100_000))
def test_long_bytes_and_texts_come_back(blob):
    assert travelled(blob) == blob
    text = blob.decode("latin-1")
    assert travelled(text) == text


@pytest.mark.parametrize(
    "array",
    [
        np.arange(OUT_OF_BAND, dtype=np.uint8),
        np.arange(50_000, dtype=np.float64).reshape(100, 500),
        np.asfortranarray(np.arange(50_000, dtype=np.int32).reshape(100, 500)),
        np.zeros(30_000, dtype=[("x", "<f4"), ("y", "<i8")]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_large_arrays_travel_out_of_band_and_arrive_writable(array):
    encoded = encode(array)
    assert [buffer.nbytes for buffer in encoded.buffers] == [array.nbytes]
    assert len(encoded.blob) < 1000
    assert encoded.is_large
    arrived = travelled(array)
    np.testing.assert_array_equal(arrived, array)
    assert arrived.dtype == array.dtype
    assert arrived.flags.f_contiguous == array.flags.f_contiguous
    assert arrived.flags.writeable
    arrived[...] = arrived[::-1]


def test_small_arrays_travel_in_the_pickle():
    array = np.arange(OUT_OF_BAND - 1, dtype=np.uint8)
    assert encode(array[:100]).buffers == []
    assert not encode(array[:100]).is_large
    assert encode(array).buffers == []
    np.testing.assert_array_equal(travelled(array), array)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(200_000)[::2],
        np.arange(200_000)[::-1],
        np.arange(200_000).reshape(400, 500)[:, 100:400],
        np.arange(200_000).reshape(10, 100, 200).transpose(1, 0, 2),
        np.broadcast_to(np.arange(20_000), (10, 20_000)),
    ],
    ids=["strided", "reversed", "column", "transposed", "broadcast"],
)
def test_arrays_that_are_not_contiguous_come_back(array):
    assert not array.flags.c_contiguous
    arrived = travelled(array)
    np.testing.assert_array_equal(arrived, array)
    assert arrived.flags.writeable


def test_several_arrays_keep_their_places():
    arrays = {name: np.full(20_000, number) for number, name in enumerate("abcde")}
    assert len(encode(arrays).buffers) == 5
    arrived = travelled(arrays)
    assert list(arrived) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(arrived[name], array)


def test_more_buffers_than_a_frame_may_have_travel_in_the_pickle():
    raw = bytes(range(256)) * (OUT_OF_BAND // 256)
    value = [pickle.PickleBuffer(raw) for _ in range(MAX_BUFFERS + 5)]
    encoded = encode(value)
    assert len(encoded.buffers) == MAX_BUFFERS - 1  # the pickle takes the first place
    arrived = travelled(value)
    assert len(arrived) == len(value)
    assert all(bytes(buffer) == raw for buffer in arrived)


def untouched(size: int) -> pickle.PickleBuffer:
    """Make a buffer of which no byte takes memory."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return pickle.PickleBuffer(mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ))


@pytest.mark.parametrize("make", [encode, encode_payload, encode_by_value])
def test_more_than_4_gib_do_not_travel(make):
    with pytest.raises(
        SerialisationError, match=r"it takes 5\.0 GiB .* at most 4 GiB travel: write"
    ):
        make([untouched(5 << 30)])
    with pytest.raises(SerialisationError, match="GiB"):
        make([untouched(2 << 30), untouched(2 << 30)])
    assert make([untouched(2 << 30), untouched((2 << 30) - 4096)]).is_large


def test_the_limit_is_a_byte_count():
    fits = Encoded(b"", [memoryview(untouched(codec.MAX_SIZE))])
    assert codec.checked(fits) is fits
    with pytest.raises(SerialisationError, match="4,294,967,297 bytes"):
        codec.checked(Encoded(b"x", fits.buffers))


def test_what_pickling_raises_is_passed_on():
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        encode(lambda: None)


def test_what_unpickling_raises_is_passed_on():
    with pytest.raises(pickle.UnpicklingError):
        decode(Encoded(b"no pickle", []))
    with pytest.raises(EOFError):
        decode_payload(b"")


def test_what_is_encoded_is_compared_and_shown_by_its_parts():
    encoded = Encoded(b"a", [b"b"])
    assert encoded == Encoded(b"a", [b"b"])
    assert encoded != Encoded(b"a", [])
    assert encoded != (b"a", [b"b"])
    assert repr(encoded) == "Encoded(b'a', [b'b'])"
