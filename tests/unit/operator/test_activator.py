"""The activator's objects, and the stages of a pod's start."""

from typing import Any

import pytest

from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.cold_start import believable, is_first, measure
from reranker_operator.render import activator, network
from reranker_operator.render.defaults import Defaults

Json = dict[str, Any]


def service_of(**spec: Any) -> RerankerService:
    model = {"source": "hf://org/tiny"} | spec.pop("model", {})
    return RerankerService.model_validate(
        {
            "metadata": {"name": "rank", "namespace": "shop", "uid": "1"},
            "spec": {"model": model, "autoscaling": {"min": 0, "max": 2}} | spec,
        }
    )


def pod_of(service: RerankerService, defaults: Defaults) -> tuple[Json, dict[str, str]]:
    made = activator.deployment(service, defaults, "org/tiny", 7)
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, {entry["name"]: entry["value"] for entry in container["env"]}


def test_it_is_told_where_the_pods_are_and_what_they_serve(defaults: Defaults) -> None:
    pod, env = pod_of(service_of(model={"aliases": ["a"]}), defaults)
    assert env["RERANKER_BACKEND_URL"] == "http://rank-pods:8000"
    assert env["RERANKER_BACKEND_GRPC"] == "rank-pods:8001"
    assert env["RERANKER_SERVED_NAME"] == "org/tiny"
    assert env["RERANKER_ALIASES"] == "a,rank"
    assert env["RERANKER_COLD_START_SECONDS"] == "7"
    # What it holds may come to its end.
    assert pod["terminationGracePeriodSeconds"] > float(env["RERANKER_DRAIN_TIMEOUT_SECONDS"])
    assert float(env["RERANKER_DRAIN_TIMEOUT_SECONDS"]) >= activator.HOLD_SECONDS


def test_it_has_neither_engine_nor_gpu_nor_token(defaults: Defaults) -> None:
    service = service_of(
        accelerator={"type": "nvidia", "nodeSelector": {"gpu": "yes"}},
        serving={"pod": {"affinity": {}, "labels": {"team": "x"}}},
    )
    pod, _ = pod_of(service, defaults)
    assert pod["automountServiceAccountToken"] is False
    assert "nodeSelector" not in pod
    assert "nvidia" not in str(pod)
    assert not any("persistentVolumeClaim" in volume for volume in pod["volumes"])
    security = pod["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert security["capabilities"] == {"drop": ["ALL"]}


def test_keys_tls_and_limits_are_the_gateways(defaults: Defaults) -> None:
    service = service_of(
        serving={
            "auth": {"secretRef": {"name": "keys"}},
            "tls": {"secretName": "tls"},
            "dialects": ["nim"],
            "gateway": {
                "env": [
                    {"name": "RERANKER_MAX_BODY_BYTES", "value": "1024"},
                    {"name": "OTHER", "value": "1"},
                ]
            },
        }
    )
    pod, env = pod_of(service, defaults)
    assert env["RERANKER_BACKEND_URL"] == "https://rank-pods:8000"
    assert "RERANKER_BACKEND_GRPC" not in env
    assert (env["RERANKER_MAX_BODY_BYTES"], "OTHER" in env) == ("1024", False)
    assert {env["RERANKER_API_KEYS_DIR"], env["RERANKER_TLS_DIR"]} == {
        mount["mountPath"]
        for mount in pod["containers"][0]["volumeMounts"]
        if mount["mountPath"] != "/tmp"
    }
    ports = {entry["name"] for entry in pod["containers"][0]["ports"]}
    assert ports == {"http", "metrics"}


def test_its_service_leads_to_pods_that_are_not_ready_too() -> None:
    made = activator.pods_service(service_of(), {"a": "b"})
    assert made["spec"]["publishNotReadyAddresses"] is True
    assert made["spec"]["selector"] == {"a": "b"}
    assert [port["name"] for port in made["spec"]["ports"]] == ["http", "grpc"]


def test_a_measured_start_changes_it_seldom(defaults: Defaults) -> None:
    assert [activator.foretold(seconds) for seconds in (0.3, 7.2, 9.9, 10.1, 4000)] == [
        2, 10, 10, 15, 1200,
    ]  # fmt: skip
    assert activator.foretold(None) is None
    made = activator.deployment(service_of(), defaults, None, 10)
    assert activator.foretold_in(made) == 10
    assert activator.foretold_in(activator.deployment(service_of(), defaults, None, None)) is None
    assert activator.foretold_in(None) is None


def test_policies() -> None:
    assert network.activator_policy(service_of(), "system") is None
    on = {"networkPolicy": {"enabled": True}}
    policy = network.activator_policy(service_of(**on), "system")
    assert policy is not None
    (_, way_out) = policy["spec"]["egress"]
    assert [port["port"] for port in way_out["ports"]] == [8000, 8001]


STARTED: Json = {
    "metadata": {"name": "rank-1", "creationTimestamp": "2026-01-05T12:00:00Z"},
    "status": {
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "True",
                "lastTransitionTime": "2026-01-05T12:00:01Z",
            },
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-05T12:00:20Z"},
        ],
        "initContainerStatuses": [
            {
                "name": "verify",
                "state": {
                    "terminated": {
                        "startedAt": "2026-01-05T12:00:04Z",
                        "finishedAt": "2026-01-05T12:00:06Z",
                    }
                },
            }
        ],
        "containerStatuses": [
            {"name": "gateway", "state": {"running": {"startedAt": "2026-01-05T12:00:15Z"}}}
        ],
    },
}


def test_stages_of_a_start() -> None:
    found = measure(STARTED)
    assert found is not None
    stages = (found.schedule, found.prepare, found.verify, found.load, found.warm_up)
    assert stages == (1, 3, 2, 9, 5)
    assert found.seconds == sum(stages) == 20


@pytest.mark.parametrize(
    "change",
    [
        {"conditions": []},
        {"containerStatuses": [STARTED["status"]["containerStatuses"][0] | {"restartCount": 1}]},
        {"initContainerStatuses": []},
    ],
)
def test_what_was_no_start_is_not_measured(change: Json) -> None:
    assert measure(STARTED | {"status": STARTED["status"] | change}) is None


@pytest.mark.parametrize(
    ("variable", "found"),
    [
        ({"value": "7"}, 7.0),
        ({"value": "soon"}, None),
        ({"value": "nan"}, None),
        ({"value": "1e999"}, None),
        ({"value": "-1"}, None),
        ({"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, None),
    ],
)
def test_a_foretold_time_that_somebody_changed_is_none(variable: Json, found: float | None) -> None:
    env = [{"name": "RERANKER_COLD_START_SECONDS"} | variable]
    pod = {"containers": [{"name": "activator", "env": env}]}
    assert activator.foretold_in({"spec": {"template": {"spec": pod}}}) == found


def test_a_pod_that_got_ready_again_tells_of_no_start() -> None:
    later = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-05T14:00:00Z"}
    conditions = [STARTED["status"]["conditions"][0], later]
    again = STARTED | {"status": STARTED["status"] | {"conditions": conditions}}
    first = measure(STARTED)
    assert measure(again) is None
    assert is_first(STARTED, first)
    assert not is_first(again, None)
    # Also where it was away for a moment right after its start, of which is known when it ended.
    soon = later | {"lastTransitionTime": "2026-01-05T12:03:00Z"}
    again = STARTED | {"status": STARTED["status"] | {"conditions": [soon]}}
    assert is_first(again, None)
    assert not is_first(again, first)
    # What was written down before that was known.
    assert first is not None
    assert believable(first) == first
    assert believable(first.model_copy(update={"seconds": 7239.0, "warm_up": 7234.0})) is None
