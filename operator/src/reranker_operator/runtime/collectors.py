"""Metrics that are read when they are asked for: nothing to keep up to date, nothing to forget.

Series of objects come and go with the objects, and only the leader has any. Their number is
bounded; how many objects are left out is a metric as well.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from reranker_operator.api.meta import RERANKER_ENGINE, RERANKER_SERVICE
from reranker_operator.runtime.fleet import EngineFacts, Fleet, ServiceFacts
from reranker_operator.runtime.health import Health
from reranker_operator.runtime.loads import Loads
from reranker_operator.runtime.queue import Key
from reranker_operator.runtime.streams import Streams

T = TypeVar("T")
_PREFIX = "reranker_operator_"
_OBJECT = ("namespace", "name")
#: Objects of a kind that have series. A million series would bring the monitoring down.
_MOST_OBJECTS = 1000


class ReplicaCollector:
    """How this replica is."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it."""
        health, queue, resync = self._health, self._health.queue, self._health.resync
        yield _gauge("leader", "1 when this replica leads.", float(health.leading))
        yield _gauge(
            "event_loop_lag_seconds",
            "How late the event loop was at worst in the last minute.",
            health.lag.worst(),
        )
        yield _gauge("queue_depth", "Keys that wait for a worker.", queue.waiting)
        yield _gauge("queue_working", "Keys that workers have.", queue.working)
        yield _gauge("queue_delayed", "Keys that are due later.", queue.delayed)
        yield _gauge(
            "queue_oldest_age_seconds",
            "Time that the longest waiting key has waited.",
            queue.oldest_age(),
        )
        yield _gauge(
            "queue_longest_work_seconds",
            "Time that a worker has been on the same key, the longest.",
            queue.longest_work(),
        )
        yield _counter("queue_adds", "Keys that became due.", queue.adds)
        yield _counter("queue_retries", "Keys put back after a failure.", queue.retries)
        yield _gauge(
            "resync_interval_seconds",
            "Time between two lists of all objects.",
            resync.seconds if health.leading else None,
        )
        yield _gauge(
            "resync_last_finished_timestamp_seconds",
            "When all objects were listed last, in Unix time.",
            resync.finished_at if health.leading else None,
        )


class StreamCollector:
    """Which watches can't be kept."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it."""
        failing = _family(
            "watch_failing",
            "Watches that can't be kept: changes wait for the resync; always 1.",
            "resource",
            "namespace",
        )
        for stream in self._streams.failing:
            failing.add_metric([*stream], 1.0)
        yield failing


class FleetCollector:
    """How the objects are that this replica looks after."""

    def __init__(self, fleet: Fleet, health: Health, most: int = _MOST_OBJECTS) -> None:
        self._fleet = fleet
        self._health = health
        self._most = most

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it; every family, if without samples."""
        leading = self._health.leading
        services = self._fleet.services if leading else {}
        engines = self._fleet.engines if leading else {}
        yield from self._totals(services, engines)
        yield from _of_services(self._shown(services))
        yield from _of_engines(self._shown(engines))

    def _totals(
        self, services: Mapping[Key, ServiceFacts], engines: Mapping[Key, EngineFacts]
    ) -> Iterator[Metric]:
        known = _family("objects", "Objects that are looked after.", "kind")
        left_out = _family(
            "objects_without_series", f"Objects beyond the first {self._most} of a kind.", "kind"
        )
        if self._health.leading:
            counts = {RERANKER_SERVICE.kind: len(services), RERANKER_ENGINE.kind: len(engines)}
            for kind, count in counts.items():
                known.add_metric([kind], count)
                left_out.add_metric([kind], max(0, count - self._most))
        yield known
        yield left_out

    def _shown(self, entries: Mapping[Key, T]) -> list[tuple[Key, T]]:
        return list(islice(sorted(entries.items(), key=lambda entry: entry[0]), self._most))


class LoadCollector:
    """What pods say of their load, of the services that are scaled or judged by it."""

    def __init__(self, loads: Loads, most: int = _MOST_OBJECTS) -> None:
        self._loads = loads
        self._most = most

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it."""
        yield _gauge("scraped_pods", "Pods whose metrics are read.", self._loads.size)
        backlog = _family(
            "service_backlog_seconds",
            "Time in which the ready pods would be done with all that waits or is in the engine.",
            *_OBJECT,
        )
        unread = _family(
            "service_unread_pods", "Running pods that could not be read lately.", *_OBJECT
        )
        for key, signals in islice(self._loads.known(), self._most):
            names = [key.namespace, key.name]
            unread.add_metric(names, signals.unknown)
            if signals.known:
                backlog.add_metric(names, signals.backlog_seconds)
        yield from (backlog, unread)


def _of_services(services: Iterable[tuple[Key, ServiceFacts]]) -> Iterator[Metric]:
    ready = _family("service_ready", "1 when the newest spec gets the traffic.", *_OBJECT)
    stage = _family(
        "service_stage", "What is going on, as `kubectl get rr` says; always 1.", *_OBJECT, "stage"
    )
    wanted = _family("service_replicas", "Pods that the spec wants.", *_OBJECT)
    have = _family("service_ready_replicas", "Ready pods of the serving revision.", *_OBJECT)
    start = _family(
        "cold_start_seconds", "Time that a pod's last start took, by stage.", *_OBJECT, "stage"
    )
    for key, facts in services:
        names = [key.namespace, key.name]
        for name, taken in sorted(facts.cold_start.items()):
            start.add_metric([*names, name], taken)
        ready.add_metric(names, float(facts.ready))
        stage.add_metric([*names, facts.stage], 1.0)
        wanted.add_metric(names, facts.replicas)
        have.add_metric(names, facts.ready_replicas)
    yield from (ready, stage, wanted, have, start)


def _of_engines(engines: Iterable[tuple[Key, EngineFacts]]) -> Iterator[Metric]:
    state = _family(
        "engine_state",
        "Building, Ready, Failing (tried again), Failed (for good) or Deleting; always 1.",
        *_OBJECT, "state", "reason",
    )  # fmt: skip
    failures = _family("engine_failed_attempts", "Failed attempts since the last good.", *_OBJECT)
    seconds = _family(
        "engine_stage_seconds", "Time that the newest run of a stage took.", *_OBJECT, "stage"
    )
    size = _family("engine_size_bytes", "Size of the engine's files.", *_OBJECT)
    for key, facts in engines:
        names = [key.namespace, key.name]
        state.add_metric([*names, facts.state, facts.reason], 1.0)
        failures.add_metric(names, facts.failures)
        for name, taken in sorted(facts.seconds.items()):
            seconds.add_metric([*names, name], taken)
        if facts.size_bytes is not None:
            size.add_metric(names, facts.size_bytes)
    yield from (state, failures, seconds, size)


def _gauge(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    """Without a sample where there is no value."""
    return GaugeMetricFamily(f"{_PREFIX}{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"{_PREFIX}{name}", text, value=value)


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}{name}", text, labels=labels)
