"""A Ray cluster of two nodes on this machine, in a process of its own, for the tests.

It is no child of the tests: they look for what *they* leave behind. It reads commands, a line each,
and answers each with a line; when its standard input ends, so does the cluster.

    add        one more node; its number
    remove N   have that node leave
    kill N     SIGKILL the raylet of that node; what it has started lives on
"""

from __future__ import annotations

import os
import signal
import sys

CPUS = 2
STORE = 80 << 20
"""Bytes of the object store of a node: the least that Ray takes is 75 MB."""


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": CPUS,
            "object_store_memory": STORE,
            "include_dashboard": False,
            # Only the head's word counts, and only at its start: a dead node is seen in 1.5 s.
            "_system_config": {
                "health_check_initial_delay_ms": 0,
                "health_check_period_ms": 500,
                "health_check_timeout_ms": 1000,
                "health_check_failure_threshold": 3,
            },
        },
    )
    nodes = {0: cluster.head_node, 1: cluster.add_node(num_cpus=CPUS, object_store_memory=STORE)}
    answer(cluster.address)
    for line in sys.stdin:
        verb, *args = line.split()
        if verb == "add":
            number = max(nodes) + 1
            nodes[number] = cluster.add_node(num_cpus=CPUS, object_store_memory=STORE)
            answer(str(number))
        elif verb == "remove":
            cluster.remove_node(nodes.pop(int(args[0])), allow_graceful=True)
            answer("removed")
        elif verb == "kill":
            node = nodes.pop(int(args[0]))
            for info in node.all_processes["raylet"]:
                os.kill(info.process.pid, signal.SIGKILL)
            answer("killed")
            cluster.remove_node(node, allow_graceful=False)
    cluster.shutdown()


def answer(text: str) -> None:
    print(f"ANSWER {text}", flush=True)


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # whoever started us is not our parent any more
    os.setsid()
    main()
