"""One search on a Ray cluster of several nodes of this machine, each on cores of its own: see `searches`.

`python -m tests.benchmarks.search_worker CORES_A CORES_B ... -- WORDS OF SQUEEZE`, cores as in `0,1`. A node takes one
trial at a time, as a machine of so many cores does.
"""

from __future__ import annotations

import os
import sys


def main(words: list[str]) -> None:
    from ray.cluster_utils import Cluster

    cut = words.index("--")
    nodes = [[int(core) for core in one.split(",")] for one in words[:cut]]
    cluster = Cluster()
    try:
        for cores in nodes:
            os.sched_setaffinity(0, cores)  # a child begins where its parent is
            cluster.add_node(num_cpus=len(cores), num_gpus=0, include_dashboard=False, wait=False)
        cluster.wait_for_nodes()
        os.sched_setaffinity(0, [core for cores in nodes for core in cores])
        sys.argv = ["squeeze", *words[cut + 1 :], "--address", cluster.address]
        from search.cli import main as squeeze

        squeeze()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
