"""What the metrics of objects say while a story goes on."""

from reranker_operator.api.meta import RERANKER_ENGINE, RERANKER_SERVICE
from reranker_operator.runtime.fleet import Fleet
from reranker_operator.runtime.resync import Resync

from .controllers import NAMESPACE
from .simulation import Simulation


async def _look(sim: Simulation, fleet: Fleet) -> None:
    await Resync(sim.cache, sim.queue, fleet, (), seconds=600).once()


async def test_from_the_first_apply_to_the_last_delete(sim: Simulation) -> None:
    fleet, stages, states = Fleet(), set(), set()

    def watch() -> None:
        fleet.begin_list()
        fleet.end_list(
            entry
            for resource in (RERANKER_SERVICE, RERANKER_ENGINE)
            for entry in sim.cluster.select(resource, NAMESPACE)
        )
        stages.update(facts.stage for facts in fleet.services.values())
        states.update(facts.state for facts in fleet.engines.values())

    sim.after_step = watch
    sim.create_service()
    await sim.converge()
    (service,), (engine,) = fleet.services.values(), fleet.engines.values()
    assert (service.ready, service.stage, service.ready_replicas) == (True, "Serving", 1)
    assert (engine.state, engine.failures) == ("Ready", 0)
    assert engine.seconds.keys() >= {"fetch", "export", "publish-prepared", "compile"}
    assert "Other" not in {*stages, *engine.seconds}, "every word of ours is known"
    assert states == {"Building", "Ready"}

    sim.delete_service()
    await sim.converge()
    await sim.advance(120)
    await _look(sim, fleet)
    assert not fleet.services
    assert not fleet.engines
