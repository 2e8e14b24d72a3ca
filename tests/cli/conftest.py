"""The command line as users have it: a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import okanjo_conductor
from guards import no_leaks, nothing_is_left, own_loop

__all__ = ["no_leaks", "nothing_is_left", "own_loop"]

SOURCE = str(Path(okanjo_conductor.__file__).parents[1])
DEADLINE = 60


class Shell:
    """A folder, and commands that are run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / ".tmp"
        self.temporary.mkdir()
        self.env = {
            **os.environ,
            "PYTHONPATH": SOURCE,
            "TMPDIR": str(self.temporary),
            "PYTHONWARNINGS": "error",
        }

    def argv(self, *args):
        return [sys.executable, "-m", "okanjo_conductor", *map(str, args)]

    def __call__(self, *args, stdin="", **options):
        """Run ``conductor`` with these arguments, to its end."""
        return subprocess.run(
            self.argv(*args),
            cwd=options.pop("cwd", self.folder),
            env={**self.env, **options.pop("env", {})},
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=DEADLINE,
            check=False,
            **options,
        )

    def start(self, *args, **options):
        """Start it, and return the process."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            self.argv(*args), cwd=self.folder, env=self.env, text=True, **(pipes | options)
        )

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    def out(self, *args, **options):
        """Run it, expect that all goes well and nothing is said, and return the lines."""
        done = self(*args, **options)
        assert (done.stderr, done.returncode) == ("", 0)
        return done.stdout.splitlines()

    def no(self, *args, code=2, **options):
        """Run it, expect a refusal of one line, and return that."""
        done = self(*args, **options)
        assert (done.stdout, done.returncode) == ("", code), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.rstrip("\n")


@pytest.fixture
def conductor(tmp_path):
    shell = Shell(tmp_path)
    yield shell
    assert not list(shell.temporary.iterdir())
