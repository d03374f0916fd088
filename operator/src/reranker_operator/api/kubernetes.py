"""Kubernetes' own structures, as far as a spec may hold them.

They have Kubernetes' names and shapes, so that what people know and what tools print can be pasted.
Where a structure is large and nothing of it is ours to judge, it stays open: the API server checks
it when the pod is made. What would break the pod's security (host paths and ports, capabilities) is
left out, and so refused.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from reranker_operator.api.fields import Name, Quantity
from reranker_operator.api.meta import ApiModel

Label = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
#: Any fields; the API server judges them.
Open = dict[str, Any]


def by(*keys: str) -> dict[str, Any]:
    """A list whose entries are told apart by these fields; two of the same are refused."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


class ResourceRequirements(ApiModel):
    """Kubernetes resource requests and limits of a container."""

    requests: dict[str, Quantity] | None = Field(
        default=None, description="What the scheduler sets aside, for example cpu: 500m."
    )
    limits: dict[str, Quantity] | None = Field(
        default=None, description="What the container can't exceed, for example memory: 2Gi."
    )


class Toleration(ApiModel):
    """A Kubernetes toleration."""

    key: str | None = Field(default=None, description="The taint's key. Default: every taint.")
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="How value is compared. Default: Equal."
    )
    value: str | None = Field(default=None, description="The taint's value. Default: empty.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="The taint's effect. Default: every effect."
    )
    toleration_seconds: int | None = Field(
        default=None,
        description="Seconds for which a NoExecute taint is tolerated. Default: for ever.",
    )


class ObjectReference(ApiModel):
    """An object of the service's namespace by its name."""

    name: Name = Field(description="Its name.")


class OptionalReference(ApiModel):
    """A ConfigMap or Secret of the service's namespace as a whole."""

    name: Name = Field(description="Its name.")
    optional: bool | None = Field(
        default=None, description="Whether the pod starts without it. Default: false."
    )


class KeyReference(ApiModel):
    """One key of a ConfigMap or Secret of the service's namespace."""

    name: Name = Field(description="Name of the object.")
    key: str = Field(min_length=1, max_length=253, description="Key inside it.")
    optional: bool | None = Field(
        default=None, description="Whether the pod starts without it. Default: false."
    )


class FieldReference(ApiModel):
    """A field of the pod."""

    field_path: str = Field(max_length=253, description="For example metadata.name.")


class ResourceFieldReference(ApiModel):
    """A resource of a container."""

    container_name: str | None = Field(
        default=None, max_length=63, description="Whose. Default: this container's."
    )
    resource: str = Field(max_length=63, description="For example limits.memory.")
    divisor: Quantity | None = Field(default=None, description="Unit of the value. Default: 1.")


class EnvVarSource(ApiModel):
    """Where a variable's value comes from; exactly one of them."""

    secret_key_ref: KeyReference | None = Field(default=None, description="A key of a Secret.")
    config_map_key_ref: KeyReference | None = Field(
        default=None, description="A key of a ConfigMap."
    )
    field_ref: FieldReference | None = Field(default=None, description="A field of the pod.")
    resource_field_ref: ResourceFieldReference | None = Field(
        default=None, description="A resource of a container."
    )


class EnvVar(ApiModel):
    """An environment variable."""

    name: str = Field(
        max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$", description="Its name."
    )
    value: str | None = Field(
        default=None,
        max_length=8192,
        description="Its value; $(NAME) stands for a variable before it. Default: empty.",
    )
    value_from: EnvVarSource | None = Field(
        default=None, description="Where the value comes from, instead of value."
    )


class EnvFromSource(ApiModel):
    """A ConfigMap or Secret whose keys become variables."""

    prefix: str | None = Field(
        default=None, max_length=253, description="Put before each name. Default: nothing."
    )
    config_map_ref: OptionalReference | None = Field(default=None, description="The ConfigMap.")
    secret_ref: OptionalReference | None = Field(default=None, description="The Secret.")


Env = Annotated[
    tuple[EnvVar, ...],
    Field(max_length=128, json_schema_extra=by("name"), description="Environment variables."),
]
EnvFrom = Annotated[
    tuple[EnvFromSource, ...],
    Field(
        max_length=16,
        description="ConfigMaps and Secrets whose keys become variables; env goes before them.",
    ),
]


class VolumeMount(ApiModel):
    """Where a container sees a volume of `serving.pod.volumes`."""

    name: Label = Field(description="Name of the volume.")
    mount_path: str = Field(
        max_length=512,
        # No `..`, no `//`, no `/` at the end: what a path hides must be plain to see.
        pattern=r"^(/\.?[^/.:][^/:]*)+$",
        description="Absolute path inside the container.",
    )
    sub_path: str | None = Field(
        default=None, max_length=512, description="Path inside the volume. Default: its root."
    )
    read_only: bool | None = Field(
        default=None, description="Whether it can't be written. Default: false."
    )


VolumeMounts = Annotated[
    tuple[VolumeMount, ...],
    Field(
        max_length=32,
        json_schema_extra=by("mountPath"),
        description="Volumes of serving.pod.volumes and where the container sees them.",
    ),
]


class KeyToPath(ApiModel):
    """One key of a ConfigMap or Secret as a file."""

    key: str = Field(max_length=253, description="The key.")
    path: str = Field(max_length=512, description="Path of the file inside the volume.")
    mode: int | None = Field(
        default=None, ge=0, le=0o777, description="Permission bits. Default: defaultMode."
    )


_ITEMS = "Keys and their files. Default: every key, as a file of its name."
_MODE = "Permission bits of the files. Default: 420 (0644)."


class SecretVolume(ApiModel):
    """A Secret as files."""

    secret_name: Name = Field(description="Name of the Secret.")
    items: tuple[KeyToPath, ...] = Field(default=(), max_length=64, description=_ITEMS)
    default_mode: int | None = Field(default=None, ge=0, le=0o777, description=_MODE)
    optional: bool | None = Field(
        default=None, description="Whether the pod starts without it. Default: false."
    )


class ConfigMapVolume(ApiModel):
    """A ConfigMap as files."""

    name: Name = Field(description="Name of the ConfigMap.")
    items: tuple[KeyToPath, ...] = Field(default=(), max_length=64, description=_ITEMS)
    default_mode: int | None = Field(default=None, ge=0, le=0o777, description=_MODE)
    optional: bool | None = Field(
        default=None, description="Whether the pod starts without it. Default: false."
    )


class ProjectedObject(ApiModel):
    """A ConfigMap or Secret as files of a projected volume."""

    name: Name = Field(description="Its name.")
    items: tuple[KeyToPath, ...] = Field(default=(), max_length=64, description=_ITEMS)
    optional: bool | None = Field(
        default=None, description="Whether the pod starts without it. Default: false."
    )


class ProjectedSource(ApiModel):
    """One source of a projected volume."""

    secret: ProjectedObject | None = Field(default=None, description="A Secret.")
    config_map: ProjectedObject | None = Field(default=None, description="A ConfigMap.")
    service_account_token: Open | None = Field(
        default=None, description="A token of the pod's service account."
    )
    downward_api: Open | None = Field(
        default=None, alias="downwardAPI", description="Fields of the pod."
    )
    cluster_trust_bundle: Open | None = Field(default=None, description="A trust bundle.")


class ProjectedVolume(ApiModel):
    """Several sources in one folder."""

    sources: tuple[ProjectedSource, ...] = Field(
        default=(), max_length=16, description="What the folder holds."
    )
    default_mode: int | None = Field(default=None, ge=0, le=0o777, description=_MODE)


class ClaimVolume(ApiModel):
    """A PersistentVolumeClaim of the service's namespace."""

    claim_name: Name = Field(description="Name of the claim.")
    read_only: bool | None = Field(
        default=None, description="Whether it can't be written. Default: false."
    )


class EmptyDirVolume(ApiModel):
    """Scratch space that goes with the pod."""

    medium: Literal["", "Memory"] | None = Field(
        default=None, description="Memory for a tmpfs. Default: the node's disk."
    )
    size_limit: Quantity | None = Field(
        default=None, description="Most bytes, for example 1Gi. Default: no limit."
    )


class Volume(ApiModel):
    """A volume of the pod: a name and exactly one of the kinds that restricted security admits."""

    name: Label = Field(description="Its name.")
    config_map: ConfigMapVolume | None = Field(default=None, description="A ConfigMap as files.")
    secret: SecretVolume | None = Field(default=None, description="A Secret as files.")
    projected: ProjectedVolume | None = Field(
        default=None, description="Several sources in one folder."
    )
    persistent_volume_claim: ClaimVolume | None = Field(default=None, description="A claim.")
    empty_dir: EmptyDirVolume | None = Field(default=None, description="Scratch space.")
    downward_api: Open | None = Field(
        default=None, alias="downwardAPI", description="Fields of the pod as files."
    )
    csi: Open | None = Field(default=None, description="A volume of a CSI driver.")
    ephemeral: Open | None = Field(
        default=None, description="A claim that is made for the pod and goes with it."
    )


class ContainerPort(ApiModel):
    """A port that a container listens on."""

    name: str | None = Field(default=None, max_length=15, description="Its name. Default: none.")
    container_port: int = Field(ge=1, le=65535, description="The port.")
    protocol: Literal["TCP", "UDP", "SCTP"] = Field(default="TCP", description="The protocol.")


class SecurityContext(ApiModel):
    """What of a further container's security may be chosen; the rest is as for ours."""

    read_only_root_filesystem: bool = Field(
        default=True, description="Whether only volumes can be written."
    )
    run_as_user: int | None = Field(
        default=None, ge=1, description="User id, not root's. Default: 65532."
    )
    run_as_group: int | None = Field(
        default=None, ge=1, description="Group id, not root's. Default: 65532."
    )


#: The operator holds every service in memory: what is long belongs into a ConfigMap.
_TEXTS = Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(max_length=64)]


class Container(ApiModel):
    """A further container of the pod; no privileges, no root, as for the operator's own."""

    name: Label = Field(description="Its name.")
    image: str = Field(min_length=1, max_length=1024, description="Its image.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="When to pull. Default: Always for :latest, else IfNotPresent."
    )
    command: _TEXTS = Field(default=(), description="Program. Default: the image's.")
    args: _TEXTS = Field(default=(), description="Arguments. Default: the image's.")
    working_dir: str | None = Field(
        default=None, max_length=512, description="Working directory. Default: the image's."
    )
    env: Env = ()
    env_from: EnvFrom = ()
    volume_mounts: VolumeMounts = ()
    resources: ResourceRequirements | None = Field(
        default=None, description="Requests and limits. Default: none."
    )
    ports: tuple[ContainerPort, ...] = Field(
        default=(),
        max_length=16,
        json_schema_extra=by("containerPort", "protocol"),
        description="Ports it listens on; not 8000-8002 and 9000-9002, which are in use.",
    )
    readiness_probe: Open | None = Field(default=None, description="When the pod gets traffic.")
    liveness_probe: Open | None = Field(default=None, description="When it is started anew.")
    startup_probe: Open | None = Field(default=None, description="When it has started.")
    lifecycle: Open | None = Field(default=None, description="What runs after start, before stop.")
    security_context: SecurityContext | None = Field(
        default=None, description="The part of its security that may be chosen."
    )


class InitContainer(Container):
    """A container that ends before Triton and the gateway start, or runs beside them."""

    restart_policy: Literal["Always"] | None = Field(
        default=None,
        description="Always: it runs on beside the others. Default: it must end with success.",
    )


class TopologySpreadConstraint(ApiModel):
    """How evenly pods are spread."""

    max_skew: int = Field(ge=1, description="Largest difference in pods between two domains.")
    topology_key: str = Field(
        min_length=1, max_length=317, description="Node label whose values are the domains."
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description="Whether a pod that would make it worse has to wait."
    )
    min_domains: int | None = Field(
        default=None, ge=1, description="Fewest domains; with DoNotSchedule only. Default: 1."
    )
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="Whether nodes that affinity excludes count. Default: Honor."
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="Whether nodes with other taints count. Default: Ignore."
    )
    label_selector: Open | None = Field(
        default=None, description="Pods that are counted. Default: this service's, by revision."
    )
    match_label_keys: tuple[Annotated[str, Field(max_length=317)], ...] = Field(
        default=(), max_length=16, description="Labels in which they equal the pod. Default: none."
    )


class HostAlias(ApiModel):
    """A line of /etc/hosts."""

    ip: str = Field(min_length=1, max_length=45, description="The address.")
    hostnames: tuple[Annotated[str, Field(max_length=253)], ...] = Field(
        max_length=32, description="Names that lead to it."
    )


class Affinity(ApiModel):
    """Which nodes attract the pod, in Kubernetes' own words."""

    node_affinity: Open | None = Field(default=None, description="By labels of nodes.")
    pod_affinity: Open | None = Field(default=None, description="Towards other pods.")
    pod_anti_affinity: Open | None = Field(default=None, description="Away from other pods.")
