"""The operator's own Prometheus metrics: what happened, counted where it happens.

What is so at the moment is read when it is asked for; see `collectors.py`.
"""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from reranker_operator import __version__, errors
from reranker_operator.adapters.observed_client import ApiCall
from reranker_operator.adapters.scrape import FAILURES
from reranker_operator.api.meta import RERANKER_ENGINE, RERANKER_SERVICE
from reranker_operator.errors import OperatorError

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_DEFECT = "Defect"


class Metrics:
    """Counters and histograms on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._build = Gauge(
            "reranker_operator_build_info",
            "Version of the operator; always 1.",
            ["version", "python"],
            registry=self.registry,
        )
        self._build.labels(__version__, platform.python_version()).set(1)
        self._reconciles = Histogram(
            "reranker_operator_reconcile_duration_seconds",
            "Finished reconciles by kind and outcome (done, error).",
            ["kind", "outcome"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._errors = Counter(
            "reranker_operator_reconcile_errors",
            "Reconciles that failed, by the class of the error; Defect is one of the operator's.",
            ["kind", "reason"],
            registry=self.registry,
        )
        self._calls = Counter(
            "reranker_operator_api_requests",
            "Requests to the API server without those of watches; status none: no answer.",
            ["verb", "resource", "status"],
            registry=self.registry,
        )
        self._call_seconds = Histogram(
            "reranker_operator_api_request_duration_seconds",
            "Requests to the API server until the head of the answer.",
            ["verb", "resource"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._writes = Counter(
            "reranker_operator_writes",
            "Requests that changed an object, by action (apply, create, patch, update, delete).",
            ["action", "kind"],
            registry=self.registry,
        )
        self._scrapes = Counter(
            "reranker_operator_scrapes",
            "Pods whose metrics were read, by outcome: ok, or why not.",
            ["outcome"],
            registry=self.registry,
        )
        self._scrape_seconds = Histogram(
            "reranker_operator_scrape_duration_seconds",
            "Time that reading one pod took, in vain or not.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._begin_at_zero()

    def api_call(self, call: ApiCall) -> None:
        """Count one request to the API server."""
        self._calls.labels(call.verb, call.resource, call.status).inc()
        self._call_seconds.labels(call.verb, call.resource).observe(call.seconds)
        if call.wrote:
            self._writes.labels(call.verb, call.kind).inc()

    def scraped(self, outcome: str, seconds: float) -> None:
        """Count one pod that was read, or not."""
        self._scrapes.labels(outcome).inc()
        self._scrape_seconds.observe(seconds)

    @contextmanager
    def reconcile(self, kind: str) -> Iterator[None]:
        """Time and count one reconcile; one that is cancelled was none."""
        started = time.perf_counter()
        try:
            yield
        except Exception as error:
            reason = type(error).__name__ if isinstance(error, OperatorError) else _DEFECT
            self._errors.labels(kind, reason).inc()
            self._finished(kind, "error", started)
            raise
        self._finished(kind, "done", started)

    def _finished(self, kind: str, outcome: str, started: float) -> None:
        self._reconciles.labels(kind, outcome).observe(time.perf_counter() - started)

    def _begin_at_zero(self) -> None:
        """A series that appears with its first error has no rate."""
        for reason in ("ok", *FAILURES):
            self._scrapes.labels(reason)
        known = [entry.__name__ for entry in vars(errors).values() if _is_error(entry)]
        for kind in (RERANKER_SERVICE.kind, RERANKER_ENGINE.kind):
            for outcome in ("done", "error"):
                self._reconciles.labels(kind, outcome)
            for reason in (*known, _DEFECT):
                self._errors.labels(kind, reason)


def _is_error(entry: object) -> bool:
    return isinstance(entry, type) and issubclass(entry, OperatorError)
