"""The shared page: who may start which ordinal."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from okanjo_conductor._io import cells


@pytest.fixture
def page():
    descriptor = cells.make_page()
    view = cells.map_page(descriptor)
    os.close(descriptor)
    yield view
    view.release()


def is_revoked(page, ordinal):
    """Decide as a worker does that has just claimed this ordinal."""
    return page[cells.LOW] < ordinal <= page[cells.HIGH]


def test_a_new_page_claims_and_revokes_nothing(page):
    assert cells.last_started(page) is None
    assert cells.last_kept(page) == 0
    assert not any(is_revoked(page, ordinal) for ordinal in range(1, 100))


def test_both_mappings_of_a_page_show_the_same():
    descriptor = cells.make_page()
    ours, theirs = cells.map_page(descriptor), cells.map_page(descriptor)
    os.close(descriptor)

    theirs[cells.CLAIM] = 1 << 60

    assert ours[cells.CLAIM] == 1 << 60
    ours.release()
    theirs.release()


@pytest.mark.parametrize(
    ("claimed", "last", "kept", "revoked"),
    [
        (0, 5, 0, {1, 2, 3, 4, 5}),
        (1, 5, 1, {2, 3, 4, 5}),
        (4, 5, 4, {5}),
        (5, 5, 5, set()),
        (7, 5, 7, set()),
    ],
)
def test_what_is_revoked_is_what_lies_beyond_the_claim(claimed, last, kept, revoked, page):
    page[cells.CLAIM] = claimed

    cells.revoke(page, last)

    assert cells.last_kept(page) == kept
    assert {ordinal for ordinal in range(1, 10) if is_revoked(page, ordinal)} == revoked


@pytest.mark.parametrize(
    ("claimed_then", "kept"),
    [(2, 2), (3, 3), (6, 6)],
    ids=["it did not move", "it moved by one", "it moved beyond"],
)
def test_a_claim_in_the_race_is_kept(claimed_then, kept, page):
    page[cells.CLAIM] = 2
    cells.revoke(page, 5)

    page[cells.CLAIM] = claimed_then

    assert cells.last_kept(page) == kept


@pytest.mark.parametrize(
    ("claimed", "low", "high"),
    [
        (3, 2, 9),  # it is skipping 3..5: the revoked range grows
        (5, 2, 9),
        (2, 2, 9),  # it has not begun to skip
        (7, 7, 9),  # it is beyond what was revoked: a new range
    ],
)
def test_revoking_again_never_gives_back_what_is_being_skipped(claimed, low, high, page):
    page[cells.CLAIM] = 2
    cells.revoke(page, 5)
    page[cells.CLAIM] = claimed

    cells.revoke(page, 9)

    assert (page[cells.LOW], page[cells.HIGH]) == (low, high)


@pytest.mark.parametrize(
    ("claimed", "declined", "started"), [(0, 0, None), (3, 0, 3), (3, 2, 3), (3, 3, None)]
)
def test_what_a_dead_worker_had_started(claimed, declined, started, page):
    page[cells.CLAIM], page[cells.DECLINED] = claimed, declined

    assert cells.last_started(page) == started


def test_the_barrier_can_be_called_where_there_is_one(page):
    assert cells.barrier_for(page) is None

    cells.register_for_membarrier(page)
    barrier = cells.barrier_for(page)

    if cells.membarrier() is None:
        pytest.skip("this platform has no membarrier")
    barrier()


@pytest.mark.parametrize(("platform", "machine"), [("darwin", "arm64"), ("linux", "s390x")])
def test_there_is_no_barrier_on_other_platforms(platform, machine, page, monkeypatch):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(machine=machine))

    assert cells.membarrier.__wrapped__() is None
    cells.register_for_membarrier(page)
    assert not page[cells.REGISTERED]


def test_what_was_skipped_last_is_not_what_was_started_last(page):
    for ordinal in (4, 5, 6):
        page[cells.CLAIM] = ordinal
        if ordinal > 4:
            cells.decline(page, ordinal)

    assert cells.last_started(page) == 4
    assert cells.last_skipped(page) == (5, 6)


def test_a_run_of_skipped_ordinals_begins_anew_after_one_that_was_started(page):
    for ordinal in (1, 2, 3):
        page[cells.CLAIM] = ordinal
        if ordinal != 2:
            cells.decline(page, ordinal)

    assert cells.last_skipped(page) == (3, 3)
    assert cells.last_started(page) == 2


def test_who_has_started_and_skipped_nothing_says_so(page):
    assert cells.last_skipped(page) is None
    assert cells.running(page) is None

    page[cells.RUNNING] = 7

    assert cells.running(page) == 7


def test_a_page_that_is_a_file_outlives_who_made_it_and_has_all_its_room(tmp_path):
    path = tmp_path / "1.page"
    descriptor = cells.make_page(str(path))
    page = cells.map_page(descriptor)
    os.write(descriptor, b"last words")
    page[cells.CLAIM] = 7
    page.release()
    os.close(descriptor)

    assert path.stat().st_blocks * 512 >= path.stat().st_size
    with path.open("r+b") as file:
        page = cells.map_page(file.fileno())
    assert page[cells.CLAIM] == 7
    assert cells.black_box(page) == "last words"
    page.release()


def test_a_page_takes_nobody_elses_place(tmp_path):
    (tmp_path / "1.page").touch()
    with pytest.raises(FileExistsError):
        cells.make_page(str(tmp_path / "1.page"))
