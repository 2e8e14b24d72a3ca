"""Starting a Python process that serves this one: a template, or a worker by itself.

By ``posix_spawn``, which copies nothing of this process and needs no `subprocess`: 0.3 ms, and the
new process boots while this one goes on loading.
"""

from __future__ import annotations

import _socket as socket  # `socket` itself takes 3 ms to load: time enough when the process boots
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from okanjo_conductor._io import bootstrap, groups
from okanjo_conductor._io.deadman import DeadMansSwitch

if TYPE_CHECKING:
    from okanjo_conductor._io.bootstrap import Boot

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120 - `pathlib` takes 3 ms to load
_CODE = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from okanjo_conductor._boot import main; main({descriptor})"
)
_STANDARD = 3
"""Descriptors below are the standard streams."""


class Launched:
    """A process and the socket on which it takes orders.

    Args:
        python: path of its interpreter; None: that of this process.
    """

    def __init__(
        self, boot: Boot, env: dict[str, str], deadman: int, python: str | None = None
    ) -> None:
        self.socket, theirs = socket.socketpair()
        try:
            for end in (self.socket, theirs):
                end.setblocking(True)  # socket.setdefaulttimeout() may have said otherwise
            self.pid = _spawn(theirs.fileno(), env, python or sys.executable)
        except BaseException:
            self.socket.close()
            raise
        finally:
            theirs.close()
        with suppress(OSError):  # it died at once: its exit tells
            bootstrap.send(self.socket, boot, [deadman])


class EarlyTemplate:
    """A template that was launched before there is anybody to watch it.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, boot: Boot, env: dict[str, str], python: str | None = None) -> None:
        self.switch = DeadMansSwitch()
        try:
            self.process = Launched(boot, env, self.switch.read_end, python)
        except BaseException:
            self.switch.close()
            raise

    def abandon(self) -> None:
        """End it: nobody will want it."""
        groups.end(self.process.pid)
        self.process.socket.close()
        self.switch.close()
        with suppress(ChildProcessError):
            os.waitpid(self.process.pid, 0)


def _spawn(descriptor: int, env: dict[str, str], python: str) -> int:
    """Start the process, in a group of its own, with this descriptor and the standard streams."""
    target = _STANDARD if descriptor != _STANDARD else _STANDARD + 1  # dup2 makes it inheritable
    code = _CODE.format(root=_ROOT, descriptor=target)
    actions = [(os.POSIX_SPAWN_CLOSE, number) for number in _inheritable() if number != descriptor]
    return os.posix_spawn(
        python,
        [python, *_interpreter_flags(), "-c", code],
        env,
        file_actions=[
            *actions,
            (os.POSIX_SPAWN_DUP2, descriptor, target),
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        ],
        setpgroup=0,
    )


def _inheritable() -> list[int]:
    """Find the descriptors of this process that others would get, but the standard streams."""
    found: list[int] = []
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - as above
        number = int(name)
        with suppress(OSError):  # the one that listed them is closed
            if number >= _STANDARD and os.get_inheritable(number):
                found.append(number)
    return found


def _interpreter_flags() -> list[str]:
    """Return the options that make another interpreter behave as this one does."""
    flags = sys.flags
    is_plain = not (
        sys.warnoptions
        or sys._xoptions
        or flags.debug
        or flags.optimize
        or (flags.dont_write_bytecode and not os.environ.get("PYTHONDONTWRITEBYTECODE"))
        or flags.no_user_site
        or flags.no_site
        or flags.ignore_environment
        or flags.isolated
        or flags.verbose
        or flags.bytes_warning
        or flags.quiet
        or flags.dev_mode
    )
    if is_plain and not flags.safe_path:
        return []
    import subprocess  # takes 5 ms to load

    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined,no-any-return]  # as multiprocessing does
