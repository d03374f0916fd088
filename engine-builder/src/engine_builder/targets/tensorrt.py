"""TensorRT and TensorRT-RTX: engines compiled for one kind of GPU.

Both packages have the same calls; what differs is in the table of flavours. Networks are strongly
typed: the graph says which numbers are 16 bits wide, the builder adds nothing to that. No engine is
version compatible (it would carry code of its own); the library that serves must be the very
version that built, which is why the version is part of the identity.

Calls: TensorRT 10.12 to 11.x (`IBuilder`, `IBuilderConfig`, `OnnxParser`; since 11 the strongly
typed flag is accepted and ignored) and TensorRT-RTX 1.7.
"""

import importlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from engine_builder.artefacts import ONNX, PLAN
from engine_builder.errors import StageError, defect
from engine_builder.logits import first_line, load_failure
from engine_builder.onnx_weights import save_as_exported
from engine_builder.shapes import usual_rows
from engine_builder.targets.base import Built, Job, Scorer
from engine_builder.targets.memory import check_memory
from engine_builder.targets.precision import lower_products, spread_positions
from reranker_contracts import EngineTarget, StageReason
from reranker_contracts.targets import CAPABILITIES, Runtime

#: First compute capability with BF16 products.
_BF16 = "8.0"
#: TensorRT-RTX has no FP32 products for Turing, so not even the head can stay in FP32 there.
_NO_FP32 = "7.5"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Flavour:
    """What one of the two packages does differently.

    `capabilities`: compute capabilities that it can build for; None: that of the GPU in the
    machine, which is then needed.
    """

    runtime: Runtime
    package: Literal["tensorrt", "tensorrt_rtx_bindings"]
    backend: str
    capabilities: tuple[str, ...] | None
    timing_cache: bool


RTX = Flavour(
    runtime="tensorrt-rtx",
    package="tensorrt_rtx_bindings",
    backend="tensorrt_rtx",
    capabilities=CAPABILITIES["tensorrt-rtx"],
    timing_cache=False,  # setting one makes the builder ask for a GPU
)
TENSORRT = Flavour(
    runtime="tensorrt",
    package="tensorrt",
    backend="tensorrt",
    capabilities=None,
    timing_cache=True,
)


class TensorRtBuilder:
    """One of the two packages. Raises ImportError when it is not installed."""

    def __init__(self, flavour: Flavour) -> None:
        self._flavour = flavour
        self._trt: Any = importlib.import_module(flavour.package)
        self._logger = _logger(self._trt)

    def compile(self, job: Job) -> Built:
        """`model.plan`, the serialised engine."""
        device = self._check_target(job.target)
        with job.progress.step("estimating memory"):
            needed = check_memory(job)
        with tempfile.TemporaryDirectory(dir=job.out) as scratch:
            graph = Path(scratch) / ONNX
            with job.progress.step(f"lowering to {job.target.precision}"):
                lowered = self._write_graph(job, graph)
            with job.progress.step(f"building with {self._flavour.package} {self.version}"):
                plan = self._build(job, graph, device)
        (job.out / PLAN).write_bytes(plan)
        note = f"{len(plan) >> 20} MiB, at most {needed >> 20} MiB of GPU memory"
        if lowered:
            note += f", {lowered} products in {job.target.precision}"
        return Built(
            backend=self._flavour.backend,
            filename=PLAN,
            parameters=self._parameters(job.target),
            note=note,
        )

    def _parameters(self, target: EngineTarget) -> dict[str, str]:
        """What NVIDIA's backend is told, or ours: it refuses a GPU or library of another kind."""
        if self._flavour is TENSORRT:
            return {"execution_context_allocation_strategy": "ON_PROFILE_CHANGE"}
        return {"compute_capability": target.compute_capability or "", "version": self.version}

    def load(self, directory: Path, target: EngineTarget) -> Scorer:
        """On this machine's GPU; TargetAbsent without one of the engine's compute capability."""
        from engine_builder.targets.gpu import GpuScorer, device_capability  # noqa: PLC0415

        found = device_capability()
        if found != target.compute_capability:
            raise StageError(
                StageReason.TARGET_ABSENT,
                f"{target} needs a GPU of compute capability {target.compute_capability}, here is "
                f"{found or 'none'}; validate on a node that has one",
            )
        runtime = self._trt.Runtime(self._logger)
        engine = runtime.deserialize_cuda_engine((directory / PLAN).read_bytes())
        if engine is None:
            raise load_failure(PLAN, ValueError(self._logger.worst or "it is not an engine"))
        return GpuScorer(self._trt, engine)

    @property
    def version(self) -> str:
        """Of the library; the one that serves has to be the same."""
        return str(self._trt.__version__)

    def _check_target(self, target: EngineTarget) -> str | None:
        """Name of the GPU that is built on; None where none is needed."""
        wanted = target.compute_capability or ""
        missing = {"bf16"} if _number(wanted) < _number(_BF16) else set()
        if wanted == _NO_FP32 and self._flavour.capabilities is not None:
            missing.add("fp32")
        if target.precision in missing:
            raise StageError(
                StageReason.TARGET_UNSUPPORTED,
                f"{self._flavour.runtime} has no {target.precision} for compute capability "
                f"{wanted}; set spec.engine.precision (--precision) to fp16 or auto",
            )
        if self._flavour.capabilities is not None:
            if wanted not in self._flavour.capabilities:
                raise StageError(
                    StageReason.TARGET_UNSUPPORTED,
                    f"{self._flavour.runtime} builds for compute capability "
                    f"{', '.join(self._flavour.capabilities)}, not for {wanted}; set "
                    "spec.engine.runtime (--runtime) to tensorrt",
                )
            return None
        from engine_builder.targets.gpu import device_capability, device_name  # noqa: PLC0415

        found = device_capability()
        if found != wanted:
            raise StageError(
                StageReason.TARGET_ABSENT,
                f"tensorrt builds on the GPU that it builds for, compute capability {wanted}; here "
                f"is {found or 'none'}",
            )
        return device_name()

    def _write_graph(self, job: Job, path: Path) -> int:
        """The graph with its precision in it; returns the number of products in 16 bits."""
        model = onnx.load(job.prepared / ONNX)
        no_fp32 = (
            self._flavour.capabilities is not None and job.target.compute_capability == _NO_FP32
        )
        if no_fp32:
            spread_positions(model)
        lowered = 0
        if job.target.precision != "fp32":
            lowered = lower_products(model, job.target.precision, with_head=no_fp32)
        save_as_exported(model, path, job.prepared)
        return lowered

    def _build(self, job: Job, graph: Path, device: str | None) -> bytes:
        trt = self._trt
        builder = trt.Builder(self._logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse_from_file(str(graph)):
            problem = str(parser.get_error(0).desc()) if parser.num_errors else "no reason given"
            raise defect(
                StageReason.COMPILE_FAILED,
                f"{self._flavour.package} {self.version} cannot read the graph: {problem[:300]}",
            )
        config = builder.create_builder_config()
        for profile in self._profiles(builder, job):
            config.add_optimization_profile(profile)
        if self._flavour.capabilities is None:
            config.hardware_compatibility_level = (
                trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
            )
        else:
            name = "SM" + (job.target.compute_capability or "").replace(".", "")
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
        cache = self._timing_cache(config, job, device)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise defect(
                StageReason.COMPILE_FAILED,
                f"{self._flavour.package} {self.version} builds no engine: {self._logger.worst}",
            )
        if cache is not None:
            _replace(cache, bytes(config.get_timing_cache().serialize()))
        return bytes(plan)

    def _profiles(self, builder: Any, job: Job) -> list[Any]:
        profiles = []
        for entry in job.shapes.profiles:
            profile = builder.create_optimization_profile()
            usual = (usual_rows(job.shapes, entry), entry.max_length)
            largest = (entry.max_batch_size, entry.max_length)
            for name in job.model.inputs:
                profile.set_shape(name, (1, 1), usual, largest)
            profiles.append(profile)
        return profiles

    def _timing_cache(self, config: Any, job: Job, device: str | None) -> Path | None:
        """By GPU product and version: timings of another GPU would choose the wrong kernels."""
        if not self._flavour.timing_cache or job.timing_cache is None or device is None:
            return None
        name = _UNSAFE.sub("-", f"{device}-{self.version}")
        path = job.timing_cache / f"{name}.timing"
        known = path.read_bytes() if path.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
        return path


def _number(capability: str) -> tuple[int, ...]:
    return tuple(map(int, capability.split(".")))


def _replace(path: Path, data: bytes) -> None:
    """Another build may read the file meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
        stream.write(data)
    Path(stream.name).replace(path)


def _logger(trt: Any) -> Any:
    """Keeps the last error, which is all that a failed call says of its reason."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.worst = ""

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.worst = first_line(ValueError(text))

    return Logger()
