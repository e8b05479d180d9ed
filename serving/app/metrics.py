"""Counters of one ingress process, and numbers of all engines, as Prometheus reads them."""

import time
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


class Metrics:
    """What this process has answered."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["method", "route"]
        self.requests = Counter(
            "edit_transfer_requests", "Requests by route and status.", [*labels, "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "edit_transfer_request_seconds",
            "From the first byte of a request to the last of its answer.",
            labels,
            buckets=SECONDS,
            registry=self.registry,
        )
        self.open = Gauge("edit_transfer_requests_open", "Requests under way.", registry=self.registry)

    def text(self, engines: Iterable[dict[str, Any]]) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry) + generate_latest(_registry_of(engines))


def _registry_of(engines: Iterable[dict[str, Any]]) -> CollectorRegistry:
    families: dict[str, GaugeMetricFamily] = {}
    for state in engines:
        for key, value in state.items():
            if isinstance(value, int | float):
                name = f"edit_transfer_engine_{key}"
                family = families.setdefault(
                    name, GaugeMetricFamily(name, f"`{key}` of an engine.", labels=["replica"])
                )
                family.add_metric([str(state["replica"])], float(value))
    registry = CollectorRegistry()
    registry.register(_Families(list(families.values())))
    return registry


class _Families:
    def __init__(self, families: list[GaugeMetricFamily]) -> None:
        self.families = families

    def collect(self) -> list[GaugeMetricFamily]:
        return self.families


class Counted:
    """The middleware that counts."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, began = "gone", time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        self.metrics.open.inc()
        try:
            await self.app(scope, receive, noted)
        finally:
            self.metrics.open.dec()
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.requests.labels(method, route, status).inc()
            self.metrics.seconds.labels(method, route).observe(time.perf_counter() - began)
