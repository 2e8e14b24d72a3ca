"""The first words between a conductor and a process it started."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from okanjo_conductor._io import bootstrap
from okanjo_conductor._io.bootstrap import Boot, Booted, BootFailed, Exited, Start, Started, Target


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(
    "message",
    [
        Boot(Target(reference=("module", "name")), ["/a", "/b"], ["script"]),
        Boot(Target(pickled=b"\0" * 10), [], []),
        Boot(Target(script="/a/script.py"), [], []),
        Start(1, 0, "master", True, b"options", 20, None),
        Booted(can_fork=True),
        BootFailed("Traceback: ä"),
        Started(3, 4711),
        Exited(3, 256),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_arrives_as_it_was_sent(message, pair):
    bootstrap.send(pair[0], message)

    assert bootstrap.receive(pair[1]) == (message, [])


def test_descriptors_arrive_with_their_own_message(pair):
    ours, theirs = pair
    pipes = [os.pipe() for _ in range(3)]
    for number, (read_end, _) in enumerate(pipes):
        bootstrap.send(ours, Started(number, 0), [read_end] * (number + 1))
        os.close(read_end)

    for number, (_, write_end) in enumerate(pipes):
        message, descriptors = bootstrap.receive(theirs)
        assert message.worker_id == number
        assert len(descriptors) == number + 1
        os.write(write_end, b"%d" % number)
        assert os.read(descriptors[0], 10) == b"%d" % number
        for descriptor in (write_end, *descriptors):
            os.close(descriptor)


def test_a_message_larger_than_the_socket_arrives_whole(pair):
    message = Boot(Target(pickled=os.urandom(5_000_000)), [], [])
    sender = threading.Thread(target=bootstrap.send, args=(pair[0], message))
    sender.start()

    assert bootstrap.receive(pair[1]) == (message, [])
    sender.join()


@pytest.mark.parametrize("sent", [b"", b"\x05", b"\x05" + bytes(7) + b"abc"])
def test_a_message_cut_short_is_an_end_of_file(sent, pair):
    ours, theirs = pair
    ours.sendall(sent)
    ours.close()

    with pytest.raises(EOFError):
        bootstrap.receive(theirs)


def test_what_was_read_in_pieces_is_split_into_whole_messages():
    messages = [bootstrap.Started(1, 100), bootstrap.Exited(1, 9), bootstrap.Booted(can_fork=True)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message in messages:
            bootstrap.send(ours, message)
        data = theirs.recv(1 << 16)

    for cut in range(len(data) + 1):
        first, rest = bootstrap.split(data[:cut])
        second, nothing = bootstrap.split(rest + data[cut:])
        assert first + second == messages
        assert nothing == b""
