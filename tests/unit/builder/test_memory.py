"""The estimate of GPU memory, on a tiny graph whose parts can be counted by hand."""

# Collected on machines without onnx, so that it is imported where it is used.
# ruff: noqa: PLC0415

from pathlib import Path

import pytest

from engine_builder.errors import StageError
from engine_builder.progress import Progress
from engine_builder.shapes import profiled_shapes
from reranker_contracts import EngineTarget, Profile, StageReason

pytestmark = pytest.mark.builder


def test_weights_and_those_of_products() -> None:
    from support import tiny_graphs

    from engine_builder.onnx_graph import weight_bytes

    graph = tiny_graphs.cross_encoder().graph
    hidden, words = tiny_graphs.HIDDEN, tiny_graphs.WORDS
    # q, k, v, o, pooler and classifier.
    assert weight_bytes(graph, of_products=True) == 4 * (5 * hidden**2 + hidden + hidden + 1)
    assert weight_bytes(graph) > 4 * (words * hidden + 5 * hidden**2)


def test_activations_grow_with_the_profile(prepared_tiny: Path) -> None:
    from support import tiny_graphs

    from engine_builder.targets.memory import peak_activations

    def peak(rows: int, length: int) -> int:
        profile = Profile(max_batch_size=rows, max_length=length)
        return peak_activations(prepared_tiny / "model.onnx", profile)

    state = 4 * tiny_graphs.HIDDEN
    # Hidden states, query, key, value and scores are there at the same time.
    assert 4 * 8 * 32 * state < peak(8, 32) < 12 * 8 * 32 * state
    assert peak(16, 32) == pytest.approx(2 * peak(8, 32), rel=0.05)
    assert peak(8, 128) > 4 * peak(8, 32), "scores grow with the square of the length"


def test_an_engine_that_does_not_fit_is_refused_with_the_numbers(prepared_tiny: Path) -> None:
    from engine_builder.artefacts import read_served_model
    from engine_builder.targets.base import Job
    from engine_builder.targets.memory import check_memory

    def check(memory_mib: int | None, precision: str = "fp16") -> int:
        target = EngineTarget(
            runtime="tensorrt", precision=precision, accelerator="nvidia",
            compute_capability="8.9", max_batch_size=64,
        )  # fmt: skip
        return check_memory(
            Job(
                prepared=prepared_tiny,
                out=prepared_tiny,
                model=read_served_model(prepared_tiny),
                target=target,
                shapes=profiled_shapes(128, 64),
                progress=Progress("compile"),
                gpu_memory=None if memory_mib is None else memory_mib << 20,
            )
        )

    needed = check(None)
    assert check(None, "fp32") > needed > 1 << 30
    assert check((needed >> 20) + 1) == needed
    with pytest.raises(StageError, match=r"64 rows of 128 tokens.* the GPU has 1000; ") as caught:
        check(1000)
    assert caught.value.reason is StageReason.ENGINE_TOO_LARGE
