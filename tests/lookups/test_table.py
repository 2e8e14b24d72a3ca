"""A table is a mapping: against a dict, with keys of all kinds."""

from __future__ import annotations

import hashlib
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from okanjo_conductor.errors import TableError, TableKeyError
from okanjo_conductor.lookups import LookupTable, _building, _keys

from .test_keys import KEYS, rank

LONG = st.builds(lambda head, tail: head * 120 + tail, st.text("ab", max_size=5), st.text())
SOME_KEYS = KEYS | LONG | st.sampled_from(["a", "b", b"a", 1, ("a", 1), "k" * 600, "k" * 601])
SOME_VALUES = st.text() | st.integers() | st.none() | st.binary(min_size=1000, max_size=1100)


class AsADict(RuleBasedStateMachine):
    """Whatever is done, a table holds what a dict holds."""

    def __init__(self):
        super().__init__()
        self.table = LookupTable.build({})
        self.read = self.table.reader()
        self.model = {}

    @rule(key=SOME_KEYS, value=SOME_VALUES)
    def put(self, key, value):
        self.table[key] = self.model[key] = value

    @rule(more=st.dictionaries(SOME_KEYS, SOME_VALUES, max_size=5))
    def update(self, more):
        self.table.update(more)
        self.model.update(more)

    @rule(key=SOME_KEYS)
    def look_up(self, key):
        assert self.table.get(key, "default") == self.model.get(key, "default")
        assert self.read(key, "default") == self.model.get(key, "default")
        assert (key in self.table) == (key in self.model)

    @rule(key=SOME_KEYS)
    def delete(self, key):
        if key in self.model:
            del self.table[key], self.model[key]
        else:
            with pytest.raises(KeyError):
                del self.table[key]

    @rule(key=SOME_KEYS)
    def pop(self, key):
        assert self.table.pop(key, None) == self.model.pop(key, None)

    @rule()
    def clear(self):
        self.table.clear()
        self.model.clear()

    @rule()
    def release(self):
        self.table.release()

    @rule(prefix=st.sampled_from(["", "a", "k" * 590, b"", b"a", (), ("a",)]))
    def scan(self, prefix):
        begins = {
            key: value
            for key, value in self.model.items()
            if type(key) is type(prefix) and key[: len(prefix)] == prefix
        }
        assert dict(self.table.prefix(prefix)) == begins

    @invariant()
    def same(self):
        assert dict(self.table.items()) == self.model
        assert len(self.table) == len(self.model)

    @invariant()
    def in_order(self):
        short = [key for key in self.table if len(_keys.encode(key)) <= _keys.PLAIN]
        assert short == sorted(short, key=rank)

    def teardown(self):
        self.table.close()


AsADict.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
test_a_table_is_as_a_dict = AsADict.TestCase


def test_long_keys_with_the_same_beginning_are_told_apart():
    keys = ["k" * 600 + str(number) for number in range(100)]
    with LookupTable.build({key: key for key in keys}) as table:
        assert len(table) == 100
        assert all(table[key] == key for key in keys)
        assert set(table) == set(keys)
        assert set(dict(table.prefix("k" * 600 + "9"))) == {k for k in keys if k[600] == "9"}
        assert "k" * 600 not in table


def test_a_key_that_imitates_the_hash_of_a_long_one_is_another():
    long = b"x" * 1000
    imitation = _keys.stored(_keys.encode(long))[1:]
    with LookupTable.build({long: "long"}) as table:
        assert imitation not in table
        assert table.get(imitation) is None
        table[imitation] = "imitation"
        assert table[long] == "long"


def test_a_str_that_imitates_a_hash_is_another_key(monkeypatch):
    class Readable:
        def __init__(self, data, digest_size):
            self.text = hashlib.sha256(data).hexdigest()[:digest_size]

        def digest(self):
            return self.text.encode()

    monkeypatch.setattr(hashlib, "blake2b", Readable)
    long = "x" * 1000
    imitation = _keys.stored(_keys.encode(long))[1:].decode()
    with LookupTable.build({long: "long"}) as table:
        assert table.get(imitation) is None
        table[imitation] = "imitation"
        assert (table[long], table[imitation]) == ("long", "imitation")


def test_items_values_and_keys_come_in_order():
    with LookupTable.build([(3, "c"), (1, "a"), (2, "b"), (-1, "z")]) as table:
        assert list(table.items()) == [(-1, "z"), (1, "a"), (2, "b"), (3, "c")]
        assert list(table.values()) == ["z", "a", "b", "c"]
        assert list(table.keys()) == list(table) == [-1, 1, 2, 3]
        assert (1, "a") in table.items()


def test_get_many_gives_what_there_is():
    with LookupTable.build({"a": 1, "b": None, ("c", 1): 3}) as table:
        found = table.get_many(["a", "b", "absent", ("c", 1)])
        assert found == {"a": 1, "b": None, ("c", 1): 3}


def test_what_is_no_key_is_refused_however_it_is_asked_for():
    with LookupTable.build({1: 1}) as table:
        for ask in (table.get, table.__getitem__, table.__contains__, table.reader()):
            with pytest.raises(TableKeyError):
                ask(1.0)
        with pytest.raises(TableKeyError):
            table[None] = 1


def test_an_iteration_sees_the_table_as_it_was_when_it_began():
    with LookupTable.build(dict.fromkeys(range(10), "old")) as table:
        seen = table.items().__iter__()
        first = next(seen)
        table.update(dict.fromkeys(range(10, 20), "new"))
        table.update(dict.fromkeys(range(10), "new"))
        assert [first, *seen] == [(number, "old") for number in range(10)]


@pytest.mark.parametrize("batch", [1, 2, 7, 1000])
@pytest.mark.parametrize("order", ["up", "down", "mixed", "up then down"])
def test_of_a_key_that_comes_twice_the_later_value_counts(batch, order, monkeypatch):
    monkeypatch.setattr(_building, "_BATCH_ENTRIES", batch)
    keys = {
        "up": [number // 2 for number in range(40)],
        "down": [number // 2 for number in range(40, 0, -1)],
        "mixed": [number * 7 % 20 for number in range(60)],
        "up then down": [*range(20), *range(10, 0, -1)],
    }[order]
    pairs = [(key, place) for place, key in enumerate(keys)]
    with LookupTable.build(iter(pairs)) as table:
        assert dict(table) == dict(pairs)
        assert list(table) == sorted(set(keys))


def test_threads_read_and_a_thread_writes():
    with LookupTable.build(dict.fromkeys(range(100), 0)) as table:
        done = threading.Event()
        wrong = []

        def read():
            last = 0
            while not done.is_set():
                values = set(table.get_many([0, 99]).values())
                if min(values) < last:
                    wrong.append((values, last))
                last = max(last, min(values))

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        for turn in range(1, 300):
            table.update(dict.fromkeys(range(100), turn))
            if turn % 10 == 0:
                table.release()
        done.set()
        for reader in readers:
            reader.join()
        assert not wrong


def test_a_closed_table_says_so():
    table = LookupTable.build({"a": 1})
    read = table.reader()
    assert read("a") == 1
    table.close()
    table.close()
    for use in (
        lambda: table["a"],
        lambda: read("a"),
        lambda: "a" in table,
        lambda: len(table),
        lambda: list(table),
        lambda: table.update(a=2),
        table.release,
        table.reader,
    ):
        with pytest.raises(TableError, match="closed"):
            use()
    assert "closed" in repr(table)


def test_a_table_says_what_it_is(tmp_path):
    with LookupTable.build({"a": 1}, tmp_path / "t") as table:
        assert repr(table) == f"<LookupTable {str(tmp_path / 't')!r}, 1 entries>"
        assert table.path == str(tmp_path / "t")


def test_the_function_that_reads_keeps_the_table_open(tmp_path):
    LookupTable.build({"a": 1}, tmp_path / "t").close()
    read = LookupTable(tmp_path / "t").reader()
    assert read("a") == 1
