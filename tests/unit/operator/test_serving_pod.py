"""What the serving pod is told, and how long it may take to start."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from reranker_operator.api.engine import ParityThresholds
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.render import serving, shadow
from reranker_operator.render.defaults import Defaults

Json = dict[str, Any]


def _containers(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> dict[str, Json]:
    pod = serving.pod_template(service, engine, defaults)["spec"]
    return {entry["name"]: entry for entry in (*pod["initContainers"], *pod["containers"])}


@pytest.mark.parametrize(
    ("model", "aliases"),
    [
        ({}, "rank"),
        ({"aliases": ["a", "b"]}, "a,b,rank"),
        ({"servedName": "other"}, "rank"),
        ({"servedName": "rank"}, None),
        ({"aliases": ["rank"]}, "rank"),
    ],
)
def test_a_service_answers_to_its_own_name(
    engine: RerankerEngine, defaults: Defaults, model: Json, aliases: str | None
) -> None:
    raw = {
        "metadata": {"name": "rank", "namespace": "shop", "uid": "1"},
        "spec": {"model": {"source": "hf://org/tiny"} | model},
    }
    gateway = _containers(RerankerService.model_validate(raw), engine, defaults)["gateway"]
    env = {entry["name"]: entry.get("value") for entry in gateway["env"]}
    assert env.get("RERANKER_ALIASES") == aliases


@pytest.mark.parametrize(("kind", "value"), [("nvidia", "0"), ("none", None)])
def test_fp32_on_gpus_is_as_exact_as_it_was_measured(
    engine: RerankerEngine, defaults: Defaults, kind: str, value: str | None
) -> None:
    raw = {
        "metadata": {"name": "rank", "namespace": "shop", "uid": "1"},
        "spec": {"model": {"source": "hf://org/tiny"}, "accelerator": {"type": kind}},
    }
    assert engine.spec.identity.runtime == "onnxruntime"
    triton = _containers(RerankerService.model_validate(raw), engine, defaults)["triton"]
    env = {entry["name"]: entry.get("value") for entry in triton["env"]}
    assert env.get("NVIDIA_TF32_OVERRIDE") == value


def test_an_engine_that_was_not_measured_is_measured_before_the_gateway_starts(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    assert "measure" not in _containers(service, engine, defaults)
    rtx = {"runtime": "tensorrt-rtx", "accelerator": "nvidia", "compute_capability": "8.9"}
    spec = engine.spec.model_copy(update={"identity": engine.spec.identity.model_copy(update=rtx)})
    limits = ParityThresholds(min_kendall_tau=0.99, max_ndcg_delta=0.004)
    settings = service.spec.engine.model_copy(update={"parity": limits})
    service = service.model_copy(
        update={"spec": service.spec.model_copy(update={"engine": settings})}
    )
    found = _containers(service, engine.model_copy(update={"spec": spec}), defaults)
    assert list(found) == ["verify", "triton", "measure", "gateway"]
    measure, gateway = found["measure"], found["gateway"]
    assert measure["image"] == gateway["image"]
    assert measure["resources"] == gateway["resources"]
    assert measure["args"] == [
        "measure", "--engine", "/engine", "--triton", "127.0.0.1:9001", "--min-kendall-tau=0.99",
        "--max-ndcg-delta=0.004", "--result", "/dev/termination-log",
    ]  # fmt: skip


def _patience(probe: Json) -> int:
    """Seconds until a container that does not answer yet is started anew."""
    return int(
        probe.get("initialDelaySeconds", 0) + probe["periodSeconds"] * probe["failureThreshold"]
    )


@pytest.mark.parametrize("name", ["gateway", "triton"])
def test_a_starved_pod_has_time_to_start(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults, name: str
) -> None:
    container = _containers(service, engine, defaults)[name]
    assert _patience(container["startupProbe"]) >= 300
    assert container["startupProbe"]["timeoutSeconds"] >= 5
    assert container["livenessProbe"]["timeoutSeconds"] >= 5


def test_a_starved_operator_has_time_to_start() -> None:
    text = (Path(__file__).parents[3] / "manifests/base/operator.yaml").read_text("utf-8")
    (deployment,) = (doc for doc in yaml.safe_load_all(text) if doc and doc["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert _patience(container["startupProbe"]) >= 300
    assert container["startupProbe"]["timeoutSeconds"] >= 5
    assert container["livenessProbe"]["timeoutSeconds"] >= 5


def _shadowing(**gate: Any) -> RerankerService:
    spec = {"model": {"source": "hf://org/tiny"}, "serving": {"tls": {"secretName": "cert"}}}
    gates = {"shadow": gate} if gate else {}
    raw = {
        "metadata": {"name": "rank", "namespace": "shop", "uid": "1"},
        "spec": spec | {"rollout": {"strategy": "canary", "gates": gates}},
    }
    return RerankerService.model_validate(raw)


def test_pods_know_the_other_revision_only_where_scores_are_compared(
    engine: RerankerEngine, defaults: Defaults
) -> None:
    without, with_it = _shadowing(), _shadowing(percent=7)
    made = serving.pod_template(with_it, engine, defaults)
    (gateway,) = made["spec"]["containers"]
    env = {entry["name"]: entry for entry in gateway["env"]}
    assert env["RERANKER_SHADOW_URL"]["value"] == "https://rank-preview:8000"
    assert env["RERANKER_SHADOW_PERCENT"]["value"] == "7"
    source = env["RERANKER_REVISION"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert source == "metadata.labels['reranker.dev/revision']"
    # The service's own, whoever has its name.
    assert env["RERANKER_SHADOW_IDENTITY"]["value"] == "1"
    # Nothing else is another one, and without the gate nothing at all.
    gateway["env"] = [
        entry
        for entry in gateway["env"]
        if entry["name"] != "RERANKER_REVISION" and "SHADOW" not in entry["name"]
    ]
    assert made == serving.pod_template(without, engine, defaults)
    limits = _shadowing(percent=7, minRequests=9, minKendallTau=0.5)
    assert serving.pod_template(limits, engine, defaults) == serving.pod_template(
        with_it, engine, defaults
    )
    hashes = [serving.spec_hash(entry) for entry in (without, with_it, limits)]
    assert hashes[0] != hashes[1] == hashes[2]


def test_the_present_pods_take_part_where_theirs_say_so(
    engine: RerankerEngine, defaults: Defaults
) -> None:
    for service, expected in ((_shadowing(), False), (_shadowing(percent=1), True)):
        template = serving.pod_template(service, engine, defaults)
        assert shadow.takes_part(serving.deployment(service, template, 1)) is expected
