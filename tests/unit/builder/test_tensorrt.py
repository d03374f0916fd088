"""The `tensorrt` flavour, with TensorRT-RTX behind the calls that both packages have.

The full TensorRT needs a GPU to build. Its package is played by TensorRT-RTX, which builds for
real; what only TensorRT has (hardware compatibility, timing caches) is noted down.
"""

# Collected on machines without TensorRT-RTX, so that it is imported where it is used.
# ruff: noqa: PLC0415

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engine_builder.artefacts import ENGINE_VERSION, PLAN
from engine_builder.cli import main
from reranker_contracts import StageReason, StageResult

pytestmark = [pytest.mark.builder, pytest.mark.filterwarnings("ignore")]

VERSION = "11.4.0.106"


class Package(ModuleType):
    """`tensorrt`, on a machine with one GPU."""

    def __init__(self) -> None:
        super().__init__("tensorrt")
        import tensorrt_rtx_bindings

        self._real = tensorrt_rtx_bindings
        self.__version__ = VERSION
        self.noted: list[tuple[str, Any]] = []
        package = self

        class Config:
            def __init__(self, real: Any) -> None:
                object.__setattr__(self, "real", real)

            def __getattr__(self, name: str) -> Any:
                if name.endswith("compute_capability") or name.endswith("compute_capabilities"):
                    raise AttributeError(f"tensorrt has no {name}")
                return getattr(self.real, name)

            def __setattr__(self, name: str, value: Any) -> None:
                package.noted.append((name, value))

            def create_timing_cache(self, data: bytes) -> bytes:
                return data

            def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> None:
                package.noted.append(("timing_cache", (cache, ignore_mismatch)))

            def get_timing_cache(self) -> Any:
                return SimpleNamespace(serialize=lambda: b"timings")

        class Builder(tensorrt_rtx_bindings.Builder):
            def create_builder_config(self) -> Config:
                return Config(super().create_builder_config())

            def build_serialized_network(self, network: Any, config: Config) -> Any:
                config.real.num_compute_capabilities = 1
                config.real.set_compute_capability(package._real.ComputeCapability.SM89, 0)
                return super().build_serialized_network(network, config.real)

        self.Builder = Builder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def torch_with(capability: tuple[int, int] | None) -> ModuleType:
    """PyTorch's view of the machine's GPU."""
    module = ModuleType("torch")
    module.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        is_available=lambda: capability is not None,
        get_device_capability=lambda _number: capability,
        get_device_name=lambda _number: "NVIDIA L4 / test",
    )
    return module


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Package:
    package = Package()
    monkeypatch.setitem(sys.modules, "tensorrt", package)
    monkeypatch.setitem(sys.modules, "torch", torch_with((8, 9)))
    return package


@pytest.fixture
def compile_with(prepared_tiny: Path, tmp_path: Path) -> Callable[..., StageResult]:
    def run(*arguments: str) -> StageResult:
        result = tmp_path / "result.json"
        main(
            ["compile", "--prepared", str(prepared_tiny), "--out", str(tmp_path / "engine"),
             "--accelerator", "nvidia", "--runtime", "tensorrt", "--precision", "fp16",
             "--compute-capability", "8.9", "--timing-cache", str(tmp_path / "timings"),
             "--result", str(result), *arguments]
        )  # fmt: skip
        return StageResult.model_validate_json(result.read_bytes())

    return run


def test_an_engine_is_for_its_compute_capability_and_keeps_its_timings(
    tensorrt: Package, compile_with: Callable[..., StageResult], tmp_path: Path
) -> None:
    done = compile_with()
    assert done.ok, done.message
    assert done.shapes is not None
    assert [entry.max_length for entry in done.shapes.profiles] == [64, 128]
    assert (tmp_path / "engine" / ENGINE_VERSION / PLAN).stat().st_size > 1000
    level = tensorrt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    assert tensorrt.noted == [
        ("hardware_compatibility_level", level),
        ("timing_cache", (b"", False)),
    ]
    (cache,) = (tmp_path / "timings").iterdir()
    assert cache.name == f"NVIDIA-L4-test-{VERSION}.timing"
    assert cache.read_bytes() == b"timings"
    tensorrt.noted.clear()
    assert compile_with().ok
    assert tensorrt.noted[-1] == ("timing_cache", (b"timings", False))


@pytest.mark.parametrize(("capability", "found"), [((9, 0), "9.0"), (None, "none")])
def test_another_gpu_or_none_is_target_absent(
    tensorrt: Package,
    compile_with: Callable[..., StageResult],
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int] | None,
    found: str,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch_with(capability))
    done = compile_with()
    assert done.reason is StageReason.TARGET_ABSENT
    assert f"here is {found}" in done.message
    assert tensorrt.noted == []
