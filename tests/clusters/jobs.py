"""Jobs for the tests of clusters that other processes must find."""

from __future__ import annotations

import random


def census(job):
    """Do something like the jobs of examples/census.py: pure, with many kinds of values."""
    kind = job % 5
    if kind == 0:
        message = f"{job} does not parse"
        raise ValueError(message)
    if kind == 1:
        return {"path": f"file {job}", "size": job**3, "imports": {"os": job}}
    if kind == 2:
        return [job / 3, None, (job, "é"), frozenset({job})]
    if kind == 3:
        return b"\0" * (job * 97)
    return random.Random(job).random()
