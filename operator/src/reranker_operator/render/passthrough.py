"""What a service adds to its pods, put around what is ours.

Ours wins wherever both could speak: labels, security, names. Further containers get the security of
our own, so that the pods stay within the restricted Pod Security Standard.
"""

from collections.abc import Mapping
from typing import Any

from reranker_operator import names
from reranker_operator.api.kubernetes import Container, TopologySpreadConstraint
from reranker_operator.api.meta import ApiModel
from reranker_operator.api.pods import ContainerSettings, PodSettings, ProbeSettings
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.render.pods import Json, restricted

#: Fields of a pod's spec that are taken over as they stand, where they are given.
_TAKEN = (
    "affinity", "priorityClassName", "runtimeClassName", "schedulerName", "serviceAccountName",
    "hostAliases", "dnsPolicy", "dnsConfig",
)  # fmt: skip


def plain(entry: ApiModel) -> Json:
    """As JSON, without lists that hold nothing: the API server would not give them back."""
    return {key: value for key, value in _strip(entry.to_dict()).items() if value != []}


def _strip(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _strip(value) for key, value in node.items() if value not in ([], None)}
    return [_strip(entry) for entry in node] if isinstance(node, list) else node


def extend(pod: Json, service: RerankerService) -> Json:
    """The pod's spec with what the service adds."""
    settings = service.spec.serving.pod
    given = plain(settings)
    verify, *rest = pod["initContainers"]
    result = pod | {key: given[key] for key in _TAKEN if key in given}
    result |= {
        "initContainers": [verify, *map(_container, settings.init_containers), *rest],
        "containers": [*pod["containers"], *map(_container, settings.sidecars)],
        "volumes": [*pod["volumes"], *map(plain, settings.volumes)],
    }
    lists = {
        "tolerations": [plain(entry) for entry in settings.tolerations],
        "imagePullSecrets": given.get("imagePullSecrets", []),
        "topologySpreadConstraints": [
            _spread(entry, service) for entry in settings.topology_spread_constraints
        ],
    }
    for key, entries in lists.items():
        ours = pod.get(key, [])
        if merged := [*ours, *(entry for entry in entries if entry not in ours)]:
            result[key] = merged
    return result


def labels(settings: PodSettings, ours: Mapping[str, str]) -> dict[str, str]:
    """All labels of the pod."""
    return {**(settings.labels or {}), **ours}


def annotations(settings: PodSettings, ours: Mapping[str, str]) -> dict[str, str]:
    """All annotations of the pod."""
    return {**(settings.annotations or {}), **ours}


def customise(container: Json, settings: ContainerSettings) -> Json:
    """One of our containers with what the service adds to it."""
    given = plain(settings)
    env = _merged_env(container.get("env", []), given.get("env", []))
    mounts = [*container["volumeMounts"], *given.get("volumeMounts", [])]
    result = container | {"volumeMounts": mounts}
    for key, value in (("env", env), ("envFrom", given.get("envFrom"))):
        if value:
            result[key] = value
    if settings.image_pull_policy:
        result["imagePullPolicy"] = settings.image_pull_policy
    return result


def _merged_env(ours: list[Json], theirs: list[Json]) -> list[Json]:
    """A variable of theirs replaces ours; which ones they may replace the schema says."""
    named = {entry["name"] for entry in theirs}
    return [*(entry for entry in ours if entry["name"] not in named), *theirs]


def probe(ours: Json, settings: ProbeSettings | None) -> Json:
    """Our probe with their times."""
    return ours | (settings.to_dict() if settings else {})


def _container(entry: Container) -> Json:
    given = plain(entry)
    chosen = given.pop("securityContext", {})
    return given | {
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": restricted() | chosen,
    }


def _spread(entry: TopologySpreadConstraint, service: RerankerService) -> Json:
    """Counts the pods of this revision, if it does not say which: an old one goes soon anyway."""
    given = plain(entry)
    if "labelSelector" not in given:
        given["labelSelector"] = {"matchLabels": {names.SERVICE_LABEL: service.metadata.name}}
        keys = given.get("matchLabelKeys", [])
        given["matchLabelKeys"] = list(dict.fromkeys([*keys, names.REVISION_LABEL]))
    return given
