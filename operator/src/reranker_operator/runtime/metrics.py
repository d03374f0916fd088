"""The operator's own Prometheus metrics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Counters and gauges on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = Counter(
            "reranker_operator_reconciles",
            "Finished reconciles by kind and result.",
            ["kind", "result"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "reranker_operator_reconcile_seconds",
            "Duration of one reconcile.",
            ["kind"],
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=self.registry,
        )
        self.queue_length = Gauge(
            "reranker_operator_queue_length",
            "Keys that wait or are being worked on.",
            registry=self.registry,
        )
        self.leader = Gauge(
            "reranker_operator_leader", "1 when this replica leads.", registry=self.registry
        )

    @contextmanager
    def reconcile(self, kind: str) -> Iterator[None]:
        """Time and count one reconcile."""
        started = time.perf_counter()
        try:
            yield
        except BaseException:
            self._reconciles.labels(kind, "error").inc()
            raise
        else:
            self._reconciles.labels(kind, "ok").inc()
        finally:
            self._seconds.labels(kind).observe(time.perf_counter() - started)
