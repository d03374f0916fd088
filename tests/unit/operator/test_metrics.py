"""What is counted, and the series of objects: there with the object, gone with it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from reranker_operator.adapters.observed_client import (
    ApiCall,
    ObservedApiClient,
    describe,
    status_class,
)
from reranker_operator.errors import Conflict
from reranker_operator.runtime.collectors import FleetCollector
from reranker_operator.runtime.fleet import Fleet, engine_facts, service_facts
from reranker_operator.runtime.metrics import Metrics
from reranker_operator.runtime.queue import Key

Json = dict[str, Any]
READY = {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}]}


def _service(name: str = "rank", **status: Any) -> Json:
    return {
        "kind": "RerankerService",
        "metadata": {"namespace": "shop", "name": name, "generation": 2},
        "spec": {"replicas": 3},
        "status": {"observedGeneration": 2} | status,
    }


def _engine(name: str = "tiny", **status: Any) -> Json:
    meta = {"namespace": "shop", "name": name}
    return {"kind": "RerankerEngine", "metadata": meta, "status": status}


def _samples(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    """Values by label values."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"reranker_operator_{name}"
    }


def _registry(fleet: Fleet, *, leading: bool = True, most: int = 10) -> CollectorRegistry:
    registry = CollectorRegistry()
    health: Any = SimpleNamespace(leading=leading)
    registry.register(FleetCollector(fleet, health, most))
    return registry


async def test_reconciles_by_outcome_and_errors_by_class() -> None:
    metrics = Metrics()
    for error in (None, Conflict("changed"), KeyError("a defect"), asyncio.CancelledError()):
        try:
            with metrics.reconcile("RerankerService"):
                if error is not None:
                    raise error
        except (Conflict, KeyError, asyncio.CancelledError):
            pass
    assert _samples(metrics.registry, "reconcile_duration_seconds_count") == {
        ("RerankerEngine", "done"): 0, ("RerankerEngine", "error"): 0,
        ("RerankerService", "done"): 1, ("RerankerService", "error"): 2,
    }  # fmt: skip
    errors = _samples(metrics.registry, "reconcile_errors_total")
    assert {key for key, count in errors.items() if count} == {
        ("RerankerService", "Conflict"),
        ("RerankerService", "Defect"),
    }
    assert ("RerankerEngine", "Unavailable") in errors, "counted from zero on"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/apis/reranker.dev/v1alpha1/rerankerservices?limit=500",
         ("list", "rerankerservices", "RerankerService")),
        ("GET", "/api/v1/namespaces/shop/pods", ("list", "pods", "Pod")),
        ("GET", "/api/v1/namespaces/pods/services/x", ("get", "services", "Service")),
        ("GET", "/behind/proxy/api/v1/nodes", ("list", "nodes", "Node")),
        ("PATCH", "/apis/reranker.dev/v1alpha1/namespaces/shop/rerankerservices/x/status?force=1",
         ("apply", "rerankerservices/status", "RerankerService")),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/b",
         ("update", "leases", "Lease")),
        ("DELETE", "/apis/batch/v1/namespaces/shop/jobs/x", ("delete", "jobs", "Job")),
        ("POST", "/apis/batch/v1/namespaces/shop/jobs", ("create", "jobs", "Job")),
        ("GET", "/apis/a/b/namespaces/shop/widgets/x", ("get", "other", "other")),
        ("OPTIONS", "/", ("other", "other", "other")),
    ],
)  # fmt: skip
def test_what_a_request_was_for(method: str, path: str, expected: tuple[str, str, str]) -> None:
    call = describe(method, f"https://api:6443{path}", "application/apply-patch+yaml", "2xx", 0.5)
    assert (call.verb, call.resource, call.kind) == expected
    assert describe("PATCH", "https://api/api/v1/namespaces/a/services/x", "", "2xx", 0).verb == (
        "patch"
    )


@pytest.mark.parametrize(
    ("proxy", "past", "asked"),
    [(None, "", False), ("http://proxy:3128", "", True), ("http://proxy:3128", ".svc", False)],
)
async def test_the_environment_is_asked_for_a_proxy_only_where_it_names_one(
    monkeypatch: pytest.MonkeyPatch, proxy: str | None, past: str, asked: bool
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if proxy:
        monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setenv("no_proxy", past)
    client = ObservedApiClient(lambda _: None, Configuration(host="https://api.svc:6443"))
    session = client.rest_client._create_pool_manager()
    assert session.trust_env is asked
    await session.close()
    await client.close()


async def test_every_request_is_told_of_however_it_ends() -> None:
    told: list[ApiCall] = []
    client = ObservedApiClient(told.append)
    answers: list[Any] = [
        SimpleNamespace(status=201),
        SimpleNamespace(status=429),
        ApiException(status=503),
        TimeoutError(),
    ]

    async def request(*_: object, **__: object) -> Any:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    await client.close()
    client.rest_client.request = request  # type: ignore[method-assign]
    url = "https://api/api/v1/namespaces/shop/services"
    for expected in (None, None, ApiException, TimeoutError):
        if expected is None:
            await client.call_api("POST", url, {"Content-Type": "application/json"})
        else:
            with pytest.raises(expected):
                await client.call_api("POST", url)
    assert [(call.status, call.wrote) for call in told] == [
        ("2xx", True), ("429", False), ("5xx", False), ("none", False),
    ]  # fmt: skip
    metrics = Metrics()
    for call in told:
        metrics.api_call(call)
    assert _samples(metrics.registry, "writes_total") == {("create", "Service"): 1}
    assert _samples(metrics.registry, "api_requests_total")["create", "services", "429"] == 1
    assert [status_class(status) for status in (None, 0, 404, 700)] == ["none"] * 2 + [
        "4xx",
        "none",
    ]


def test_series_come_and_go_with_the_object() -> None:
    fleet = Fleet()
    registry = _registry(fleet)
    for name in "abc":
        fleet.saw(_service(name, **READY))
    fleet.lost(Key("RerankerService", "shop", "a"))
    assert _samples(registry, "service_ready") == {("shop", "b"): 1, ("shop", "c"): 1}

    fleet.begin_list()
    fleet.saw(_service("new", stage="Rolling"))
    fleet.lost(Key("RerankerService", "shop", "gone"))
    fleet.end_list([_service("c", stage="Starting"), _service("gone")])
    assert _samples(registry, "service_stage") == {
        ("shop", "c", "Starting"): 1,
        ("shop", "new", "Rolling"): 1,
    }, "b's DELETE was missed; what happened during the list is newer than the list"
    assert _samples(registry, "objects")[("RerankerService",)] == 2


def test_a_standby_has_no_series_of_objects_and_their_number_is_bounded() -> None:
    fleet = Fleet()
    for number in range(15):
        fleet.saw(_service(f"s{number:02}"))
        fleet.saw(_engine(f"e{number:02}", sizeBytes=5))
    assert "{" not in generate_latest(_registry(fleet, leading=False)).decode()
    registry = _registry(fleet, most=10)
    for name in ("service_ready", "service_replicas", "engine_state", "engine_size_bytes"):
        assert len(_samples(registry, name)) == 10
    assert set(_samples(registry, "objects_without_series").values()) == {5}


@pytest.mark.parametrize(
    ("status", "meta", "state", "reason"),
    [
        ({}, {}, "Building", "Pending"),
        (READY, {}, "Ready", "Ready"),
        (READY, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "Deleting", "Ready"),
        ({"attempts": {"failures": 2}}, {}, "Failing", "Pending"),
        (
            {"conditions": [{"type": "Prepared", "status": "False", "reason": "ImagePullFailed"}]},
            {},
            "Failing",
            "Pending",
        ),
        (
            {"conditions": [{"type": "Ready", "status": "False", "reason": "ParityRefused"}]},
            {},
            "Failed",
            "ParityRefused",
        ),
    ],
)
def test_the_state_of_an_engine(status: Json, meta: Json, state: str, reason: str) -> None:
    entry = _engine(**status)
    entry["metadata"] |= meta
    facts = engine_facts(entry)
    assert (facts.state, facts.reason) == (state, reason)


def test_ready_counts_only_for_the_newest_spec() -> None:
    assert service_facts(_service(**READY)).ready
    assert not service_facts(_service(**READY, observedGeneration=1)).ready


_EVIL = 'a"b\\c\nreranker_operator_leader 5\n\ud800'
_MANY = [{"name": f"{_EVIL}{number}", "seconds": number} for number in range(1000)]


@pytest.mark.parametrize(
    "status",
    [
        None,
        "text",
        {"stage": _EVIL, "conditions": [{"type": "Ready", "status": 5, "reason": _EVIL}]},
        {"stage": {"a": 1}, "conditions": {"type": "Ready"}, "attempts": ["x"], "stages": "abc"},
        {"stages": _MANY, "sizeBytes": 10**400, "attempts": {"failures": True}},
        {"stages": [{"name": ["x"], "seconds": float("nan")}, 5], "sizeBytes": float("inf")},
        {"readyReplicas": "3", "observedGeneration": [1], "conditions": [None, {}]},
    ],
)
def test_no_status_however_hostile_breaks_a_scrape(status: object) -> None:
    fleet = Fleet()
    for kind in ("RerankerService", "RerankerEngine"):
        meta = {"namespace": _EVIL, "name": _EVIL * 100, "generation": "x"}
        fleet.saw({"kind": kind, "metadata": meta, "spec": None, "status": status})
    registry = _registry(fleet)
    text = generate_latest(registry).decode("utf-8")
    families = text_string_to_metric_families(text)
    scraped = [sample for family in families for sample in family.samples]
    assert {sample.name for sample in scraped} <= {
        sample.name for family in registry.collect() for sample in family.samples
    }
    assert len({(sample.name, *sample.labels.values()) for sample in scraped}) == len(scraped)
    assert len(scraped) <= 12
    for labels in (*_samples(registry, "service_stage"), *_samples(registry, "engine_state")):
        assert {*labels[2:]} <= {"Other", "Pending", "Building"}
