"""A source that is no longer what it was: moved under the build, mended by hand, read anew."""

from collections.abc import Callable

import pytest

from reranker_contracts import StageReason

from .controllers import START, Fault
from .simulation import Simulation

SOURCE = "hf://org/tiny"


@pytest.mark.parametrize("reason", [StageReason.SOURCE_CHANGED, StageReason.SOURCE_NOT_FOUND])
async def test_a_source_that_moved_before_it_was_fetched_is_resolved_again(
    sim: Simulation, reason: StageReason
) -> None:
    sim.revisions[SOURCE] = "first"
    sim.faults["fetch"] = [Fault("refused", reason)]
    sim.create_service()
    await sim.settle()
    assert sim.condition("ModelResolved") == ("False", "SourceChanged")
    assert sim.message("ModelResolved") == (
        f"the source has changed: revision first of {SOURCE} can't be fetched any more "
        "(attempt 1 failed, will try again)"
    )
    assert sim.next_wake == 10
    sim.revisions[SOURCE] = "second"
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    (engine,) = sim.engines()
    assert engine.spec.prepare.revision == "second"
    assert sim.service().status.resolve is None


async def test_a_source_that_never_rests_is_followed_at_a_growing_distance(sim: Simulation) -> None:
    sim.faults["fetch"] = [Fault("refused", StageReason.SOURCE_CHANGED)] * 5
    sim.create_service()
    moments = []
    await sim.settle()
    while sim.next_wake is not None:
        attempts = sim.service().status.resolve
        if attempts is not None and attempts.failures > len(moments):
            moments.append((sim.now - START).total_seconds())
            sim.revisions[SOURCE] = f"revision {len(moments)}"
        await sim.advance(sim.next_wake)
    assert moments == [0, 10, 30, 70, 150]
    assert sim.condition("Ready") == ("True", "Ready")
    assert [entry.spec.prepare.revision for entry in sim.engines()] == ["revision 5"]


async def test_a_fetch_that_fails_for_another_reason_keeps_the_revision(sim: Simulation) -> None:
    sim.faults["fetch"] = [Fault("refused", StageReason.SOURCE_UNREACHABLE)]
    sim.create_service()
    await sim.settle()
    assert sim.condition("ModelResolved") == ("True", "Resolved")
    assert sim.condition("EngineReady") == ("False", "SourceUnreachable")


async def test_a_mended_source_is_resolved_again_when_asked(sim: Simulation) -> None:
    sim.faults["resolve"] = [Fault("refused", StageReason.MODEL_INVALID)]
    sim.create_service()
    await sim.converge()
    assert sim.condition("Ready") == ("False", "ModelInvalid")
    await sim.advance(86400)
    assert sim.condition("Ready") == ("False", "ModelInvalid")
    sim.resolve_again("1")
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    before = len(sim.cluster.writes)
    await sim.resync()
    await sim.settle()
    assert sim.cluster.writes[before:] == []


async def test_a_newer_revision_replaces_a_serving_one_without_an_outage(
    sim: Simulation, traffic_is_served: Callable[[Simulation], None]
) -> None:
    sim.revisions[SOURCE] = "first"
    sim.create_service()
    await sim.converge()
    traffic_is_served(sim)
    sim.revisions[SOURCE] = "second"
    sim.resolve_again("1")
    sim.held = {"compile"}
    await sim.settle()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.condition("Progressing") == ("True", "Running")
    assert sim.service().status.stage == "Compile"
    sim.held.clear()
    await sim.converge()
    revisions = {entry.metadata.name: entry.spec.prepare.revision for entry in sim.engines()}
    assert sorted(revisions.values()) == ["first", "second"]
    assert revisions[sim.service().status.engine or ""] == "second"
    assert sim.condition("Progressing") == ("False", "Stable")
