"""A service that names the very revision of an engine in its namespace needs no Job for it."""

from typing import Any

import pytest

from reranker_operator.api.meta import RERANKER_ENGINE

from .controllers import NAMESPACE
from .simulation import Simulation

REVISION = "0123456789abcdef0123456789abcdef01234567"
MODEL = {"source": "hf://org/tiny", "revision": REVISION}


@pytest.fixture
async def built(sim: Simulation) -> Simulation:
    """One service has had the engine built."""
    sim.revisions[MODEL["source"]] = REVISION
    sim.create_service(model=MODEL)
    await sim.converge()
    return sim


def _jobs(sim: Simulation) -> list[str]:
    return [
        call.name for call in sim.cluster.writes
        if (call.verb, call.kind) == ("create", "Job") and "second" in call.name
    ]  # fmt: skip


async def test_no_job_and_few_calls(built: Simulation) -> None:
    before = len(built.cluster.calls)
    built.create_service("second", model=MODEL)
    await built.converge()
    assert built.condition("Ready", "second") == ("True", "Ready")
    assert _jobs(built) == []
    assert built.service("second").status.model == built.service().status.model.model_copy(  # type: ignore[union-attr]
        update={"resolved_time": built.now, "key": built.service("second").status.model.key}  # type: ignore[union-attr]
    )
    calls = built.cluster.calls[before:]
    writes = [call for call in calls if call.writes and call.kind != "Event"]
    # A Deployment, a Service, a share of the engine and of the claim.
    assert len(writes) <= 4 + 3, writes
    assert len([call for call in calls if not call.writes]) <= 10
    assert len([call for call in calls if call.kind == "Event"]) <= 2


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"source": "hf://org/tiny", "revision": "main"}},
        {"model": {"source": "hf://org/tiny"}},
        {"model": {"source": "hf://other/tiny", "revision": REVISION}},
        {"engine": {"image": "mine:1"}},
        {"engine": {"maxLength": 4096}},
        {"model": MODEL | {"template": "{query}\n{passage}"}},
        {"model": MODEL | {"activation": "none"}},
        {"model": MODEL | {"adapter": {"source": "hf://org/lora", "revision": REVISION}}},
        {"model": MODEL | {"adapter": {"source": "hf://org/lora"}}},
    ],
    ids=[
        "branch",
        "nothing",
        "other source",
        "other builder",
        "too long",
        "template",
        "activation",
        "adapter",
        "moving adapter",
    ],
)
async def test_everything_else_is_looked_at(built: Simulation, change: dict[str, Any]) -> None:
    built.create_service("second", **({"model": MODEL} | change))
    await built.settle()
    assert len(_jobs(built)) == 1


@pytest.mark.parametrize("text", ["", "{}", '{"name": "other"}'])
async def test_a_note_that_does_not_fit_is_not_believed(built: Simulation, text: str) -> None:
    (engine,) = built.engines()
    note = {"metadata": {"annotations": {"reranker.dev/resolved": text}}}
    built.cluster.edit(RERANKER_ENGINE, NAMESPACE, engine.metadata.name, note)
    built.create_service("second", model=MODEL)
    await built.converge()
    assert len(_jobs(built)) == 1
    assert built.condition("Ready", "second") == ("True", "Ready")
