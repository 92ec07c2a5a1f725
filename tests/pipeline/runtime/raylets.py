"""Three nodes of a Ray cluster on this machine. Prints the address; a line on standard input kills
one of them, and the end of the input ends all.

None joins later: nodes on one machine share the folder of our code, which Ray would unpack again.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before Ray is imported

from ray.cluster_utils import Cluster

SMALL: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=SMALL | {"include_dashboard": False})
    others = [cluster.add_node(**SMALL) for _ in range(2)]
    try:
        print(cluster.address, flush=True)
        for _ in sys.stdin:
            cluster.remove_node(others.pop(), allow_graceful=False)
            print("killed", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
