"""Starting a process that serves this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from okanjo_conductor._io import bootstrap, launching
from okanjo_conductor._io.launching import EarlyTemplate

BOOT = bootstrap.Boot(bootstrap.Target(reference=("os", "getpid")), list(sys.path), [""])


@pytest.fixture
def launched():
    """Launch processes that run this code, with the descriptor of their socket in `sock`."""
    made = []

    def launch(code, monkeypatch):
        monkeypatch.setattr(launching, "_CODE", f"sock = {{descriptor}}; {code}  # {{root}}")
        early = EarlyTemplate(BOOT, dict(os.environ))
        made.append(early)
        return early.process

    yield launch
    for early in made:
        early.abandon()


def descriptors():
    return sorted(entry.name for entry in Path("/dev/fd").iterdir())


def said_by(process):
    return process.socket.recv(1 << 16).decode()


def test_it_gets_its_socket_and_the_standard_streams_only(launched, monkeypatch):
    ours = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(ours, True)
    try:
        process = launched(
            "import os; os.write(sock, str(sorted(os.listdir('/dev/fd'), key=int)).encode())",
            monkeypatch,
        )
        assert said_by(process) in (str(["0", "1", "2", "3", "4"]), str(["0", "1", "2", "3"]))
    finally:
        os.close(ours)


def test_it_leads_a_group(launched, monkeypatch):
    process = launched("import os; os.write(sock, str(os.getpgid(0)).encode())", monkeypatch)
    assert said_by(process) == str(process.pid)


def test_a_template_that_nobody_wants_is_ended(launched, monkeypatch):
    process = launched("import time; time.sleep(100)", monkeypatch)
    assert process.pid


def test_what_cannot_be_launched_leaves_nothing_open(monkeypatch):
    before = descriptors()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OSError, match="No such file"):
        EarlyTemplate(BOOT, dict(os.environ))
    assert descriptors() == before


@pytest.mark.parametrize("option", ["-O", "-Wignore", "-Xdev", "-B", "-P"])
def test_options_of_the_interpreter_are_passed_on(option):
    code = (
        "from okanjo_conductor._io.launching import _interpreter_flags; print(_interpreter_flags())"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, option, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert option[:2] in done.stdout
