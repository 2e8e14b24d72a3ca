"""The page on the command line does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from okanjo_conductor.cli import _parser as parsers
from okanjo_conductor.cli import _settings as settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text()
BLOCK = re.compile(r"^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)


def test_each_command_of_the_page_says_what_is_printed_there(tmp_path):
    env = {**os.environ, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    blocks = BLOCK.findall(PAGE)
    assert len(blocks) >= 8
    for script, expected in blocks:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_the_page_names_every_verb_and_setting():
    for name in (*parsers._VERBS, *settings.NAMES):
        assert re.search(rf"\b{name}\b", PAGE), name
