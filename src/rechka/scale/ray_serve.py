"""Replicas of the server under Ray Serve: the same application, on as many nodes as a cluster has.

A stream stays on the replica that took it, as a WebSocket does; clients of ``/v1/stream`` go on at another one if
theirs is lost. What a single server keeps for itself (quotas, jobs, history) is shared through ``database``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rechka.errors import MissingExtra
from rechka.server.settings import Settings


def application(
    settings: Settings, *, replicas: int = 1, most: int | None = None, streams: int = 20, cores: float = 1.0
) -> Any:
    """A Ray Serve application, for ``ray.serve.run`` or ``serve run rechka.scale.ray_serve:default``.

    Args:
        settings: of every replica; ports and TLS are the business of Ray's proxies.
        replicas: at the start, and at least.
        most: with growing load; None for a fixed number.
        streams: open requests of one replica that count as full load; ``rechka bench serve`` tells how many.
        cores: of one replica, or with ``device="cuda"`` so many GPUs.

    Raises:
        MissingExtra: Ray Serve is not installed.
    """
    try:
        from ray import serve
    except ModuleNotFoundError:
        raise MissingExtra("replicas need Ray Serve", remedy='pip install "rechka[ray]"') from None
    own = replace(settings, workers=settings.workers or max(1, int(cores)))

    def build() -> Any:
        """Runs in the replica, which loads the models."""
        from rechka.server.app import build_app
        from rechka.server.run import load_models, make_service

        return build_app(make_service(own, load_models(own)))

    scaling: dict[str, Any] = {"num_replicas": replicas}
    if most is not None:
        limits = {"min_replicas": replicas, "max_replicas": most, "target_ongoing_requests": 0.7 * streams}
        scaling = {"autoscaling_config": limits}
    resources = {"num_gpus": cores} if settings.device == "cuda" else {"num_cpus": cores}

    @serve.deployment(
        name="rechka",
        max_ongoing_requests=2 * streams,  # probes and short requests beside the streams
        graceful_shutdown_timeout_s=settings.grace_s + 10,
        ray_actor_options=resources,
        **scaling,
    )
    @serve.ingress(build)
    class Replica:
        """The ASGI application does everything."""

    bound: Any = Replica
    return bound.bind()


def default(arguments: dict[str, str] | None = None) -> Any:
    """For ``serve run rechka.scale.ray_serve:default``: settings from RECHKA_* variables."""
    from rechka.server.settings import resolve

    given = arguments or {}
    return application(resolve().settings, replicas=int(given.get("replicas", 1)))
