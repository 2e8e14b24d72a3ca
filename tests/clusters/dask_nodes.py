"""A Dask cluster of two processes on this machine, in a process of its own, for the tests.

As `ray_nodes`: it reads commands, answers each with a line, and ends with its standard input.

    add      one more Dask worker
    remove   have one leave
    kill     SIGKILL one Dask worker; its nanny starts another
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        processes=True,
        dashboard_address=None,
        memory_limit=None,
    ) as cluster:
        answer(cluster.scheduler_address)
        for line in sys.stdin:
            if line.strip() == "add":
                cluster.scale(len(cluster.workers) + 1)
                answer("added")
            elif line.strip() == "remove":
                cluster.scale(len(cluster.workers) - 1)
                answer("removed")
            elif line.strip() == "kill":
                nanny = next(iter(cluster.workers.values()))
                os.kill(nanny.pid, signal.SIGKILL)
                answer("killed")


def answer(text: str) -> None:
    print(f"ANSWER {text}", flush=True)


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # whoever started us is not our parent any more
    os.setsid()
    main()
