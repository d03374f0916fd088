"""Every cause of the catalogue is told with its reason, in words that help, once, and is mended."""

import pytest

from reranker_contracts import StageReason
from reranker_operator.api.conditions import Reason
from reranker_operator.api.meta import EVENT, NODE, POD, RERANKER_SERVICE

from .catalogue import CAUSES, Cause
from .controllers import NAMESPACE
from .simulation import Simulation


async def _provoke(sim: Simulation, cause: Cause) -> None:
    if cause.after_ready:
        sim.create_service(**cause.spec)
        await sim.converge()
        assert sim.condition("Ready") == ("True", "Ready")
        cause.provoke(sim)
    else:
        cause.provoke(sim)
        sim.create_service(**cause.spec)
    await sim.settle()
    for _ in range(6):
        _, reason, message = _told(sim, cause.kind)
        told = reason == cause.reason and all(words in message for words in cause.words)
        if told or sim.next_wake is None:
            return
        await sim.advance(sim.next_wake)


def _told(sim: Simulation, kind: str) -> tuple[str, str, str]:
    """Status, reason and message, also of a spec that the models refuse."""
    found = sim.cluster.find(RERANKER_SERVICE, NAMESPACE, "rank") or {}
    conditions = found.get("status", {}).get("conditions", [])
    entry = next((entry for entry in conditions if entry["type"] == kind), {})
    return entry.get("status", ""), entry.get("reason", ""), entry.get("message", "")


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.id)
async def test_a_cause_is_told(sim: Simulation, cause: Cause) -> None:
    await _provoke(sim, cause)
    status, reason, message = _told(sim, cause.kind)
    assert (status, reason) == ("False", cause.reason), message
    assert _told(sim, "Ready")[:2] == ("False", cause.reason)
    for words in cause.words:
        assert words in message
    assert len(message) <= 1024
    # Nothing of it is told again, however often it is looked at.
    events = _events(sim)
    if cause.kind != "Ready" and cause.reason is not Reason.INVALID_SPEC:
        assert events.count((cause.reason, f"{cause.kind} is False")) == 1
    writes = len(sim.cluster.writes)
    for _ in range(2):
        await sim.resync()
        await sim.settle()
    assert len(sim.cluster.writes) == writes
    assert _events(sim) == events


@pytest.mark.parametrize(
    "cause", [cause for cause in CAUSES if not cause.lasting], ids=lambda cause: cause.id
)
async def test_what_is_mended_goes_on_by_itself(sim: Simulation, cause: Cause) -> None:
    await _provoke(sim, cause)
    fresh = Simulation()
    sim.told, sim.job_ends, sim.refusal, sim.parity = {}, {}, None, fresh.parity
    sim.claim_told, sim.events_of_claims, sim.event_of_pods = None, (), None
    sim.faults.clear()
    sim.cluster.refusals.clear()
    for node in list(sim.cluster.select(NODE, None)):
        sim.cluster.remove(NODE, node["metadata"].get("namespace", ""), node["metadata"]["name"])
    for pod in list(sim.cluster.select(POD, NAMESPACE)):
        if "reranker.dev/revision" in pod["metadata"]["labels"]:
            sim.cluster.remove(POD, NAMESPACE, pod["metadata"]["name"])
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


def _events(sim: Simulation) -> list[tuple[str, str]]:
    """Reason of each Event of the service, and of what it is the reason."""
    return [
        (entry["reason"], entry["message"].partition(":")[0])
        for entry in sim.cluster.select(EVENT, NAMESPACE)
        if entry["involvedObject"]["kind"] == RERANKER_SERVICE.kind
    ]


def test_every_reason_is_provoked() -> None:
    quiet = {
        Reason.ACCEPTED, Reason.RESOLVING, Reason.RESOLVED, Reason.WAITING_FOR_MODEL,
        Reason.WAITING_FOR_ENGINE, Reason.WAITING_FOR_PREPARED, Reason.PENDING, Reason.RUNNING,
        Reason.DONE, Reason.RETRYING, Reason.BUILDING, Reason.BUILT,
        Reason.STARTING, Reason.AVAILABLE, Reason.SCALED_TO_ZERO, Reason.ROLLING, Reason.STABLE,
        Reason.READY, StageReason.SUCCEEDED,
    }  # fmt: skip
    failing = {reason.value for reason in (*Reason, *StageReason) if reason not in quiet}
    assert {cause.reason.value for cause in CAUSES} == failing
    assert len({cause.id for cause in CAUSES}) == len(CAUSES)
