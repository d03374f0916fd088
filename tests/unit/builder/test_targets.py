"""Every runtime on a tiny graph: from prepared model to a published engine, scored and compared."""

# Collected on machines without the runtimes, so that they are imported where they are used.

# ruff: noqa: PLC0415

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from engine_builder.artefacts import (
    COMPILED,
    ENGINE_VERSION,
    IR,
    PARITY,
    PLAN,
    TRITON_CONFIG,
)
from engine_builder.cli import main
from engine_builder.cpus import cpu_flags, require_cpu
from engine_builder.errors import StageError
from reranker_contracts import (
    EngineIdentity,
    EngineTarget,
    StageReason,
    StageResult,
    digest_of,
    verify_artefact,
)
from reranker_contracts.parity import PROBES, REFERENCE
from reranker_contracts.targets import CPU_FEATURES

pytestmark = [pytest.mark.builder, pytest.mark.filterwarnings("ignore")]

Run = Callable[..., StageResult]
BF16 = CPU_FEATURES["openvino", "bf16"]
INT8 = CPU_FEATURES["onnxruntime", "int8"]
OPENVINO_INT8 = CPU_FEATURES["openvino", "int8"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The result of one command line."""

    def stage(*arguments: str | Path) -> StageResult:
        result = tmp_path / "result.json"
        main([*map(str, arguments), "--result", str(result)])
        return StageResult.model_validate_json(result.read_bytes())

    return stage


def _needs(features: tuple[str, ...]) -> None:
    if features and cpu_flags().isdisjoint(features):
        pytest.skip(f"this CPU has none of {', '.join(features)}")


def _publish(run: Run, engine: Path, store: Path, target: EngineTarget, prepared: Path) -> Path:
    identity = EngineIdentity(**target.model_dump(), prepared=prepared.name, version="1", recipe=1)
    done = run("publish", "--from", engine, "--store", store, "--identity", identity.to_json())
    assert done.ok, done.message
    return store / "engines" / digest_of(identity)


@pytest.mark.parametrize(
    ("runtime", "precision", "features"),
    [
        ("onnxruntime", "fp32", ()),
        ("onnxruntime", "int8", INT8),
        ("openvino", "fp32", ()),
        ("openvino", "bf16", BF16),
        ("openvino", "int8", OPENVINO_INT8),
    ],
)
def test_cpu_engine_is_built_proven_and_published(
    runtime: str,
    precision: str,
    features: tuple[str, ...],
    prepared_tiny: Path,
    run: Run,
    tmp_path: Path,
) -> None:
    _needs(features)
    engine = tmp_path / "engine"
    compiled = run(
        "compile", "--prepared", prepared_tiny, "--out", engine,
        "--runtime", runtime, "--precision", precision, "--max-batch-size", "8",
    )  # fmt: skip
    assert compiled.ok, compiled.message
    done = run("validate", "--prepared", prepared_tiny, "--engine", engine)
    assert done.ok, done.message
    assert done.parity is not None
    # Random weights make sharp attention: the lower precisions are off by a lot, but rank alike.
    assert done.parity.kendall_tau > (0.9999 if precision == "fp32" else 0.9)
    assert (done.parity.max_abs_diff < 1e-4) is (precision == "fp32")
    target = EngineTarget(runtime=runtime, precision=precision, accelerator="cpu", max_batch_size=8)
    manifest = verify_artefact(_publish(run, engine, tmp_path / "out", target, prepared_tiny))
    assert manifest.cpu_features == features
    assert manifest.parity == done.parity
    assert COMPILED not in {entry.path for entry in manifest.files}


def test_bf16_of_openvino_is_for_products_alone(
    make_model: Callable[[str], Path], run: Run, tmp_path: Path
) -> None:
    import openvino

    from engine_builder.targets.openvino_cpu import settings

    _needs(BF16)
    store = tmp_path / "store"
    target = ("--runtime=openvino", "--precision=bf16")
    loose = ("--min-kendall-tau=0", "--max-ndcg-delta=1")
    done = run("build", f"--source={make_model('bert')}", f"--out={store}", *target, *loose)
    assert done.ok, done.message
    (engine,) = (store / "engines").iterdir()
    graph = engine / ENGINE_VERSION / IR
    compiled = openvino.Core().compile_model(graph, "CPU", settings("bf16", 1))
    found: dict[str, set[str]] = defaultdict(set)
    for operation in compiled.get_runtime_model().get_ordered_ops():
        kind, precision = (
            operation.rt_info[key].value for key in ("layerType", "runtimePrecision")
        )
        found[kind].add(precision)
    assert found["FullyConnected"] == {"bf16"}
    # Norms and sums of residuals.
    assert found["MVN"] == found["Eltwise"] - {"i32", "u8"} == {"f32"}


def test_an_engine_is_not_published_under_another_targets_name(
    prepared_tiny: Path, run: Run, tmp_path: Path
) -> None:
    engine = tmp_path / "engine"
    run("compile", "--prepared", prepared_tiny, "--out", engine, "--max-batch-size", "8")
    run("validate", "--prepared", prepared_tiny, "--engine", engine)
    other = EngineIdentity(
        runtime="openvino", precision="fp32", accelerator="cpu", max_batch_size=8,
        prepared=prepared_tiny.name, version="1", recipe=1,
    )  # fmt: skip
    done = run(
        "publish", "--from", engine, "--store", tmp_path / "out", "--identity", other.to_json()
    )
    assert done.reason is StageReason.VALIDATION_FAILED
    assert "compiled for onnxruntime fp32 on cpu" in done.message
    assert not (tmp_path / "out/engines").exists()


@pytest.mark.parametrize(("runtime", "precision"), CPU_FEATURES)
def test_a_cpu_without_the_features_is_told_so(runtime: str, precision: str) -> None:
    target = EngineTarget(runtime=runtime, precision=precision, accelerator="cpu", max_batch_size=1)
    with pytest.raises(StageError, match="this node's has none") as caught:
        require_cpu(target, frozenset({"avx2"}))
    assert caught.value.reason is StageReason.TARGET_ABSENT
    for feature in target.cpu_features:
        require_cpu(target, frozenset({"avx2", feature}))


@pytest.mark.parametrize(
    ("capability", "precision", "products"),
    [
        ("7.5", "fp16", 8),
        ("8.0", "fp16", 6),
        ("8.6", "bf16", 6),
        ("8.9", "fp32", 0),
        ("12.0", "bf16", 6),
        ("12.1", "fp16", 6),
    ],
)
def test_rtx_engine_is_built_without_its_gpu_and_leaves_the_proof_to_pods(
    capability: str,
    precision: str,
    products: int,
    prepared_tiny: Path,
    run: Run,
    tmp_path: Path,
) -> None:
    engine = tmp_path / "engine"
    compiled = run(
        "compile", "--prepared", prepared_tiny, "--out", engine, "--accelerator", "nvidia",
        "--runtime", "tensorrt-rtx", "--precision", precision,
        "--compute-capability", capability,
        "--max-batch-size", "8",
    )  # fmt: skip
    assert compiled.ok, compiled.message
    assert (f"{products} products in {precision}" in compiled.message) is (products > 0)
    # How TensorRT marks a serialised engine.
    assert (engine / ENGINE_VERSION / PLAN).read_bytes()[1:4] == b"trt"
    done = run("validate", "--prepared", prepared_tiny, "--engine", engine)
    assert (done.ok, done.reason, done.parity) == (True, StageReason.TARGET_ABSENT, None)
    target = EngineTarget(
        runtime="tensorrt-rtx", precision=precision, accelerator="nvidia",
        compute_capability=capability, max_batch_size=8,
    )  # fmt: skip
    manifest = verify_artefact(_publish(run, engine, tmp_path / "out", target, prepared_tiny))
    names = {entry.path for entry in manifest.files}
    assert {PROBES, REFERENCE, TRITON_CONFIG, f"{ENGINE_VERSION}/{PLAN}"} <= names
    assert PARITY not in names
    assert manifest.parity is None


@pytest.mark.parametrize(
    ("arguments", "reason", "words"),
    [
        (("--compute-capability", "9.0"), StageReason.TARGET_UNSUPPORTED, "not for 9.0"),
        (
            ("--compute-capability", "7.5", "--precision", "bf16"),
            StageReason.TARGET_UNSUPPORTED,
            "no bf16 for compute capability 7.5",
        ),
        (
            ("--compute-capability", "7.5", "--precision", "fp32"),
            StageReason.TARGET_UNSUPPORTED,
            "no fp32 for compute capability 7.5",
        ),
        (
            ("--compute-capability", "8.9", "--gpu-memory", "100"),
            StageReason.ENGINE_TOO_LARGE,
            "the GPU has 100",
        ),
        (
            ("--compute-capability", "8.9", "--runtime", "tensorrt"),
            StageReason.TARGET_UNSUPPORTED,
            "this builder image has no tensorrt",
        ),
    ],
)
def test_targets_that_cannot_be_are_refused_with_their_reason(
    arguments: tuple[str, ...],
    reason: StageReason,
    words: str,
    prepared_tiny: Path,
    run: Run,
    tmp_path: Path,
) -> None:
    done = run(
        "compile", "--prepared", prepared_tiny, "--out", tmp_path / "engine",
        "--accelerator", "nvidia", "--runtime", "tensorrt-rtx", *arguments,
    )  # fmt: skip
    assert done.reason is reason, done.message
    assert words in done.message
