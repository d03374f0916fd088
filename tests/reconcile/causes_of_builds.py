"""Causes that are found while a model is resolved and an engine is built."""

from collections.abc import Iterator
from typing import Any

from reranker_contracts import StageReason
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.conditions import Reason

from .simulation import Simulation
from .symptoms import (
    Cause,
    Provoke,
    creating,
    dead,
    placed,
    pull,
    refused,
    serving,
    stuck,
    told,
    waiting,
)

WITH_IMAGE = {"model": {"source": "oci://registry.example/models/tiny:1"}}
WITH_SECRET = {"model": {"source": "hf://org/tiny", "secretRef": {"name": "hub"}}}
PULLED = (
    'failed to pull and unpack image "registry.example/models/tiny:1": failed to resolve reference '
    '"registry.example/models/tiny:1": '
)


def source() -> Iterator[Cause]:
    """What resolve and fetch find out."""
    permanent = {
        StageReason.SOURCE_UNSUPPORTED, StageReason.MODEL_INVALID, StageReason.NOT_A_CROSS_ENCODER,
        StageReason.EMBEDDING_MODEL, StageReason.LISTWISE_MODEL, StageReason.CUSTOM_CODE,
        StageReason.ARCHITECTURE_UNSUPPORTED, StageReason.UNSAFE_WEIGHTS,
        StageReason.ADAPTER_INVALID, StageReason.SCORING_UNKNOWN, StageReason.PROBES_INVALID,
        StageReason.MAX_LENGTH_TOO_LONG, StageReason.MAX_LENGTH_TOO_SHORT,
    }  # fmt: skip
    for reason in (
        *sorted(permanent), StageReason.SOURCE_NOT_FOUND, StageReason.REVISION_NOT_FOUND,
        StageReason.SOURCE_UNAUTHORIZED, StageReason.MODEL_GATED, StageReason.SOURCE_UNREACHABLE,
        StageReason.INTERNAL_ERROR,
    ):  # fmt: skip
        yield Cause(
            reason,
            "ModelResolved",
            ("resolve: ",),
            refused("resolve", reason),
            lasting=reason in permanent,
        )
    yield Cause(
        StageReason.SOURCE_CHANGED,
        "ModelResolved",
        ("can't be fetched any more",),
        refused("fetch", StageReason.SOURCE_CHANGED),
    )


def _refused_pull(reason: StageReason) -> Provoke:
    """The registry has the engine, only this time it can't be had."""

    def provoke(sim: Simulation) -> None:
        refused("pull", reason)(sim)
        sim.registry_is_full = True

    return provoke


def build() -> Iterator[Cause]:
    """What the other stages find out."""
    for reason, stage, lasting in (
        (StageReason.EXPORT_FAILED, "export", False),
        (StageReason.COMPILE_FAILED, "compile", False),
        (StageReason.TARGET_UNSUPPORTED, "compile", True),
        (StageReason.TARGET_ABSENT, "compile", True),
        (StageReason.ENGINE_TOO_LARGE, "compile", True),
        (StageReason.VALIDATION_FAILED, "validate", True),
        (StageReason.STORE_FULL, "publish", False),
        (StageReason.STORE_UNWRITABLE, "publish", False),
        (StageReason.CHECKSUM_MISMATCH, "compile", False),
        (StageReason.SIGNATURE_INVALID, "publish", False),
    ):
        yield Cause(reason, "EngineReady", (f"{stage}: ",), refused(stage, reason), lasting=lasting)

    away = {"registry": {"repository": "oci://registry.example/engines", "build": False}}
    for reason in (
        StageReason.ARTEFACT_NOT_FOUND, StageReason.REGISTRY_UNAUTHORIZED,
        StageReason.REGISTRY_UNREACHABLE, StageReason.SIGNATURE_INVALID,
        StageReason.CHECKSUM_MISMATCH,
    ):  # fmt: skip
        yield Cause(
            reason, "EngineReady", ("pull: ",), _refused_pull(reason), {"engine": away},
            name=f"{reason} where nothing is built",
        )  # fmt: skip

    def poor(sim: Simulation) -> None:
        sim.parity = sim.parity.model_copy(update={"kendall_tau": 0.5})

    yield Cause(
        Reason.PARITY_REFUSED, "EngineReady", ("0.5000", "0.995", "spec.engine.parity"), poor,
        lasting=True,
    )  # fmt: skip

    failed = {"phase": "Failed", "ready": "False"}
    fetched = dead("fetch", 0, "Completed")

    def ends(*init: Json, **more: Any) -> Provoke:
        return told("prepare", placed(init=list(init), **failed, **more))

    yield Cause(
        Reason.OUT_OF_MEMORY, "EngineReady",
        ("export", "at its limit of 6Gi", "spec.engine.resources.limits.memory"),
        ends(fetched, dead("export", 137, "OOMKilled")), name="OutOfMemory in a build",
        spec={"engine": {"resources": {"limits": {"memory": "6Gi"}}}},
    )  # fmt: skip
    yield Cause(
        Reason.POD_KILLED, "EngineReady", ("exit code 137",), ends(fetched, dead("export", 137))
    )
    yield Cause(
        Reason.CONTAINER_FAILED, "EngineReady", ("no such option", "kubectl logs"),
        ends(fetched, dead("export", 2, message="usage: engine-builder\nerror: no such option")),
    )  # fmt: skip
    yield Cause(
        Reason.EVICTED, "EngineReady", ("low on resource: ephemeral-storage", "node"),
        ends(
            reason="Evicted",
            message="The node was low on resource: ephemeral-storage. Threshold quantity: "
            "10Gi, available: 9Gi. Container export was using 12Gi, request is 0, has larger "
            "consumption of ephemeral-storage. ",
        ),
    )  # fmt: skip
    yield Cause(
        Reason.SCRATCH_FULL, "EngineReady", ('"work" exceeds the limit "30Gi"', "smaller model"),
        ends(
            reason="Evicted", message='Usage of EmptyDir volume "work" exceeds the limit "30Gi". '
        ),
    )  # fmt: skip
    disrupted = {"type": "DisruptionTarget", "status": "True"}
    yield Cause(
        Reason.PREEMPTED, "EngineReady", ("made room for others", "priority"),
        ends(
            conditions=[
                disrupted
                | {
                    "reason": "PreemptionByScheduler",
                    "message": "default-scheduler: preempting to accommodate a higher priority pod",
                }
            ]
        ),
    )  # fmt: skip
    yield Cause(
        Reason.NODE_LOST, "EngineReady", ("is lost", "kubectl describe node"),
        ends(
            conditions=[
                disrupted
                | {"reason": "DeletionByPodGC", "message": "PodGC: node no longer exists"}
            ]
        ),
        name="NodeLost in a build",
    )  # fmt: skip
    yield Cause(
        Reason.NODE_REFUSED, "EngineReady", ("UnexpectedAdmissionError", "device plugin"),
        ends(
            reason="UnexpectedAdmissionError",
            message="Pod was rejected: Allocate failed due to no healthy devices present; cannot "
            "allocate unhealthy devices nvidia.com/gpu, which is unexpected",
        ),
    )  # fmt: skip

    def too_late(sim: Simulation) -> None:
        sim.job_ends["prepare"] = {
            "type": "Failed", "status": "True", "reason": "DeadlineExceeded",
            "message": "Job was active longer than specified deadline",
        }  # fmt: skip

    yield Cause(
        Reason.DEADLINE_EXCEEDED, "EngineReady", ("deadline of ", "spec.engine.resources"), too_late
    )


def references() -> Iterator[Cause]:
    """Secrets and ConfigMaps."""

    def config(stage: str, name: str, text: str) -> Provoke:
        bad = waiting(name, "CreateContainerConfigError", text)
        return told(stage, placed(main=[bad]))

    yield Cause(
        Reason.SECRET_NOT_FOUND, "ModelResolved", ('"hub"', "spec.model.secretRef"),
        config("resolve", "resolve", 'secret "hub" not found'), WITH_SECRET,
    )  # fmt: skip
    yield Cause(
        Reason.SECRET_KEY_NOT_FOUND, "ModelResolved", ("token", "add the key"),
        config("resolve", "resolve", "couldn't find key token in Secret shop/hub"), WITH_SECRET,
    )  # fmt: skip
    yield Cause(
        Reason.CONFIG_MAP_NOT_FOUND, "Serving", ('"proxy"', "spec.serving"),
        config("serving", "gateway", 'configmap "proxy" not found'),
    )  # fmt: skip
    yield Cause(
        Reason.SECRET_NOT_FOUND, "Serving", ('"certificates"', "spec.serving.pod.volumes"),
        stuck(
            "serving",
            placed(init=creating("verify", "triton"), main=creating("gateway")),
            "FailedMount",
            'MountVolume.SetUp failed for volume "ca" : secret "certificates" not found',
        ),
        name="SecretNotFound as a volume",
    )  # fmt: skip
    for volume, field in (("api-keys", "spec.serving.auth.secretRef"),
                          ("tls", "spec.serving.tls.secretName")):  # fmt: skip
        yield Cause(
            Reason.SECRET_NOT_FOUND, "Serving", ('"mine"', f"correct it in {field}"),
            stuck(
                "serving",
                placed(init=creating("verify", "triton"), main=creating("gateway")),
                "FailedMount",
                f'MountVolume.SetUp failed for volume "{volume}" : secret "mine" not found',
            ),
            name=f"SecretNotFound of {volume}",
        )  # fmt: skip


def images() -> Iterator[Cause]:
    yield Cause(
        Reason.IMAGE_NOT_FOUND, "ModelResolved", ("tiny:1: not found", "spec.model.source"),
        pull(
            "ImagePullBackOff",
            'Back-off pulling image "registry.example/models/tiny:1": ErrImagePull: '
            + PULLED + "registry.example/models/tiny:1: not found",
        ),
        WITH_IMAGE,
    )  # fmt: skip
    yield Cause(
        Reason.IMAGE_PULL_UNAUTHORIZED, "ModelResolved", ("spec.model.imagePullSecret",),
        pull(
            "ErrImagePull",
            PULLED + "pull access denied, repository does not exist or may require authorization: "
            "server message: insufficient_scope: authorization failed",
        ),
        WITH_IMAGE,
    )  # fmt: skip
    yield Cause(
        Reason.REGISTRY_UNREACHABLE, "ModelResolved", ("no such host", "way to the registry"),
        pull(
            "ErrImagePull",
            PULLED + 'failed to do request: Head "https://registry.example/v2/models/tiny/manifests'
            '/1": dial tcp: lookup registry.example on 10.96.0.10:53: no such host',
        ),
        WITH_IMAGE,
    )  # fmt: skip
    yield Cause(
        Reason.IMAGE_PULL_FAILED, "ModelResolved", ("unexpected EOF", "spec.model.source"),
        pull("ErrImagePull", PULLED + "unexpected EOF"), WITH_IMAGE,
    )  # fmt: skip
    yield Cause(
        Reason.IMAGE_NAME_INVALID, "ModelResolved", ("invalid reference format",),
        pull(
            "InvalidImageName",
            'Failed to apply default image tag "A/b": couldn\'t parse image name "A/b": invalid '
            "reference format: repository name must be lowercase",
        ),
        WITH_IMAGE,
    )  # fmt: skip
    yield Cause(
        Reason.IMAGE_NOT_PRESENT, "Serving", ("pull policy of Never", "spec.serving.gateway.image"),
        serving(
            waiting(
                "verify", "ErrImageNeverPull",
                'Container image "verify:1" is not present with pull policy of Never',
            ),
            *creating("triton"),
        ),
    )  # fmt: skip
    yield Cause(
        Reason.IMAGE_UNTRUSTED, "ModelResolved", ("signature validation failed",),
        pull(
            "SignatureValidationFailed",
            "image pull failed for registry.example/models/tiny:1 because the signature validation "
            "failed: Source image rejected: A signature was required, but no signature exists",
        ),
        WITH_IMAGE,
    )  # fmt: skip
