"""The process may die, or an answer get lost, after any single call: the end is the same.

Together the stories have more than 200 calls at which the process is killed: a full life from the
first apply over builds, rollouts, scaling and repairs to the last delete.
"""

from collections.abc import Callable

import pytest

from reranker_contracts import StageReason
from reranker_operator.api.meta import DEPLOYMENT, SERVICE
from reranker_operator.errors import Unavailable
from reranker_operator.names import UNDO

from .controllers import NAMESPACE, Fault
from .fake_cluster import Call
from .simulation import Simulation

Act = Callable[[Simulation], None]
OTHER = {"source": "hf://org/other"}
MINE = {"store": {"existingClaim": "mine"}}


def _move_the_source(sim: Simulation) -> None:
    sim.faults["fetch"] = [Fault("refused", StageReason.SOURCE_CHANGED)]
    sim.revisions["hf://org/moving"] = "moved on"
    sim.edit_service(model={"source": "hf://org/moving"})


BESIDE: dict[str, dict[str, object]] = {
    "expose": {"ingress": {"hosts": ["rank.example.com"]}, "service": {"type": "NodePort"}},
    "networkPolicy": {"enabled": True},
    "monitoring": {"serviceMonitor": {}},
}


def _create(name: str = "rank", **spec: object) -> Act:
    return lambda sim: sim.create_service(name, **spec)


def _edit(**spec: object) -> Act:
    return lambda sim: sim.edit_service(**spec)


def _meddle(sim: Simulation) -> None:
    """What people do to a Deployment and a Service that are not theirs."""
    (name, *_) = sim.names("Deployment")
    container = {"name": "gateway", "env": [{"name": "DEBUG", "value": "1"}], "image": "mine:1"}
    template = {"spec": {"containers": [container]}}
    change = {"metadata": {"labels": {"team": "x"}}, "spec": {"replicas": 5, "template": template}}
    sim.cluster.meddle(DEPLOYMENT, NAMESPACE, name, change)
    port = {"name": "debug", "port": 9999, "targetPort": "http"}
    sim.cluster.meddle(SERVICE, NAMESPACE, "rank", {"spec": {"ports": [port]}})


def _bring_a_claim(sim: Simulation) -> None:
    sim.add_claim("mine")
    sim.create_service(engine=MINE)


def _fail_twice(sim: Simulation) -> None:
    sim.faults["resolve"] = [Fault("killed")]
    sim.faults["compile"] = [Fault("oom"), Fault("vanished")]
    sim.create_service()


def _never_ready(sim: Simulation) -> None:
    """A revision that is given up at its deadline."""
    sim.pods_start = False
    rollout = {"progressDeadlineSeconds": 60}
    sim.edit_service(serving={"maxPassages": 300}, rollout=rollout)


def _undo(sim: Simulation) -> None:
    """Back to the revision before."""
    sim.pods_start = True
    sim.annotate(UNDO, sim.service().status.history[1].revision)


#: Lives of services, each step from rest to rest, and how many calls they have at least.
STORIES: dict[str, tuple[int, list[Act]]] = {
    "another model": (45, [_create(), _edit(model=OTHER, replicas=2)]),
    "a source that moves": (45, [_create(model=OTHER), _move_the_source]),
    "rolled, scaled, repaired": (
        45,
        [
            _create(),
            _edit(serving={"maxPassages": 100}),
            _edit(replicas=3),
            _meddle,
            _edit(serving={"maxPassages": 200}, replicas=2),
            _edit(replicas=0),
            lambda sim: sim.delete_service(),
        ],
    ),
    "shared and left": (
        40,
        [
            _create(model=OTHER),
            _create("second", model=OTHER),
            lambda sim: sim.delete_service(),
            lambda sim: sim.delete_service("second"),
        ],
    ),
    "a claim of the user's": (20, [_bring_a_claim, lambda sim: sim.delete_service()]),
    "builds that fail": (40, [_fail_twice, lambda sim: sim.delete_service()]),
    "objects beside the pods": (
        25,
        [
            _create(**BESIDE),
            _edit(replicas=2),
            _edit(**dict.fromkeys(BESIDE)),
            lambda sim: sim.delete_service(),
        ],
    ),
    "step by step, and back": (
        30,
        [
            _create(replicas=2, rollout={"strategy": "canary"}),
            _edit(serving={"maxPassages": 100}, rollout={"keepEngines": 2}),
            _never_ready,
            _undo,
        ],
    ),
    "looked at first, and back": (
        30,
        [
            _create(rollout={"strategy": "blueGreen"}),
            _edit(model=OTHER),
            _undo,
            _edit(serving={"maxPassages": 100}),
        ],
    ),
    "no surge, and back": (
        20,
        [
            _create(replicas=2, rollout={"strategy": "noSurge"}),
            _edit(serving={"maxPassages": 100}),
            _never_ready,
        ],
    ),
    "no surge, and a pause": (
        25,
        [
            _create(replicas=2),
            _edit(rollout={"strategy": "noSurge"}, serving={"maxPassages": 100}),
            _edit(rollout={"paused": True}, serving={"maxPassages": 200}),
            _edit(rollout={"paused": False}),
        ],
    ),
}


def test_there_are_enough_kill_points() -> None:
    assert sum(least for least, _ in STORIES.values()) >= 200


@pytest.mark.timeout(600)
@pytest.mark.parametrize("story", STORIES)
async def test_a_crash_after_every_single_call_ends_in_the_same_state(story: str) -> None:
    least, acts = STORIES[story]
    sim, crashes = Simulation(), 0
    for step, act in enumerate(acts):
        died: list[tuple[Call, Simulation]] = []

        def die_here(call: Call, died: list[tuple[Call, Simulation]] = died) -> None:
            # What is left of a process that dies now.
            if _lasts(call):
                died.append((call, sim.fork()))

        act(sim)
        died.append((Call("none", "", ""), sim.fork()))
        sim.cluster.after_call = die_here
        await sim.converge()
        sim.cluster.after_call = lambda _: None
        expected = sim.picture()
        for call, left in died:
            await left.resync()
            await left.converge()
            assert left.picture() == expected, f"{story}, step {step}: died after {call}"
        crashes += len(died)
    assert crashes >= least


@pytest.mark.timeout(600)
async def test_a_lost_answer_to_any_write_ends_in_the_same_state() -> None:
    """The call took effect, the process lives on and tries again."""
    reference = Simulation()
    reference.create_service()
    await reference.converge()
    expected = reference.picture()
    for number in [at for at, call in enumerate(reference.cluster.calls) if _lasts(call)]:
        sim = Simulation()

        def lose(call: Call, sim: Simulation = sim, number: int = number) -> None:
            if len(sim.cluster.calls) == number + 1:
                raise Unavailable(f"no answer to {call}")

        sim.cluster.after_call = lose
        sim.create_service()
        await sim.converge()
        assert sim.picture() == expected, f"no answer to {reference.cluster.calls[number]}"


def _lasts(call: Call) -> bool:
    """Reads leave nothing new behind, Events nothing that anybody looks at."""
    return call.writes and call.kind != "Event"
