"""The backend for TensorRT-RTX, with stand-ins for that library and CUDA: no GPU has run it yet.

What the real packages do without a GPU is tested in their own presence below.
"""

import ast
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support.rtx_library import INPUTS, PLAN, VERSION, Cuda, Library, Status, logits_of
from support.triton_utils import TRITON, Utils, load_backend

BACKEND = TRITON / "tensorrt_rtx"
REQUIREMENTS = TRITON.parent / "requirements"


class Machine:
    """A pod with the backend, an engine and perhaps a GPU."""

    def __init__(self, repository: Path, utils: Utils) -> None:
        self.repository, self.utils = repository, utils
        self.plan = repository / "1/model.plan"
        self.plan.parent.mkdir(parents=True)
        self.plan.write_bytes(PLAN)
        self.parameters = {"compute_capability": "8.9", "version": VERSION}
        self.inputs: tuple[str, ...] = INPUTS
        self.started: list[Any] = []

    def start(self) -> Any:
        """What Triton does with it."""
        model = load().TritonPythonModel()
        tensors = [
            {"name": name, "data_type": "TYPE_INT32", "dims": ["-1"]} for name in self.inputs
        ]
        parameters = {name: {"string_value": value} for name, value in self.parameters.items()}
        config = {
            "max_batch_size": 8,
            "default_model_filename": "model.plan",
            "parameters": parameters,
            "input": tensors,
            "output": [{"name": "logits", "data_type": "TYPE_FP32", "dims": ["1"]}],
        }
        model.initialize(
            {
                "model_config": json.dumps(config),
                "model_repository": str(self.repository),
                "model_version": "1",
                "model_instance_device_id": "0",
            }
        )
        self.started.append(model)
        return model


def load() -> ModuleType:
    """The backend, and what it imports, as a fresh process has it."""
    for name in ("reranker_backend", "rtx_device"):
        sys.modules.pop(name, None)
    return load_backend(BACKEND)


@pytest.fixture
def utils(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Utils:
    module = Utils()
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    monkeypatch.syspath_prepend(str(TRITON / "shared"))
    monkeypatch.syspath_prepend(str(BACKEND))
    monkeypatch.setenv("RERANKER_RTX_CACHE", str(tmp_path / "cache"))
    return module


@pytest.fixture
def machine(utils: Utils, tmp_path: Path) -> Any:
    found = Machine(tmp_path / "reranker", utils)
    yield found
    for model in found.started:
        model.finalize()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    module, packages = Cuda(), [ModuleType("cuda"), ModuleType("cuda.bindings")]
    packages[1].runtime = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", packages[0])
    monkeypatch.setitem(sys.modules, "cuda.bindings", packages[1])
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", module)
    return module


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> Library:
    module = Library()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", module)
    return module


def batch(rows: int, length: int) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(rows * 1000 + length)
    ids = numbers.integers(1, 500, size=(rows, length), dtype=np.int32)
    return {"input_ids": ids, "attention_mask": (ids % 5 > 0).astype(np.int32)}


def test_each_batch_goes_to_the_shortest_profile_that_takes_it(
    machine: Machine, library: Library
) -> None:
    model = machine.start()
    assert library.contexts == [], "made when the first batch needs it"
    batches = [batch(8, 64), batch(3, 65), batch(1, 1), batch(4, 128), batch(2, 30)]
    answers = model.execute(batches)
    assert [answer.error for answer in answers] == [None] * 5
    for tensors, answer in zip(batches, answers, strict=True):
        (found,) = answer.output_tensors
        assert found.name == "logits"
        np.testing.assert_array_equal(found.value, logits_of(tensors))
    assert [context.profile for context in library.contexts] == [0, 1]
    # All of them work in the same memory, one after the other.
    assert len({context.memory for context in library.contexts}) == 1
    (config, _) = (context.config for context in library.contexts)
    assert config.dynamic_shapes_kernel_specialization_strategy.name == "NONE"
    assert config.strategy.name == "USER_MANAGED"
    assert "on NVIDIA L4, 2 profiles" in machine.utils.said[0]


@pytest.mark.parametrize("wrong", [batch(5, 100), batch(1, 129), batch(9, 1)])
def test_a_batch_that_no_profile_takes_fails_alone(
    machine: Machine, library: Library, wrong: dict[str, np.ndarray]
) -> None:
    first, second = machine.start().execute([wrong, batch(2, 5)])
    rows, length = wrong["input_ids"].shape
    assert f"no profile for {rows} rows of {length} tokens" in first.error
    assert second.error is None


def test_inputs_of_different_shapes_fail_alone(machine: Machine, library: Library) -> None:
    wrong = batch(2, 5) | {"attention_mask": np.ones((2, 7), dtype=np.int32)}
    first, second = machine.start().execute([wrong, batch(2, 5)])
    assert "different shapes" in first.error
    assert second.error is None


def test_a_gpu_of_another_kind_is_refused(machine: Machine, library: Library, cuda: Cuda) -> None:
    cuda.capability = (9, 0)
    with pytest.raises(Exception, match=r"compute capability 8\.9, here is 9\.0 \(NVIDIA L4\)"):
        machine.start()


def test_a_plan_of_another_version_is_refused(machine: Machine, library: Library) -> None:
    machine.parameters["version"] = "1.6.0.1"
    words = r"built with TensorRT-RTX 1\.6\.0\.1, this image has 1\.7\.1\.116; builder and Triton"
    with pytest.raises(Exception, match=words):
        machine.start()
    del machine.parameters["version"]
    with pytest.raises(Exception, match="of an unknown version"):
        machine.start()


@pytest.mark.parametrize(
    ("driver", "failure", "words"),
    [
        (0, None, "the plan needs a GPU, here is no NVIDIA driver"),
        (13030, Status.cudaErrorNoDevice, "no CUDA-capable device is detected"),
        (12000, Status.cudaErrorInsufficientDriver, "CUDA driver version is insufficient for"),
    ],
)
def test_without_a_gpu_or_a_driver_that_is_new_enough_it_says_so(
    machine: Machine,
    library: Library,
    cuda: Cuda,
    driver: int,
    failure: Status | None,
    words: str,
) -> None:
    cuda.driver, cuda.failure = driver, failure
    with pytest.raises(Exception, match=words) as caught:
        machine.start()
    assert type(caught.value).__name__ == "ModelRejectedError"


def test_a_file_that_is_no_plan_is_refused_with_what_the_library_says(
    machine: Machine, library: Library
) -> None:
    machine.plan.write_bytes(b"no plan")
    with pytest.raises(Exception, match=r"MALFORMED_ENGINE; the magic tag does not match$"):
        machine.start()
    machine.plan.unlink()
    with pytest.raises(Exception, match="engine is incomplete"):
        machine.start()


def test_a_configuration_of_another_model_is_refused(machine: Machine, library: Library) -> None:
    machine.inputs = INPUTS[:1]
    with pytest.raises(Exception, match=r"also needs \['attention_mask'\]"):
        machine.start()


def test_kernels_are_compiled_once_for_a_container(
    machine: Machine, library: Library, tmp_path: Path
) -> None:
    machine.start().execute([batch(8, 64), batch(8, 30), batch(4, 128)])
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.read_bytes() == b"NVIDIA L4|01"
    library.contexts.clear()
    machine.start().execute([batch(4, 128)])
    cache = library.contexts[0].config.cache
    assert cache is not None
    assert cache.kernels == b"01", "profile 0 is known from before"
    kept.write_bytes(b"NVIDIA T4|2")
    machine.start().execute([batch(4, 128)])
    assert any("is not for this GPU" in words for words in machine.utils.said)
    assert kept.read_bytes() == b"NVIDIA L4|1"


def test_it_serves_where_kernels_cannot_be_kept(
    machine: Machine, library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RERANKER_RTX_CACHE", str(tmp_path / "file/cache"))
    (answer,) = machine.start().execute([batch(2, 5)])
    assert answer.error is None
    assert any("can't be kept" in words for words in machine.utils.said)
    monkeypatch.setenv("RERANKER_RTX_CACHE", str(tmp_path / "small"))
    model = machine.start()
    model._session.run.__globals__["_LARGEST_CACHE"] = 1
    (answer,) = model.execute([batch(2, 5)])
    assert answer.error is None
    assert not (tmp_path / "small").exists()


def _pins(file: str) -> dict[str, str]:
    lines = (REQUIREMENTS / file).read_text().splitlines()
    pins = [line.split()[0].split("==") for line in lines if "==" in line]
    return {name: version for name, version in pins if name.startswith("tensorrt-rtx")}


def test_the_image_has_the_very_version_that_builds() -> None:
    assert _pins("triton-gpu.txt") == _pins("builder.txt") != {}


def _attributes(path: Path, module: str) -> set[tuple[str, ...]]:
    """Chains of names below `module` in a file: `trt.DataType.INT32` → (DataType, INT32)."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        chain: list[str] = []
        place: ast.AST = node
        while isinstance(place, ast.Attribute):
            chain.insert(0, place.attr)
            place = place.value
        if isinstance(place, ast.Name) and place.id == module and chain:
            found.add(tuple(chain))
    return found


@pytest.mark.builder
def test_the_real_packages_have_all_that_is_called() -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings")
    cuda = pytest.importorskip("cuda.bindings.runtime")
    for path, name, module in (
        (BACKEND / "model.py", "trt", trt),
        (BACKEND / "rtx_device.py", "cuda", cuda),
    ):
        chains = _attributes(path, name)
        assert len(chains) > 5
        for chain in chains:
            place: Any = module
            for attribute in chain:
                place = getattr(place, attribute)
    for kind, names in {
        "Runtime": ("deserialize_cuda_engine", "get_engine_validity"),
        "ICudaEngine": (
            "num_io_tensors", "num_optimization_profiles", "device_memory_size_v2",
            "get_tensor_name", "get_tensor_mode", "get_tensor_dtype", "get_tensor_shape",
            "get_tensor_profile_shape", "create_runtime_config", "create_execution_context",
        ),
        "IRuntimeConfig": (
            "set_execution_context_allocation_strategy", "create_runtime_cache",
            "set_runtime_cache", "dynamic_shapes_kernel_specialization_strategy",
        ),
        "IRuntimeCache": ("serialize", "deserialize"),
        "IExecutionContext": (
            "set_optimization_profile_async", "set_device_memory", "set_tensor_address",
            "set_input_shape", "get_tensor_shape", "execute_async_v3",
        ),
    }.items():  # fmt: skip
        for name in names:
            assert hasattr(getattr(trt, kind), name), f"{kind}.{name}"


@pytest.mark.builder
@pytest.mark.filterwarnings("ignore")
def test_a_real_plan_is_refused_where_there_is_no_gpu(
    utils: Utils, prepared_tiny: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    cuda = pytest.importorskip("cuda.bindings.runtime")
    if cuda.cudaGetDeviceCount()[0] == cuda.cudaError_t.cudaSuccess:
        pytest.skip("here is a GPU")
    from engine_builder.artefacts import ENGINE_VERSION, TRITON_CONFIG  # noqa: PLC0415
    from engine_builder.cli import main  # noqa: PLC0415

    engine = tmp_path / "engine"
    assert main(
        ["compile", "--prepared", str(prepared_tiny), "--out", str(engine), "--accelerator",
         "nvidia", "--runtime", "tensorrt-rtx", "--precision", "fp16",
         "--compute-capability", "8.9"]
    ) == 0  # fmt: skip
    machine = Machine(tmp_path / "reranker", utils)
    machine.plan.write_bytes((engine / ENGINE_VERSION / "model.plan").read_bytes())
    config = (engine / TRITON_CONFIG).read_text()
    assert 'backend: "tensorrt_rtx"' in config
    machine.parameters = dict(re.findall(r'key: "(\w+)", value: { string_value: "(.*?)"', config))
    assert machine.parameters.keys() == {"compute_capability", "version"}
    with pytest.raises(Exception, match=r"the plan needs a GPU|no CUDA-capable device") as caught:
        machine.start()
    assert type(caught.value).__name__ == "ModelRejectedError"
