"""The same program gives the same, byte by byte, wherever its workers live."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from okanjo_conductor import Conductor, Retry

from .jobs import census

ROOT = Path(__file__).parents[2]
CLUSTERS = ("processes", "threads", "inline")


def results(cluster, loops):
    conductor = Conductor(
        census,
        jobs_queue=range(150),
        job_key=lambda job: f"file {job}",
        cluster=cluster,
        worker_limit=3,
        retry=Retry(errors=1, backoff=None),
        logging=False,
    )
    return pickle.dumps(
        [
            (o.key, o.job, o.state, o.value, type(o.error), str(o.error), o.cause, o.attempts)
            for o in conductor.outcomes(ordered=True)
        ]
    )


@pytest.mark.parametrize(
    "loops", ["light", pytest.param("asyncio", marks=pytest.mark.asyncio_loop)]
)
def test_outcomes_are_the_same_in_every_cluster(loops):
    first, *others = [results(cluster, loops) for cluster in CLUSTERS]
    assert all(other == first for other in others)


def test_the_census_is_the_same_in_every_cluster(tmp_path):
    found = {}
    for cluster in CLUSTERS:
        out = tmp_path / cluster
        script = str(ROOT / "examples" / "census.py")
        options = ["--limit", "60", "--workers", "2", "--cluster", cluster, "--out", str(out)]
        subprocess.run(
            [sys.executable, script, *options], check=True, capture_output=True, timeout=100
        )
        found[cluster] = sorted(out.read_bytes().splitlines())
    assert len(found["inline"]) == 60
    assert found["processes"] == found["threads"] == found["inline"]
