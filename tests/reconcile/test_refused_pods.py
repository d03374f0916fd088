"""Controllers that may not make pods: quotas, limit ranges, admission."""

import random
from base64 import b64encode
from typing import Any

import pytest

from reranker_operator.errors import Forbidden

from .simulation import Simulation

QUOTA = (
    'pods "rank-x-7kx2p" is forbidden: exceeded quota: tight, requested: requests.memory=2Gi, '
    "used: requests.memory=0, limited: requests.memory=1Gi"
)
POLICY = 'admission webhook "images" denied the request: unknown registry.'


@pytest.mark.parametrize(
    ("text", "reason", "told"),
    [
        (
            QUOTA,
            "QuotaExceeded",
            "no pod may be made: exceeded quota: tight, requested: requests.memory=2Gi, used: "
            "requests.memory=0, limited: requests.memory=1Gi; raise the namespace's ResourceQuota "
            "or lower spec.engine.resources",
        ),
        (
            POLICY,
            "AdmissionDenied",
            'no pod may be made: admission webhook "images" denied the request: unknown registry; '
            "change spec.engine.resources or the image as the policy asks, or the policy",
        ),
    ],
    ids=["quota", "admission"],
)
async def test_a_job_that_may_make_no_pod_is_told(
    sim: Simulation, text: str, reason: str, told: str
) -> None:
    sim.refusal = text
    sim.create_service()
    await sim.settle()
    # Nobody is called when an Event is written.
    assert sim.next_wake == 10
    await sim.advance(10)
    assert sim.condition("ModelResolved") == ("False", reason)
    assert sim.message("Ready") == told
    writes = len(sim.cluster.writes)
    for _ in range(3):
        assert sim.next_wake == 10
        await sim.advance(10)
    assert len(sim.cluster.writes) == writes

    sim.refusal, sim.held = None, {"resolve"}
    await sim.settle()
    assert sim.next_wake is None
    sim.held = {"fetch"}
    await sim.settle()
    # The engine's Jobs in the same way.
    sim.refusal, sim.held = text, set()
    await sim.settle()
    await sim.advance(10)
    assert sim.condition("EngineReady") == ("False", reason)
    assert sim.next_wake == 10
    sim.refusal = None
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_events_are_not_read_while_all_goes_well(sim: Simulation) -> None:
    sim.create_service()
    await sim.converge()
    sim.restart_operator()
    await sim.resync()
    await sim.converge()
    assert not [call for call in sim.cluster.calls if (call.verb, call.kind) == ("list", "Event")]


async def test_no_right_to_read_events_stops_nothing(sim: Simulation) -> None:
    sim.cluster.refusals["list", "Event"] = Forbidden("events are not for you")
    sim.refusal = QUOTA
    sim.create_service()
    await sim.settle()
    await sim.advance(10)
    assert sim.condition("ModelResolved") == ("Unknown", "Resolving")
    assert sim.errors == []


async def test_a_deployment_that_may_make_no_pods_is_told(sim: Simulation) -> None:
    sim.held = {"validate"}
    sim.create_service()
    await sim.settle()
    sim.refusal, sim.held = POLICY, set()
    await sim.settle()
    assert sim.condition("Serving") == ("False", "AdmissionDenied")
    assert sim.condition("Ready") == ("False", "AdmissionDenied")
    assert sim.message("Serving").endswith("as the policy asks, or the policy")
    sim.refusal = None
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")

    sim.refusal = QUOTA
    sim.edit_service(replicas=3)
    await sim.converge()
    assert sim.condition("Serving") == ("True", "Available")
    assert sim.condition("Progressing") == ("True", "QuotaExceeded")
    assert sim.message("Progressing").startswith("1 of 3 pods are ready: no pod may be made")


async def test_a_template_that_no_deployment_can_carry_is_refused_with_its_field(
    sim: Simulation,
) -> None:
    sim.create_service()
    await sim.converge()
    letters = random.Random(1)  # noqa: S311 - the same in each run
    agent: dict[str, Any] = {"name": "agent", "image": "agent:1"}
    # As many and as long as the schema allows, and of nothing that can be packed.
    agent["args"] = [b64encode(letters.randbytes(3000)).decode() for _ in range(64)]
    sim.edit_service(serving={"pod": {"sidecars": [agent]}})
    await sim.converge()
    for kind in ("Accepted", "Ready"):
        assert sim.condition(kind) == ("False", "InvalidSpec")
    assert "spec.serving.pod.sidecars" in sim.message("Accepted")
    assert "ConfigMap" in sim.message("Accepted")
    assert sim.condition("Serving") == ("True", "Available")
    sim.edit_service(serving={"pod": {"sidecars": [agent | {"args": []}]}})
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
