"""What conductors and agents say to each other arrives whole, and in order for each worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor.clusters._packets import PIECE, Inbox, Outbox

LARGE = b"x" * (2 * PIECE + 5)


def packets_of(outbox):
    packets = []
    while outbox:
        packets.append(outbox.take())
    return packets


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([b"", b"small", LARGE])), max_size=8),
    st.randoms(use_true_random=False),
)
def test_each_lane_keeps_its_order_whatever_order_packets_come_in(said, random):
    outbox, inbox = Outbox(), Inbox()
    for number, (lane, data) in enumerate(said):
        outbox.put(lane, (lane, number, data))
    packets = packets_of(outbox)
    random.shuffle(packets)
    heard = [entry for packet in packets for entry in inbox.take(packet)]
    for lane in range(4):
        expected = [(n, data) for n, (to, data) in enumerate(said) if to == lane]
        assert [(number, data) for to, number, data in heard if to == lane] == expected
    assert len(heard) == len(said)


def test_what_is_said_of_one_worker_does_not_wait_for_what_is_said_of_another():
    outbox, inbox = Outbox(), Inbox()
    outbox.put(1, ("large", LARGE))
    outbox.put(2, ("small",))
    assert inbox.take(outbox.take()) == [("small",)]
    outbox.put(3, ("later",))
    assert inbox.take(outbox.take()) == [("later",)]
    assert inbox.take(outbox.take()) == [("large", LARGE)]
    assert not outbox


def test_a_packet_holds_so_much_of_a_lane_and_no_more():
    outbox = Outbox()
    for _ in range(10):
        outbox.put(1, (b"y" * (PIECE // 3),))
    sizes = [len(packet) for packet in packets_of(outbox)]
    assert len(sizes) == 4
    assert all(size < PIECE + 500 for size in sizes)


def test_what_waits_is_counted_by_lane():
    outbox = Outbox()
    assert outbox.size_of(1) == 0
    outbox.put(1, (LARGE,))
    outbox.put(2, (b"",))
    full = outbox.size_of(1)
    assert full > len(LARGE) > outbox.size_of(2) > 0
    outbox.take()
    assert outbox.size_of(1) == full - PIECE
    assert outbox.size_of(2) == 0
    outbox.clear()
    assert not outbox
    assert outbox.size_of(1) == 0
