"""The init containers of a serving pod that judge an engine before it serves."""

from dataclasses import dataclass

from reranker_contracts.targets import MEASURED_IN_PODS
from reranker_operator.api.engine import ParityThresholds
from reranker_operator.api.v1alpha1 import RerankerEngine
from reranker_operator.render.defaults import Defaults
from reranker_operator.render.pods import Json, container

_ENGINE = ["--engine", "/engine"]
_RESULT = ["--result", "/dev/termination-log"]
_SMALL: Json = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


@dataclass(frozen=True)
class Checks:
    """Both are commands of the gateway's image; `triton` is where Triton answers in the pod."""

    engine: RerankerEngine
    image: str
    defaults: Defaults
    mounts: list[Json]
    triton: str

    def verify(self) -> Json:
        """Compares every file with its hash."""
        args = ["verify", *_ENGINE, "--digest", self.engine.spec.digest, *_RESULT]
        return container(
            "verify", self.image, self.defaults, resources=_SMALL, mounts=self.mounts, args=args
        )

    def measure(self, limits: ParityThresholds, resources: Json) -> list[Json]:
        """Scores the probe pairs of an engine that could not be measured where it was built.

        After Triton among the init containers, so it starts when that is ready.
        """
        if self.engine.spec.identity.runtime not in MEASURED_IN_PODS:
            return []
        args = ["measure", *_ENGINE, "--triton", self.triton,
                f"--min-kendall-tau={limits.min_kendall_tau:g}",
                f"--max-ndcg-delta={limits.max_ndcg_delta:g}", *_RESULT]  # fmt: skip
        measure = container(
            "measure", self.image, self.defaults, resources=resources, mounts=self.mounts, args=args
        )
        return [measure]
