"""What all pods of ours have in common: restricted security, no API token, plain volumes."""

from typing import Any

from reranker_operator.api.engine import StoreSpec
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.names import store_claim
from reranker_operator.render.defaults import Defaults

#: No user of the host has this id; images are built to run as it.
USER_ID = 65532

Json = dict[str, Any]


def owner_reference(owner: RerankerService | RerankerEngine, *, controller: bool) -> Json:
    """Ties an object's life to its owner's through garbage collection."""
    kind = type(owner).__name__
    reference: Json = {
        "apiVersion": "reranker.dev/v1alpha1",
        "kind": kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
    }
    if controller:
        reference |= {"controller": True, "blockOwnerDeletion": True}
    return reference


def pod_spec(
    defaults: Defaults,
    *,
    containers: list[Json],
    init_containers: list[Json],
    volumes: list[Json],
    pull_secrets: tuple[str, ...] = (),
) -> Json:
    """A pod spec that the restricted Pod Security Standard admits."""
    spec: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": init_containers,
        "containers": containers,
        "volumes": volumes,
    }
    secrets = (*defaults.image_pull_secrets, *pull_secrets)
    if secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in dict.fromkeys(secrets)]
    return spec


def container(
    name: str,
    image: str,
    defaults: Defaults,
    *,
    resources: Json,
    mounts: list[Json],
    command: list[str] | None = None,
    args: list[str] | None = None,
    env: list[Json] | None = None,
) -> Json:
    """A container with a read-only root file system and no privileges."""
    result: Json = {
        "name": name,
        "image": image,
        "imagePullPolicy": defaults.image_pull_policy,
        "resources": resources,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": restricted(),
        "volumeMounts": mounts,
    }
    literal_env = [
        entry | {"value": _literal(entry["value"])} if "value" in entry else entry
        for entry in env or []
    ]
    literal_args = [_literal(argument) for argument in args or []]
    for key, value in (("command", command), ("args", literal_args), ("env", literal_env)):
        if value:
            result[key] = value
    return result


def restricted() -> Json:
    """The security context of every container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _literal(text: str) -> str:
    """Kubernetes replaces `$(NAME)`: a spec could bring a secret of the environment to light."""
    return text.replace("$", "$$")


def mount(name: str, path: str, *, read_only: bool = False, sub_path: str = "") -> Json:
    """A volume mount."""
    result: Json = {"name": name, "mountPath": path}
    if read_only:
        result["readOnly"] = True
    if sub_path:
        result["subPath"] = sub_path
    return result


def empty_dir(name: str, *, size: str | None = None, memory: bool = False) -> Json:
    """Scratch space that goes with the pod."""
    options: Json = {}
    if memory:
        options["medium"] = "Memory"
    if size:
        options["sizeLimit"] = size
    return {"name": name, "emptyDir": options}


def claim_volume(name: str, claim: str, *, read_only: bool = False) -> Json:
    """A volume of a claim."""
    return {"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": read_only}}


def store_claim_name(store: StoreSpec) -> str:
    """The claim that holds this store's engines."""
    return store.existing_claim or store_claim(store.storage_class_name, store.access_mode)
