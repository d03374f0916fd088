"""The number of pods follows what their metrics say, through restarts, crashes and other owners."""

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from reranker_operator.api.autoscaling import AutoscalingStatus, IgnoredScale
from reranker_operator.api.meta import BUDGET, DEPLOYMENT, POD, RERANKER_SERVICE
from reranker_operator.api.rollout import ScaleStatus
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.autoscale.costs import COST
from reranker_operator.core.load import PodLoad, Sample
from reranker_operator.core.recheck import recheck
from reranker_operator.core.replicas import rival
from reranker_operator.core.world import ServiceWorld
from reranker_operator.runtime.queue import Key

from .controllers import NAMESPACE
from .fake_cluster import Call
from .simulation import Simulation

KEY = Key(RERANKER_SERVICE.kind, NAMESPACE, "rank")
SPEED = 1000.0
_PODS = {"app.kubernetes.io/component": "serving"}


class Loads:
    """As the operator reads them: pods share what arrives, and have always done so."""

    def __init__(self, sim: "Scaled") -> None:
        self._sim = sim
        self.calm: Any = None

    def of(self, _service: RerankerService, _pods: object) -> tuple[PodLoad, ...]:
        sim = self._sim
        pods = sim.serving()
        loads = [
            PodLoad(name, "serving", "r", sim.samples(name, len(pods)))
            for name in pods
            if name not in sim.silent
        ]
        loads += [PodLoad(name, "serving", "r", (), failures=5) for name in sorted(sim.silent)]
        if sim.holding is not None:
            held = tuple(Sample(at, in_progress=sim.holding) for at in sim.times())
            loads.append(PodLoad("activator", "activator", None, held))
        return tuple(loads)

    def planned(self, world: ServiceWorld) -> None:
        self.calm = recheck(world)

    def forget(self, _key: Key) -> None:
        """Nothing is kept."""


class Scaled(Simulation):
    """A simulation whose pods have something to do."""

    def __init__(self, *positional: Any, **named: Any) -> None:
        self.rate, self.holding = 0.0, None if not named else named.pop("held", None)
        self.busiest: tuple[str, ...] = ()
        self.silent: set[str] = set()
        super().__init__(*positional, **named)

    def restart_operator(self) -> None:
        super().restart_operator()
        self.loads = Loads(self)
        self._reconciler._loads = self.loads  # type: ignore[assignment]

    def fork(self) -> "Scaled":
        twin = Scaled(self.defaults)
        twin.__dict__.update(super().fork().__dict__)
        twin.rate, twin.holding, twin.busiest = self.rate, self.holding, self.busiest
        twin.silent = set(self.silent)
        twin.restart_operator()
        twin.cluster._clock = lambda: twin.now
        return twin

    def times(self) -> Iterable[float]:
        now = self.now.timestamp()
        return [now - ago for ago in range(60, -1, -2)]

    def samples(self, pod: str, pods: int) -> tuple[Sample, ...]:
        each = self.rate / pods
        return tuple(
            Sample(
                at,
                backlog_tokens=50.0 if pod in self.busiest else 0.0,
                tokens_per_second=SPEED,
                arrived_tokens=each * at,
                tokens=each * at,
                busy_seconds=each / SPEED * at,
                requests=each / 100 * at,
            )
            for at in self.times()
        )

    def serving(self) -> list[str]:
        """Names of the pods that answer."""
        return sorted(
            pod["metadata"]["name"]
            for pod in self.cluster.select(POD, NAMESPACE, _PODS)
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        )

    async def run(self, seconds: int) -> None:
        """Time goes by, and every two seconds the pods are read."""
        for _ in range(seconds // 2):
            self.now += datetime.timedelta(seconds=2)
            self._fall_due()
            if self.loads.calm and not self.loads.calm(
                self.loads.of(self.service(), ()), self.now.timestamp()
            ):
                self.queue.add(KEY)
            await self.settle()

    def asked(self) -> int:
        """Pods of all Deployments."""
        entries = self.cluster.select(DEPLOYMENT, NAMESPACE)
        return sum(int(entry["spec"]["replicas"]) for entry in entries)

    def scaling(self, name: str = "rank") -> AutoscalingStatus:
        found = self.service(name).status.autoscaling
        assert found is not None
        return found


@pytest.fixture
def sim() -> Scaled:
    return Scaled()


SCALED: dict[str, Any] = {"autoscaling": {"max": 6}}


async def test_out_at_once_and_in_after_a_while(sim: Scaled) -> None:
    sim.create_service(**SCALED)
    await sim.run(10)
    assert (sim.asked(), sim.condition("Autoscaled")) == (1, ("True", "LoadMatched"))
    sim.rate = 3000
    await sim.run(10)
    assert (sim.asked(), sim.service().status.ready) == (5, "5/5")
    await sim.run(60)
    assert sim.condition("Autoscaled") == ("True", "LoadMatched")
    assert sim.message("Autoscaled") == (
        "5 pods: 3,000 tokens/s arrive, and a pod does 1,000 tokens/s, of which 70 % count"
    )
    assert sim.service().spec.replicas == 1
    assert sim.cluster.find(BUDGET, NAMESPACE, "rank") is not None
    sim.rate = 1200
    await sim.run(290)
    assert sim.asked() == 5
    await sim.run(90)
    assert (sim.asked(), sim.service().status.ready) == (2, "2/2")
    assert [sim.scaling().desired, sim.scaling().tokens_per_second] == [2, SPEED]
    reasons = {entry["reason"] for entry in sim.events()}
    assert {"ScalingOut", "ScalingIn"} <= reasons


async def test_a_steady_service_writes_nothing(sim: Scaled) -> None:
    sim.rate = 1800
    sim.create_service(**SCALED)
    await sim.run(120)
    writes = len(sim.cluster.writes)
    await sim.run(600)
    sim.restart_operator()
    await sim.resync()
    await sim.run(60)
    assert len(sim.cluster.writes) == writes
    assert sim.asked() == 3


async def test_those_with_the_least_to_do_go(sim: Scaled) -> None:
    sim.rate = 3000
    sim.create_service(**SCALED)
    await sim.run(60)
    pods = sim.serving()
    sim.busiest, sim.rate = (pods[0], pods[3]), 1000
    marks: list[int] = []

    def look(call: Call) -> None:
        if call.writes and call.kind == POD.kind:
            marks.append(sim.asked())

    sim.cluster.after_call = look
    await sim.run(400)
    assert sim.serving() == [pods[0], pods[3]]
    # Half of them within a minute, each marked right before the number is written.
    assert marks == [5, 5, 3]
    for pod in sim.cluster.select(POD, NAMESPACE, _PODS):
        assert COST not in pod["metadata"].get("annotations", {})


async def test_what_cannot_be_read_is_not_idle(sim: Scaled) -> None:
    sim.rate = 2000
    sim.create_service(**SCALED)
    await sim.run(60)
    assert sim.asked() == 3
    sim.rate, sim.silent = 100, set(sim.serving()[:1])
    await sim.run(900)
    assert sim.asked() == 3
    assert sim.condition("Autoscaled") == ("False", "MetricsUnavailable")
    assert sim.condition("Ready") == ("True", "Ready")
    sim.silent.clear()
    await sim.run(400)
    assert sim.asked() == 1


async def test_pods_without_a_node_are_told_and_no_more_are_asked_for(sim: Scaled) -> None:
    sim.create_service(**SCALED)
    await sim.run(60)
    sim.pods_start, sim.rate = False, 1500
    await sim.run(4)
    moment = sim.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    for pod in sim.cluster.select(POD, NAMESPACE, _PODS):
        if pod["status"]["phase"] == "Pending":
            lacks: Mapping[str, Any] = {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "message": "none",
                                "reason": "Unschedulable", "lastTransitionTime": moment}],
            }  # fmt: skip
            name = pod["metadata"]["name"]
            sim.cluster.edit(POD, NAMESPACE, name, {"status": lacks})
    await sim.run(62)
    assert (sim.asked(), sim.condition("Autoscaled")) == (3, ("False", "PodsPending"))
    sim.rate = 9000
    await sim.run(60)
    assert sim.asked() == 3
    # Ten minutes of it, and nothing to do any more: what starts is not given up.
    sim.rate = 0
    await sim.run(620)
    assert (sim.asked(), sim.scaling().pending_pods) == (3, 2)


async def test_the_number_is_handed_over_and_back_without_a_jump(sim: Scaled) -> None:
    sim.rate = 2000
    sim.apply_service(replicas=4)
    await sim.converge()
    seen: list[int] = []

    def look(_: object = None) -> None:
        if not seen or seen[-1] != sim.asked():
            seen.append(sim.asked())

    sim.cluster.after_call = sim.after_step = look
    sim.apply_service(**SCALED)
    await sim.run(60)
    scale = sim.service().status.scale
    assert scale is not None
    assert (scale.owner, scale.replicas) == ("autoscaling", 4)
    await sim.run(400)
    assert sim.scaling().desired == 4
    sim.rate = 3400
    await sim.run(60)
    sim.apply_service()
    await sim.converge()
    assert sim.service().spec.replicas == 5
    sim.scale_service(3, by="keda")
    await sim.converge()
    assert seen == [4, 5, 3]


async def test_a_manifest_with_a_number_has_the_last_word(sim: Scaled) -> None:
    sim.rate = 3000
    sim.apply_service(**SCALED, replicas=2)
    await sim.run(60)
    assert sim.asked() == 5
    sim.apply_service(replicas=2)
    await sim.converge()
    scale = sim.service().status.scale
    assert scale is not None
    assert (sim.asked(), scale.owner, scale.ignored) == (2, "gitops", None)


async def test_an_autoscaler_beside_is_named(sim: Scaled) -> None:
    sim.apply_service(**SCALED, replicas=1)
    await sim.run(30)
    sim.scale_service(5)
    await sim.run(10)
    assert (sim.asked(), sim.condition("Autoscaled")) == (1, ("False", "AutoscalerConflict"))
    assert sim.message("Autoscaled") == (
        "HorizontalPodAutoscaler sets spec.replicas, which spec.autoscaling takes no heed of; "
        "remove the HorizontalPodAutoscaler or ScaledObject, or spec.autoscaling"
    )
    await sim.run(700)
    assert sim.condition("Autoscaled") == ("True", "LoadMatched")


@pytest.mark.parametrize(
    ("by", "found"),
    [("HorizontalPodAutoscaler, KEDA", True), ("KEDA, gitops", True), ("me", False)],
)
def test_an_autoscaler_is_a_rival_from_the_first_time_also_beside_others(
    by: str, found: bool
) -> None:
    other = IgnoredScale(replicas=5, by=by, times=1)
    assert (rival(ScaleStatus(replicas=1, ignored=other)) == other) is found


async def test_a_person_who_scales_by_hand_is_told_where_the_bounds_are(sim: Scaled) -> None:
    sim.apply_service(**SCALED, replicas=1)
    await sim.run(30)
    for number in (5, 6):
        sim.scale_service(number, by="kubectl")
        await sim.run(10)
    assert sim.condition("Autoscaled") == ("False", "AutoscalerConflict")
    assert sim.message("Autoscaled") == (
        "kubectl sets spec.replicas, which spec.autoscaling takes no heed of; set "
        "spec.autoscaling.min and spec.autoscaling.max instead, or remove it"
    )


async def test_a_rollout_takes_the_number_along(sim: Scaled) -> None:
    sim.rate = 2500
    sim.create_service(**SCALED)
    await sim.run(60)
    former = sim.selected()
    sim.edit_service(serving={"maxPassages": 100})
    await sim.run(120)
    now = sim.selected()
    assert former is not None
    assert now is not None
    assert now["metadata"]["name"] != former["metadata"]["name"]
    assert (sim.asked(), sim.service().status.ready) == (4, "4/4")


async def test_what_a_route_leads_to_the_preview_is_load_too(sim: Scaled) -> None:
    sim.rate, sim.gateway_says = 1800, "True"
    rules = {"max": 6, "scaleDownDelaySeconds": 0, "startTimeoutSeconds": 60}
    canary = {"steps": [{"weight": 60, "untilPromoted": True, "seconds": 10}]}
    rollout = {"strategy": "canary", "canary": canary}
    route = {"route": {"parentRefs": [{"name": "gate"}]}}
    sim.create_service(autoscaling=rules, rollout=rollout, expose=route)
    await sim.run(90)
    assert sim.asked() == 3
    sim.edit_service(serving={"maxPassages": 100})
    await sim.run(240)
    assert sim.condition("Progressing") == ("False", "AwaitingPromotion")
    assert (sim.asked(), sim.scaling().desired, sim.scaling().ready_pods) == (5, 3, 5)
    # As long as somebody is waited for, the former revision keeps what all would need.
    sim.rate = 100
    await sim.run(240)
    assert (sim.asked(), sim.scaling().desired) == (5, 3)


async def test_other_bounds_hold_at_once(sim: Scaled) -> None:
    sim.rate = 5000
    sim.create_service(**SCALED)
    await sim.run(60)
    assert (sim.asked(), sim.condition("Autoscaled")) == (6, ("True", "AtMaximum"))
    sim.edit_service(autoscaling={"max": 2})
    await sim.run(4)
    assert sim.asked() == 2
    sim.rate = 0
    sim.edit_service(autoscaling={"min": 4, "max": 5})
    await sim.run(4)
    assert sim.asked() == 4


@pytest.mark.timeout(600)
async def test_a_crash_after_any_write_ends_in_the_same_number() -> None:
    sim = Scaled()
    sim.create_service(**SCALED)
    await sim.run(30)
    crashes = 0
    for rate, seconds in [(3000.0, 70), (600.0, 700), (5000.0, 70), (1500.0, 700)]:
        died: list[Scaled] = []

        def die_here(call: Call, died: list[Scaled] = died) -> None:
            if call.writes and call.kind != "Event":
                died.append(sim.fork())

        sim.rate = rate
        sim.cluster.after_call = die_here
        began = sim.now
        await sim.run(seconds)
        sim.cluster.after_call = lambda _: None
        for left in died:
            await left.resync()
            # Not the same moment: what was decided and not written down is decided anew.
            await left.run(seconds + 60 - int((left.now - began).total_seconds()))
            assert (left.asked(), left.scaling().desired) == (sim.asked(), sim.scaling().desired)
            assert left.service().status.ready == sim.service().status.ready
        crashes += len(died)
    assert crashes >= 20
