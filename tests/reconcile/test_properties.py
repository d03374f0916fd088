"""Whatever users, nodes and chance do, in whatever order: the world comes to rest, and rightly.

That includes a process that dies at any call, news that never arrive, and people who edit what is
not theirs. 500 stories by default, 10,000 with HYPOTHESIS_PROFILE=nightly.
"""

import asyncio
import copy
import datetime
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reranker_contracts import StageReason
from reranker_operator import names
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import (
    COMPANIONS,
    DEPLOYMENT,
    POD,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    RESOURCES,
    SERVICE,
)
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.engine_plan import plan_engine
from reranker_operator.core.service_plan import plan_service
from reranker_operator.render.defaults import Defaults
from reranker_operator.render.pods import store_claim_name
from reranker_operator.runtime.gather import engine_world, service_world
from reranker_operator.runtime.optional_kinds import OptionalKinds

from .controllers import NAMESPACE, Fault
from .fake_cluster import Call
from .simulation import Simulation
from .traffic import Answers

Act = Callable[[Simulation], None]


def _exists(sim: Simulation, name: str) -> bool:
    return sim.cluster.find(RERANKER_SERVICE, NAMESPACE, name) is not None


def _edit(name: str, **spec: object) -> Act:
    def act(sim: Simulation) -> None:
        (sim.edit_service if _exists(sim, name) else sim.create_service)(name, **spec)

    return act


def _remove(kind: str, at: int) -> Act:
    """Somebody deletes the nth object of a kind."""
    resource = RESOURCES[kind]

    def act(sim: Simulation) -> None:
        found = [entry["metadata"]["name"] for entry in sim.cluster.select(resource, NAMESPACE)]
        if found:
            sim.cluster.remove(resource, NAMESPACE, found[at % len(found)])

    return act


def _fail(stage: str, fault: Fault) -> Act:
    return lambda sim: sim.faults[stage].append(fault)


def _resolve_again(name: str, value: str) -> Act:
    return lambda sim: sim.resolve_again(value, name) if _exists(sim, name) else None


def _move(source: str, revision: str) -> Act:
    """The source has other files, and whoever is fetching the former ones finds that out."""

    def act(sim: Simulation) -> None:
        sim.revisions[source] = revision
        sim.faults["fetch"].append(Fault("refused", StageReason.SOURCE_CHANGED))

    return act


def _upgrade(version: int) -> Act:
    """A new operator, whose builder makes other engines."""

    def act(sim: Simulation) -> None:
        sim.toolchain = sim.toolchain.model_copy(update={"recipe": version})
        sim.defaults = Defaults(*(f"{name}:{version}" for name in ("b", "g", "t", "tg")))
        sim.restart_operator()

    return act


def _uninstall(kind: str) -> Act:
    """An optional kind goes, with all its objects."""

    def act(sim: Simulation) -> None:
        for name in sim.names(kind):
            sim.cluster.remove(RESOURCES[kind], NAMESPACE, name)
        sim.cluster.absent.add(kind)

    return act


def _annotate(name: str, key: str, at: int) -> Act:
    """What somebody wishes for a rollout, of some revision that there is or was."""

    def act(sim: Simulation) -> None:
        if not _exists(sim, name):
            return
        status = sim.service(name).status
        known = [record.revision for record in status.history]
        known += [status.rollout.revision] if status.rollout else []
        known += [entry.revision for entry in status.failed] + ["0badcafe"]
        sim.annotate(key, known[at % len(known)], name)

    return act


WISHES = st.sampled_from([names.PROMOTE, names.ABORT, names.UNDO, names.RETRY])


def _stop(stage: str, *, starts: bool) -> Act:
    def act(sim: Simulation) -> None:
        sim.held, sim.pods_start = {stage}, starts

    return act


SERVING = {"app.kubernetes.io/component": "serving"}


class Killed(BaseException):
    """The process ends here."""


def _die_after(writes: int) -> Act:
    """The process is killed once this many further writes have taken effect."""

    def act(sim: Simulation) -> None:
        left = iter(range(writes))

        def count(call: Call) -> None:
            if call.writes and next(left, None) is None:
                sim.cluster.after_call = lambda _: None
                raise Killed

        sim.cluster.after_call = count

    return act


def _meddle(kind: str, patch: dict[str, Any]) -> Act:
    def act(sim: Simulation) -> None:
        resource = RESOURCES[kind]
        for entry in list(sim.cluster.select(resource, NAMESPACE))[:1]:
            sim.cluster.meddle(resource, NAMESPACE, entry["metadata"]["name"], copy.deepcopy(patch))

    return act


_RELABEL = _meddle("Deployment", {"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}})
DRIFT = st.sampled_from(
    [
        _meddle("Deployment", {"metadata": {"labels": {"team": "x"}}}),
        _RELABEL,
        _meddle("Deployment", {"spec": {"replicas": 5}}),
        _meddle("Service", {"spec": {"ports": [{"name": "x", "port": 1}]}}),
        _meddle("Service", {"spec": {"selector": {"app": "x"}}}),
    ]
)
NAMES = st.sampled_from(["one", "two"])
MODELS = st.sampled_from(["hf://org/a", "hf://org/b", "gopher://x"]).map(
    lambda source: {"source": source}
)
ENGINES = st.sampled_from(
    [
        {"resources": {"limits": {"memory": "2Gi"}}},
        {"store": {"storageClassName": "fast"}},
        {"store": {"storageClassName": None}},
        {"registry": {"repository": "oci://registry.example/a", "push": True}},
        {"registry": {"repository": "oci://registry.example/a", "pull": False, "push": True}},
        {"registry": {"repository": "oci://registry.example/b", "pull": True, "push": False}},
        {"registry": None},
    ]
)
BESIDE = st.sampled_from(
    [
        {"expose": {"ingress": {"hosts": ["a.example.com"]}}},
        {"expose": {"ingress": None, "service": {"type": "NodePort"}}},
        {"expose": None, "monitoring": None},
        {"networkPolicy": {"enabled": True}},
        {"networkPolicy": {"enabled": False}, "disruption": {"minAvailable": "50%"}},
        {"monitoring": {"serviceMonitor": {}}},
    ]
)
STRATEGIES = ["surge", "noSurge", "canary", "blueGreen"]
ROLLOUTS: st.SearchStrategy[Json] = st.one_of(
    st.sampled_from(STRATEGIES).map(lambda strategy: {"strategy": strategy}),
    st.sampled_from(
        [
            {"paused": True}, {"paused": False}, {"bakeSeconds": 0}, {"bakeSeconds": 60},
            {"keepEngines": 0}, {"autoRollback": False}, {"autoRollback": True},
        ]
    ),
)  # fmt: skip
FAULTS = st.sampled_from(
    [
        Fault("killed"),
        Fault("oom"),
        Fault("vanished"),
        Fault("lost"),
        Fault("refused", StageReason.STORE_FULL),
        Fault("refused", StageReason.UNSAFE_WEIGHTS),
        Fault("refused", StageReason.REGISTRY_UNREACHABLE),
    ]
)
STAGES = st.sampled_from(
    ["resolve", "pull", "fetch", "publish", "compile", "validate", "push", "remove"]
)
ACTS: st.SearchStrategy[Act] = st.one_of(
    st.builds(lambda name, model: _edit(name, model=model), NAMES, MODELS),
    st.builds(lambda name, engine: _edit(name, engine=engine), NAMES, ENGINES),
    st.builds(lambda name, count: _edit(name, replicas=count), NAMES, st.integers(0, 3)),
    st.builds(
        lambda name, count: _edit(name, serving={"maxPassages": count}), NAMES, st.integers(1, 2)
    ),
    st.builds(lambda name, spec: _edit(name, **spec), NAMES, BESIDE),
    st.builds(lambda name, rollout: _edit(name, rollout=rollout), NAMES, ROLLOUTS),
    NAMES.map(lambda name: lambda sim: sim.delete_service(name)),
    st.builds(_remove, st.sampled_from(["Job", "Pod", "Deployment", "Service"]), st.integers(0, 5)),
    st.builds(
        _remove, st.sampled_from([resource.kind for resource in COMPANIONS]), st.integers(0, 5)
    ),
    st.just(_uninstall("ServiceMonitor")),
    st.builds(_fail, STAGES, FAULTS),
    st.builds(lambda stage, starts: _stop(stage, starts=starts), STAGES, st.booleans()),
    st.builds(_annotate, NAMES, WISHES, st.integers(0, 3)),
    st.builds(_resolve_again, NAMES, st.sampled_from(["1", "2"])),
    st.builds(_move, st.sampled_from(["hf://org/a", "hf://org/b"]), st.sampled_from(["x", "y"])),
    st.builds(_upgrade, st.integers(1, 2)),
    st.just(lambda sim: sim.restart_operator()),
    DRIFT,
    st.integers(0, 6).map(_die_after),
    st.just(lambda sim: sim.cluster.changed.clear()),
)
#: How far the world gets before the next act: steps of the controllers, -1 to rest.
PACE = st.sampled_from([-1, 0, 1, 2, 4])


async def _play(script: list[tuple[Act, int]], workers: int) -> Simulation:
    sim = Simulation(workers=workers)
    sim.create_service("one")
    for act, pace in script:
        act(sim)
        try:
            await _let_it_go_on(sim, pace)
        except Killed:
            sim.restart_operator()
            await sim.resync()
    sim.cluster.after_call = lambda _: None
    return sim


async def _let_it_go_on(sim: Simulation, pace: int) -> None:
    await sim.reconcile_pending()
    for _ in range(pace):
        sim.step()
        sim.cluster.collect_garbage()
        await sim.reconcile_pending()
    if pace < 0:
        # Who waits for a missing kind never stops asking.
        await (sim.settle() if sim.cluster.absent else sim.converge())


async def _plans_are_pure(sim: Simulation) -> None:
    """Same World, same Plan; and planning changes nothing in it."""
    kinds = OptionalKinds(sim.cluster)
    for raw in list(sim.cluster.select(RERANKER_SERVICE, NAMESPACE)):
        world = await service_world(
            sim.cache, raw, sim.defaults, sim.now, read_nodes=False, kinds=kinds
        )
        before = copy.deepcopy(world)
        assert plan_service(world) == plan_service(before)
        assert world == before
    for raw in list(sim.cluster.select(RERANKER_ENGINE, NAMESPACE)):
        around = await engine_world(sim.cache, raw, sim.defaults, sim.now)
        earlier = copy.deepcopy(around)
        assert plan_engine(around) == plan_engine(earlier)
        assert around == earlier


def _is_complete(sim: Simulation, service: RerankerService) -> None:
    """What is beside a service that is ready is what it asks for."""
    spec, name = service.spec, service.metadata.name
    mine = {"reranker.dev/service": name}
    policies = [name, f"{name}-build", f"{name}-resolve"] if spec.network_policy.enabled else []
    expected = {
        "Ingress": [name] if spec.expose.ingress else [],
        "HTTPRoute": [],
        "GRPCRoute": [],
        "NetworkPolicy": policies,
        "PodDisruptionBudget": [name] if spec.replicas > 1 else [],
        "ServiceMonitor": [name] if spec.monitoring.service_monitor else [],
        "Service": [name, f"{name}-external"][: 1 + (spec.expose.service.type == "NodePort")],
    }
    for kind, wanted in expected.items():
        found = sim.cluster.select(RESOURCES[kind], NAMESPACE, mine)
        assert [entry["metadata"]["name"] for entry in found] == wanted


async def _is_at_rest_and_right(sim: Simulation) -> None:
    used = set()
    for raw in list(sim.cluster.select(RERANKER_SERVICE, NAMESPACE)):
        service = sim.service(raw["metadata"]["name"])
        name, status = service.metadata.name, service.status
        assert status.observed_generation == service.metadata.generation
        deployments = list(
            sim.cluster.select(DEPLOYMENT, NAMESPACE, {"reranker.dev/service": name})
        )
        # What is judged is judged further when there are pods again.
        unproven = service.spec.replicas == 0 and status.rollout is not None
        assert len(deployments) <= 1 + unproven
        used |= {sim.engine_of(entry) for entry in deployments}
        ready = sim.condition("Ready", name)
        if ready[0] == "True":
            target = sim.selected(name)
            assert target is not None
            assert target["status"]["readyReplicas"] == service.spec.replicas
            assert sim.engine_of(target) == status.engine
            _is_complete(sim, service)
        else:
            # Only for a reason that waiting does not mend.
            lasting = {"UnknownSource", "UnsafeWeights", "ScaledToZero"}
            turned_away = {"RolledBack", "Aborted", "Undone"}
            assert ready[1] in lasting | turned_away, ready
        used |= {entry.name for entry in status.engines}
    assert {entry.metadata.name for entry in sim.engines()} == used
    for engine in sim.engines():
        if engine.metadata.name in used and engine.status.stage == "Ready":
            store = store_claim_name(engine.spec.store)
            assert f"engines/{engine.spec.digest}" in sim.stored[store]


#: `one` owns the claim of its former store, but can't let go of it before an engine owns it too.
LAST_OWNER: list[tuple[Act, int]] = [
    (_move("hf://org/a", "x"), 4),
    (_edit("one", engine={"store": {"storageClassName": "fast"}}), -1),
    (_die_after(0), -1),
    (_edit("two", model={"source": "hf://org/a"}), -1),
]

#: A revision loses its pods while it is judged.
UNPROVEN: list[tuple[Act, int]] = [
    (_uninstall("ServiceMonitor"), -1),
    (_edit("one", model={"source": "hf://org/a"}), -1),
    (_edit("one", replicas=0), -1),
]
#: Somebody hides the revision that another one is about to take over from.
HIDDEN: list[tuple[Act, int]] = [
    (_edit("one", model={"source": "hf://org/a"}), -1),
    (_upgrade(2), 4),
    (_RELABEL, 4),
]


@pytest.mark.timeout(0)
@given(st.lists(st.tuples(ACTS, PACE), max_size=8), st.booleans(), st.sampled_from([1, 3]))
@example(LAST_OWNER, False, 1)
@example(UNPROVEN, False, 1)
@example(HIDDEN, False, 1)
def test_any_story_comes_to_the_right_rest(
    script: list[tuple[Act, int]], afresh: bool, workers: int
) -> None:
    async def story() -> None:
        sim = await _play(script, workers)
        await _plans_are_pure(sim)
        # From here on nothing gets in the way, and a new process takes over, or this one lists.
        sim.held, sim.pods_start = set(), True
        sim.faults.clear()
        sim.cluster.absent.clear()
        for raw in list(sim.cluster.select(RERANKER_SERVICE, NAMESPACE)):
            rollout = {"paused": False, "autoRollback": True}
            sim.edit_service(raw["metadata"]["name"], rollout=rollout)
        if afresh:
            sim.restart_operator()
        await sim.resync()
        await sim.converge()
        await _is_at_rest_and_right(sim)
        await _plans_are_pure(sim)
        before = len(sim.cluster.writes)
        await sim.resync()
        await sim.settle()
        assert sim.cluster.writes[before:] == []

    asyncio.run(story())


def _fail_requests(share: float) -> Act:
    """Pods with this `maxPassages` answer so many requests with an error from now on."""

    def act(sim: Simulation) -> None:
        if sim.traffic is not None:
            sim.traffic.answers["2"] = Answers(failing=share)

    return act


#: Stories of one service need not be as many as those of all that can happen.
FEW = max(1, settings.default.max_examples // 20)
#: What changes the pods of a service, but their number.
CHANGES: st.SearchStrategy[Act] = st.one_of(
    st.sampled_from(["hf://org/a", "hf://org/b"]).map(
        lambda source: _edit("one", model={"source": source})
    ),
    ENGINES.map(lambda engine: _edit("one", engine=engine)),
    st.integers(1, 3).map(lambda count: _edit("one", serving={"maxPassages": count})),
    st.builds(lambda stage, starts: _stop(stage, starts=starts), STAGES, st.booleans()),
    st.builds(_upgrade, st.integers(1, 2)),
    st.just(lambda sim: sim.restart_operator()),
    st.builds(_annotate, st.just("one"), WISHES, st.integers(0, 3)),
    st.sampled_from([0.0, 0.05, 1.0]).map(_fail_requests),
    st.just(lambda sim: sim.let_pods_go()),
)


#: Of the two steps of a canary.
SECONDS = st.sampled_from([(10, 10), (0, 10), (10, 0), (0, 0)])


def _quick(strategy: str, seconds: tuple[int, int]) -> Json:
    """The strategy, with short times or none."""
    shares = zip((25, 60), seconds, strict=True)
    steps = [{"weight": weight, "seconds": time} for weight, time in shares]
    canary = {"canary": {"steps": steps}} if strategy == "canary" else {}
    return {"strategy": strategy, "bakeSeconds": 15} | canary


def _serving_pods(sim: Simulation, selector: dict[str, str]) -> list[Json]:
    return list(sim.cluster.select(POD, NAMESPACE, selector))


def _late(sim: Simulation) -> int:
    """Pods that should have ended minutes ago, which nothing waits for."""
    dues = [pod["metadata"].get("deletionTimestamp") for pod in _serving_pods(sim, SERVING)]
    times = [datetime.datetime.fromisoformat(due) for due in dues if due]
    return sum(sim.now - time > datetime.timedelta(minutes=1) for time in times)


def _works(pod: Json) -> bool:
    return pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]


def _answering(sim: Simulation) -> int:
    address = sim.cluster.find(SERVICE, NAMESPACE, "one")
    assert address is not None
    return sum(map(_works, _serving_pods(sim, address["spec"]["selector"])))


async def _go_on(sim: Simulation, act: Act, pace: int) -> None:
    act(sim)
    await sim.reconcile_pending()
    for _ in range(pace):
        sim.step()
        sim.cluster.collect_garbage()
        sim.after_step()
        await sim.reconcile_pending()
    if pace < 0:
        await sim.settle()
        # Pods that linger are waited for, with a look every few seconds.
        for _ in range(40):
            if sim.next_wake is not None:
                await sim.advance(max(0.0, sim.next_wake))


@pytest.mark.timeout(0)
@settings(max_examples=FEW)
@given(
    st.sampled_from(STRATEGIES),
    SECONDS,
    st.integers(1, 5),
    st.lists(st.tuples(CHANGES, PACE), max_size=8),
)
# Back to the former revision while the pod that it gave up is still there.
@example(
    "noSurge",
    (10, 10),
    2,
    [
        (_edit("one", serving={"maxPassages": 1}), 1),
        (_edit("one", model={"source": "hf://org/a"}), -1),
    ],
)
# A pod that lingers after the first pod was judged: there is a look every five seconds, until
# the rollout is given up after ten minutes.
@example(
    "noSurge",
    (10, 10),
    2,
    [(_edit("one", serving={"maxPassages": 1}), 1), (lambda sim: sim.let_pods_go(), 0)],
)
@example("canary", (0, 10), 5, [(_edit("one", serving={"maxPassages": 1}), -1)])
def test_no_rollout_takes_more_or_leaves_less_than_its_strategy_says(
    strategy: str, seconds: tuple[int, int], replicas: int, script: list[tuple[Act, int]]
) -> None:
    async def story() -> None:
        sim = Simulation()
        sim.create_service("one", replicas=replicas, rollout=_quick(strategy, seconds))
        await sim.converge()
        sim.send(20, "one")
        sim.pods_linger = True

        def check(_: object = None) -> None:
            asked = [entry["spec"]["replicas"] for entry in sim.cluster.select(DEPLOYMENT, None)]
            if strategy != "noSurge":
                assert _answering(sim) >= replicas
                assert sum(asked) <= 2 * replicas, asked
                return
            assert _answering(sim) >= replicas - 1
            assert sum(asked) <= replicas, asked
            assert len(_serving_pods(sim, SERVING)) - _late(sim) <= replicas

        sim.cluster.after_call = sim.after_step = check
        for act, pace in script:
            await _go_on(sim, act, pace)
        sim.held, sim.pods_start = set(), True
        sim.restart_operator()
        await sim.resync()
        for _ in range(3 * replicas + 3):
            await sim.converge(jumps=150)
            sim.let_pods_go()
        await sim.converge()
        await _is_at_rest_and_right(sim)

    asyncio.run(story())


@pytest.mark.timeout(0)
@settings(max_examples=FEW)
@given(
    st.sampled_from(STRATEGIES),
    SECONDS,
    st.lists(st.tuples(CHANGES, PACE), max_size=4),
    st.lists(st.tuples(CHANGES, PACE), max_size=6),
)
def test_no_pod_changes_while_paused(
    strategy: str,
    seconds: tuple[int, int],
    before: list[tuple[Act, int]],
    script: list[tuple[Act, int]],
) -> None:
    """From any moment of a rollout on."""

    async def story() -> None:
        sim = Simulation()
        sim.create_service("one", replicas=2, rollout=_quick(strategy, seconds))
        await sim.converge()
        for act, pace in before:
            await _go_on(sim, act, pace)
        sim.edit_service("one", rollout={"paused": True})
        # What was begun before comes to its end.
        sim.pods_start = True
        await sim.converge()
        pods = {pod["metadata"]["name"]: pod["spec"] for pod in _serving_pods(sim, SERVING)}
        selector = (sim.cluster.find(SERVICE, NAMESPACE, "one") or {})["spec"]["selector"]
        for act, pace in script:
            await _go_on(sim, act, pace)
        await sim.converge()
        left = {pod["metadata"]["name"]: pod["spec"] for pod in _serving_pods(sim, SERVING)}
        assert left == pods
        address = sim.cluster.find(SERVICE, NAMESPACE, "one")
        assert address is not None
        assert address["spec"]["selector"] == selector

    asyncio.run(story())
