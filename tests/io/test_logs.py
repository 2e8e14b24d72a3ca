"""How a worker's log records find their way, whenever `logging` is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

JOB = """
import sys
from okanjo_conductor import Conductor

def job(_):
    was_loaded = "logging" in sys.modules
    import logging
    logging.getLogger("mine").warning("said by a job")
    return was_loaded, logging.__spec__.loader is logging.__loader__

{before}
(outcome,) = Conductor(job, jobs_queue=[0], worker_limit=1, logging=False).outcomes()
print(outcome.value)
"""


@pytest.mark.parametrize(
    "before", ["", "from logging import basicConfig; basicConfig(format='%(name)s: %(message)s')"]
)
def test_a_worker_loads_logging_when_it_is_used(before):
    done = subprocess.run(
        [sys.executable, "-c", JOB.format(before=before)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "(False, True)\n"
    assert done.stderr == ("mine: said by a job\n" if before else "said by a job\n")
