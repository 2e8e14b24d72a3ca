"""A program that is killed at a boundary of a commit, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sqlite3

from journal.stores import Session, done
from okanjo_conductor.journal import _store
from okanjo_conductor.sinks import Csv, JsonLines, SqliteTable

POINTS = {
    "before the transaction": ("BEGIN IMMEDIATE", "before"),
    "in the transaction": ("BEGIN IMMEDIATE", "after"),
    "after the rows": ("INSERT OR REPLACE INTO jobs", "after"),
    "after the sink has written": ("INSERT OR REPLACE INTO sinks", "before"),
    "when all is ready": ("COMMIT", "before"),
    "when all is committed": ("COMMIT", "after"),
}


class Killer(sqlite3.Connection):
    """Kills this process at the nth time that a statement is executed."""

    point: tuple[str, str] = ("", "")
    left = 0

    def execute(self, statement, *given):
        cls = type(self)
        begin, when = cls.point
        is_here = bool(begin) and statement.lstrip().startswith(begin)
        if is_here:
            cls.left -= 1
        if is_here and cls.left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        cursor = super().execute(statement, *given)
        if is_here and cls.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return cursor


def program(folder, point, count):
    """Write outcomes, and say on the standard output what was told to be committed."""
    connect = sqlite3.connect
    _store.sqlite3.connect = lambda *a, **o: connect(*a, **{"factory": Killer, **o})
    path = f"{folder}/run.db"
    sinks = [JsonLines(f"{folder}/o.jsonl"), Csv(f"{folder}/o.csv"), SqliteTable(f"{folder}/o.db")]
    session = Session(path, sinks)
    known = session.store.standing([str(i) for i in range(40)])
    session.flush()  # the sinks have what they had missed
    if point:
        Killer.left, Killer.point = int(count), POINTS[point]

    def told(batches):
        for (record,) in batches:
            print(json.dumps(list(record.jobs.keys)), flush=True)

    session.writer._on_commit = told
    for begin in range(0, 40, 4):
        keys = [key for key in range(begin, begin + 4) if str(key) not in known]
        if keys:
            session.write(done([{"n": key} for key in keys], keys=keys))
    session.close()
