"""Secrets and ConfigMaps that a service names: missed by name, and a change rolls the pods."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from reranker_contracts import StageReason
from reranker_operator.api.meta import CONFIG_MAP, SECRET
from reranker_operator.errors import Forbidden, Unavailable

from .controllers import NAMESPACE, Fault
from .simulation import Simulation, revision_of

CA = {"caBundle": {"configMap": {"name": "ca"}}}
KEY = {
    "serving": {
        "gateway": {
            "env": [
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "api", "key": "key"}}},
            ]
        }
    }
}
Watch = Callable[[Simulation], None]


def _note(sim: Simulation) -> Any:
    target = sim.selected()
    assert target is not None
    return json.loads(
        target["spec"]["template"]["metadata"]["annotations"].get("reranker.dev/references", "{}")
    )


def _revision(sim: Simulation) -> str:
    target = sim.selected()
    assert target is not None
    return revision_of(target)


async def test_a_missing_secret_is_told_by_its_field_and_waited_for(sim: Simulation) -> None:
    sim.create_service(**KEY)
    await sim.converge()
    assert sim.condition("Accepted") == ("False", "ReferenceNotFound")
    assert sim.condition("Ready") == ("False", "ReferenceNotFound")
    message = sim.message("Accepted")
    assert "spec.serving.gateway.env[KEY].valueFrom.secretKeyRef names Secret api" in message
    assert f"kubectl create secret generic api -n {NAMESPACE}" in message
    assert sim.names("Deployment") == [], "pods would only hang"
    assert sim.condition("EngineReady") == ("True", "Built")
    for kind in ("Serving", "Progressing"):
        assert sim.condition(kind)[1] == "ReferenceNotFound", "no engine is waited for"
    now = sim.now
    sim.put_file("Secret", "api")
    await sim.settle()
    assert (sim.condition("Ready"), sim.now) == (("True", "Ready"), now)


async def test_a_change_rolls_the_pods_while_traffic_is_served(
    sim: Simulation, traffic_is_served: Watch
) -> None:
    sim.put_file("ConfigMap", "ca")
    sim.create_service(**CA)
    await sim.converge()
    before, note = _revision(sim), _note(sim)
    traffic_is_served(sim)
    sim.put_file("ConfigMap", "ca", "other")
    await sim.settle()
    assert _revision(sim) != before
    assert note.keys() == _note(sim).keys() == {"ConfigMap/ca"}
    assert note != _note(sim)
    assert sim.condition("Ready") == ("True", "Ready")
    # Something that nobody names is nobody's concern.
    writes = len(sim.cluster.writes)
    sim.put_file("ConfigMap", "other")
    await sim.settle()
    assert sim.cluster.writes[writes:] == []


async def test_a_secret_that_goes_leaves_the_pods_alone_and_comes_back_as_another(
    sim: Simulation, traffic_is_served: Watch
) -> None:
    sim.put_file("Secret", "api")
    sim.create_service(**KEY)
    await sim.converge()
    before = _revision(sim)
    traffic_is_served(sim)
    sim.cluster.remove(SECRET, NAMESPACE, "api")
    await sim.settle()
    assert sim.condition("Ready") == ("False", "ReferenceNotFound")
    assert sim.condition("Serving") == ("True", "Available")
    assert _revision(sim) == before
    sim.put_file("Secret", "api")
    await sim.settle()
    assert sim.condition("Ready") == ("True", "Ready")
    assert _revision(sim) != before


async def test_an_optional_one_counts_when_it_is_there(sim: Simulation) -> None:
    sim.create_service(
        serving={"triton": {"envFrom": [{"configMapRef": {"name": "tuning", "optional": True}}]}}
    )
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert _note(sim) == {}
    sim.put_file("ConfigMap", "tuning")
    await sim.settle()
    assert _note(sim).keys() == {"ConfigMap/tuning"}


async def test_a_new_operator_restarts_nothing(sim: Simulation) -> None:
    sim.put_file("Secret", "api")
    sim.put_file("ConfigMap", "ca")
    sim.create_service(**KEY, **CA)
    await sim.converge()
    writes = len(sim.cluster.writes)
    sim.restart_operator()
    await sim.resync()
    await sim.settle()
    assert sim.cluster.writes[writes:] == []


async def test_a_right_that_goes_restarts_nothing(sim: Simulation) -> None:
    sim.put_file("Secret", "api")
    sim.create_service(**KEY)
    await sim.converge()
    note = _note(sim)
    sim.cluster.refusals["get", "Secret"] = Forbidden("GET secrets: 403")
    sim.restart_operator()
    sim.edit_service(serving={"maxPassages": 7})
    await sim.resync()
    await sim.settle()
    assert sim.condition("Ready") == ("True", "Ready")
    assert _note(sim) == note


async def test_an_api_server_that_is_away_restarts_nothing(sim: Simulation) -> None:
    sim.put_file("ConfigMap", "ca")
    sim.create_service(**CA)
    await sim.converge()
    writes = len(sim.cluster.writes)
    sim.cluster.refusals["get", "ConfigMap"] = Unavailable("GET configmaps: 503")
    sim.restart_operator()
    await sim.resync()
    await sim.settle()
    assert sim.cluster.writes[writes:] == []
    assert isinstance(sim.errors[-1], Unavailable)


async def test_kinds_that_are_not_watched_are_left_to_the_kubelet(sim: Simulation) -> None:
    sim.watched_references = ("ConfigMap",)
    sim.restart_operator()
    sim.create_service(**KEY)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert _note(sim) == {}
    assert not [call for call in sim.cluster.calls if call.kind == "Secret"]


@pytest.mark.parametrize("stage", ["resolve", "fetch"])
async def test_another_token_is_tried_at_once(sim: Simulation, stage: str) -> None:
    sim.put_file("Secret", "hub")
    sim.faults[stage] = [Fault("refused", StageReason.SOURCE_UNAUTHORIZED)] * 2
    sim.create_service(model={"source": "hf://org/tiny", "secretRef": {"name": "hub"}})
    await sim.settle()
    await sim.advance(10)
    assert sim.condition("Ready") == ("False", "SourceUnauthorized")
    now = sim.now
    sim.put_file("Secret", "hub", "better")
    await sim.settle()
    assert (sim.condition("Ready"), sim.now) == (("True", "Ready"), now)
    # With the engine built, the token is nobody's concern any more.
    before = _revision(sim)
    sim.cluster.remove(SECRET, NAMESPACE, "hub")
    await sim.settle()
    assert sim.condition("Ready") == ("True", "Ready")
    assert _revision(sim) == before


async def test_a_service_that_is_gone_is_not_woken(sim: Simulation) -> None:
    sim.put_file("ConfigMap", "ca")
    sim.create_service(**CA)
    await sim.converge()
    sim.delete_service()
    await sim.converge()
    calls = len(sim.cluster.calls)
    sim.cluster.remove(CONFIG_MAP, NAMESPACE, "ca")
    await sim.settle()
    assert sim.cluster.calls[calls:] == []


async def test_a_change_waits_while_the_service_is_paused(sim: Simulation) -> None:
    sim.put_file("ConfigMap", "ca")
    sim.create_service(**CA)
    await sim.converge()
    revision = _revision(sim)
    sim.edit_service(rollout={"paused": True})
    sim.put_file("ConfigMap", "ca", "2")
    await sim.converge()
    assert _revision(sim) == revision
    assert sim.service().status.pending_changes == ("ConfigMap ca: changed",)
    assert sim.condition("Progressing") == ("False", "Paused")
    sim.edit_service(rollout={"paused": False})
    await sim.converge()
    assert _revision(sim) != revision
    assert sim.service().status.pending_changes == ()


async def test_keys_and_certificates_are_waited_for_and_their_change_starts_no_rollout(
    sim: Simulation,
) -> None:
    sim.create_service(
        serving={"auth": {"secretRef": {"name": "callers"}}, "tls": {"secretName": "rank-tls"}}
    )
    await sim.converge()
    assert sim.condition("Ready") == ("False", "ReferenceNotFound")
    assert "spec.serving.auth.secretRef names Secret callers" in sim.message("Accepted")
    sim.put_file("Secret", "callers")
    await sim.settle()
    assert "spec.serving.tls.secretName names Secret rank-tls" in sim.message("Accepted")
    sim.put_file("Secret", "rank-tls")
    await sim.settle()
    assert sim.condition("Ready") == ("True", "Ready")
    assert (sim.service().status.cluster_url or "").startswith("https://")
    before = _revision(sim)
    sim.put_file("Secret", "callers", "other")
    sim.put_file("Secret", "rank-tls", "other")
    await sim.settle()
    assert (_revision(sim), _note(sim)) == (before, {})
