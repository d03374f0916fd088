"""A service without pods: the address leads to the activator before they go and until they come."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from reranker_operator.api.meta import (
    DEPLOYMENT,
    ENDPOINT_SLICE,
    NETWORK_POLICY,
    POD,
    RERANKER_SERVICE,
    SERVICE,
)
from reranker_operator.errors import Unavailable
from reranker_operator.names import APP_COMPONENT

from .controllers import NAMESPACE
from .fake_cluster import Call
from .simulation import Simulation

RULES = {"min": 0, "max": 3, "idleSeconds": 60, "scaleDownDelaySeconds": 0}
#: What of the status tells of the end and not of the way there.
_LASTING = ("revision", "stage", "url", "ready", "replicas", "readyReplicas", "selector", "engine")
#: Looks of the operator at the load, in seconds.
LOOK = 5.0


async def run(sim: Simulation, seconds: float) -> None:
    for _ in range(int(seconds / LOOK)):
        await sim.advance(LOOK)


async def until(sim: Simulation, condition: Callable[[], bool], *, within: float = 300) -> None:
    for _ in range(int(within / LOOK)):
        if condition():
            return
        await sim.advance(LOOK)
    raise AssertionError(sim.picture())


async def serving(sim: Simulation, **spec: Any) -> None:
    sim.create_service(autoscaling=RULES, **spec)
    await until(sim, lambda: asked(sim) > 0 and sim.condition("Ready") == ("True", "Ready"))
    await run(sim, 10)


async def asleep(sim: Simulation, **spec: Any) -> None:
    await serving(sim, **spec)
    sim.busy = False
    await until(sim, lambda: asked(sim) == 0)
    await sim.settle()


def asked(sim: Simulation) -> int:
    """Pods of all revisions."""
    found = sim.cluster.select(DEPLOYMENT, NAMESPACE, {APP_COMPONENT: "serving"})
    return sum(int(entry["spec"]["replicas"]) for entry in found)


def leads_to(sim: Simulation, name: str = "rank") -> str:
    address = sim.cluster.find(SERVICE, NAMESPACE, name)
    assert address is not None
    return str(address["spec"]["selector"].get(APP_COMPONENT, "serving"))


def somebody_is_there(sim: Simulation) -> Callable[[object], None]:
    """Among those whom the address leads to, as proxies know it, one answers or holds."""

    def check(_: object = None) -> None:
        for name in ("rank", "rank-external"):
            known = sim.cluster.find(ENDPOINT_SLICE, NAMESPACE, name)
            address = sim.cluster.find(SERVICE, NAMESPACE, name)
            if known is None or address is None:
                continue
            pods = [
                sim.cluster.find(POD, NAMESPACE, entry["targetRef"]["name"])
                for entry in known["endpoints"]
            ]
            assert any(pod and "deletionTimestamp" not in pod["metadata"] for pod in pods), name

    return check


def watch(sim: Simulation) -> None:
    check = somebody_is_there(sim)
    sim.cluster.after_call = check
    sim.after_step = lambda: check(None)


@pytest.mark.parametrize("expose", [{}, {"service": {"type": "NodePort"}}])
@pytest.mark.parametrize("strategy", ["surge", "noSurge", "canary"])
async def test_sleeps_and_wakes_without_a_gap(
    sim: Simulation, expose: dict[str, Any], strategy: str
) -> None:
    await serving(sim, expose=expose, rollout={"strategy": strategy})
    assert leads_to(sim) == "serving"
    assert leads_to(sim, "rank-pods") == "serving"
    url, revision = sim.service().status.url, sim.service().status.revision
    watch(sim)
    sim.busy = False
    await until(sim, lambda: asked(sim) == 0)
    await run(sim, 30)
    assert leads_to(sim) == "activator"
    if expose:
        assert leads_to(sim, "rank-external") == "activator"
    assert sim.condition("Serving") == ("True", "ScaledToZero")
    assert sim.condition("Ready")[0] == "True"
    assert sim.service().status.stage == "ScaledToZero"
    # Nothing else of the service is other than before.
    assert (sim.service().status.url, sim.service().status.revision) == (url, revision)

    sim.requests_held, sim.pods_start = 7, False
    await until(sim, lambda: asked(sim) > 0)
    await sim.settle()
    assert leads_to(sim) == "activator"
    assert sim.condition("Serving") == ("True", "Waking")
    assert sim.service().status.stage == "Waking"
    sim.pods_start = True
    await sim.settle()
    for name in [pod for pod in sim.names("Pod") if pod.startswith(f"rank-{revision}")]:
        sim._start_serving(sim.cluster.find(POD, NAMESPACE, name) or {})
    await sim.settle()
    assert leads_to(sim) == "serving"
    sim.requests_held, sim.busy = 0, True
    await run(sim, 30)
    assert sim.condition("Serving") == ("True", "Available")
    assert (sim.service().status.url, sim.service().status.revision) == (url, revision)


@pytest.mark.parametrize("paused", [False, True])
async def test_a_canary_by_pods_goes_to_sleep_with_the_pods_it_has(
    sim: Simulation, paused: bool
) -> None:
    canary = {"steps": [{"weight": 50, "untilPromoted": True}]}
    await serving(sim, rollout={"strategy": "canary", "canary": canary})
    sim.edit_service(serving={"maxPassages": 99})
    await run(sim, 120)
    assert len(sim.names("Deployment")) == 3
    if paused:
        sim.edit_service(rollout={"paused": True})
        await run(sim, 10)
    before = most = asked(sim)

    def count() -> None:
        nonlocal most
        most = max(most, asked(sim))

    sim.after_step, sim.endpoints_follow, sim.busy = count, False, False
    sleep(sim)
    await run(sim, 60)
    assert (asked(sim), most, leads_to(sim)) == (before, before, "activator")
    sim.endpoints_follow = True
    await run(sim, 10)
    assert asked(sim) == 0


def sleep(sim: Simulation) -> None:
    """The decision for no pods, as a process that knew no rollout yet has left it."""
    status = {"status": {"autoscaling": {"desired": 0, "reason": "ScaledToZero"}}}
    sim.cluster.edit(RERANKER_SERVICE, NAMESPACE, "rank", status)


async def test_pods_stay_until_the_activator_holds(sim: Simulation) -> None:
    sim.activators_start = False
    await serving(sim)
    sim.busy = False
    await run(sim, 300)
    assert (asked(sim), leads_to(sim)) == (1, "serving")
    sim.activators_start = True
    # The kubelet's doing, which no other change would bring about.
    for name in [name for name in sim.names("Pod") if "activator" in name]:
        sim._start_serving(sim.cluster.find(POD, NAMESPACE, name) or {})
    sim.endpoints_follow = False
    await run(sim, 120)
    # The address leads there, but nobody knows yet.
    assert (asked(sim), leads_to(sim)) == (1, "activator")
    assert "taken over" in sim.message("Serving")
    sim.endpoints_follow = True
    await run(sim, 10)
    assert asked(sim) == 0


async def test_a_pod_that_waits_for_a_node_is_never_taken_away(sim: Simulation) -> None:
    await asleep(sim)
    sim.requests_held, sim.pods_start = 3, False
    await run(sim, 10)
    assert asked(sim) == 1
    # Those who asked have given up, and nobody comes again.
    sim.requests_held = 0
    for _ in range(10):
        await run(sim, 60)
        assert (asked(sim), leads_to(sim)) == (1, "activator")


async def test_no_pods_by_hand_have_no_activator(sim: Simulation) -> None:
    sim.create_service(replicas=0)
    await sim.converge()
    assert sim.condition("Serving") == ("False", "ScaledToZero")
    assert not any("activator" in name for name in sim.names("Deployment"))


async def test_an_activator_goes_when_no_longer_needed(sim: Simulation) -> None:
    await asleep(sim)
    watch(sim)
    sim.edit_service(autoscaling={"min": 1})
    await run(sim, 30)
    assert leads_to(sim) == "serving"
    assert not any("activator" in name for name in sim.names("Deployment"))
    assert sim.names("Service") == ["rank"]
    assert sim.names("PodDisruptionBudget") == []


async def test_an_activator_reaches_the_pods_until_it_is_gone(sim: Simulation) -> None:
    await asleep(sim, networkPolicy={"enabled": True})
    sim.pods_start = False
    sim.edit_service(autoscaling={"min": 1})
    await run(sim, 30)
    assert leads_to(sim) == "activator"
    assert {"rank", "rank-activator"} <= set(sim.names("NetworkPolicy"))
    policy = sim.cluster.find(NETWORK_POLICY, NAMESPACE, "rank") or {}
    assert "activator" in str(policy["spec"]["ingress"])
    sim.pods_start = True
    for pod in sim.pods_of("rank"):
        if pod["status"]["phase"] == "Pending":
            sim._start_serving(pod)
    await run(sim, 30)
    assert leads_to(sim) == "serving"
    assert "rank-activator" not in sim.names("NetworkPolicy")
    policy = sim.cluster.find(NETWORK_POLICY, NAMESPACE, "rank") or {}
    assert "activator" not in str(policy["spec"]["ingress"])


async def test_policies_let_the_activator_through(sim: Simulation) -> None:
    await serving(sim, networkPolicy={"enabled": True, "clients": []})
    assert {"rank", "rank-activator"} <= set(sim.names("NetworkPolicy"))
    policy = sim.cluster.find(NETWORK_POLICY, NAMESPACE, "rank") or {}
    peers = [peer for way in policy["spec"]["ingress"] for peer in way["from"]]
    assert any("activator" in str(peer) for peer in peers)


@pytest.mark.timeout(600)
async def test_a_crash_after_any_call_changes_nothing(sim: Simulation) -> None:
    await serving(sim)
    revision = sim.service().status.revision

    async def live(twin: Simulation) -> None:
        twin.busy = False
        await run(twin, 100)
        assert (asked(twin), leads_to(twin)) == (0, "activator")
        twin.requests_held = 5
        await run(twin, 20)
        twin.requests_held, twin.busy = 0, True
        await run(twin, 20)
        assert (asked(twin), leads_to(twin)) == (1, "serving")
        assert twin.service().status.revision == revision

    whole = sim.fork()
    await live(whole)
    expected, count = whole.picture(), sum(call.writes for call in whole.cluster.calls)
    assert count > 8
    for fatal in range(1, count + 1):
        twin = sim.fork()
        check, written = somebody_is_there(twin), 0

        def die(
            call: Call, twin: Simulation = twin, fatal: int = fatal,
            check: Callable[[object], None] = check,
        ) -> None:  # fmt: skip
            nonlocal written
            check(call)
            written += call.writes
            if call.writes and written == fatal:
                twin.restart_operator()
                raise Unavailable("killed")

        twin.cluster.after_call = die
        await live(twin)
        assert without_numbers(twin.picture()) == without_numbers(expected), fatal


def without_numbers(picture: dict[str, Any]) -> dict[str, Any]:
    """The status of the decision tells of moments, which a crash moves."""
    service = picture["RerankerService/rank"]
    status = {key: value for key, value in service["status"].items() if key in _LASTING}
    return picture | {"RerankerService/rank": service | {"status": status}}


def started(sim: Simulation, name: str, began: datetime.datetime, ready: datetime.datetime) -> None:
    """As a kubelet tells it of a pod that took nine seconds from `began` to its gateway's start."""
    after = [f"{began + datetime.timedelta(seconds=s):%Y-%m-%dT%H:%M:%SZ}" for s in range(10)]
    at = f"{ready:%Y-%m-%dT%H:%M:%SZ}"
    ended = {"terminated": {"exitCode": 0, "startedAt": after[2], "finishedAt": after[3]}}
    status = {
        "phase": "Running",
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": after[1]},
            {"type": "Ready", "status": "True", "lastTransitionTime": at},
        ],
        "initContainerStatuses": [{"name": "verify", "restartCount": 0, "state": ended}],
        "containerStatuses": [
            {"name": "gateway", "restartCount": 0, "state": {"running": {"startedAt": after[5]}}}
        ],
    }
    change = {"metadata": {"creationTimestamp": after[0]}, "status": status}
    sim.cluster.edit(POD, NAMESPACE, name, change)


def told(sim: Simulation) -> str | None:
    """Seconds of a start, as the activator knows them."""
    made = sim.cluster.find(DEPLOYMENT, NAMESPACE, "rank-activator")
    assert made is not None
    env = made["spec"]["template"]["spec"]["containers"][0]["env"]
    return next((e["value"] for e in env if e["name"] == "RERANKER_COLD_START_SECONDS"), None)


async def test_a_pod_that_was_away_for_a_moment_tells_of_no_start(sim: Simulation) -> None:
    """A node loses touch for a minute: its pods get ready again, hours after their start."""
    await serving(sim)
    (name,) = (
        pod["metadata"]["name"]
        for pod in sim.cluster.select(POD, NAMESPACE, {APP_COMPONENT: "serving"})
    )
    began = sim.now
    sim.now += datetime.timedelta(seconds=9)
    started(sim, name, began, sim.now)
    await run(sim, 30)
    before = sim.service().status.cold_start
    assert before is not None
    assert (before.seconds, told(sim)) == (9, "10")
    for _ in range(2):
        sim.now += datetime.timedelta(hours=2)
        started(sim, name, began, sim.now)
        await run(sim, 90)
        status = sim.service().status
        assert status.cold_start == before
        assert told(sim) == "10"
        assert status.autoscaling is not None
        assert status.autoscaling.start_seconds == 9
        # What an operator wrote down that did not know better heals.
        poison = {"coldStart": {"seconds": 7239.0, "warmUp": 7234.0}}
        poison |= {"autoscaling": {"startSeconds": 7200.0}}
        sim.cluster.edit(RERANKER_SERVICE, NAMESPACE, "rank", {"status": poison})
        await run(sim, 90)
        status = sim.service().status
        assert status.autoscaling is not None
        assert (status.cold_start, status.autoscaling.start_seconds) == (None, None)
        started(sim, name, began, began + datetime.timedelta(seconds=9))
        await run(sim, 30)
