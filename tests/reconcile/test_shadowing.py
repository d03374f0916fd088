"""Scores of a new revision are compared with the former one's on live requests."""

from typing import Any

import pytest

from reranker_operator import names
from reranker_operator.api.meta import NETWORK_POLICY, POD
from reranker_operator.api.rollout import GateStatus

from .controllers import NAMESPACE
from .judging import address, busy, let, none, numbers, serving, until_given_up
from .simulation import Simulation
from .traffic import Answers, variable_of

GATES = {"shadow": {"percent": 10, "minKendallTau": 0.9}}
ROUTE = {"route": {"parentRefs": [{"name": "gate"}]}}
BLUE_GREEN = {"strategy": "blueGreen", "blueGreen": {"previewSeconds": 60}}
CANARY = {"strategy": "canary"}
WAYS = [
    pytest.param(BLUE_GREEN, {}, id="blueGreen"),
    pytest.param(CANARY, {}, id="canary"),
    pytest.param(CANARY, {"expose": ROUTE}, id="canary by route"),
]
BAD = 100


def _gate(sim: Simulation) -> GateStatus:
    stand = sim.service().status.rollout or none()
    return next(gate for gate in stand.gates if gate.name == "shadow")


def _pods(sim: Simulation, revision: str) -> list[str]:
    return [
        pod["metadata"]["name"]
        for pod in sim.cluster.select(POD, NAMESPACE)
        if pod["metadata"]["labels"].get(names.REVISION_LABEL) == revision
    ]


def _counted(sim: Simulation) -> float:
    stand = sim.service().status.rollout or none()
    return sum(entry.requests for entry in stand.compared)


@pytest.mark.parametrize(("rollout", "spec"), WAYS)
async def test_a_revision_that_ranks_differently_is_taken_back(
    rollout: dict[str, Any], spec: dict[str, Any], sim: Simulation
) -> None:
    good = await serving(sim, replicas=2, rollout=rollout | {"gates": GATES}, **spec)
    traffic = await busy(sim)
    traffic.answers[str(BAD)] = Answers(tau=0.5)
    sim.edit_service(serving={"maxPassages": BAD})
    await let(sim, 20)
    bad = (sim.service().status.rollout or none()).revision
    assert (address(sim, "rank-preview"), _gate(sim).state) == (bad, "Waiting")
    assert "mean Kendall tau 0.5000 of the scores of " in _gate(sim).message
    assert "; judged from 50 requests on" in _gate(sim).message
    failure, seconds = await until_given_up(sim)
    assert (failure.revision, failure.gate, seconds <= 60) == (bad, "shadow", True)
    assert failure.message.startswith("mean Kendall tau 0.5000 of the scores of ")
    assert failure.message.endswith("0.9 is needed")
    await let(sim, 10)
    assert (address(sim), numbers(sim), sim.names("Service")) == (good, {good: 2}, ["rank"])
    assert sim.condition("Progressing") == ("False", "RolledBack")
    assert f"revision {bad} failed gate shadow" in sim.message("Progressing")


@pytest.mark.parametrize(("rollout", "spec"), WAYS)
async def test_one_that_ranks_alike_gets_the_traffic(
    rollout: dict[str, Any], spec: dict[str, Any], sim: Simulation
) -> None:
    good = await serving(sim, replicas=2, rollout=rollout | {"gates": GATES}, **spec)
    traffic = await busy(sim)
    traffic.answers["99"] = Answers(tau=0.97)
    sim.edit_service(serving={"maxPassages": 99})
    await let(sim, 50)
    assert _gate(sim).state == "Passed"
    assert "mean Kendall tau 0.9700" in _gate(sim).message
    await let(sim, 400)
    status = sim.service().status
    assert (status.rollout, status.failed, status.revision != good) == (None, (), True)
    assert sim.names("Service") == ["rank"]
    assert traffic.sent.get("", 0) == 0


async def test_the_change_that_brings_the_gate_is_not_judged_by_it(sim: Simulation) -> None:
    good = await serving(sim, replicas=2, rollout=BLUE_GREEN)
    await busy(sim)
    (pod, *_) = sim.cluster.select(POD, NAMESPACE)
    before = sim.service().status.spec_hash
    sim.edit_service(rollout=BLUE_GREEN | {"gates": GATES}, networkPolicy={"enabled": True})
    await let(sim, 30)
    assert variable_of(pod, "RERANKER_SHADOW_URL") is None
    assert (_gate(sim).state, sim.service().status.spec_hash != before) == ("NoData", True)
    assert "was made without spec.rollout.gates.shadow" in _gate(sim).message
    await let(sim, 200)
    (pod, *_) = sim.cluster.select(POD, NAMESPACE)
    assert sim.service().status.revision != good
    assert variable_of(pod, "RERANKER_SHADOW_URL") == "http://rank-preview:8000"
    policy = sim.cluster.find(NETWORK_POLICY, NAMESPACE, "rank") or none()
    assert policy["spec"]["egress"][1]["ports"] == [{"protocol": "TCP", "port": 8000}]
    # Limits are the operator's alone: they may be changed without another revision.
    serves = sim.service().status.revision
    limits = {"shadow": {"percent": 10, "minKendallTau": 0.5, "minRequests": 10}}
    sim.edit_service(rollout=BLUE_GREEN | {"gates": limits})
    await let(sim, 60)
    assert (sim.service().status.revision, sim.service().status.rollout) == (serves, None)


async def test_without_traffic_it_passes_and_says_so(sim: Simulation) -> None:
    good = await serving(sim, rollout=BLUE_GREEN | {"gates": GATES})
    sim.edit_service(serving={"maxPassages": 99})
    await let(sim, 30)
    assert (_gate(sim).state, _gate(sim).message) == (
        "NoData", "no traffic to judge: no scores were compared yet",
    )  # fmt: skip
    await let(sim, 200)
    assert sim.service().status.revision != good


def _latency(sim: Simulation) -> GateStatus:
    stand = sim.service().status.rollout or none()
    return next(gate for gate in stand.gates if gate.name == "latency")


async def test_a_revision_that_answers_nothing_is_taken_back(sim: Simulation) -> None:
    good = await serving(sim, replicas=2, rollout=BLUE_GREEN | {"gates": GATES})
    traffic = await busy(sim)
    traffic.answers[str(BAD)] = Answers(unanswered=1.0)
    sim.edit_service(serving={"maxPassages": BAD})
    await let(sim, 20)
    assert (_gate(sim).state, "judged from 50 requests on" in _gate(sim).message) == (
        "Waiting", True,
    )  # fmt: skip
    failure, _ = await until_given_up(sim)
    assert (failure.gate, address(sim)) == ("shadow", good)
    assert failure.message.endswith(
        "requests could not be compared: the new revision did not answer them"
    )
    # Those of the former try are not held against the next one.
    traffic.answers.clear()
    sim.annotate(names.RETRY, "1")
    await let(sim, 50)
    assert (_gate(sim).state, "not answer" in _gate(sim).message) == ("Passed", False)


async def test_pods_that_compare_and_can_not_be_read_are_waited_for(sim: Simulation) -> None:
    good = await serving(sim, replicas=2, rollout=BLUE_GREEN | {"gates": GATES})
    traffic = await busy(sim)
    traffic.answers[str(BAD)] = Answers(tau=0.5)
    sim.edit_service(serving={"maxPassages": BAD})
    await let(sim, 5)
    traffic.dumb.add(good)
    await let(sim, 75)
    assert _gate(sim).state == "Waiting"
    assert _gate(sim).message.endswith("; the metrics of 2 pods could not be read lately")
    assert (sim.service().status.rollout or none()).phase == "Preview"
    # One of them is enough.
    traffic.dumb = {_pods(sim, good)[0]}
    await let(sim, 8)
    assert _gate(sim).state == "Failed"
    assert _gate(sim).message.endswith("the metrics of 1 pod could not be read lately")
    failure, _ = await until_given_up(sim)
    assert (failure.gate, address(sim)) == ("shadow", good)


async def test_pods_that_stay_dumb_hold_up_nothing(sim: Simulation) -> None:
    good = await serving(sim, replicas=2, rollout=BLUE_GREEN | {"gates": GATES})
    (await busy(sim)).dumb.add(good)
    sim.edit_service(serving={"maxPassages": 99})
    await let(sim, 100)
    assert (sim.service().status.rollout or none()).phase == "Proving"


async def test_what_was_compared_stays_when_pods_go(sim: Simulation) -> None:
    waits = {"strategy": "blueGreen", "blueGreen": {"autoPromote": False}, "autoRollback": False}
    good = await serving(sim, replicas=2, rollout=waits | {"gates": GATES})
    traffic = await busy(sim)
    traffic.answers[str(BAD)] = Answers(tau=0.5)
    sim.edit_service(serving={"maxPassages": BAD})
    await let(sim, 60)
    assert (_gate(sim).state, sim.condition("Progressing")[1]) == ("Failed", "GateFailed")
    had = _counted(sim)
    traffic.per_second = 0
    for pod in _pods(sim, good):
        sim.cluster.remove(POD, NAMESPACE, pod)
    await let(sim, 60)
    stand = sim.service().status.rollout or none()
    assert (_gate(sim).state, stand.compared[0].pod, _counted(sim) >= had) == ("Failed", "", True)
    assert "mean Kendall tau 0.5000" in _gate(sim).message
    # Nothing of it is undone, or done, once the former revision has no traffic to compare.
    sim.annotate(names.PROMOTE, f"{stand.revision}/0")
    await let(sim, 5)
    assert (address(sim), had >= 50) == (stand.revision, True)
    assert (_gate(sim).state, _gate(sim).message.split("; ")[-1]) == (
        "NoData", "no longer judged, since the address leads to the new revision",
    )  # fmt: skip


async def test_work_for_comparison_says_nothing_of_the_speed(sim: Simulation) -> None:
    rollout = BLUE_GREEN | {"gates": GATES, "bakeSeconds": 90}
    await serving(sim, replicas=2, rollout=rollout)
    traffic = await busy(sim)
    traffic.answers["99"] = Answers(compared_seconds_per_token=0.001)
    sim.edit_service(serving={"maxPassages": 99})
    await let(sim, 40)
    waits = ("NoData", "judged when it has had the traffic for 60 s")
    assert (_latency(sim).state, _latency(sim).message) == waits
    await let(sim, 60)
    stand = sim.service().status.rollout or none()
    assert (stand.phase, _latency(sim).state, _latency(sim).message) == ("Proving", *waits)
    await let(sim, 40)
    assert (_latency(sim).state, "1.00 times" in _latency(sim).message) == ("Passed", True)
    await let(sim, 60)
    assert (sim.service().status.rollout, sim.service().status.failed) == (None, ())
    # One that is slow with all the traffic is found out then.
    traffic.answers[str(BAD)] = Answers(seconds_per_token=0.0002)
    sim.edit_service(serving={"maxPassages": BAD})
    failure, seconds = await until_given_up(sim)
    assert (failure.gate, 120 <= seconds <= 150) == ("latency", True)


async def test_a_short_bake_leaves_the_speed_unjudged_and_says_so(sim: Simulation) -> None:
    rollout = BLUE_GREEN | {"gates": GATES, "bakeSeconds": 30}
    await serving(sim, replicas=2, rollout=rollout)
    await busy(sim)
    sim.edit_service(serving={"maxPassages": 99})
    await let(sim, 40)
    assert (_latency(sim).state, _latency(sim).message) == (
        "NoData",
        "not judged: it is from 60 s with the traffic on, and spec.rollout.bakeSeconds is 30",
    )


async def test_another_try_is_judged_anew(sim: Simulation) -> None:
    good = await serving(sim, replicas=2, rollout=BLUE_GREEN | {"gates": GATES})
    traffic = await busy(sim)
    traffic.answers[str(BAD)] = Answers(tau=0.5)
    sim.edit_service(serving={"maxPassages": BAD})
    failure, _ = await until_given_up(sim)
    await let(sim, 30)
    traffic.answers[str(BAD)] = Answers(tau=0.92)
    sim.annotate(names.RETRY, "1")
    await let(sim, 50)
    stand = sim.service().status.rollout or none()
    assert (stand.revision, len(stand.compared_before)) == (failure.revision, 2)
    assert _gate(sim).state == "Passed"
    assert "mean Kendall tau 0.9200" in _gate(sim).message
    await let(sim, 200)
    assert (sim.service().status.revision, good in numbers(sim)) == (failure.revision, False)


@pytest.mark.parametrize("seen", [True, False])
async def test_an_earlier_try_is_not_forgotten_for_want_of_an_answer(
    seen: bool, sim: Simulation
) -> None:
    good = await serving(sim, replicas=2, rollout=BLUE_GREEN | {"gates": GATES})
    traffic = await busy(sim)
    traffic.answers[str(BAD)] = Answers(tau=0.5)
    sim.edit_service(serving={"maxPassages": BAD})
    await until_given_up(sim)
    await let(sim, 30)
    traffic.answers[str(BAD)] = Answers(tau=0.92)
    sim.pods_start = False
    traffic.dumb = set() if seen else {good}
    sim.annotate(names.RETRY, "1")
    await let(sim, 10)
    traffic.dumb = {good}
    await let(sim, 10)
    sim.pods_start = True
    await let(sim, 5)
    traffic.dumb = set()
    await let(sim, 40)
    before = (sim.service().status.rollout or none()).compared_before
    assert [entry.requests > 0 for entry in before] == [True, True]
    assert (_gate(sim).state, "mean Kendall tau 0.9200" in _gate(sim).message) == ("Passed", True)
