"""Rules in CEL for what a RerankerService adds to its pods, so that it can't undo what is ours."""

from collections.abc import Iterator, Sequence

from reranker_operator.api import reserved
from reranker_operator.api.rules import Rule

_SERVING = "spec.serving"
_POD = f"{_SERVING}.pod"
_OURS = (f"{_SERVING}.gateway", f"{_SERVING}.triton")
_THEIRS = (f"{_POD}.sidecars[]", f"{_POD}.initContainers[]")


def _list(values: Sequence[object]) -> str:
    return "[" + ", ".join(f"'{v}'" if isinstance(v, str) else str(v) for v in values) + "]"


def _words(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def _one_of(*fields: str) -> str:
    """Exactly one of the fields is given."""
    return "[" + ", ".join(f"has(self.{field})" for field in fields) + "].exists_one(x, x)"


def _variables(container: str) -> Iterator[Rule]:
    yield Rule(
        f"{container}.env[]",
        "!has(self.value) || !has(self.valueFrom)",
        "value and valueFrom exclude each other; remove one of them",
    )
    yield Rule(
        f"{container}.env[].valueFrom",
        _one_of("secretKeyRef", "configMapKeyRef", "fieldRef", "resourceFieldRef"),
        "valueFrom needs exactly one of secretKeyRef, configMapKeyRef, fieldRef and "
        "resourceFieldRef",
    )
    yield Rule(
        f"{container}.envFrom[]",
        "has(self.configMapRef) != has(self.secretRef)",
        "an entry of envFrom needs exactly one of configMapRef and secretRef",
    )


def _paths(container: str) -> Rule:
    """A mount there would stand in the place of verified files, or of scratch space."""
    return Rule(
        f"{container}.volumeMounts[]",
        f"!(self.mountPath in {_list(reserved.PATHS)}) && "
        f"!self.mountPath.startsWith('{reserved.ENGINE_PATH}/')",
        f"mountPath can't be {_words(reserved.PATHS)} or a path below {reserved.ENGINE_PATH}, "
        "which the operator mounts itself; choose another path",
    )


def _containers(path: str) -> Iterator[Rule]:
    yield Rule(
        path,
        f"!(self.name in {_list(reserved.CONTAINERS)})",
        f"a container can't be called {_words(reserved.CONTAINERS)}, which are the operator's "
        "own; rename it",
    )
    yield Rule(
        f"{path}.ports[]",
        f"!(self.containerPort in {_list(reserved.PORTS)}) && "
        f"(!has(self.name) || !(self.name in {_list(reserved.PORT_NAMES)}))",
        f"ports {_words(reserved.PORTS)} and the names {_words(reserved.PORT_NAMES)} are the "
        "operator's own; choose others",
    )


def _mounted(container: str, mounts: str) -> str:
    """Every volume that a container mounts is one of the pod's further ones."""
    return (
        f"!has({mounts}) || {mounts}.all(m, has({container}.volumes) && "
        f"{container}.volumes.exists(v, v.name == m.name))"
    )


def _mounts() -> Iterator[Rule]:
    text = "may only name volumes of serving.pod.volumes; add the volume there or correct the name"
    for name in ("gateway", "triton"):
        yield Rule(
            _SERVING,
            # The API server tries it on the empty default, too.
            f"!has(self.{name}) || !has(self.pod) || "
            + _mounted("self.pod", f"self.{name}.volumeMounts"),
            f"serving.{name}.volumeMounts {text}",
        )
    for name in ("sidecars", "initContainers"):
        yield Rule(
            _POD,
            f"!has(self.{name}) || self.{name}.all(c, {_mounted('self', 'c.volumeMounts')})",
            f"serving.pod.{name}: volumeMounts {text}",
        )


def _rules() -> Iterator[Rule]:
    for container in (*_OURS, *_THEIRS):
        yield from _variables(container)
    for container in _OURS:
        yield _paths(container)
    for container in _THEIRS:
        yield from _containers(container)
    yield from _mounts()
    yield Rule(
        f"{_SERVING}.gateway.env[]",
        f"!(self.name in {_list(reserved.GATEWAY_ENV)})",
        "the operator sets this variable itself: use the fields of spec.model and spec.serving, "
        "or serving.pod.terminationGracePeriodSeconds for the drain timeout, and remove it",
    )
    yield Rule(
        _POD,
        "!has(self.sidecars) || !has(self.initContainers) || "
        "self.sidecars.all(c, !self.initContainers.exists(i, i.name == c.name))",
        "serving.pod.sidecars and serving.pod.initContainers can't share a name; rename one",
    )
    yield Rule(
        f"{_POD}.volumes[]",
        f"!(self.name in {_list(reserved.VOLUMES)})",
        f"a volume can't be called {_words(reserved.VOLUMES)}, which are the operator's own; "
        "rename it",
    )
    yield Rule(
        f"{_POD}.volumes[]",
        _one_of("configMap", "secret", "projected", "persistentVolumeClaim", "emptyDir",
                "downwardAPI", "csi", "ephemeral"),
        "a volume needs exactly one of configMap, secret, projected, persistentVolumeClaim, "
        "emptyDir, downwardAPI, csi and ephemeral; others, such as hostPath, are not admitted",
    )  # fmt: skip
    yield Rule(
        f"{_POD}.volumes[].projected.sources[]",
        _one_of("secret", "configMap", "serviceAccountToken", "downwardAPI", "clusterTrustBundle"),
        "a source needs exactly one of secret, configMap, serviceAccountToken, downwardAPI and "
        "clusterTrustBundle",
    )
    yield Rule(
        f"{_POD}.labels",
        f"self.all(key, !key.startsWith('{reserved.PREFIX}') && "
        f"!(key in {_list(reserved.LABELS)}))",
        f"labels {_words(reserved.LABELS)} and those that start with {reserved.PREFIX} are the "
        "operator's own; choose other keys",
    )
    yield Rule(
        f"{_POD}.annotations",
        f"self.all(key, !key.startsWith('{reserved.PREFIX}'))",
        f"annotations that start with {reserved.PREFIX} are the operator's own; choose other keys",
    )
    yield Rule(
        _POD,
        "!has(self.dnsPolicy) || self.dnsPolicy != 'None' || has(self.dnsConfig)",
        "serving.pod.dnsPolicy None needs serving.pod.dnsConfig with nameservers",
    )
    yield Rule(
        "spec.proxy",
        "has(self.httpProxy) || has(self.httpsProxy)",
        "proxy needs httpProxy or httpsProxy; give one, or remove proxy",
    )
    yield Rule(
        "spec.caBundle",
        _one_of("configMap", "secret"),
        "caBundle needs exactly one of configMap and secret",
    )


POD_RULES = tuple(_rules())
