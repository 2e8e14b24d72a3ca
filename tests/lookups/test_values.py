"""Values: what comes back, and what is not copied."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from okanjo_conductor.lookups import LookupTable, _values

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.text("a\ud800")
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(VALUES)
@example("a name of a file \udc80")
def test_a_value_comes_back(value):
    back = _values.decode(b"".join(_values.encode(value)))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("length", [0, 1, 10, 100_000])
@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
def test_an_array_comes_back_read_only_and_aligned(length, dtype):
    array = np.arange(length).astype(dtype)
    with LookupTable.build({"x": {"array": array, "name": "n"}}) as table:
        back = table["x"]["array"]
        assert back.dtype == array.dtype
        assert (back == array).all()
        assert back.flags.aligned
        assert not back.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            back.flags.writeable = True


def test_several_arrays_of_one_value_do_not_mix():
    arrays = [np.full(size, size, "i8") for size in (3, 0, 1000, 7)]
    with LookupTable.build({"x": arrays}) as table:
        for back, array in zip(table["x"], arrays, strict=True):
            assert (back == array).all()


def test_a_large_array_is_not_copied():
    with LookupTable.build({"x": np.arange(100_000)}) as table:
        one, other = table["x"], table["x"]
        assert one.__array_interface__["data"] == other.__array_interface__["data"]


def test_large_bytes_come_back_as_bytes_and_their_view_is_not_copied():
    data = bytes(range(256)) * 100
    with LookupTable.build({"x": data, "small": b"abc", "s": "text"}) as table:
        assert table["x"] == data
        assert type(table["x"]) is bytes
        view, again = table.view("x"), table.view("x")
        assert view == data
        assert view.readonly
        assert np.frombuffer(view).ctypes.data == np.frombuffer(again).ctypes.data
        assert table.view("small") == b"abc"
        with pytest.raises(TypeError, match="not bytes"):
            table.view("s")
        with pytest.raises(KeyError):
            table.view("absent")


def test_a_view_stays_what_it_is_whatever_becomes_of_the_table(tmp_path):
    path = tmp_path / "t"
    old = np.full(50_000, 1.0)
    small = np.full(5, 1.0)
    table = LookupTable.build({"x": old, "small": small, "b": b"1" * 9000}, path)
    kept, kept_small, view = table["x"], table["small"], table.view("b")
    for number in range(20):
        table.update({"x": old * number, "small": small * number, "b": b"%d" % number * 9000})
    del table["x"], table["small"], table["b"]
    table.clear()
    table.update({f"more {number}": b"\xff" * 3000 for number in range(100)})
    table.close()
    LookupTable.build({"x": 0}, path, replace=True).close()
    assert (kept == old).all()
    assert (kept_small == small).all()
    assert view == b"1" * 9000


def test_a_new_large_value_is_seen_where_the_file_was_mapped_before():
    with LookupTable.build({"x": b"a" * 5000}) as table:
        copy = pickle.loads(pickle.dumps(table))
        assert copy["x"] == b"a" * 5000
        table["x"] = b"b" * 50_000
        assert copy["x"] == b"b" * 50_000
        copy.close()


def test_a_value_that_cannot_be_pickled_says_whose_it_is():
    with pytest.raises(Exception, match="lambda") as caught:
        LookupTable.build({"good": 1, "bad": lambda: None})
    assert any("'bad'" in note for note in caught.value.__notes__)


def test_a_failed_update_sets_nothing():
    with LookupTable.build({"a": 1}) as table:
        with pytest.raises(Exception, match="lambda"):
            table.update({"a": 2, "b": lambda: None})
        assert dict(table) == {"a": 1}
