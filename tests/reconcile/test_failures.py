"""What goes wrong: pods that die, models that can't be served, rights that lack."""

import datetime
from typing import Any

import pytest

from reranker_contracts import ParityReport, StageReason
from reranker_operator.api.conditions import Reason
from reranker_operator.api.meta import (
    DEPLOYMENT,
    JOB,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    SERVICE,
)
from reranker_operator.errors import (
    Forbidden,
    NamespaceTerminating,
    OperatorError,
    Rejected,
    Unavailable,
)

from .controllers import NAMESPACE, Fault
from .simulation import Simulation, revision_of

OTHER = {"source": "hf://org/other"}
MINE = {"store": {"existingClaim": "mine"}}


async def _serving(sim: Simulation, **spec: Any) -> None:
    sim.create_service(**spec)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("killed"), Reason.POD_KILLED),
        (Fault("vanished"), Reason.POD_KILLED),
        (Fault("oom"), Reason.OUT_OF_MEMORY),
        (Fault("refused", StageReason.STORE_FULL), StageReason.STORE_FULL),
    ],
    ids=lambda value: value.how if isinstance(value, Fault) else "",
)
@pytest.mark.parametrize("stage", ["export", "compile"])
async def test_a_failed_build_is_tried_again_after_a_growing_pause(
    sim: Simulation, stage: str, fault: Fault, reason: str
) -> None:
    sim.faults[stage] = [fault, fault]
    sim.create_service()
    pauses = []
    for failures in (1, 2):
        await sim.settle()
        (engine,) = sim.engines()
        attempts = engine.status.attempts
        assert attempts is not None
        assert (attempts.failures, attempts.reason) == (failures, reason)
        assert sim.condition("EngineReady") == ("False", reason)
        assert sim.service().status.stage == reason
        pauses.append(sim.next_wake)
        await sim.advance(sim.next_wake or 0)
    assert pauses == [10, 20]
    assert sim.condition("Ready") == ("True", "Ready")
    (engine,) = sim.engines()
    assert engine.status.attempts is None
    step = "prepare" if stage == "export" else "compile"
    assert f"{engine.metadata.name}-{step}-3" in sim.names("Job")


async def test_a_restart_in_the_pause_changes_nothing(sim: Simulation) -> None:
    sim.faults["compile"] = [Fault("killed"), Fault("killed")]
    sim.create_service()
    await sim.settle()
    await sim.advance(10)
    jobs = sim.names("Job")
    sim.now += datetime.timedelta(seconds=5)
    sim.restart_operator()
    await sim.resync()
    await sim.settle()
    assert sim.names("Job") == jobs
    assert sim.next_wake == 15
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


@pytest.mark.parametrize("stage", ["resolve", "export", "validate"])
async def test_a_permanent_failure_is_not_tried_again(sim: Simulation, stage: str) -> None:
    sim.faults[stage] = [Fault("refused", StageReason.UNSAFE_WEIGHTS)]
    sim.create_service()
    await sim.converge()
    kind = "ModelResolved" if stage == "resolve" else "EngineReady"
    assert sim.condition(kind) == ("False", "UnsafeWeights")
    assert sim.condition("Ready") == ("False", "UnsafeWeights")
    jobs = sim.names("Job")
    await sim.advance(7 * 86400)
    await sim.resync()
    await sim.settle()
    assert sim.names("Job") == jobs
    # Another model is another story.
    sim.edit_service(model=OTHER)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


@pytest.mark.parametrize("stage", ["resolve", "publish", "compile", "validate"])
async def test_results_lost_with_their_pod_are_made_again(sim: Simulation, stage: str) -> None:
    """The Job is complete, but its pod went away before anybody read it."""
    sim.faults[stage] = [Fault("lost")]
    sim.create_service()
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.engines()[0].status.parity == sim.parity


async def test_a_resolve_is_tried_again_and_keeps_the_last_failed_job(sim: Simulation) -> None:
    sim.faults["resolve"] = [Fault("refused", StageReason.SOURCE_UNREACHABLE)] * 3
    sim.create_service()
    await sim.settle()
    for pause in (10, 20, 40):
        assert sim.condition("ModelResolved") == ("False", "SourceUnreachable")
        assert sim.next_wake == pause
        assert len(sim.names("Job")) == 1
        await sim.advance(pause)
    assert sim.condition("Ready") == ("True", "Ready")


@pytest.mark.parametrize("stage", ["resolve", "fetch", "compile"])
async def test_a_failure_stands_while_the_next_attempt_runs(sim: Simulation, stage: str) -> None:
    """So a source that stays away is one Event, however often it is asked for."""
    sim.faults[stage] = [Fault("refused", StageReason.SOURCE_UNREACHABLE)] * 4
    sim.create_service()
    await sim.settle()
    kind = "ModelResolved" if stage == "resolve" else "EngineReady"
    since = sim.service().status.conditions
    sim.held = {stage}
    for number in (2, 3):
        await sim.advance(61 * number)
        assert sim.condition(kind) == ("False", "SourceUnreachable")
        assert f"(attempt {number} is running)" in sim.message(kind)
        sim.held = set()
        await sim.settle()
        sim.held = {stage}
    assert [entry.last_transition_time for entry in sim.service().status.conditions] == [
        entry.last_transition_time for entry in since
    ]
    told = [entry["message"] for entry in sim.events() if entry["reason"] == "SourceUnreachable"]
    assert len([text for text in told if text.startswith(f"{kind} is False")]) == 1


async def test_an_engine_below_the_threshold_never_serves(sim: Simulation) -> None:
    await _serving(sim)
    revision = sim.service().status.revision
    sim.parity = ParityReport(
        pairs=64, queries=8, kendall_tau=0.9, ndcg10_delta=0.0, max_abs_diff=0.1
    )
    sim.edit_service(model=OTHER)
    await sim.converge()
    assert sim.condition("EngineReady") == ("False", "ParityRefused")
    assert sim.condition("Ready") == ("False", "ParityRefused")
    assert sim.condition("Serving") == ("True", "Available")
    assert revision_of(sim.selected() or {}) == revision
    assert len(sim.names("Deployment")) == 1

    sim.edit_service(engine={"parity": {"minKendallTau": 0.8}})
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.service().status.revision != revision


async def test_an_unknown_source_is_refused_and_what_serves_stays(sim: Simulation) -> None:
    await _serving(sim)
    good = sim.picture()
    sim.edit_service(model={"source": "gopher://x"})
    await sim.converge()
    assert sim.condition("Accepted") == ("False", "UnknownSource")
    assert sim.condition("Ready") == ("False", "UnknownSource")
    assert sim.condition("Serving") == ("True", "Available")
    sim.edit_service(model={"source": "hf://org/tiny"})
    await sim.converge()
    assert sim.picture() == good


async def test_a_spec_the_models_refuse_is_said_once_and_status_is_kept(sim: Simulation) -> None:
    """For example one that a newer version's schema let through."""
    await _serving(sim)
    before = sim.service().status
    sim.edit_service(engine={"runtime": "torch"})
    await sim.converge()
    raw = sim.cluster.find(RERANKER_SERVICE, NAMESPACE, "rank") or {}
    accepted = raw["status"]["conditions"][0]
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert "spec.engine.runtime" in accepted["message"]
    assert raw["status"] | {"conditions": []} == before.to_dict() | {"conditions": []}
    assert accepted["observedGeneration"] == raw["metadata"]["generation"]
    # The same mistake in a newer spec is told of that one.
    sim.edit_service(replicas=2)
    await sim.converge()
    raw = sim.cluster.find(RERANKER_SERVICE, NAMESPACE, "rank") or {}
    accepted = raw["status"]["conditions"][0]
    assert accepted["observedGeneration"] == raw["metadata"]["generation"]
    writes = len(sim.cluster.writes)
    await sim.resync()
    await sim.settle()
    assert len(sim.cluster.writes) == writes
    sim.edit_service(engine={"runtime": "auto"})
    await sim.converge()
    assert sim.service().status.model == before.model
    assert sim.condition("Ready") == ("True", "Ready")


async def test_an_unreadable_engine_does_not_stop_the_others(sim: Simulation) -> None:
    foreign = {"apiVersion": "reranker.dev/v1alpha1", "kind": "RerankerEngine"}
    meta = {"name": "from-the-future", "namespace": NAMESPACE}
    sim.cluster.put(foreign | {"metadata": meta, "spec": {"identity": {"runtime": "torch"}}})
    await _serving(sim)


async def test_an_address_of_somebody_else_is_not_taken_over(sim: Simulation) -> None:
    theirs = {"apiVersion": "v1", "kind": "Service", "spec": {"selector": {"app": "shop"}}}
    sim.cluster.put(theirs | {"metadata": {"name": "rank", "namespace": NAMESPACE}})
    sim.create_service()
    for _ in range(3):
        await sim.settle()
        await sim.advance(1)
    address = sim.cluster.find(SERVICE, NAMESPACE, "rank") or {}
    assert address["spec"] == {"selector": {"app": "shop"}}
    assert "ownerReferences" not in address["metadata"]
    assert sim.condition("Accepted") == sim.condition("Ready") == ("False", "ForeignOwner")
    assert sim.message("Ready").count("; ") == 1
    assert sim.names(JOB.kind) == [], "told before anything is built"
    sim.cluster.remove(SERVICE, NAMESPACE, "rank")
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Forbidden("no right to patch deployments"), "Forbidden"), (Rejected("no"), "Rejected")],
    ids=["forbidden", "rejected"],
)
async def test_a_refused_write_is_told_and_tried_again(
    sim: Simulation, error: OperatorError, reason: str
) -> None:
    sim.cluster.refusals["apply", "Deployment"] = error
    sim.create_service()
    for _ in range(5):
        await sim.settle()
        await sim.advance(1)
    assert sim.condition("Ready") == ("False", reason)
    writes = len(sim.cluster.writes)
    await sim.advance(1)
    assert len(sim.cluster.writes) == writes
    sim.cluster.refusals.clear()
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_events_are_a_courtesy(sim: Simulation) -> None:
    sim.cluster.refusals["create", "Event"] = Forbidden("events are not for you")
    await _serving(sim)
    assert sim.errors == []


@pytest.mark.parametrize(
    "call",
    [
        ("create", "Job"),
        ("apply", "Deployment"),
        ("get", "Service"),
        ("apply_status", "RerankerEngine"),
    ],
    ids=" ".join,
)
async def test_lost_answers_are_asked_for_again(sim: Simulation, call: tuple[str, str]) -> None:
    sim.cluster.refusals[call] = Unavailable("timeout")
    sim.create_service()
    await sim.settle()
    sim.cluster.refusals.clear()
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


@pytest.mark.parametrize("restarted", [False, True])
async def test_nothing_is_lost_in_an_outage(sim: Simulation, restarted: bool) -> None:
    """Two minutes of 429, 500 and no answer at all, while people and nodes go on."""
    reference = Simulation()
    for world in (sim, reference):
        world.create_service("kept")
        world.create_service("scaled")
        world.create_service("gone")
        await world.converge()
    errors = [Unavailable("429", retry_after=5.0), Unavailable("500"), Unavailable("timeout")]
    for step in range(24):
        sim.cluster.outage = errors[step % 3]
        if restarted and step == 12:
            sim.restart_operator()
        for world in (sim, reference):
            if step == 3:
                world.edit_service("scaled", replicas=3)
                world.cluster.remove(DEPLOYMENT, NAMESPACE, world.names("Deployment")[0])
            if step == 6:
                world.delete_service("gone")
                world.create_service("new", model=OTHER)
        await sim.survive(5)
    sim.cluster.outage = None
    for world in (sim, reference):
        await world.converge()
    assert sim.errors
    assert sim.condition("Ready", "new") == ("True", "Ready")
    assert sim.picture().keys() == reference.picture().keys()
    assert sim.service("scaled").status.ready == "3/3"


async def test_a_namespace_that_goes_away_is_let_go(sim: Simulation) -> None:
    """Nothing can be created there any more, also no Job that would remove an engine's files."""
    sim.add_claim("mine")
    sim.create_service("one", engine=MINE)
    sim.create_service("two", engine=MINE, model=OTHER)
    await sim.converge()
    sim.cluster.terminating.add(NAMESPACE)
    sim.cluster.remove(DEPLOYMENT, NAMESPACE, sim.names("Deployment")[0])
    await sim.converge()
    # The namespace controller deletes in any order: an engine first, while another one stays.
    sim.cluster.remove(RERANKER_ENGINE, NAMESPACE, sim.engines()[0].metadata.name)
    await sim.converge()
    assert len(sim.engines()) == 1
    for name in ("one", "two"):
        sim.delete_service(name)
    await sim.converge()
    assert list(sim.picture()) == ["PersistentVolumeClaim/mine"]
    assert not [error for error in sim.errors if not isinstance(error, NamespaceTerminating)]


async def test_files_that_cannot_be_removed_do_not_hold_the_engine(sim: Simulation) -> None:
    sim.add_claim("mine")
    sim.create_service("one", engine=MINE)
    sim.create_service("two", engine=MINE, model=OTHER)
    await sim.converge()
    sim.faults["remove"] = [Fault("refused", StageReason.STORE_UNWRITABLE)]
    sim.delete_service("one")
    await sim.converge()
    assert [entry.spec.model_name for entry in sim.engines()] == ["other"]


async def test_files_stay_where_an_engine_beside_can_not_be_read(sim: Simulation) -> None:
    """It may need the same prepared model."""
    sim.add_claim("mine")
    sim.create_service("one", engine=MINE)
    sim.create_service("two", engine=MINE | {"maxBatchSize": 32})
    await sim.converge()
    files = set(sim.stored["mine"])
    name = sim.service("two").status.engine or ""
    sim.cluster.edit(RERANKER_ENGINE, NAMESPACE, name, {"spec": {"identity": {"runtime": "torch"}}})
    sim.delete_service("one")
    await sim.settle()
    assert sim.names("RerankerEngine") == [name]
    assert sim.stored["mine"] == files


async def test_only_a_new_engine_without_owner_has_a_minute_to_find_one(sim: Simulation) -> None:
    await _serving(sim)
    raw = sim.cluster.find(RERANKER_ENGINE, NAMESPACE, sim.engines()[0].metadata.name) or {}
    sim.cluster.put(raw | {"metadata": {"name": "new", "namespace": NAMESPACE}, "status": {}})
    sim.cluster.put(raw | {"metadata": {"name": "old", "namespace": NAMESPACE}})
    await sim.settle()
    assert "new" in sim.names("RerankerEngine")
    assert "old" not in sim.names("RerankerEngine")
    await sim.advance(59)
    assert "new" in sim.names("RerankerEngine")
    await sim.advance(1)
    assert "new" not in sim.names("RerankerEngine")


async def test_an_engine_that_is_taken_up_again_meanwhile_is_not_deleted(sim: Simulation) -> None:
    await _serving(sim)
    meta = sim.engines()[0].metadata
    raw = sim.cluster.find(RERANKER_ENGINE, NAMESPACE, meta.name) or {}
    owners = {"metadata": {"ownerReferences": raw["metadata"]["ownerReferences"]}}
    nobody = {"metadata": {"ownerReferences": None}}
    sim.cluster.edit(RERANKER_ENGINE, NAMESPACE, meta.name, nobody)

    saw = sim.watch.saw

    def take_up(kind: str, event: str | None, body: Any) -> None:
        # After the news that nobody owns it, before the plan that follows from them.
        saw(kind, event, body)
        if kind == RERANKER_ENGINE.kind and not body["metadata"].get("ownerReferences"):
            sim.watch.saw = saw  # type: ignore[method-assign]
            sim.cluster.edit(RERANKER_ENGINE, NAMESPACE, meta.name, owners)

    sim.watch.saw = take_up  # type: ignore[method-assign]
    await sim.converge()
    assert [entry.metadata.uid for entry in sim.engines()] == [meta.uid]


async def test_a_job_of_somebody_else_is_told_and_waited_for(sim: Simulation) -> None:
    sim.held = {"fetch"}
    sim.create_service()
    await sim.converge()
    name = f"{sim.engines()[0].metadata.name}-prepare-1"
    sim.delete_service()
    await sim.converge()
    theirs = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {}}}
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    meta = {"name": name, "namespace": NAMESPACE}
    sim.cluster.put(theirs | {"metadata": meta, "status": done})
    sim.held.clear()
    sim.create_service()
    await sim.settle()
    assert sim.condition("Ready") == ("False", "ForeignOwner")
    assert f"Job {name} exists" in sim.message("Ready")
    assert "delete that Job" in sim.message("Ready")
    assert sim.next_wake == 60
    writes = len(sim.cluster.writes)
    await sim.advance(60)
    assert (len(sim.cluster.writes), sim.next_wake) == (writes, 60)
    sim.cluster.remove(JOB, NAMESPACE, name)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_a_changed_label_of_a_job_stops_nothing(sim: Simulation) -> None:
    sim.faults["compile"] = [Fault("killed")]
    sim.create_service()
    await sim.settle()
    labels = {"metadata": {"labels": {"reranker.dev/attempt": "first"}}}
    for name in sim.names("Job"):
        sim.cluster.edit(JOB, NAMESPACE, name, labels)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_a_missing_gpu_node_is_told_before_anything_is_built(sim: Simulation) -> None:
    sim.cluster.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
    sim.create_service(accelerator={"type": "nvidia"})
    await sim.reconcile_pending()
    assert sim.condition("ModelResolved") == ("Unknown", "Resolving")
    assert sim.condition("Ready") == ("False", "NoMatchingNode")
