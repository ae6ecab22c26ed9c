"""Parts done by a Ray cluster: Ray Data hands them to actors, one model each, and again if a node is lost."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from rechka.errors import MissingExtra, UsageError
from rechka.scale.items import from_json, to_json
from rechka.scale.local import Load
from rechka.scale.options import BatchOptions
from rechka.scale.work import Part, Worker

REACH_S = 10.0
"""How long a cluster may take to accept a connection."""


def run(
    parts: Sequence[Part],
    options: BatchOptions,
    place: str,
    *,
    address: str,
    workers: int | None,
    load: Load | None = None,
) -> Iterator[dict[str, Any]]:
    """What each part says of itself, as they become done; a part may be told of twice, it is written once.

    Args:
        parts: to do.
        options: of the archive.
        place: of the output, the same for all nodes: a shared folder or a URL.
        address: of the cluster, ``"auto"`` for the one of this machine, ``"local"`` for one of its own.
        workers: actors at most; None for as many as there are cores, or GPUs.
        load: gives the model.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingExtra("--ray needs Ray", remedy='pip install "rechka[ray]"') from None
    mine = not ray.is_initialized()
    if mine:
        try:
            _reach(address)
            ray.init(address, include_dashboard=False, log_to_driver=False)
        except (OSError, OverflowError, ValueError) as error:
            remedy = "start one, or --ray local; with RAY_AUTH_MODE=token if it asks for a token"
            raise UsageError(f"no Ray cluster at {address}: {error}", remedy=remedy) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells its plans, and of the progress bars
    gpu = options.device != "cpu"
    each: dict[str, Any] = {"num_gpus": 1} if gpu else {"num_cpus": options.threads}
    have = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1))
    # One core is left to reading the list and to telling what is done.
    most = workers or max(1, have if gpu else (have - 1) // options.threads)
    rows = [{"number": part.number, "items": json.dumps(list(map(to_json, part.items)))} for part in parts]
    try:
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(options, place, load),
            batch_size=1,
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(size=min(most, len(parts))),
            **each,
        )  # Ray Data begins actors again, and their parts, as often as it takes
        for row in done.iter_rows():
            yield dict(row["said"])
    finally:
        if mine:
            ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError if nothing listens at an address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()


class _Actor:
    """A worker in Ray's hands."""

    def __init__(self, options: BatchOptions, place: str, load: Load | None) -> None:
        self.worker = Worker(options, place, load)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        numbers, items = batch["number"], batch["items"]
        parts = [Part(int(n), tuple(map(from_json, json.loads(i)))) for n, i in zip(numbers, items, strict=True)]
        return {"said": [self.worker.do(part) for part in parts]}
