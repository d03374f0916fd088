"""The protocol between the stages and the runtimes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine_builder.batches import Tensors
from engine_builder.progress import Progress
from reranker_contracts import EngineTarget, ServedModel, Shapes


@dataclass(frozen=True)
class Job:
    """What `compile` asks of a runtime: `prepared` → files in the directory `out`.

    `timing_cache` is a directory that outlives the build; `gpu_memory` is in bytes.
    """

    prepared: Path
    out: Path
    model: ServedModel
    target: EngineTarget
    shapes: Shapes
    progress: Progress
    gpu_memory: int | None = None
    timing_cache: Path | None = None


@dataclass(frozen=True)
class Built:
    """What Triton has to know of the files that a runtime wrote."""

    backend: str
    filename: str
    parameters: dict[str, str] = field(default_factory=dict)
    note: str = ""


class Scorer(Protocol):
    """A loaded engine: padded INT32 tensors → FP32 logits [batch, labels]."""

    @property
    def device(self) -> str:
        """What it runs on, for people."""

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""

    def run(self, tensors: Tensors, labels: int) -> NDArray[np.float32]:
        """Logits of one batch; an engine that fails or answers another shape is ValidationFailed.

        NaN and infinity are for the caller to judge.
        """


class TargetBuilder(Protocol):
    """One runtime."""

    def compile(self, job: Job) -> Built:
        """Write the engine's files; a StageError says why that cannot be done here."""

    def load(self, directory: Path, target: EngineTarget) -> Scorer:
        """Open the files that `compile` wrote; TargetAbsent without the hardware for them."""
