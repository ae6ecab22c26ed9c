"""An archive on a Ray cluster of two nodes on this machine, of which one is killed in the middle.

    python benchmarks/lost_node.py RECORDINGS OUT

Prints one line of JSON. Every recording must stand in OUT exactly once; tests/e2e/test_batch.py looks.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()

    import ray
    from ray.cluster_utils import Cluster

    from rechka.scale import Archive, BatchOptions, ray_data
    from rechka.testing.toy import fragile_asr
    from rechka.testing.waiting import wait_until

    memory = 150 << 20
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": memory})
    second = cluster.add_node(num_cpus=2, object_store_memory=memory)
    cluster.wait_for_nodes()
    ray.init(cluster.address, log_to_driver=False)

    def nodes() -> int:
        return sum(node["Alive"] for node in ray.nodes())

    before = nodes()
    options = BatchOptions(model="toy", part_size=4)
    archive = Archive(str(arguments.out), options)
    archive.write_plan(sorted(map(str, arguments.recordings.iterdir())))
    seen: list[int] = []
    lost_at = None
    began = time.monotonic()
    engine = lambda parts: ray_data.run(  # noqa: E731
        parts, options, str(arguments.out), address="auto", workers=3, load=fragile_asr
    )
    for said in archive.run(engine):
        seen.append(said["part"])
        if lost_at is None and len(archive.done()) >= archive.num_parts // 4:
            lost_at = len(archive.done())
            cluster.remove_node(second, allow_graceful=False)
    seconds = time.monotonic() - began
    wait_until(lambda: nodes() < before)  # the head notices by missing heartbeats; the work may end before that
    print(
        json.dumps({
            "parts": archive.num_parts, "parts_before_the_loss": lost_at, "nodes_before": before,
            "nodes_after": nodes(), "told": len(seen), "seconds": round(seconds, 1),
            "report": archive.report().to_dict(),
        })
    )  # fmt: skip
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
