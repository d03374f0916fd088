"""New revisions are judged beside the former one, and taken back when they are worse."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from reranker_operator import names
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import HTTP_ROUTE, POD, RERANKER_SERVICE
from reranker_operator.errors import Rejected

from .controllers import NAMESPACE, PARITY
from .judging import address as _address
from .judging import busy as _busy
from .judging import let as _let
from .judging import none as _none
from .judging import numbers as _numbers
from .judging import serving as _serving
from .judging import until_given_up as _until_given_up
from .simulation import Simulation
from .symptoms import placed
from .traffic import Answers, Traffic, passages_of

STRATEGIES = ["surge", "noSurge", "canary", "blueGreen"]
ROUTE = {"route": {"parentRefs": [{"name": "gate"}]}}
BAD = 100
#: How each of the bad revisions answers.
ERRORS, SLOW = Answers(failing=0.05), Answers(seconds_per_token=0.0002)
PATIENCE = 120


# The four bad revisions.


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("answers", "gate", "words"),
    [
        (ERRORS, "errorRate", "5.0 % of "),
        (SLOW, "latency", "2.00 times the former revision's 100.0 µs per token"),
    ],
)
async def test_a_worse_revision_is_taken_back(
    strategy: str, answers: Answers, gate: str, words: str, sim: Simulation
) -> None:
    good = await _serving(sim, replicas=3, rollout={"strategy": strategy})
    traffic = await _busy(sim)
    traffic.answers[str(BAD)] = answers
    sim.edit_service(serving={"maxPassages": BAD})
    failure, seconds = await _until_given_up(sim)
    assert seconds <= PATIENCE
    assert (failure.gate, failure.in_force) == (gate, True)
    assert words in failure.message
    bad = failure.revision
    # The bad one gets no request any more from now on.
    assert _address(sim) == good
    before = traffic.sent[bad]
    await _let(sim, 120)
    assert traffic.sent[bad] == before
    assert _numbers(sim) == {good: 3}
    assert sim.service().status.ready == "3/3"
    assert traffic.sent.get("", 0) == 0
    # The status says what failed, with numbers; the spec is not carried out.
    for kind in ("Progressing", "Ready"):
        assert sim.condition(kind) == ("False", "RolledBack")
        assert f"revision {bad} failed gate {gate}" in sim.message(kind)
        assert words in sim.message(kind)
    assert sim.condition("Serving") == ("True", "Available")
    assert [event["reason"] for event in sim.events()].count("RolledBack") == 1
    assert sim.service().status.rollout is None
    # It is not tried again by itself.
    sim.restart_operator()
    await sim.resync()
    await _let(sim, 60)
    assert _numbers(sim) == {good: 3}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rate", [0.0, 140.0])
async def test_a_revision_that_finishes_next_to_nothing_is_taken_back(
    strategy: str, rate: float, sim: Simulation
) -> None:
    good = await _serving(sim, replicas=2, rollout={"strategy": strategy})
    traffic = await _busy(sim)
    traffic.answers[str(BAD)] = Answers(at_most=rate)
    sim.edit_service(serving={"maxPassages": BAD})
    failure, seconds = await _until_given_up(sim)
    assert (failure.gate, seconds <= PATIENCE) == ("latency", True)
    assert "of work; the former revision needs 2 s for 20000" in failure.message
    assert (_address(sim), good in _numbers(sim)) == (good, True)


async def test_hours_that_were_good_hide_no_errors_of_now(sim: Simulation) -> None:
    steps = [{"weight": 50, "seconds": 1800}]
    rollout = {"strategy": "canary", "canary": {"steps": steps}}
    good = await _serving(sim, replicas=2, rollout=rollout)
    traffic = await _busy(sim)
    sim.edit_service(serving={"maxPassages": BAD})
    await _let(sim, 1500)
    traffic.per_second = 0.7
    await _let(sim, 70)
    traffic.answers[str(BAD)] = Answers(failing=1.0)
    failure, seconds = await _until_given_up(sim)
    assert (failure.gate, seconds <= 60, _address(sim)) == ("errorRate", True, good)


@pytest.mark.parametrize("per_second", [0.1, 20])
async def test_no_time_is_over_while_what_was_asked_for_is_not_done(
    per_second: float, sim: Simulation
) -> None:
    """Too short to be judged: what comes is waited for, and nothing else."""
    rollout = {"strategy": "canary", "canary": {"steps": [{"weight": 50, "seconds": 5}]}}
    good = await _serving(sim, replicas=2, rollout=rollout | {"bakeSeconds": 5})
    traffic = await _busy(sim)
    traffic.answers[str(BAD)] = Answers(at_most=0.0)
    traffic.per_second = per_second
    sim.edit_service(serving={"maxPassages": BAD})
    await _let(sim, 15)
    stand = sim.service().status.rollout or _none()
    told = {gate.name: gate.message for gate in stand.gates}
    assert (stand.step, "finished 0 tokens in " in told["latency"]) == (0, True)
    failure, _ = await _until_given_up(sim)
    assert (failure.gate, good in _numbers(sim)) == ("latency", True)


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_revision_that_is_as_good_gets_the_traffic(strategy: str, sim: Simulation) -> None:
    good = await _serving(sim, replicas=2, rollout={"strategy": strategy})
    traffic = await _busy(sim)
    sim.edit_service(serving={"maxPassages": 99})
    await sim.settle()
    gates = {gate.name for gate in (sim.service().status.rollout or _none()).gates}
    assert gates == {"ready", "parity", "errorRate", "latency"}
    await _let(sim, 400)
    status = sim.service().status
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.condition("Progressing") == ("False", "Stable")
    assert (status.rollout, status.failed, traffic.sent.get("", 0)) == (None, (), 0)
    assert status.revision != good
    assert _numbers(sim) == {status.revision: 2}
    assert [record.revision for record in status.history] == [status.revision, good]


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_without_traffic_the_time_alone_decides(strategy: str, sim: Simulation) -> None:
    good = await _serving(sim, replicas=2, rollout={"strategy": strategy})
    begun = sim.now
    sim.edit_service(serving={"maxPassages": 99})
    await sim.converge()
    status = sim.service().status
    assert sim.condition("Progressing") == ("False", "Stable")
    assert status.revision != good
    stages = {"surge": 1, "noSurge": 2, "canary": 3, "blueGreen": 1}[strategy]
    assert (sim.now - begun).total_seconds() == 60 * stages


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_revision_that_loads_and_never_answers_is_given_up(
    strategy: str, sim: Simulation
) -> None:
    good = await _serving(sim, replicas=2, rollout={"strategy": strategy})
    traffic = await _busy(sim)
    for pod in list(sim.cluster.select(POD, NAMESPACE)):
        if pod["metadata"]["labels"].get(names.REVISION_LABEL):
            status = {"status": _loading(sim, ready=True)}
            sim.cluster.edit(POD, NAMESPACE, pod["metadata"]["name"], status)
    await sim.settle()
    sim.told["serving"] = _loading(sim)
    sim.told_of = lambda pod: passages_of(pod) == str(BAD)
    sim.edit_service(serving={"maxPassages": BAD})
    failure, seconds = await _until_given_up(sim)
    sim.told.clear()
    await _let(sim, 120)
    assert (failure.gate, seconds <= PATIENCE) == ("ready", True)
    assert "pods were ready, and one has loaded its engine for more than 75 s" in failure.message
    assert _numbers(sim) == {good: 2}
    assert traffic.sent.get(failure.revision, 0) == 0
    assert sim.condition("Progressing") == ("False", "RolledBack")


def _loading(sim: Simulation, *, ready: bool = False) -> Json:
    """A pod whose Triton was started just now, or 20 s ago and is ready since."""
    started = f"{sim.now:%Y-%m-%dT%H:%M:%SZ}"
    since = sim.now + datetime.timedelta(seconds=20)
    word = "True" if ready else "False"
    return {
        "phase": "Running",
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": started},
            {
                "type": "Ready", "status": word,
                "lastTransitionTime": f"{since:%Y-%m-%dT%H:%M:%SZ}" if ready else started,
            },
        ],
        "initContainerStatuses": [
            {"name": "triton", "ready": ready, "state": {"running": {"startedAt": started}}}
        ],
    }  # fmt: skip


async def test_a_revision_that_crashes_is_given_up_long_before_the_deadline(
    sim: Simulation,
) -> None:
    good = await _serving(sim)
    ended = {"exitCode": 1, "reason": "Error", "finishedAt": "2026-01-05T12:00:00Z"}
    crash = {
        "name": "gateway", "ready": False, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ended},
    }  # fmt: skip
    sim.told["serving"] = placed(main=[crash])
    sim.told_of = lambda pod: passages_of(pod) == str(BAD)
    sim.edit_service(serving={"maxPassages": BAD})
    failure, seconds = await _until_given_up(sim)
    sim.told.clear()
    await sim.converge()
    assert (failure.gate, seconds <= 60) == ("ready", True)
    assert "0 of 1 pods were ready: " in failure.message
    assert _numbers(sim) == {good: 1}


async def test_an_engine_of_worse_parity_never_gets_pods(sim: Simulation) -> None:
    good = await _serving(sim)
    traffic = await _busy(sim)
    sim.parity = PARITY.model_copy(update={"kendall_tau": 0.91})
    sim.edit_service(model={"source": "hf://org/other"})
    await _let(sim, PATIENCE)
    assert sim.condition("Ready") == ("False", "ParityRefused")
    assert "Kendall tau 0.9100 (at least 0.995)" in sim.message("Ready")
    assert (_numbers(sim), set(traffic.sent)) == ({good: 1}, {good})


async def test_what_is_refused_beside_the_pods_delays_no_verdict(sim: Simulation) -> None:
    good = await _serving(sim)
    traffic = await _busy(sim)
    traffic.answers[str(BAD)] = ERRORS
    sim.cluster.refusals["apply", "Ingress"] = Rejected("spec.rules: Invalid value")
    hosts = {"ingress": {"hosts": ["a.example.com"]}}
    sim.edit_service(serving={"maxPassages": BAD}, expose=hosts)
    _, seconds = await _until_given_up(sim)
    assert (seconds <= PATIENCE, _address(sim)) == (True, good)


async def test_no_time_is_over_that_nobody_has_watched(sim: Simulation) -> None:
    good = await _serving(sim, replicas=2)
    traffic = await _busy(sim)
    traffic.answers[str(BAD)] = ERRORS
    sim.edit_service(serving={"maxPassages": BAD})
    await _let(sim, 6)
    bad = (sim.service().status.rollout or _none()).revision
    # The operator is away for longer than the stage takes.
    sim.now += datetime.timedelta(seconds=90)
    _restart(sim, traffic)
    await sim.resync()
    await sim.settle()
    stand = sim.service().status.rollout or _none()
    assert (stand.revision, stand.phase, _numbers(sim)) == (bad, "Proving", {good: 2, bad: 2})
    failure, seconds = await _until_given_up(sim)
    assert (failure.revision, failure.gate, seconds <= 30) == (bad, "errorRate", True)


async def test_a_gate_that_fails_is_not_forgotten_by_another_process(sim: Simulation) -> None:
    await _serving(sim, replicas=2)
    traffic = await _busy(sim)
    traffic.answers[str(BAD)] = ERRORS
    sim.edit_service(serving={"maxPassages": BAD})
    await sim.settle()
    while (stand := sim.service().status.rollout or _none()).failing_since is None:
        await _let(sim, 5)
    _restart(sim, traffic)
    await sim.resync()
    await sim.settle()
    again = sim.service().status.rollout or _none()
    assert again.failing_since == stand.failing_since
    assert "Failed" not in {gate.state for gate in again.gates}
    failure, seconds = await _until_given_up(sim)
    assert (failure.gate, seconds <= 20) == ("errorRate", True)


@pytest.mark.parametrize("ahead", [0, 2, 3600])
async def test_a_clock_that_went_ahead_holds_no_verdict_up(ahead: int, sim: Simulation) -> None:
    await _serving(sim, replicas=2)
    traffic = await _busy(sim)
    traffic.answers[str(BAD)] = ERRORS
    sim.edit_service(serving={"maxPassages": BAD})
    await sim.settle()
    while (sim.service().status.rollout or _none()).failing_since is None:
        await _let(sim, 1)
    _set_times(sim, ahead, "failingSince", "completeSince", "gatesTime")
    sim.restart_operator()
    await sim.resync()
    failure, seconds = await _until_given_up(sim)
    assert (failure.gate, seconds <= 15) == ("errorRate", True)


async def test_a_clock_that_went_ahead_holds_no_proof_up(sim: Simulation) -> None:
    good = await _serving(sim, replicas=2)
    sim.edit_service(serving={"maxPassages": 99})
    await _let(sim, 10)
    _set_times(sim, 3600, "since", "completeSince", "gatesTime")
    sim.restart_operator()
    await sim.resync()
    await _let(sim, 61)
    assert sim.condition("Progressing") == ("False", "Stable")
    assert good not in _numbers(sim)


def _set_times(sim: Simulation, ahead: int, *fields: str) -> None:
    """As somebody wrote them whose clock goes ahead by so many seconds."""
    time = f"{sim.now + datetime.timedelta(seconds=ahead):%Y-%m-%dT%H:%M:%SZ}"
    status = {"status": {"rollout": dict.fromkeys(fields, time)}}
    sim.cluster.edit(RERANKER_SERVICE, NAMESPACE, "rank", status)


async def test_what_is_on_record_is_bounded(sim: Simulation) -> None:
    await _serving(sim, rollout={"keepEngines": 5, "bakeSeconds": 0})
    for passages in (98, 97):
        sim.edit_service(serving={"maxPassages": passages})
        await sim.converge()
    history = sim.service().status.history
    assert all(record.template for record in history)
    big = [
        entry.model_copy(update={"template": "x" * (200 << 10)}).model_dump(
            mode="json", by_alias=True, exclude_none=True
        )
        for entry in history
    ]
    sim.cluster.edit(RERANKER_SERVICE, NAMESPACE, "rank", {"status": {"history": big}})
    await sim.resync()
    await sim.settle()
    kept = [record.template is not None for record in sim.service().status.history]
    assert kept == [True, True] + [False] * (len(big) - 2)


async def test_pods_that_cannot_be_read_are_waited_for_and_told(sim: Simulation) -> None:
    await _serving(sim, replicas=2)
    traffic = await _busy(sim)
    sim.edit_service(serving={"maxPassages": 99})
    await sim.settle()
    new = (sim.service().status.rollout or _none()).revision
    traffic.dumb.add(new)
    await _let(sim, 75)
    stand = sim.service().status.rollout or _none()
    told = {gate.name: (gate.state, gate.message) for gate in stand.gates}
    words = "the metrics of 2 pods could not be read lately"
    assert told["errorRate"] == told["latency"] == ("Waiting", words)
    # They hold up nothing for ever.
    await _let(sim, 30)
    assert (sim.service().status.rollout, _numbers(sim)) == (None, {new: 2})


def _restart(sim: Simulation, traffic: Traffic) -> None:
    traffic.lose()
    sim.restart_operator()


# Who decides.


async def test_without_automatic_rollback_somebody_decides(sim: Simulation) -> None:
    good = await _serving(sim, replicas=2, rollout={"strategy": "canary", "autoRollback": False})
    traffic = await _busy(sim)
    traffic.answers[str(BAD)] = ERRORS
    sim.edit_service(serving={"maxPassages": BAD})
    await _let(sim, 600)
    assert sim.condition("Progressing") == ("False", "GateFailed")
    assert sim.condition("Ready") == ("False", "GateFailed")
    assert "fails gate errorRate: 5.0 % of " in sim.message("Progressing")
    stand = sim.service().status.rollout or _none()
    assert (stand.phase, stand.step, _numbers(sim)[good]) == ("Canary", 0, 2)
    sim.annotate(names.ABORT, stand.revision)
    await sim.settle()
    assert (_address(sim), _numbers(sim)) == (good, {good: 2})
    assert sim.condition("Progressing") == ("False", "Aborted")


async def test_what_was_given_up_is_tried_again_when_it_is_asked_for(sim: Simulation) -> None:
    good = await _serving(sim)
    traffic = await _busy(sim)
    traffic.answers[str(BAD)] = ERRORS
    sim.edit_service(serving={"maxPassages": BAD})
    failure, _ = await _until_given_up(sim)
    await _let(sim, 30)
    # An edit of something else is another revision; the same as before is not.
    sim.edit_service(replicas=2)
    await _let(sim, 30)
    assert _numbers(sim) == {good: 2}
    traffic.answers.clear()
    sim.annotate(names.RETRY, "1" * 100_000)
    await sim.settle()
    assert failure.revision in _numbers(sim)
    assert not sim.service().status.failed[0].in_force
    await _let(sim, 200)
    status = sim.service().status
    assert (status.revision, status.failed) == (failure.revision, ())
    assert sim.condition("Ready") == ("True", "Ready")


async def test_that_nobody_asks_for_another_try_any_more_is_none(sim: Simulation) -> None:
    good = await _serving(sim)
    traffic = await _busy(sim)
    traffic.answers[str(BAD)] = ERRORS
    sim.edit_service(serving={"maxPassages": BAD})
    failure, _ = await _until_given_up(sim)
    sim.annotate(names.RETRY, "1")
    await _let(sim, 300)
    again = sim.service().status.failed[0]
    assert (again.revision, again.in_force, _numbers(sim)) == (failure.revision, True, {good: 1})
    before = traffic.sent[failure.revision]
    for value in (None, " \n", "1\n", None):
        sim.annotate(names.RETRY, value)
        await _let(sim, 60)
    assert (traffic.sent[failure.revision], _numbers(sim)) == (before, {good: 1})
    sim.annotate(names.RETRY, "2")
    await sim.settle()
    assert failure.revision in _numbers(sim)


@pytest.mark.parametrize("value", ["²", "9" * 5000, "-1", ""])
async def test_a_promotion_that_is_no_number_is_none(value: str, sim: Simulation) -> None:
    canary = {"steps": [{"weight": 50, "seconds": 5, "untilPromoted": True}]}
    await _serving(sim, replicas=2, rollout={"strategy": "canary", "canary": canary})
    sim.edit_service(serving={"maxPassages": 99})
    await _let(sim, 30)
    stand = sim.service().status.rollout or _none()
    sim.annotate(names.PROMOTE, f"{stand.revision}/{value}")
    await _let(sim, 30)
    assert sim.condition("Progressing") == ("False", "AwaitingPromotion")
    # And the word that ends it, as a file with a newline at its end has it.
    sim.annotate(names.ABORT, f"{stand.revision}\n")
    await sim.settle()
    assert sim.condition("Progressing") == ("False", "Aborted")


async def test_another_wish_and_the_same_again_are_changes(sim: Simulation) -> None:
    good = await _serving(sim)
    sim.edit_service(serving={"maxPassages": BAD})
    await sim.settle()
    bad = (sim.service().status.rollout or _none()).revision
    sim.annotate(names.ABORT, bad)
    await sim.converge()
    assert (_address(sim), _numbers(sim)) == (good, {good: 1})
    sim.annotate(names.ABORT, None)
    await sim.converge()
    assert _numbers(sim) == {good: 1}
    sim.edit_service(serving={"maxPassages": 512})
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    sim.edit_service(serving={"maxPassages": BAD})
    await sim.converge()
    assert sim.service().status.revision == bad


# Canary.


async def test_a_canary_by_numbers_of_pods(sim: Simulation) -> None:
    steps = [{"weight": 25, "seconds": 30}, {"weight": 80, "untilPromoted": True, "seconds": 10}]
    rollout = {"strategy": "canary", "canary": {"steps": steps}}
    good = await _serving(sim, replicas=3, rollout=rollout)
    traffic = await _busy(sim)
    sim.edit_service(serving={"maxPassages": 99})
    await sim.settle()
    stand = sim.service().status.rollout or _none()
    new = stand.revision
    assert (_numbers(sim), _address(sim)) == ({good: 3, new: 1}, None)
    assert (stand.phase, stand.weight, stand.by) == ("Canary", 25, "replicas")
    assert "gets 25 % of the requests, by the number of its pods" in sim.message("Progressing")
    await _let(sim, 25)
    assert traffic.sent[new] == pytest.approx(25 * 20 / 4, rel=0.1)
    await _let(sim, 30)
    # The former one stays complete, so half of the requests is the most.
    stand = sim.service().status.rollout or _none()
    assert (_numbers(sim), stand.weight, stand.step) == ({good: 3, new: 3}, 50, 1)
    await _let(sim, 300)
    assert sim.condition("Progressing") == ("False", "AwaitingPromotion")
    assert sim.condition("Ready") == ("False", "AwaitingPromotion")
    assert sim.service().status.stage == "AwaitingPromotion"
    assert "its pods; go on with" in sim.message("Progressing")
    sim.annotate(names.PROMOTE, f"{new}/1")
    await sim.settle()
    assert (_numbers(sim), _address(sim)) == ({good: 3, new: 3}, new)
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.condition("Progressing") == ("True", "Proving")
    await _let(sim, 60)
    assert _numbers(sim) == {new: 3}
    assert traffic.sent.get("", 0) == 0
    told = {(event["reason"], event["type"]) for event in sim.events()}
    assert told >= {("AwaitingPromotion", "Normal"), ("Ready", "Normal")}
    assert not [reason for reason, kind in told if kind == "Warning"]


async def test_no_pods_are_no_promotion(sim: Simulation) -> None:
    canary = {"steps": [{"weight": 25, "seconds": 10}, {"weight": 50, "untilPromoted": True}]}
    rollout = {"strategy": "canary", "canary": canary}
    good = await _serving(sim, replicas=3, rollout=rollout)
    sim.edit_service(serving={"maxPassages": 99})
    await _let(sim, 120)
    new = (sim.service().status.rollout or _none()).revision
    assert sim.condition("Progressing") == ("False", "AwaitingPromotion")
    sim.edit_service(replicas=0)
    await _let(sim, 900)
    assert _numbers(sim) == {good: 0, new: 0}
    assert sim.condition("Progressing") == ("False", "AwaitingPromotion")
    sim.edit_service(replicas=3)
    await _let(sim, 200)
    stand = sim.service().status.rollout or _none()
    assert (stand.revision, stand.step, stand.awaits_promotion) == (new, 1, True)
    assert (_numbers(sim), sim.service().status.failed) == ({good: 3, new: 3}, ())
    sim.annotate(names.PROMOTE, new)
    await _let(sim, 100)
    assert _numbers(sim) == {new: 3}


@pytest.mark.parametrize("strategy", ["surge", "blueGreen", "canary"])
async def test_pods_that_are_added_later_are_no_verdict(strategy: str, sim: Simulation) -> None:
    rollout: dict[str, Any] = {
        "strategy": strategy,
        "bakeSeconds": 300,
        "progressDeadlineSeconds": 60,
    }
    if strategy == "blueGreen":
        rollout["blueGreen"] = {"previewSeconds": 0}
    if strategy == "canary":
        rollout["canary"] = {"steps": [{"weight": 50, "seconds": 0}]}
    good = await _serving(sim, replicas=2, rollout=rollout)
    sim.edit_service(serving={"maxPassages": 99})
    await _let(sim, 60)
    new = _address(sim)
    assert new not in (None, good)
    sim.pods_start = False
    sim.edit_service(replicas=4)
    writes = len(sim.cluster.writes)
    await _let(sim, 150)
    assert sim.service().status.failed == ()
    assert (_numbers(sim), _address(sim)) == ({good: 2, new: 4}, new)
    assert len(sim.cluster.writes) - writes < 40
    sim.pods_start = True
    await _let(sim, 200)
    assert (_numbers(sim), sim.service().status.rollout) == ({new: 4}, None)


async def test_without_surge_the_former_revision_gets_no_pods_back(sim: Simulation) -> None:
    rollout = {"strategy": "noSurge", "bakeSeconds": 300}
    good = await _serving(sim, replicas=2, rollout=rollout)
    sim.edit_service(serving={"maxPassages": 99})
    await _let(sim, 330)
    new = _address(sim)
    assert (_numbers(sim), new) != ({good: 2}, good)
    sim.pods_start = False
    sim.edit_service(replicas=4)
    await _let(sim, 30)
    assert _numbers(sim) == {good: 0, new: 4}
    assert _address(sim) == new
    sim.pods_start = True
    await _let(sim, 400)
    assert (_numbers(sim), _address(sim)) == ({new: 4}, new)


async def test_a_canary_by_route(sim: Simulation) -> None:
    steps = [{"weight": 5, "seconds": 30}, {"weight": 40, "seconds": 30}]
    rollout = {"strategy": "canary", "canary": {"steps": steps}, "bakeSeconds": 20}
    good = await _serving(sim, replicas=4, rollout=rollout, expose=ROUTE)
    traffic = await _busy(sim)
    assert _weights(sim) == {"rank": None}
    sim.pods_start = False
    sim.edit_service(serving={"maxPassages": 99})
    await sim.settle()
    new = (sim.service().status.rollout or _none()).revision
    # No share for pods that are not there.
    assert (_numbers(sim), _address(sim)) == ({good: 4, new: 1}, good)
    assert _weights(sim) == {"rank": 100, "rank-preview": 0}
    sim.pods_start = True
    await sim.settle()
    assert _weights(sim) == {"rank": 95, "rank-preview": 5}
    assert _address(sim, "rank-preview") == new
    await _let(sim, 25)
    assert traffic.sent[new] == pytest.approx(25 * 20 * 0.05, rel=0.1)
    sim.pods_start = False
    await _let(sim, 20)
    assert (_numbers(sim), _weights(sim)) == (
        {good: 4, new: 2}, {"rank": 95, "rank-preview": 5},
    )  # fmt: skip
    sim.pods_start = True
    await sim.settle()
    assert _weights(sim) == {"rank": 60, "rank-preview": 40}
    await _let(sim, 35)
    assert (_numbers(sim), _address(sim)) == ({good: 4, new: 4}, new)
    await _let(sim, 30)
    assert (_numbers(sim), _weights(sim)) == ({new: 4}, {"rank": None})
    assert sim.names("Service") == ["rank"]
    assert traffic.sent.get("", 0) == 0


async def test_a_canary_by_route_is_taken_back(sim: Simulation) -> None:
    good = await _serving(sim, replicas=2, rollout={"strategy": "canary"}, expose=ROUTE)
    traffic = await _busy(sim)
    traffic.answers[str(BAD)] = Answers(failing=1.0)
    sim.edit_service(serving={"maxPassages": BAD})
    failure, seconds = await _until_given_up(sim)
    assert seconds <= PATIENCE
    await sim.settle()
    assert (_weights(sim), _numbers(sim)) == ({"rank": None}, {good: 2})
    before = traffic.sent[failure.revision]
    await _let(sim, 60)
    assert (traffic.sent[failure.revision], sim.names("Service")) == (before, ["rank"])


def _take_the_preview(sim: Simulation) -> None:
    """Somebody else has a Service of that name."""
    spec = {"selector": {"app": "theirs"}, "ports": [{"port": 8000}]}
    meta = {"name": "rank-preview", "namespace": NAMESPACE}
    sim.cluster.put({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})


def _refuse_the_route(sim: Simulation) -> None:
    sim.cluster.refusals["apply", "HTTPRoute"] = Rejected("denied by webhook")


def _accept_no_route(sim: Simulation) -> None:
    sim.gateway_says = "False"


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (_take_the_preview, "Service rank-preview does not lead to it"),
        (_refuse_the_route, "HTTPRoute rank was not yet given the weight of 10 %"),
        (_accept_no_route, "HTTPRoute rank: Accepted is False"),
    ],
)
async def test_a_canary_is_not_judged_by_a_route_that_is_not_in_force(
    act: Callable[[Simulation], None], words: str, sim: Simulation
) -> None:
    rollout = {"strategy": "canary", "progressDeadlineSeconds": 300}
    good = await _serving(sim, replicas=4, rollout=rollout, expose=ROUTE)
    await _busy(sim)
    act(sim)
    sim.edit_service(serving={"maxPassages": 99})
    await _let(sim, 240)
    stand = sim.service().status.rollout or _none()
    assert (stand.phase, stand.step, stand.weight, stand.by) == ("Canary", 0, 0, "route")
    assert (sim.condition("Progressing"), _address(sim)) == (("True", "Rolling"), good)
    assert f"waits for its share of the requests: {words}" in sim.message("Progressing")
    failure, _ = await _until_given_up(sim)
    assert (failure.revision, failure.gate) == (stand.revision, "ready")
    assert f"got no share of the requests within 300 s: {words}" in failure.message
    await _let(sim, 5)
    assert _numbers(sim) == {good: 4}


@pytest.mark.parametrize("promoted", [False, True])
async def test_a_canary_goes_on_when_its_route_is_in_force(promoted: bool, sim: Simulation) -> None:
    good = await _serving(sim, replicas=4, rollout={"strategy": "canary"}, expose=ROUTE)
    traffic = await _busy(sim)
    sim.gateway_says = None
    sim.edit_service(serving={"maxPassages": 99})
    await _let(sim, 240)
    stand = sim.service().status.rollout or _none()
    assert (stand.step, stand.complete_since) == (0, None)
    if promoted:
        # Somebody said that it need not wait.
        sim.annotate(names.PROMOTE, f"{stand.revision}/1")
        await sim.settle()
        assert _address(sim) == stand.revision
        return
    sim.gateway_says = "True"
    await _let(sim, 50)
    again = sim.service().status.rollout or _none()
    assert (again.step, again.weight) == (0, 10)
    await _let(sim, 200)
    assert (_address(sim), good in _numbers(sim)) == (stand.revision, False)
    assert traffic.sent.get("", 0) == 0


def _weights(sim: Simulation) -> dict[str, int | None]:
    route = sim.cluster.find(HTTP_ROUTE, NAMESPACE, "rank")
    assert route is not None
    backends = route["spec"]["rules"][0]["backendRefs"]
    return {backend["name"]: backend.get("weight") for backend in backends}


# Blue and green.


async def test_blue_green_waits_at_the_preview(sim: Simulation) -> None:
    rollout = {"strategy": "blueGreen", "blueGreen": {"autoPromote": False}, "bakeSeconds": 30}
    good = await _serving(sim, replicas=2, rollout=rollout)
    traffic = await _busy(sim)
    sim.edit_service(serving={"maxPassages": 99})
    await _let(sim, 200)
    # Numbers alone are hardly ever written while somebody's word is waited for.
    stood = sim.service().status.rollout
    await _let(sim, 60)
    assert sim.service().status.rollout == stood
    new = (sim.service().status.rollout or _none()).revision
    assert (_numbers(sim), _address(sim)) == ({good: 2, new: 2}, good)
    assert (_address(sim, "rank-preview"), traffic.sent[new]) == (new, 0)
    assert sim.condition("Progressing") == ("False", "AwaitingPromotion")
    sim.annotate(names.PROMOTE, f"{new}/0")
    await sim.settle()
    assert (_numbers(sim), _address(sim)) == ({good: 2, new: 2}, new)
    # An instant way back.
    sim.annotate(names.ABORT, new)
    await sim.settle()
    assert (_numbers(sim), _address(sim), sim.names("Service")) == ({good: 2}, good, ["rank"])
    assert traffic.sent.get("", 0) == 0


# Edits in between, and the way back.


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("after", [0, 70])
async def test_an_edit_in_between_leaves_no_third_revision(
    strategy: str, after: int, sim: Simulation
) -> None:
    await _serving(sim, replicas=2, rollout={"strategy": strategy})
    traffic = await _busy(sim)
    sim.after_step = lambda: _no_more_than(sim, 2, pods=2 if strategy == "noSurge" else 4)
    sim.edit_service(serving={"maxPassages": 99})
    await sim.settle()
    await _let(sim, after)
    sim.edit_service(serving={"maxPassages": 98})
    await sim.settle()
    await _let(sim, 400)
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.condition("Progressing") == ("False", "Stable")
    assert len(_numbers(sim)) == 1
    assert traffic.sent.get("", 0) == 0


def _no_more_than(sim: Simulation, revisions: int, *, pods: int) -> None:
    numbers = _numbers(sim)
    assert sum(numbers.values()) <= pods, numbers
    assert len([number for number in numbers.values() if number]) <= revisions, numbers


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_undo_goes_back_to_a_kept_engine_until_the_spec_changes(
    strategy: str, sim: Simulation
) -> None:
    first = await _serving(sim, rollout={"strategy": strategy})
    sim.edit_service(model={"source": "hf://org/other"})
    await sim.converge()
    second = sim.service().status.revision
    assert (len(sim.engines()), first != second) == (2, True)
    assert {entry.state for entry in sim.service().status.engines} == {"Ready", "Kept"}
    record = sim.service().status.history[1]
    assert (record.revision, record.template is not None) == (first, True)
    jobs = len(sim.names("Job"))
    sim.annotate(names.UNDO, f"{first}/{sim.service().status.spec_hash}")
    await sim.converge()
    status = sim.service().status
    assert (status.revision, _numbers(sim), len(sim.names("Job"))) == (first, {first: 1}, jobs)
    assert sim.condition("Progressing") == ("False", "Undone")
    assert sim.condition("Ready") == ("False", "Undone")
    assert status.pending_changes
    assert status.history[0].why == "undo"
    # Whatever happens to the number of pods, or the operator.
    sim.edit_service(replicas=2)
    sim.restart_operator()
    await sim.resync()
    await sim.converge()
    assert _numbers(sim) == {first: 2}
    sim.edit_service(serving={"maxPassages": 99})
    await sim.converge()
    status = sim.service().status
    assert sim.condition("Ready") == ("True", "Ready")
    assert status.revision not in (first, second)


async def test_an_undo_that_is_not_possible_says_what_is(sim: Simulation) -> None:
    first = await _serving(sim)
    sim.annotate(names.UNDO, "0badcafe")
    await sim.converge()
    assert sim.condition("Progressing") == ("False", "UndoImpossible")
    assert f"names revision 0badcafe, which is not kept (kept: {first})" in sim.message(
        "Progressing"
    )
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.service().status.revision == first


@pytest.mark.parametrize("kept", [0, 1, 2])
async def test_as_many_former_engines_are_kept_as_are_asked_for(kept: int, sim: Simulation) -> None:
    await _serving(sim, rollout={"keepEngines": kept, "bakeSeconds": 0})
    for name in ("b", "c", "d"):
        sim.edit_service(model={"source": f"hf://org/{name}"})
        await sim.converge()
    assert len(sim.engines()) == 1 + kept
    kept_records = [record for record in sim.service().status.history if record.template]
    assert len(kept_records) == 1 + kept
    sim.edit_service(rollout={"keepEngines": 0})
    await sim.converge()
    assert len(sim.engines()) == 1


# Without surge.


async def test_the_floor_holds_a_rollout_that_would_go_below_it(sim: Simulation) -> None:
    rollout = {"strategy": "noSurge", "minAvailable": "100%"}
    good = await _serving(sim, replicas=2, rollout=rollout)
    sim.edit_service(serving={"maxPassages": 99})
    await sim.converge()
    assert _numbers(sim)[good] == 2
    assert sim.condition("Progressing") == ("False", "FloorReached")
    sim.edit_service(rollout={"minAvailable": 1})
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.service().status.revision != good
