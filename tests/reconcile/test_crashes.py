"""The process may die, or an answer get lost, after any single call: the end is the same."""

from collections.abc import Callable

from reranker_contracts import StageReason
from reranker_operator.errors import Unavailable

from .controllers import Fault
from .fake_cluster import Call
from .simulation import Simulation


def _move_the_source(sim: Simulation) -> None:
    sim.faults["fetch"] = [Fault("refused", StageReason.SOURCE_CHANGED)]
    sim.revisions["hf://org/moving"] = "moved on"
    sim.edit_service(model={"source": "hf://org/moving"})


BESIDE: dict[str, dict[str, object]] = {
    "expose": {"ingress": {"hosts": ["rank.example.com"]}, "service": {"type": "NodePort"}},
    "networkPolicy": {"enabled": True},
    "monitoring": {"serviceMonitor": {}},
}
OTHER = {"source": "hf://org/other"}
#: The life of a service, each step from rest to rest.
STORY: dict[str, Callable[[Simulation], None]] = {
    "create": lambda sim: sim.create_service(),
    "objects beside the pods": lambda sim: sim.edit_service(**BESIDE),
    "another model": lambda sim: sim.edit_service(model=OTHER, replicas=2),
    "a source that moves": _move_the_source,
    "nothing beside the pods": lambda sim: sim.edit_service(**dict.fromkeys(BESIDE)),
    "a second service": lambda sim: sim.create_service("second", model=OTHER),
    "delete the first": lambda sim: sim.delete_service(),
    "delete the second": lambda sim: sim.delete_service("second"),
}


async def test_a_crash_after_every_single_call_ends_in_the_same_state() -> None:
    sim, crashes = Simulation(), 0
    for step, act in STORY.items():
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
            assert left.picture() == expected, f"{step}: died after {call}"
        crashes += len(died)
    assert sim.picture() == {}
    assert crashes > 60


async def test_a_lost_answer_to_any_write_ends_in_the_same_state() -> None:
    """The call took effect, the process lives on and tries again."""
    reference = Simulation()
    STORY["create"](reference)
    await reference.converge()
    expected = reference.picture()
    for number in [at for at, call in enumerate(reference.cluster.calls) if _lasts(call)]:
        sim = Simulation()

        def lose(call: Call, sim: Simulation = sim, number: int = number) -> None:
            if len(sim.cluster.calls) == number + 1:
                raise Unavailable(f"no answer to {call}")

        sim.cluster.after_call = lose
        STORY["create"](sim)
        await sim.converge()
        assert sim.picture() == expected, f"no answer to {reference.cluster.calls[number]}"


def _lasts(call: Call) -> bool:
    """Reads leave nothing new behind, Events nothing that anybody looks at."""
    return call.writes and call.kind != "Event"
