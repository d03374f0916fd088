"""Metrics of the gateway, in a registry of their own (no module-level state)."""

from collections.abc import Callable, Collection, Iterator
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
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from reranker_contracts import metrics as names
from reranker_gateway.request_context import RequestContext

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


#: Requests by which the tokens of those that are refused unread are guessed.
_TYPICAL_OF: Final = 64


class Metrics:
    """A registry with what the process tells of itself; the rest is added."""

    def __init__(self) -> None:
        #: Where parts that are not always there put theirs, too.
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None:
        """A gauge that is read when the metrics are scraped."""
        Gauge(name, description, registry=self.registry).set_function(read)

    def exposition(self, only: Collection[str] = ()) -> str:
        """The metrics in Prometheus text format: all, or those of the names in `only`."""
        registry = self.registry.restricted_registry(only) if only else self.registry
        return generate_latest(registry).decode("utf-8")


class Telemetry(Metrics):
    """Every metric that the gateway counts itself; Triton's are merged in by the API."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._requests = Counter(
            names.REQUESTS,
            "Ranking requests answered",
            ["dialect", "code"],
            registry=registry,
        )
        self._failed = Counter(
            names.FAILED,
            "Ranking requests answered with 5xx, but for what a pod that starts or drains refused",
            registry=registry,
        )
        self._request_seconds = Histogram(
            "reranker_request_duration_seconds",
            "Ranking requests from first byte to answer",
            registry=registry,
            buckets=_SECONDS,
        )
        stages = Histogram(
            names.STAGE_SECONDS,
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
        self._arrived = Counter(
            names.ARRIVED_TOKENS,
            "Tokens that requests brought for the engine, those refused for want of room included",
            registry=registry,
        )
        self._arrivals, self._typical = 0, 0.0
        self.tokens = Counter(
            names.TOKENS, "Tokens sent to the engine, padding not counted", registry=registry
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

    def arrived(self, tokens: int) -> None:
        """A request has come in with `tokens` for the engine, whatever becomes of it."""
        self._arrived.inc(tokens)
        self._arrivals += 1
        self._typical += (tokens - self._typical) / min(self._arrivals, _TYPICAL_OF)

    def answered(self, request: RequestContext, code: int) -> None:
        """A request has ended with the HTTP status `code`."""
        self._requests.labels(request.dialect or "none", str(code)).inc()
        self._request_seconds.observe(request.ended - request.began)
        if code >= 500 and not request.turned_away:
            self._failed.inc()
        if code == 429 and not request.tokens:
            # Refused before its tokens were known.
            self._arrived.inc(self._typical)

    def watch_counter(self, name: str, description: str, read: Callable[[], float]) -> None:
        """A counter that is read when the metrics are scraped."""
        self.registry.register(_ReadCounter(name, description, read))


class _ReadCounter(Collector):
    """A counter whose value is kept elsewhere."""

    def __init__(self, name: str, description: str, read: Callable[[], float]) -> None:
        self._name = name
        self._description = description
        self._read = read

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Its names, so that it can be chosen by them."""
        yield CounterMetricFamily(self._name, self._description)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """As prometheus_client asks for it."""
        yield CounterMetricFamily(self._name, self._description, value=self._read())
