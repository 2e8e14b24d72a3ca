"""Several processes and one table: what readers see, what forks may do, what the dead leave."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from okanjo_conductor.errors import ConductorStateError, TableError
from okanjo_conductor.lookups import LookupTable, _mapped

from .test_building import in_child

READER = """
import pickle, sys
table = pickle.loads(bytes.fromhex(sys.argv[1]))
read = table.reader()
for line in sys.stdin:
    print(repr(read(line.strip())), flush=True)
"""


class Reader:
    """Another process that reads a table when it is told to."""

    def __init__(self, table):
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER, pickle.dumps(table).hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self, key):
        self.process.stdin.write(f"{key}\n")
        self.process.stdin.flush()
        return eval(self.process.stdout.readline())

    def kill(self):
        self.process.kill()
        self.end()

    def end(self):
        self.process.communicate()


def test_other_processes_see_every_write_at_once():
    with LookupTable.build({"n": 0}) as table:
        readers = [Reader(table), Reader(table)]
        for number in range(100):
            table["n"] = number
            assert [reader.read("n") for reader in readers] == [number, number]
        for reader in readers:
            reader.end()


def test_a_copy_reads_and_does_not_write():
    with LookupTable.build({"a": 1}) as table:
        copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(table))))
        for write in (
            lambda: copy.__setitem__("a", 2),
            lambda: copy.__delitem__("a"),
            copy.clear,
            lambda: copy.update(a=2),
        ):
            with pytest.raises(ConductorStateError, match="set_lookup"):
                write()
        assert copy["a"] == 1
        copy.close()
        assert table["a"] == 1


def test_a_copy_is_opened_when_it_is_used_and_not_before(tmp_path):
    path = tmp_path / "t"
    with LookupTable.build({"a": 1}, path) as table:
        pickled = pickle.dumps(table)
    moved = path.rename(tmp_path / "moved")
    copy = pickle.loads(pickled)
    with pytest.raises(TableError, match="no lookup table at"):
        copy["a"]
    moved.rename(path)
    assert copy["a"] == 1
    copy.close()


def test_a_copy_does_not_read_the_table_that_replaced_its_own(tmp_path):
    path = tmp_path / "t"
    with LookupTable.build({"a": 1}, path) as table:
        pickled = pickle.dumps(table)
    LookupTable.build({"a": 2}, path, replace=True).close()
    with pytest.raises(TableError, match="replaced"):
        pickle.loads(pickled)["a"]


def test_two_objects_in_one_process_share_the_map(tmp_path):
    path = tmp_path / "t"
    one, other = LookupTable.build({"a": 1}, path), LookupTable(path)
    one["a"] = 2
    assert other["a"] == 2
    one.close()
    assert other["a"] == 2
    other["a"] = 3
    other.close()
    with LookupTable(path) as table:
        assert table["a"] == 3


def test_one_process_writes_at_a_time(tmp_path):
    path = tmp_path / "t"
    with LookupTable.build({"a": 1}, path):
        script = (
            "from okanjo_conductor.lookups import LookupTable\n"
            f"table = LookupTable({str(path)!r})\n"
            "assert table['a'] == 1\n"
            "table['a'] = 2\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        assert "TableError" in done.stderr
        assert "being written to by another process" in done.stderr
    subprocess.run([sys.executable, "-c", script], check=True)
    with LookupTable(path) as table:
        assert table["a"] == 2


def test_a_writer_that_is_killed_leaves_what_it_had_committed(tmp_path):
    path = tmp_path / "t"
    LookupTable.build({}, path).close()
    script = (
        "from okanjo_conductor.lookups import LookupTable\n"
        f"table = LookupTable({str(path)!r})\n"
        "for turn in range(10**9):\n"
        "    table.update(dict.fromkeys(range(50), turn))\n"
        "    print(turn, flush=True)\n"
    )
    last = -1
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as writer:
            for _ in range(20):
                said = int(writer.stdout.readline())
            writer.kill()
            said = max([said, *map(int, writer.stdout.read().split())])
        with LookupTable(path) as table:
            values = set(table.values())
            assert len(table) == 50
            assert len(values) == 1
            assert values.pop() in (said, said + 1)
            table["written by"] = "another"
            del table["written by"]
        last = said
    assert last >= 19


def size_of(table):
    return (Path(table.path) / "data.mdb").stat().st_size


def rewrite(table, times=60):
    for turn in range(times):
        table.update(dict.fromkeys(range(100), f"{turn}" * 400))


def test_readers_that_die_do_not_keep_old_pages():
    with LookupTable.build({"a": "1"}) as table:
        rewrite(table)
        without_readers = size_of(table)
        reader = Reader(table)
        assert reader.read("a") == "1"
        reader.kill()
        assert table.forget_dead_readers() == 1
        rewrite(table)
        assert size_of(table) <= without_readers * 1.5


def test_the_writer_forgets_dead_readers_by_itself(monkeypatch):
    monkeypatch.setattr(_mapped, "_FORGET_EVERY", 0.0)
    with LookupTable.build({"a": "1"}) as table:
        reader = Reader(table)
        assert reader.read("a") == "1"
        reader.kill()
        table["a"] = 2
        assert table.forget_dead_readers() == 0


def test_a_reader_that_lives_keeps_its_pages_until_it_releases_them():
    with LookupTable.build({"a": "1"}) as table:
        rewrite(table)
        before = size_of(table)
        copy = pickle.loads(pickle.dumps(table))
        assert copy["a"] == "1"
        rewrite(table)
        grown = size_of(table)
        assert grown > before * 1.5  # else the test would prove nothing
        copy.release()
        rewrite(table)
        assert size_of(table) <= grown * 1.2
        assert copy["a"] == "1"
        copy.close()


def test_slots_of_dead_readers_are_used_again_when_all_are_taken(monkeypatch):
    monkeypatch.setattr(_mapped, "_MAX_READERS", 3)
    with LookupTable.build({"a": 1}) as table:
        for _ in range(3):
            reader = Reader(table)
            assert reader.read("a") == 1
            reader.kill()
        assert table["a"] == 1


def test_too_many_readers_are_refused_with_their_number(monkeypatch):
    monkeypatch.setattr(_mapped, "_MAX_READERS", 3)
    with LookupTable.build({"a": 1}) as table:
        reads = [table.reader() for _ in range(5)]
        for read in reads[:3]:
            assert read("a") == 1
        with pytest.raises(TableError, match="3 readers"):
            reads[3]("a")
        del reads[:3], read
        gc.collect()
        assert reads[0]("a") == 1


def test_a_reader_takes_one_slot_however_often_it_is_renewed(monkeypatch):
    monkeypatch.setattr(_mapped, "_MAX_READERS", 1)
    with LookupTable.build({"a": 0}) as table:
        for number in range(5):
            table["a"] = number
            assert table["a"] == number


def test_a_fork_reads_for_itself_and_harms_nobody():
    with LookupTable.build({"a": 1, "x": np.arange(1000)}) as table:
        read = table.reader()
        array = table["x"]
        assert read("a") == 1

        def act():
            assert (read("a"), table["a"], len(table)) == (1, 1, 2)
            assert (table["x"] == array).all()
            with pytest.raises(TableError, match="being written to"):
                table["a"] = 2
            table.close()
            with pytest.raises(TableError, match="closed"):
                read("a")

        for turn in range(3):
            assert in_child(act) == 0
            assert Path(table.path).exists()
            table["a"] = 5
            assert read("a") == 5
            table["a"] = 1
            assert read("a") == 1, turn


def test_forks_do_not_free_what_their_parent_reads():
    with LookupTable.build(dict.fromkeys(range(500), "old" * 100)) as table:
        begun = table.items().__iter__()
        first = next(begun)
        assert table[3] == "old" * 100
        assert in_child(gc.collect) == 0
        for turn in range(20):
            table.update(dict.fromkeys(range(500), f"{turn}" * 100))
        assert dict([first, *begun]) == dict.fromkeys(range(500), "old" * 100)


def test_a_fork_during_an_iteration_is_told_why_it_cannot_read():
    with LookupTable.build(dict.fromkeys(range(500), "x")) as table:
        begun = iter(table)
        next(begun)

        def act():
            with pytest.raises(TableError, match="forked"):
                next(begun)
            with pytest.raises(TableError, match="forked"):
                table[1]

        assert in_child(act) == 0
        assert len([*begun]) == 499


def test_a_fork_that_exits_in_the_ordinary_way_does_not_remove_its_parents_table(tmp_path):
    script = (
        "import os, sys\n"
        "from okanjo_conductor.lookups import LookupTable\n"
        "table = LookupTable.build({'a': 1})\n"
        "assert table['a'] == 1\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    assert table['a'] == 1\n"
        "    sys.exit()\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "table['b'] = 2\n"
        "assert dict(table) == {'a': 1, 'b': 2}\n"
        "print(table.path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert not Path(done.stdout.strip()).exists()  # at its own end it did


def test_a_temporary_table_goes_with_the_object():
    table = LookupTable.build({"a": 1})
    path = Path(table.path)
    assert path.exists()
    del table
    assert not path.exists()


def test_the_temporary_table_of_a_process_that_was_killed_is_removed_by_the_next(temporary):
    def act():
        table = LookupTable.build({"a": 1})
        assert table["a"] == 1
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(act) == -signal.SIGKILL
    assert len(list(temporary.iterdir())) == 1
    LookupTable.build({}).close()
    assert not list(temporary.iterdir())


def test_a_snapshot_that_another_thread_ended_is_begun_anew():
    with LookupTable.build({"a": 1, 2: 2}) as table:
        read = table.reader()
        for key, value in (("a", 1), (2, 2)):
            assert table[key] == read(key) == value
            for snapshot in list(table._reading.mapped._snapshots):
                snapshot.get = _mapped._dropped  # between the look at its version and the search
            assert table[key] == read(key) == value


def test_what_lmdb_says_of_a_broken_table_is_told():
    with LookupTable.build({"a": 1}) as table:
        assert table["a"] == 1
        table._reading.mapped._environment.close()
        with pytest.raises(TableError, match="cannot be read"):
            table["a"]
        with pytest.raises(TableError, match="cannot be read"):
            list(table)
        with pytest.raises(TableError, match="cannot be written to"):
            table["a"] = 2
