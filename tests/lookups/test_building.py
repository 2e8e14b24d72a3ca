"""Building: whole or not at all, whenever the builder is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from okanjo_conductor.errors import ConfigurationError, TableError
from okanjo_conductor.lookups import LookupTable, _building, _large, _making, _place

NEW = {f"key {number}": "x" * number * 100 for number in range(24)}
OLD = {"old": 1}


def names_in(path):
    return {entry.name for entry in path.iterdir()}


def in_child(act):
    """Do something in a fork of this process; return how that ended."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(event, act):
    """Do something in a child that is killed at its nth call or return; tell whether it was."""
    left = event

    def count(*_):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def run():
        sys.setprofile(count)
        act()
        sys.setprofile(None)

    code = in_child(run)
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(_building, "_BATCH_ENTRIES", 5)


def steps(first, step):
    """Moments to be killed at, up to the end of what is done."""
    return range(first, 100_000, step)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("order", ["up", "down"])
def test_a_builder_killed_anywhere_leaves_no_table_or_the_whole(tmp_path, order):
    path = tmp_path / "t"
    pairs = sorted(NEW.items(), reverse=order == "down")
    places = {"none": 0, "whole": 0}
    for event in steps(3, 41):
        was_killed = killed_at(event, lambda: LookupTable.build(pairs, path))
        if path.exists():
            with LookupTable(path) as table:
                assert dict(table) == NEW
            _making.remove(path)
            places["whole"] += 1
        else:
            with pytest.raises(TableError, match="no lookup table at"):
                LookupTable(path)
            places["none"] += 1
        if not was_killed:
            break
    assert places["none"] > 10
    LookupTable.build(pairs, path).close()
    assert names_in(tmp_path) == {"t", "temporary"}


@pytest.mark.usefixtures("small_batches")
def test_a_builder_killed_while_it_replaces_a_table_leaves_the_old_one_or_the_new(tmp_path):
    path = tmp_path / "t"
    found = set()
    for event in steps(3, 67):
        if not path.exists():
            LookupTable.build(OLD, path).close()
        was_killed = killed_at(event, lambda: LookupTable.build(NEW, path, replace=True))
        if path.exists():
            with LookupTable(path) as table:
                content = dict(table)
            assert content in (OLD, NEW)
            found.add("old" in content)
            if content == NEW:
                _making.remove(path)
        if not was_killed:
            break
    assert found == {True, False}
    LookupTable.build(NEW, path, replace=True).close()
    assert names_in(tmp_path) == {"t", "temporary"}


@pytest.mark.usefixtures("small_batches")
def test_what_killed_builders_of_temporary_tables_leave_is_removed_by_the_next(temporary):
    left = set()
    for event in steps(3, 97):
        if not killed_at(event, lambda: LookupTable.build(NEW)):
            break
        left.add(len(names_in(temporary)))
    assert left == {0, 1}
    assert not names_in(temporary)


def test_the_table_of_a_living_process_is_not_removed_by_the_next_build(temporary):
    with LookupTable.build(OLD) as table, LookupTable.build(NEW) as other:
        assert dict(table) == OLD
        assert dict(other) == NEW
        assert len(names_in(temporary)) == 2


def test_a_directory_that_is_swept_before_it_is_locked_is_made_again(temporary, monkeypatch):
    made = []
    really = _place.open_directory

    def swept(path):
        made.append(path)
        if len(made) == 1:
            Path(path).rmdir()
        return really(path)

    monkeypatch.setattr(_place, "open_directory", swept)
    path, descriptor = _making.make_directory(temporary, "p-")
    os.close(descriptor)
    assert str(path) == made[1]
    path.rmdir()


def test_a_directory_that_is_being_swept_is_left_to_it(temporary, monkeypatch):
    answers = [False, True]
    monkeypatch.setattr(_place, "lock", lambda _: answers.pop(0))
    _, descriptor = _making.make_directory(temporary, "p-")
    os.close(descriptor)
    assert len(names_in(temporary)) == 2
    for name in names_in(temporary):
        (temporary / name).rmdir()


def test_what_the_source_raises_comes_out_and_nothing_is_left(tmp_path, temporary):
    def source():
        yield "a", 1
        raise OSError("the source has gone")

    for path in (None, tmp_path / "t"):
        with pytest.raises(OSError, match="the source has gone"):
            LookupTable.build(source(), path)
    assert not names_in(temporary)
    assert names_in(tmp_path) == {"temporary"}


@pytest.mark.parametrize("item", [1, ("a",), ("a", 1, 2)])
def test_an_item_that_is_no_pair_is_named(item):
    with pytest.raises(TableError, match="item 2 for the lookup table is no pair"):
        LookupTable.build([("a", 1), item])


def test_an_existing_table_is_not_replaced_unasked(tmp_path):
    path = tmp_path / "t"
    LookupTable.build(OLD, path).close()
    with pytest.raises(TableError, match="replace=True"):
        LookupTable.build(NEW, path)
    with LookupTable(path) as table, LookupTable.build(NEW, path, replace=True) as new:
        assert dict(table) == OLD
        assert dict(new) == NEW


def test_a_table_that_is_being_written_to_is_not_replaced(tmp_path):
    path = tmp_path / "t"
    with LookupTable.build(OLD, path), pytest.raises(TableError, match="being written to"):
        LookupTable.build(NEW, path, replace=True)


@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_what_is_no_table_is_never_replaced_nor_opened(tmp_path, what):
    path = tmp_path / "t"
    if what == "file":
        path.write_text("precious")
    elif what == "link":
        path.symlink_to("nowhere")
    else:
        path.mkdir()
        (path / "precious").touch()
    with pytest.raises(TableError, match=r"no lookup table|no complete lookup table"):
        LookupTable.build(NEW, path, replace=True)
    with pytest.raises(TableError, match=r"no lookup table|no complete lookup table"):
        LookupTable(path)
    assert os.path.lexists(path)


def test_a_directory_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(TableError, match="nowhere"):
        LookupTable.build(NEW, tmp_path / "nowhere" / "t")


def test_a_copy_without_its_mark_is_refused(tmp_path):
    path = tmp_path / "t"
    LookupTable.build(OLD, path).close()
    (path / "complete").unlink()
    with pytest.raises(TableError, match="no complete lookup table"):
        LookupTable(path)


def test_a_table_of_another_format_is_refused(tmp_path):
    path = tmp_path / "t"
    LookupTable.build(OLD, path).close()
    (path / "complete").write_text("okanjo_conductor lookup table, format 2\n")
    with pytest.raises(TableError, match=r"format 2.*format 1"):
        LookupTable(path)


def test_a_table_that_was_written_to_when_the_machine_stopped_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "t"
    LookupTable.build(OLD, path).close()

    def write():
        table = LookupTable(path)
        table["a"] = 1
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(write) == -signal.SIGKILL
    with LookupTable(path) as table:  # a killed process does no harm
        assert table["a"] == 1
    with monkeypatch.context() as other_boot:
        other_boot.setattr(_place, "boot", lambda: 7)
        with pytest.raises(TableError, match="machine stopped"):
            LookupTable(path)
    with LookupTable(path) as table:
        table["a"] = 2
    monkeypatch.setattr(_place, "boot", lambda: 7)
    with LookupTable(path) as table:  # it was closed, and so is on the disk
        assert table["a"] == 2


def test_no_room_for_a_large_value_is_said(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_large, "write_at", full)
    with pytest.raises(TableError, match="No space left"):
        LookupTable.build({"a": b"x" * 5000})


@pytest.mark.parametrize("limit", [4 << 30])
def test_a_process_that_may_have_few_addresses_gets_a_smaller_map(limit, tmp_path):
    LookupTable.build(NEW, tmp_path / "t").close()
    script = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n"
        "from okanjo_conductor.lookups import LookupTable\n"
        f"table = LookupTable({str(tmp_path / 't')!r})\n"
        "table['a'] = 1\n"
        "print(len(table))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "25\n"


def test_without_lmdb_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ConfigurationError, match=r"okanjo-conductor\[lookups\]"):
        LookupTable.build({})
    with pytest.raises(ConfigurationError, match=r"okanjo-conductor\[lookups\]"):
        LookupTable("anywhere")
