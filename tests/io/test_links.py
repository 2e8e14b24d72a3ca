"""What connects a conductor and a worker: made whole, closed whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from okanjo_conductor._io import cells, links
from okanjo_conductor._io.deadman import DeadMansSwitch


@pytest.fixture
def switch():
    made = DeadMansSwitch()
    yield made
    made.close()


def count_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_closing_both_ends_leaves_no_descriptor(switch):
    before = count_descriptors()

    ours, theirs = links.make()
    assert count_descriptors() > before
    ours.close()
    theirs.close()

    assert count_descriptors() == before
    os.fstat(switch.read_end)  # it is shared and stays open


def test_the_ends_belong_together():
    ours, theirs = links.make()

    os.write(theirs.job_link, b"job link")
    os.write(theirs.stdout, b"stdout")
    os.write(theirs.stderr, b"stderr")
    os.write(ours.bell, b"bell")
    page = cells.map_page(theirs.cells)
    page[cells.CLAIM] = 5

    assert ours.job_link.recv(100) == b"job link"
    assert os.read(ours.stdout, 100) == b"stdout"
    assert os.read(ours.stderr, 100) == b"stderr"
    assert os.read(theirs.bell, 100) == b"bell"
    assert ours.cells[cells.CLAIM] == 5
    travelling = [theirs.job_link, theirs.cells, theirs.stdout, theirs.stderr, theirs.bell]
    assert theirs.as_list() == travelling
    page.release()
    ours.close()
    theirs.close()


def test_the_conductors_ends_never_block_and_the_workers_may():
    ours, theirs = links.make()

    for descriptor in (ours.job_link.fileno(), ours.stdout, ours.stderr, ours.bell):
        assert not os.get_blocking(descriptor)
    for descriptor in (theirs.job_link, theirs.stdout, theirs.stderr, theirs.bell):
        assert os.get_blocking(descriptor)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("good", range(4))
def test_links_that_cannot_be_made_leave_nothing_open(good, monkeypatch):
    pipes = []

    def pipe():
        if len(pipes) == good:
            raise OSError(24, "Too many open files")
        pipes.append(real_pipe())
        return pipes[-1]

    def no_page(_path):
        raise OSError(24, "Too many open files")

    real_pipe = os.pipe
    before = count_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", pipe)
        patch.setattr(cells, "make_page", no_page)
        with pytest.raises(OSError, match="Too many open files"):
            links.make()

    assert count_descriptors() == before


def test_where_there_is_no_room_for_a_page_that_is_said():
    no_room = OSError(errno.ENOSPC, "No space left on device")
    assert "Make room where run.db-live/1.page is to be" in str(
        links.none_left(no_room, "run.db-live/1.page")
    )
    assert "ulimit -n" in str(links.none_left(no_room, None))
    assert "ulimit -n" in str(links.none_left(OSError(errno.EMFILE, "Too many"), "1.page"))
