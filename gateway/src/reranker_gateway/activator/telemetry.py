"""Metrics of the activator."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from reranker_gateway.request_context import RequestContext

_SECONDS = (0.005, 0.05, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class ActivatorTelemetry:
    """Names of its own, so that no request is counted here and in the pod under one name."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "reranker_activator_requests",
            "Ranking requests answered by way of the activator, or refused by it",
            ["dialect", "code"],
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "reranker_activator_request_duration_seconds",
            "The same, from first byte to answer",
            registry=self._registry,
            buckets=_SECONDS,
        )

    def answered(self, request: RequestContext, code: int) -> None:
        """A ranking request has ended."""
        self._requests.labels(request.dialect or "none", str(code)).inc()
        self._request_seconds.observe(request.ended - request.began)

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None:
        """A gauge that is read when the metrics are scraped."""
        Gauge(name, description, registry=self._registry).set_function(read)

    def exposition(self) -> str:
        """All metrics in Prometheus text format."""
        return generate_latest(self._registry).decode("utf-8")
