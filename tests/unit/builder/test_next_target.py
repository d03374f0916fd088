"""`auto` goes on to the next target when the libraries of the first one let it down."""

# Collected on machines without the runtimes, so that they are imported where they are used.
# ruff: noqa: PLC0415

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine_builder.cli import main
from reranker_contracts import ArtefactManifest, StageReason, StageResult
from reranker_contracts.identity import EngineIdentity

from .test_tensorrt import VERSION, Package, torch_with

pytestmark = [
    pytest.mark.builder,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),
]


def _refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    def compile_model(*_: Any) -> None:
        raise RuntimeError("no kernel for this CPU")

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)


def _scores_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import openvino

    infer = openvino.InferRequest.infer

    def broken(self: Any, *arguments: Any) -> dict[Any, Any]:
        return {key: np.full_like(value, np.nan) for key, value in infer(self, *arguments).items()}

    monkeypatch.setattr(openvino.InferRequest, "infer", broken)


def _built(store: Path, *arguments: str) -> tuple[StageResult, EngineIdentity]:
    """The result of a build, and the only engine in its store."""
    result = store.with_suffix(".json")
    main(["build", f"--out={store}", f"--result={result}", *arguments])
    done = StageResult.model_validate_json(result.read_bytes())
    assert done.ok, done.message
    (engine,) = (store / "engines").iterdir()
    manifest = ArtefactManifest.model_validate_json((engine / "manifest.json").read_bytes())
    assert isinstance(manifest.identity, EngineIdentity)
    return done, manifest.identity


@pytest.mark.parametrize("failing", [_refuses, _scores_nan])
def test_an_engine_that_cannot_score(
    failing: Callable[[pytest.MonkeyPatch], None],
    make_model: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = make_model("bert")
    failing(monkeypatch)
    done, engine = _built(tmp_path / "store", f"--source={model}")
    assert done.reason is StageReason.SUCCEEDED
    assert (engine.runtime, engine.precision) == ("onnxruntime", "fp32")
    assert "not openvino fp32" in capsys.readouterr().err


def test_an_engine_that_ranks_otherwise(
    make_model: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Refused with the way out, which then leads to it."""
    import openvino

    infer = openvino.InferRequest.infer
    monkeypatch.setattr(
        openvino.InferRequest,
        "infer",
        lambda self, *given: {key: -value for key, value in infer(self, *given).items()},
    )
    source = f"--source={make_model('bert')}"
    target = ("--runtime=openvino", "--precision=fp32")
    assert main(["build", f"--out={tmp_path / 'store'}", source, *target]) == 7
    said = capsys.readouterr().err
    assert "ParityRefused" in said
    assert "(at least 0.995)" in said
    assert "loosen --min-kendall-tau and --max-ndcg-delta" in said
    loose = ("--min-kendall-tau=-1", "--max-ndcg-delta=1")
    done, _engine = _built(tmp_path / "store", source, *target, *loose)
    assert done.parity is not None
    assert done.parity.kendall_tau < 0


def test_a_runtime_that_cannot_compile(
    make_model: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    model, store = make_model("bert"), tmp_path / "store"
    # What was prepared is used again, so that PyTorch can be one that sees a GPU.
    _built(store, f"--source={model}", "--runtime=onnxruntime", "--precision=fp32")
    (engine,) = (store / "engines").iterdir()
    engine.rename(tmp_path / "engine-for-cpu")
    note = tmp_path / f"site/tensorrt-{VERSION}.dist-info/METADATA"
    note.parent.mkdir(parents=True)
    note.write_text(f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {VERSION}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    package = Package()
    monkeypatch.setattr(package.Builder, "build_serialized_network", lambda *_: None)
    monkeypatch.setitem(sys.modules, "tensorrt", package)
    monkeypatch.setitem(sys.modules, "torch", torch_with((8, 9)))
    gpu = ("--accelerator=nvidia", "--compute-capability=8.9")
    _done, identity = _built(store, f"--source={model}", *gpu)
    assert (identity.runtime, identity.accelerator) == ("onnxruntime", "nvidia")
    said = capsys.readouterr().err
    for precision in ("fp16", "bf16", "fp32"):
        assert f"not tensorrt {precision}" in said
    assert "builds no engine" in said
