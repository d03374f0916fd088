"""Every cause of the catalogue is told with its reason, in words that help, once, and is mended."""

from pathlib import Path

import pytest

from kubectl_rr import runbook
from reranker_contracts import StageReason
from reranker_operator.api.conditions import Reason
from reranker_operator.api.meta import EVENT, NODE, POD, RERANKER_SERVICE

from .catalogue import CAUSES
from .controllers import NAMESPACE
from .simulation import Simulation
from .symptoms import Cause

_TESTS = Path(__file__).resolve().parent
#: They list reasons without provoking any.
_LISTS = {"test_catalogue.py"}


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
    """By a cause of the catalogue, or where a test of its own subject names the reason."""
    quiet = {reason for reason, entry in runbook.entries().items() if entry.quiet}
    failing = {reason.value for reason in (*Reason, *StageReason)} - quiet
    here = {cause.reason.value for cause in CAUSES}
    assert here <= failing
    others = [path for path in _TESTS.rglob("test_*.py") if path.name not in _LISTS]
    texts = "\n".join(path.read_text(encoding="utf-8") for path in others)
    assert {reason for reason in failing - here if f'"{reason}"' not in texts} == set()
    assert len({cause.id for cause in CAUSES}) == len(CAUSES)
