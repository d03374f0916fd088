"""Metrics of the activator."""

from prometheus_client import Counter, Histogram

from reranker_gateway.request_context import RequestContext
from reranker_gateway.telemetry import Metrics

_SECONDS = (0.005, 0.05, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class ActivatorTelemetry(Metrics):
    """Names of its own, so that no request is counted here and in the pod under one name."""

    def __init__(self) -> None:
        super().__init__()
        self._requests = Counter(
            "reranker_activator_requests",
            "Ranking requests answered by way of the activator, or refused by it",
            ["dialect", "code"],
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "reranker_activator_request_duration_seconds",
            "The same, from first byte to answer",
            registry=self.registry,
            buckets=_SECONDS,
        )

    def answered(self, request: RequestContext, code: int) -> None:
        """A ranking request has ended."""
        self._requests.labels(request.dialect or "none", str(code)).inc()
        self._request_seconds.observe(request.ended - request.began)
