"""Keys as bytes: there and back, in order, and with their prefixes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor.errors import TableError, TableKeyError
from okanjo_conductor.lookups import _entries, _keys

TEXT = st.text() | st.text("a\0\x01ÿ\ud800")
BYTES = st.binary() | st.text("\0\x01\xff", max_size=5).map(lambda text: text.encode("latin-1"))
INTS = (
    st.integers()
    | st.integers(-300, 300)
    | st.builds(
        lambda bits, off, sign: sign * ((1 << bits) + off),
        st.integers(0, 2000),
        st.integers(-2, 2),
        st.sampled_from([1, -1]),
    )
)
ATOMS = TEXT | BYTES | INTS
TUPLES = st.recursive(ATOMS, lambda parts: st.lists(parts, max_size=4).map(tuple)).map(
    lambda drawn: drawn if isinstance(drawn, tuple) else (drawn,)
)
KEYS = ATOMS | TUPLES


def rank(key):
    """Order keys as the table promises: bytes, str, tuples, int."""
    kinds = {bytes: 0, str: 1, tuple: 2, int: 3}
    return kinds[type(key)], tuple(map(rank, key)) if isinstance(key, tuple) else key


@given(KEYS)
def test_a_key_comes_back(key):
    assert _keys.decode(_keys.encode(key)) == key
    assert type(_keys.decode(_keys.encode(key))) is type(key)


@given(KEYS, KEYS)
def test_keys_sort_as_their_encodings_do(one, other):
    assert (_keys.encode(one) < _keys.encode(other)) == (rank(one) < rank(other))


@given(KEYS, KEYS)
def test_different_keys_have_different_encodings(one, other):
    assert (_keys.encode(one) == _keys.encode(other)) == (one == other and type(one) is type(other))


@given(TUPLES, TUPLES)
def test_what_begins_with_a_tuple_is_found_by_it(prefix, key):
    for candidate in (key, prefix + key, prefix):
        found = _entries.has_prefix(_keys.encode(candidate), _keys.encode_prefix(prefix))
        assert found == (candidate[: len(prefix)] == prefix)


@given(TEXT, TEXT)
def test_what_begins_with_a_str_is_found_by_it(prefix, key):
    for candidate in (key, prefix + key):
        found = _entries.has_prefix(_keys.encode(candidate), _keys.encode_prefix(prefix))
        assert found == candidate.startswith(prefix)


@given(BYTES, BYTES)
def test_what_begins_with_bytes_is_found_by_them(prefix, key):
    for candidate in (key, prefix + key):
        found = _entries.has_prefix(_keys.encode(candidate), _keys.encode_prefix(prefix))
        assert found == candidate.startswith(prefix)


def test_a_null_byte_does_not_end_a_string_in_a_tuple():
    assert not _entries.has_prefix(_keys.encode(("a\0b",)), _keys.encode_prefix(("a",)))


@given(st.binary(min_size=400, max_size=600), st.binary(max_size=200))
def test_what_long_keys_are_stored_under_fits_and_keeps_their_beginning(head, tail):
    encoded = _keys.encode(head + tail)
    stored = _keys.stored(encoded)
    assert len(stored) <= 511
    assert stored[: _keys.KEPT] == encoded[: _keys.KEPT]
    assert (stored == encoded) == (len(encoded) <= _keys.PLAIN)


def test_a_long_key_is_not_stored_where_a_plain_one_could_be():
    long = _keys.stored(_keys.encode(b"x" * 1000))
    imitation = _keys.encode(long[1:])
    assert imitation == long  # the same bytes
    assert _keys.stored(imitation) != long


def test_bools_and_numpy_integers_are_ints():
    import numpy as np

    assert _keys.decode(_keys.encode(True)) == 1
    assert _keys.encode(np.int64(-7)) == _keys.encode(-7)


@pytest.mark.parametrize("key", [1.5, None, ["a"], ("a", None), {"a"}])
def test_what_is_no_key_is_refused(key):
    with pytest.raises(TableKeyError, match="str, bytes, int, and tuples of these") as caught:
        _keys.encode(key)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, TableError)


def test_an_int_of_thousands_of_bits_is_refused():
    _keys.encode(1 << 2039)
    with pytest.raises(TableKeyError, match="256 bytes"):
        _keys.encode(1 << 2040)


def test_an_int_is_no_prefix():
    with pytest.raises(TableKeyError, match="no prefix"):
        _keys.encode_prefix(1)
