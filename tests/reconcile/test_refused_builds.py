"""Who answers requests does not wait for what a change needs and does not get.

Quotas and webhooks refuse the Jobs and policies of a change; address, number of pods and the way
back go on.
"""

import pytest

from reranker_operator.api.meta import INGRESS, NETWORK_POLICY
from reranker_operator.errors import Forbidden, OperatorError, Rejected, Unavailable

from .controllers import NAMESPACE
from .judging import address, busy, let, numbers, serving
from .simulation import Simulation
from .test_autoscaling import SCALED, Scaled
from .test_sleeping import asked, asleep, run
from .traffic import Answers

_BAD = 100
_QUOTA = Forbidden('jobs.batch "x" is forbidden: exceeded quota: q, requested: count/jobs.batch=1')


@pytest.mark.parametrize(
    ("call", "error", "edit"),
    [
        (("create", "Job"), _QUOTA, {"model": {"source": "hf://org/other"}}),
        (("create", "Job"), Unavailable("no webhook"), {"model": {"source": "hf://org/other"}}),
        (
            ("apply", NETWORK_POLICY.kind),
            Rejected("admission webhook denied the request"),
            {"networkPolicy": {"enabled": True}},
        ),
    ],
    ids=["quota", "outage", "policy"],
)
async def test_a_revision_that_fails_is_taken_back(
    sim: Simulation, call: tuple[str, str], error: OperatorError, edit: dict[str, object]
) -> None:
    good = await serving(sim, replicas=2, rollout={"strategy": "surge"})
    traffic = await busy(sim)
    traffic.answers[str(_BAD)] = Answers(failing=1.0)
    sim.edit_service(serving={"maxPassages": _BAD})
    while address(sim) == good:
        await let(sim, 1)
    sim.cluster.refusals[call] = error
    sim.edit_service(**edit)
    for _ in range(24):
        await sim.advance(5)
    assert address(sim) == good
    assert [entry.gate for entry in sim.service().status.failed] == ["errorRate"]
    if isinstance(error, Unavailable):
        # Nothing of the new spec is told, of which nothing was done.
        status, generation = sim.service().status, sim.service().metadata.generation
        assert status.observed_generation < generation
    else:
        assert sim.condition("Ready")[0] == sim.condition("Progressing")[0] == "False"
        assert str(error)[-20:] in sim.message("Progressing")

    sim.cluster.refusals.clear()
    sim.edit_service(serving={"maxPassages": 64})
    await let(sim, 600)
    assert sim.condition("Ready")[0] == "True"


async def test_nothing_new_is_opened_without_its_policy(sim: Simulation) -> None:
    first = await serving(sim, replicas=2, rollout={"strategy": "noSurge"})
    sim.cluster.refusals["apply", NETWORK_POLICY.kind] = Rejected("denied")
    sim.edit_service(
        networkPolicy={"enabled": True},
        expose={"ingress": {"hosts": ["rank.example"]}},
        serving={"maxPassages": 64},
        replicas=3,
    )
    await let(sim, 60)
    assert sim.cluster.find(INGRESS, NAMESPACE, "rank") is None
    assert numbers(sim) == {first: 3}
    sim.cluster.refusals.clear()
    await let(sim, 600)
    assert sim.cluster.find(INGRESS, NAMESPACE, "rank") is not None
    assert numbers(sim) == {address(sim): 3}
    assert address(sim) != first


async def test_pods_follow_the_load() -> None:
    sim = Scaled()
    sim.rate = 600
    sim.create_service(**SCALED)
    await sim.run(60)
    sim.cluster.refusals["create", "Job"] = _QUOTA
    sim.edit_service(model={"source": "hf://org/other"})
    await sim.run(20)
    before, sim.rate = sim.asked(), 4000
    await sim.run(60)
    assert sim.asked() == sim.scaling().desired > before


async def test_a_service_wakes(sim: Simulation) -> None:
    await asleep(sim)
    sim.cluster.refusals["create", "Job"] = _QUOTA
    sim.edit_service(model={"source": "hf://org/other"})
    await run(sim, 20)
    sim.requests_held = 50
    await run(sim, 30)
    assert asked(sim) >= 1
