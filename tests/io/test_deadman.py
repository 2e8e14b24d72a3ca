"""Processes end with the one that holds the switch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from okanjo_conductor._io.deadman import DeadMansSwitch

ARMED = """
import os, sys
from okanjo_conductor._io import deadman
deadman.arm(int(sys.argv[1]))
os.write(1, b"armed")
{then}
"""


def start_armed(switch, then):
    return subprocess.Popen(
        [sys.executable, "-c", ARMED.format(then=then), str(switch.read_end)],
        pass_fds=[switch.read_end],
        stdout=subprocess.PIPE,
        process_group=0,
    )


@pytest.mark.parametrize(
    "then",
    [
        "import signal; signal.pause()",
        "import re; re.match('(a+)+$', 'a' * 64 + 'b')",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()",
    ],
    ids=["waiting", "in C code", "ignoring SIGTERM"],
)
def test_an_armed_process_dies_when_the_switch_is_let_go(then):
    switch = DeadMansSwitch()
    process = start_armed(switch, then)
    assert process.stdout.read(5) == b"armed"

    switch.close()

    assert process.wait(timeout=10) == -signal.SIGKILL
    process.stdout.close()


def test_a_process_that_is_armed_too_late_dies_at_once():
    switch = DeadMansSwitch()
    read_end = os.dup(switch.read_end)
    code = "import sys; sys.stdin.read();" + ARMED.replace("{then}", "while True: pass")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(read_end)],
        pass_fds=[read_end],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        process_group=0,
    )
    os.close(read_end)
    switch.close()

    process.stdin.close()

    assert process.wait(timeout=10) == -signal.SIGKILL


def test_a_fork_of_the_holder_does_not_hold_the_switch():
    switch = DeadMansSwitch()
    process = start_armed(switch, "import signal; signal.pause()")
    assert process.stdout.read(5) == b"armed"
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(tell)
        os.read(told, 1)
        os._exit(0)
    os.close(told)

    switch.close()

    assert process.wait(timeout=10) == -signal.SIGKILL
    os.close(tell)
    assert os.waitpid(child, 0) == (child, 0)
    process.stdout.close()


def test_a_switch_is_closed_once():
    switch = DeadMansSwitch()
    switch.close()

    with Path(os.devnull).open() as other:
        switch.close()
        os.fstat(other.fileno())
