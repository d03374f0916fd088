"""What an outside autoscaler asks, and what it is told: metrics whose sum divided by their target
is the number of pods.

Backlog alone would be no good: pods that are just right have none, so it would ask for fewer until
work piles up, and then for too many. How busy the pods are holds the number in between.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from reranker_operator.api.autoscaling import AutoscalingSpec
from reranker_operator.core.causes.pods import has_ended
from reranker_operator.core.signals import Signals
from reranker_operator.core.world import Manifest, is_leaving
from reranker_operator.names import APP_COMPONENT

BACKLOG: Final = "reranker-backlog-seconds"
UTILIZATION: Final = "reranker-utilization-percent"
_SERVICE: Final = "service"
_TARGETS: Final = {
    "targetBacklogSeconds": "target_backlog_seconds",
    "targetUtilizationPercent": "target_utilization_percent",
}
#: Of KEDA itself; a trigger's metadata comes here as a whole.
_OF_KEDA: Final = frozenset(
    {"scalerAddress", "enableTLS", "unsafeSsl", "caCert", "tlsCertFile", "tlsClientCert",
     "tlsClientKey"}
)  # fmt: skip
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


class UnclearError(ValueError):
    """The metadata of a trigger can't be understood; the message names the key and the remedy."""


@dataclass(frozen=True)
class Target:
    """A service, and what its pods should be like."""

    service: str
    backlog_seconds: float
    utilization_percent: float

    def of(self, metric: str) -> float:
        """What one pod may have of it. Raises UnclearError for a metric that there is not."""
        targets = {BACKLOG: self.backlog_seconds, UTILIZATION: self.utilization_percent}
        if metric not in targets:
            raise UnclearError(
                f"metricName: {metric[:100]!r} is not served here; there are {', '.join(targets)}"
            )
        return targets[metric]


def read(metadata: Mapping[str, str]) -> Target:
    """The metadata of a trigger. Raises UnclearError."""
    known = (_SERVICE, *_TARGETS)
    for key in sorted(metadata.keys() - _OF_KEDA):
        if key not in known:
            raise UnclearError(
                f"metadata.{key[:100]} is not known here; there are {', '.join(known)}"
            )
    service = metadata.get(_SERVICE, "")
    if not _NAME.fullmatch(service):
        raise UnclearError(
            f"metadata.{_SERVICE}: {service[:100]!r} is not the name of a RerankerService; name "
            "one of the ScaledObject's namespace"
        )
    return Target(service, *(_number(metadata, key) for key in _TARGETS))


def _number(metadata: Mapping[str, str], key: str) -> float:
    """With the default and the bounds that the field of the same name has in `spec.autoscaling`."""
    field = AutoscalingSpec.model_fields[_TARGETS[key]]
    if key not in metadata:
        return float(field.default)
    least, most = (
        next(getattr(rule, bound) for rule in field.metadata if hasattr(rule, bound))
        for bound in ("ge", "le")
    )
    text = metadata[key]
    try:
        value = float(text[:100])
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise UnclearError(
            f"metadata.{key}: {text[:100]!r} is not a number from {least:g} to {most:g}"
        )
    return value


@dataclass(frozen=True)
class Outside:
    """A service as an outside autoscaler may see it."""

    signals: Signals
    #: Serving pods that are there to stay, ready or not.
    pods: int

    @property
    def active(self) -> bool:
        """It must not be left without pods: something is held, waits, is worked on or starts."""
        return not self.signals.idle or self.pods > self.signals.known

    def value(self, metric: str, target: Target) -> float | None:
        """The metric, of all pods together; None while it is not known.

        A running pod that can't be read counts as one that is just right, so that it neither brings
        others nor takes them away. Pods that start count for nothing.
        """
        signals = self.signals
        if not self.pods:
            return 0.0
        if not signals.known or signals.busy_pods is None:
            return None
        own = signals.pod_seconds if metric == BACKLOG else 100.0 * signals.busy_pods
        return own + signals.unknown * target.of(metric)


def serving(pods: Iterable[Manifest]) -> int:
    """How many of these serve or will."""
    return sum(
        (pod["metadata"].get("labels") or {}).get(APP_COMPONENT) == "serving"
        and not is_leaving(pod)
        and not has_ended(pod)
        for pod in pods
    )
