"""verify on a node whose CPU is not one that the engine was proven on."""

from pathlib import Path

import pytest

from reranker_contracts import (
    ArtefactManifest,
    EngineIdentity,
    Profile,
    StageReason,
    digest_of,
    write_manifest,
)
from reranker_gateway.engine_files import load_engine
from reranker_gateway.verify import verify_engine


def _made_for(engine_dir: Path, runtime: str, precision: str) -> None:
    manifest = ArtefactManifest.model_validate_json((engine_dir / "manifest.json").read_bytes())
    identity = manifest.identity.model_copy(update={"runtime": runtime, "precision": precision})
    assert isinstance(identity, EngineIdentity)
    change = {"identity": identity, "cpu_features": identity.cpu_features}
    change["digest"] = digest_of(identity)
    write_manifest(engine_dir, manifest.model_copy(update=change))


@pytest.mark.parametrize(
    ("runtime", "precision", "flags", "ok", "says"),
    [
        ("openvino", "bf16", "avx2 amx_bf16", True, "are intact"),
        ("openvino", "bf16", "avx2", True, "computes in fp32, which is slower"),
        ("openvino", "fp32", "avx2", True, "are intact"),
        ("openvino", "int8", "avx2 avx_vnni", True, "are intact"),
        ("openvino", "int8", "avx2", True, "computes in fp32, which is slower"),
        ("onnxruntime", "int8", "avx2 avx_vnni", True, "are intact"),
        ("onnxruntime", "int8", "avx2", False, "spec.engine.precision to fp32"),
    ],
)
def test_a_cpu_without_the_features_is_slower_or_refused(
    engine_dir: Path, tmp_path: Path, runtime: str, precision: str, flags: str, ok: bool, says: str
) -> None:
    _made_for(engine_dir, runtime, precision)
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\nbugs\t\t: none\n")
    result = verify_engine(engine_dir, cpuinfo=cpuinfo)
    reason = StageReason.SUCCEEDED if ok else StageReason.TARGET_ABSENT
    assert (result.ok, result.reason) == (ok, reason)
    assert says in result.message
    assert ("slower" in result.message) is (
        flags == "avx2" and runtime == "openvino" and precision != "fp32"
    )


def test_a_compiled_engine_bounds_the_token_budget(engine_dir: Path) -> None:
    files = load_engine(engine_dir)
    budget = files.shapes.token_budget
    assert [files.token_budget(wanted) for wanted in (None, 8, 9999)] == [budget, 8, 9999]
    manifest = files.manifest
    assert manifest.shapes is not None
    profiles = (Profile(max_batch_size=4, max_length=32),)
    shapes = manifest.shapes.model_copy(update={"profiles": profiles})
    write_manifest(engine_dir, manifest.model_copy(update={"shapes": shapes}))
    compiled = load_engine(engine_dir)
    assert [compiled.token_budget(wanted) for wanted in (None, 8, 9999)] == [budget, 8, budget]


@pytest.mark.parametrize(
    ("runtime", "accelerator", "longest", "budget"),
    [
        ("openvino", "cpu", 512, 2048),
        ("onnxruntime", "cpu", 512, 1024),
        ("onnxruntime", "cpu", 4096, 4096),
        ("onnxruntime", "nvidia", 512, 8192),
    ],
)
def test_batches_are_small_on_cpus(
    engine_dir: Path, runtime: str, accelerator: str, longest: int, budget: int
) -> None:
    files = load_engine(engine_dir)
    model = files.model.model_copy(update={"max_length": longest})
    (engine_dir / "model.json").write_text(model.to_json())
    shapes = files.shapes.model_copy(update={"max_length": longest, "token_budget": 8192})
    identity = files.identity.model_copy(update={"runtime": runtime, "accelerator": accelerator})
    change = {"shapes": shapes, "identity": identity}
    write_manifest(engine_dir, files.manifest.model_copy(update=change))
    small = load_engine(engine_dir)
    assert [small.token_budget(wanted) for wanted in (None, 9999)] == [budget, 9999]
