"""A terminal without a screen: starts a script in one, and shows what a person would see."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import pyte

from system.moments import DEADLINE

COLUMNS, ROWS = 90, 20
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
"""Makes its standard input the terminal whose Ctrl-C it gets."""


class Terminal:
    """A script, and the screen it writes to."""

    def __init__(self, script, *, env=None, stdout=None):
        self.screen = pyte.HistoryScreen(COLUMNS, ROWS, history=10_000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        dropped = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM")
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, "-W", "error", script],
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            env={**kept, "TERM": "xterm-256color", **(env or {})},
        )
        os.close(theirs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    @property
    def lines(self):
        """What is on the screen, and what has scrolled out of it."""
        above = ["".join(row[x].data for x in range(COLUMNS)) for row in self.screen.history.top]
        return [line.rstrip() for line in (*above, *self.screen.display)]

    @property
    def text(self):
        """All of it, without the empty lines at the end."""
        return "\n".join(self.lines).rstrip()

    def until(self, condition):
        """Read what the script writes until the screen is so; return its text."""
        deadline = time.monotonic() + DEADLINE
        while not condition(self.text):
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                message = f"it has not come to this:\n{self.text}"
                raise AssertionError(message)
        return self.text

    def end(self):
        """Read until the script has ended; return what is on the screen then."""
        deadline = time.monotonic() + DEADLINE
        while self._read(deadline - time.monotonic()):
            pass
        self.process.wait(DEADLINE)
        return self.text

    def type(self, keys):
        """Press keys."""
        os.write(self._ours, keys)

    def _read(self, patience):
        """Read once; say whether there was something."""
        if not select.select([self._ours], [], [], max(patience, 0))[0]:
            return False
        try:
            data = os.read(self._ours, 1 << 16)
        except OSError as error:  # Linux says so when nobody holds the other end
            if error.errno != errno.EIO:
                raise
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)
