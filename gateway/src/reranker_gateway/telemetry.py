"""Metrics of the gateway, in a registry of their own (no module-level state)."""

from collections.abc import Callable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Telemetry:
    """Every metric that the gateway counts itself; Triton's are merged in by the API."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._registry = registry
        self.requests = Counter(
            "reranker_requests",
            "Ranking requests answered",
            ["dialect", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "reranker_request_duration_seconds",
            "Ranking requests from first byte to answer",
            registry=registry,
            buckets=_SECONDS,
        )
        stages = Histogram(
            "reranker_stage_duration_seconds",
            "tokenise and queue: per request; infer: per batch",
            ["stage"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.tokenise_seconds = stages.labels("tokenise")
        self.queue_seconds = stages.labels("queue")
        self.infer_seconds = stages.labels("infer")
        self.passages = Counter("reranker_passages", "Passages scored", registry=registry)
        self.windows = Counter(
            "reranker_extra_windows",
            "Pairs beyond one for each passage, of passages scored in windows",
            registry=registry,
        )
        self.tokenise_cpu = Counter(
            "reranker_tokenise_cpu_seconds",
            "Processor time of tokenisation",
            registry=registry,
        )
        self.truncated = Counter(
            "reranker_truncated_passages", "Passages cut to the length limit", registry=registry
        )
        self.tokens = Counter(
            "reranker_tokens", "Tokens sent to the engine, padding not counted", registry=registry
        )
        self.padded_tokens = Counter(
            "reranker_padded_tokens", "Tokens sent to the engine with padding", registry=registry
        )
        self.shared_pairs = Counter(
            "reranker_shared_pairs",
            "Pairs that were not scored because the same one was waiting or in the engine",
            registry=registry,
        )
        self.cache_lookups = Counter(
            "reranker_score_cache_lookups",
            "Pairs that were looked for in the score cache",
            ["result"],
            registry=registry,
        )
        self.batch_rows = Histogram(
            "reranker_batch_rows", "Pairs in a batch", registry=registry, buckets=_ROWS
        )
        self.batch_failures = Counter(
            "reranker_batch_failures", "Engine calls that failed", registry=registry
        )

        ratio = Gauge(
            "reranker_padding_ratio",
            "Tokens with padding per real one, since the start",
            registry=registry,
        )
        ratio.set_function(self._padding_ratio)

    def _padding_ratio(self) -> float:
        real = self._value(self.tokens)
        return self._value(self.padded_tokens) / real if real else 1.0

    @staticmethod
    def _value(counter: Counter) -> float:
        return next(sample.value for family in counter.collect() for sample in family.samples)

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None:
        """A gauge that is read when the metrics are scraped."""
        Gauge(name, description, registry=self._registry).set_function(read)

    def exposition(self) -> str:
        """All metrics in Prometheus text format."""
        return generate_latest(self._registry).decode("utf-8")
