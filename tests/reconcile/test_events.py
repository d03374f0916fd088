"""What Events tell of a service, and how often."""

from collections import Counter

from reranker_operator.adapters.cluster import Json
from reranker_operator.api.conditions import ConditionType, Reason, condition
from reranker_operator.api.meta import POD
from reranker_operator.runtime.telling import Telling

from .controllers import NAMESPACE
from .simulation import Simulation


async def test_a_flapping_pod_is_told_a_few_times(sim: Simulation) -> None:
    sim.create_service()
    await sim.converge()
    labels = {"app.kubernetes.io/component": "serving"}
    (pod,) = sim.cluster.select(POD, NAMESPACE, labels)
    before = _counted(sim)
    for number in range(100):
        ready = number % 2 == 1
        moment = sim.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        sim.cluster.edit(POD, NAMESPACE, pod["metadata"]["name"], {"status": _says(ready, moment)})
        await sim.advance(1)
        assert sim.condition("Ready")[0] == ("True" if ready else "False")
    told = _counted(sim) - before
    assert set(told) == {"NotAnswering", "Ready"}
    assert max(told.values()) <= 3
    # What is new is told at once.
    sim.edit_service(model={"source": "gopher://x"})
    await sim.settle()
    assert _counted(sim)["UnknownSource"] == 1


def test_after_a_while_it_is_told_again() -> None:
    now = 1000.0
    telling = Telling(lambda: now)
    entry = condition(ConditionType.SERVING, False, Reason.NOT_ANSWERING, "")
    other = condition(ConditionType.SERVING, False, Reason.PROBE_FAILED, "")

    def told(uid: str = "u") -> int:
        return sum(telling.allows(uid, entry) for _ in range(10))

    assert (told(), told("another")) == (3, 3)
    assert telling.allows("u", other)
    now += 299
    assert told() == 0
    now += 1
    assert told() == 1
    now -= 3600
    assert told() == 0
    now += 300
    assert told() == 1
    now += 86400
    assert told() == 3


def _says(ready: bool, moment: str) -> Json:
    running = {"running": {"startedAt": "2026-01-05T12:00:00Z"}}
    gateway = {"name": "gateway", "ready": ready, "started": True, "state": running}
    told = {"type": "Ready", "status": str(ready), "lastTransitionTime": moment}
    return {"conditions": [told], "containerStatuses": [gateway]}


def _counted(sim: Simulation) -> Counter[str]:
    return Counter(entry["reason"] for entry in sim.events())
