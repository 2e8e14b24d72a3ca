"""Which life of which machine this is: another one after the machine or container was started."""

from __future__ import annotations

import os

from okanjo_conductor._io.files import text_of


def machine_id() -> str:
    """Return a text that is the same in all processes until everything they share is gone.

    On Linux it is the kernel's boot id and the start time of process 1: of a container that is
    started again, all processes die while the kernel lives on.
    """
    try:
        boot = text_of("/proc/sys/kernel/random/boot_id").strip()
    except OSError:
        return _boot_time()
    try:
        # The name, in parentheses, may hold spaces; the start time is the 22nd field.
        started = text_of("/proc/1/stat").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = "?"
    return f"{boot}/{started}"


def _boot_time() -> str:
    """Ask the kernel where there is no /proc."""
    import subprocess

    asked = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]  # of macOS
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return os.uname().nodename
