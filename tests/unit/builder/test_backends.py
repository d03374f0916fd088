"""The Python-based Triton backends for CPUs on a tiny graph; Triton's module is played."""

# Collected on machines without the runtimes, so that they are imported where they are used.
# ruff: noqa: PLC0415

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.triton_utils import TRITON, Utils, load_backend

pytestmark = pytest.mark.builder


@dataclass
class Loaded:
    model: Any
    utils: Utils
    repository: Path
    config: dict[str, Any] = field(default_factory=dict)

    def initialize(self) -> None:
        self.model.initialize(
            {
                "model_config": json.dumps(self.config),
                "model_repository": str(self.repository),
                "model_version": "1",
            }
        )


@pytest.fixture
def utils(monkeypatch: pytest.MonkeyPatch) -> Utils:
    """Triton's module and the shared part of the backends, importable as in Triton's process."""
    module = Utils()
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    monkeypatch.syspath_prepend(str(TRITON / "shared"))
    monkeypatch.delitem(sys.modules, "reranker_backend", raising=False)
    return module


@pytest.fixture
def loaded(request: pytest.FixtureRequest, utils: Utils, tmp_path: Path) -> Iterator[Loaded]:
    """The backend that the test's parameter names, with the tiny graph as its model."""
    import onnx
    from support import tiny_graphs

    module = load_backend(TRITON / request.param)
    (tmp_path / "1").mkdir()
    onnx.save_model(tiny_graphs.cross_encoder(), tmp_path / "1/model.onnx")
    tensors = [
        {"name": name, "data_type": "TYPE_INT32", "dims": ["-1"]}
        for name in ("input_ids", "attention_mask")
    ]
    found = Loaded(
        module.TritonPythonModel(),
        utils,
        tmp_path,
        {
            "max_batch_size": 8,
            "input": tensors,
            "output": [{"name": "logits", "data_type": "TYPE_FP32", "dims": ["1"]}],
        },
    )
    yield found
    if hasattr(found.model, "_backend"):
        found.model.finalize()


BOTH = pytest.mark.parametrize("loaded", ["onnxruntime", "openvino"], indirect=True)
OPENVINO = pytest.mark.parametrize("loaded", ["openvino"], indirect=True)


@BOTH
def test_each_request_is_answered_with_its_own_logits(loaded: Loaded) -> None:
    from support import tiny_graphs

    from engine_builder.onnx_engine import OnnxEngine

    loaded.initialize()
    batches = [tiny_graphs.batch(rows, length) for rows, length in ((3, 5), (1, 9), (8, 5))]
    answers = loaded.model.execute(batches)
    reference = OnnxEngine(loaded.repository / "1/model.onnx")
    assert [answer.error for answer in answers] == [None] * 3
    for batch, answer in zip(batches, answers, strict=True):
        (tensor,) = answer.output_tensors
        assert tensor.name == "logits"
        np.testing.assert_allclose(tensor.value, reference.run(batch, 1), atol=1e-5)


@BOTH
def test_a_bad_request_fails_alone(loaded: Loaded) -> None:
    from support import tiny_graphs

    loaded.initialize()
    good = tiny_graphs.batch(2, 5)
    bad = good | {"attention_mask": np.ones((2, 7), dtype=np.int32)}
    first, second = loaded.model.execute([bad, good])
    assert first.output_tensors == []
    assert first.error
    assert second.error is None


@BOTH
def test_a_model_that_is_not_what_the_configuration_says_is_refused(loaded: Loaded) -> None:
    first, second = loaded.config["input"]
    for inputs, words in (
        ([first], r"also needs \['attention_mask'\]"),
        ([first, second | {"name": "mask"}], "names the input 'mask'"),
        ([first, second | {"data_type": "TYPE_INT64"}], "TYPE_INT64 in config.pbtxt but int32"),
        ([first, second | {"dims": ["-1", "4"]}], "rank 3 in config.pbtxt but 2"),
    ):
        loaded.config["input"] = inputs
        with pytest.raises(Exception, match=words):
            loaded.initialize()
    (loaded.repository / "1/model.onnx").write_bytes(b"no model")
    with pytest.raises(Exception, match="cannot be loaded"):
        loaded.initialize()
    (loaded.repository / "1/model.onnx").unlink()
    with pytest.raises(Exception, match="engine is incomplete"):
        loaded.initialize()


@OPENVINO
def test_openvino_computes_in_fp32_where_the_cpu_lacks_the_features(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t\t: fpu avx2\n")
    monkeypatch.setitem(type(loaded.model).initialize.__globals__, "_CPUINFO", cpuinfo)
    loaded.config["parameters"] = {
        "precision": {"string_value": "bf16"},
        "cpu_features": {"string_value": "amx_bf16 avx512_bf16"},
    }
    loaded.initialize()
    warning, info = loaded.utils.said
    assert "none of amx_bf16, avx512_bf16" in warning
    assert " in f32, " in info
    cpuinfo.write_text("flags\t\t: fpu avx512_bf16\n")
    loaded.utils.said.clear()
    choose = type(loaded.model).initialize.__globals__["choose_precision"]
    assert choose("bf16", ["amx_bf16", "avx512_bf16"]) == "bf16"
    assert loaded.utils.said == []
    with pytest.raises(Exception, match="it is one of f32, bf16, int8"):
        choose("f8", [])


@OPENVINO
def test_openvino_serves_int8_as_it_was_measured(loaded: Loaded) -> None:
    import onnx
    from support import tiny_graphs

    from engine_builder.targets.int8_weights import restore_weights
    from engine_builder.targets.openvino_cpu import OpenVinoScorer

    path = loaded.repository / "1/model.onnx"
    model, batch = tiny_graphs.cross_encoder(), tiny_graphs.batch()
    restore_weights(model)
    onnx.save_model(model, path)
    loaded.config["parameters"] = {"precision": {"string_value": "int8"}}
    loaded.initialize()
    (answer,) = loaded.model.execute([batch])
    measured = OpenVinoScorer(path, "int8").run(batch, 1)
    np.testing.assert_allclose(answer.output_tensors[0].value, measured, atol=1e-5)


@BOTH
def test_threads_are_those_of_the_pod(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANKER_THREADS", "1")
    loaded.initialize()
    assert " 1 threads" in loaded.utils.said[-1]
    monkeypatch.setenv("RERANKER_THREADS", "many")
    with pytest.raises(Exception, match="RERANKER_THREADS='many'"):
        loaded.initialize()
