"""`auto` takes the fastest target that ranks like the original, and says what it passed over."""

from typing import Any

import pytest

from reranker_contracts import Runtimes, StageReason
from reranker_operator.api.meta import RERANKER_ENGINE

from .controllers import NAMESPACE, PARITY, Fault
from .simulation import Simulation

RUNTIMES = Runtimes(
    recipe=1, onnxruntime="1.31", openvino="2026.4", cpu_features=("amx_bf16", "avx512_bf16")
)
POOR = PARITY.model_copy(update={"kendall_tau": 0.98})


@pytest.fixture
def sim() -> Simulation:
    """With a builder that has OpenVINO, on nodes with AMX."""
    found = Simulation()
    found.runtimes = RUNTIMES
    return found


async def _targets(sim: Simulation, **spec: Any) -> dict[str, str]:
    """Each engine's target and state in the service's status, after everything has settled."""
    sim.create_service(**spec)
    await sim.converge()
    return {entry.target: entry.state for entry in sim.service().status.engines}


def _serves(sim: Simulation) -> str:
    name = sim.service().status.engine or ""
    return next(entry.target for entry in sim.service().status.engines if entry.name == name)


async def test_the_fastest_target_is_taken_when_it_passes(sim: Simulation) -> None:
    assert await _targets(sim) == {"ov-cpu-bf16": "Ready"}
    assert sim.condition("Ready") == ("True", "Ready")
    assert "passed over" not in sim.message("EngineReady")


@pytest.mark.parametrize("features", [(), ("avx512_vnni",)])
async def test_bf16_is_left_out_where_the_cpu_lacks_it(
    sim: Simulation, features: tuple[str, ...]
) -> None:
    sim.runtimes = RUNTIMES.model_copy(update={"cpu_features": features})
    assert await _targets(sim) == {"ov-cpu-fp32": "Ready"}
    sim.edit_service(engine={"precision": "bf16"})
    await sim.converge()
    assert _serves(sim) == "ov-cpu-bf16"


async def test_a_precision_that_ranks_differently_gives_way_to_the_next(sim: Simulation) -> None:
    sim.parities["bf16"] = POOR
    assert await _targets(sim) == {"ov-cpu-bf16": "PassedOver", "ov-cpu-fp32": "Ready"}
    assert sim.condition("Ready") == ("True", "Ready")
    assert _serves(sim) == "ov-cpu-fp32"
    text = sim.message("EngineReady")
    assert "passed over openvino bf16: ranks too differently" in text
    assert "0.9800 (at least 0.995)" in text
    # Both are made from the same graph, which takes longer than all else.
    assert sum("-prepare-" in name for name in sim.names("Job")) == 1


async def test_what_was_prepared_for_another_target_and_is_gone_is_prepared_anew(
    sim: Simulation,
) -> None:
    sim.parities["bf16"] = POOR
    sim.create_service(engine={"precision": "bf16"})
    await sim.converge()
    sim.stored[sim.store] = set()
    sim.edit_service(engine={"precision": "fp32"})
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    jobs = [name.split("-fp32-")[1][11:] for name in sim.names("Job") if "-fp32-" in name]
    assert sorted(jobs) == ["compile-1", "compile-2", "prepare-2"]


async def test_what_was_passed_over_is_remembered_and_not_built_again(sim: Simulation) -> None:
    sim.parities["bf16"] = POOR
    await _targets(sim)
    made, writes = sim.names("Job"), len(sim.cluster.writes)
    sim.restart_operator()
    for _ in range(3):
        await sim.resync()
        await sim.settle()
    await sim.advance(86400)
    await sim.converge()
    assert sim.names("Job") == made
    assert len(sim.cluster.writes) == writes
    assert len(sim.engines()) == 2


async def test_looser_thresholds_bring_the_faster_engine_back_without_a_build(
    sim: Simulation,
) -> None:
    sim.parities["bf16"] = POOR
    await _targets(sim)
    made = sim.names("Job")
    sim.edit_service(engine={"parity": {"minKendallTau": 0.9}})
    await sim.converge()
    assert _serves(sim) == "ov-cpu-bf16"
    # The slower one is kept for the way back.
    states = {entry.target: entry.state for entry in sim.service().status.engines}
    assert states == {"ov-cpu-bf16": "Ready", "ov-cpu-fp32": "Kept"}
    assert set(sim.names("Job")) <= set(made)
    assert sim.condition("Ready") == ("True", "Ready")


@pytest.mark.parametrize("reason", [StageReason.TARGET_ABSENT, StageReason.TARGET_UNSUPPORTED])
async def test_a_target_that_the_node_cannot_build_gives_way(
    sim: Simulation, reason: StageReason
) -> None:
    sim.faults["compile"] = [Fault("refused", reason)]
    assert await _targets(sim) == {"ov-cpu-bf16": "PassedOver", "ov-cpu-fp32": "Ready"}
    assert sim.condition("Ready") == ("True", "Ready")
    assert "passed over openvino bf16: compile: " in sim.message("EngineReady")


async def test_other_failures_are_tried_again_on_the_same_target(sim: Simulation) -> None:
    sim.faults["compile"] = [Fault("refused", StageReason.COMPILE_FAILED)]
    assert await _targets(sim) == {"ov-cpu-bf16": "Ready"}


async def test_when_all_are_refused_the_last_one_says_so(sim: Simulation) -> None:
    sim.parity = POOR
    found = await _targets(sim)
    assert found == {
        "ov-cpu-bf16": "PassedOver",
        "ov-cpu-fp32": "PassedOver",
        "onnx-cpu-fp32": "Ready",
    }
    assert sim.condition("EngineReady") == ("False", "ParityRefused")
    assert sim.service().status.revision is None


async def test_an_explicit_precision_is_never_replaced(sim: Simulation) -> None:
    sim.parities["bf16"] = POOR
    assert await _targets(sim, engine={"precision": "bf16"}) == {"ov-cpu-bf16": "Ready"}
    assert sim.condition("EngineReady") == ("False", "ParityRefused")


async def test_int8_is_built_when_it_is_asked_for(sim: Simulation) -> None:
    assert await _targets(sim, engine={"precision": "int8"}) == {"ov-cpu-int8": "Ready"}


async def test_int8_of_the_other_runtime_is_tried_when_the_first_ranks_otherwise(
    sim: Simulation,
) -> None:
    sim.parities["int8"] = POOR
    found = await _targets(sim, engine={"precision": "int8"})
    assert found == {"ov-cpu-int8": "PassedOver", "onnx-cpu-int8": "Ready"}
    assert sim.condition("EngineReady") == ("False", "ParityRefused")


async def test_settings_that_exclude_each_other_are_told_at_once(sim: Simulation) -> None:
    assert await _targets(sim, engine={"runtime": "onnxruntime", "precision": "bf16"}) == {}
    assert sim.condition("EngineReady") == ("False", "TargetUnsupported")
    assert "set both to auto, or to what there is: onnxruntime in fp32 or int8" in sim.message(
        "EngineReady"
    )


async def test_engines_that_were_passed_over_go_with_the_service(sim: Simulation) -> None:
    sim.parities["bf16"] = POOR
    await _targets(sim)
    sim.delete_service()
    await sim.converge()
    assert list(sim.cluster.select(RERANKER_ENGINE, NAMESPACE)) == []


async def test_an_engine_that_scores_nonsense_gives_way(sim: Simulation) -> None:
    sim.faults["validate"] = [Fault("refused", StageReason.VALIDATION_FAILED)]
    assert await _targets(sim) == {"ov-cpu-bf16": "PassedOver", "ov-cpu-fp32": "Ready"}
    assert sim.condition("Ready") == ("True", "Ready")


async def test_a_compiler_that_fails_again_and_again_gives_way(sim: Simulation) -> None:
    sim.faults["compile"] = [Fault("refused", StageReason.COMPILE_FAILED)] * 3
    sim.create_service()
    await sim.settle()
    for pause in (10, 20):
        assert sim.condition("EngineReady") == ("False", "CompileFailed")
        await sim.advance(pause)
    assert _serves(sim) == "ov-cpu-fp32"
    assert sim.condition("Ready") == ("True", "Ready")


async def test_other_settings_give_a_target_that_was_passed_over_another_try(
    sim: Simulation,
) -> None:
    sim.faults["compile"] = [Fault("refused", StageReason.TARGET_ABSENT)]
    await _targets(sim)
    assert _serves(sim) == "ov-cpu-fp32"
    sim.edit_service(engine={"resources": {"limits": {"memory": "9Gi"}}})
    await sim.converge()
    assert _serves(sim) == "ov-cpu-bf16"


async def test_who_takes_over_an_engine_keeps_what_was_passed_over(sim: Simulation) -> None:
    sim.parities["bf16"] = POOR
    await _targets(sim)
    sim.create_service("two", serving={"maxPassages": 7})
    await sim.converge()
    before = {engine.metadata.uid for engine in sim.engines()}
    sim.delete_service()
    await sim.converge()
    assert {engine.metadata.uid for engine in sim.engines()} == before
    assert sim.condition("Ready", "two") == ("True", "Ready")


async def test_a_node_with_less_does_not_take_a_target_away(sim: Simulation) -> None:
    await _targets(sim)
    sim.runtimes = RUNTIMES.model_copy(update={"cpu_features": ()})
    sim.resolve_again("1", "rank")
    await sim.converge()
    assert _serves(sim) == "ov-cpu-bf16"
    assert len(sim.engines()) == 1
