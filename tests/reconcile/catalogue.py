"""The causes of docs/runbook.md, each as the cluster shows it.

Words of the scheduler, the kubelet, the controllers and the API server are those of Kubernetes
1.35, words of container runtimes containerd's; the end of Triton's log is a real one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from reranker_contracts import Stage, StageReason, StageResult
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.conditions import Reason
from reranker_operator.api.meta import DEPLOYMENT, PVC
from reranker_operator.errors import Forbidden, NamespaceTerminating, Rejected

from .controllers import NAMESPACE, Fault
from .simulation import Simulation

Provoke = Callable[[Simulation], None]
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Cause:
    """One cause: what makes it, where it is told, and words of the message.

    `after_ready` makes it happen to a service that serves; `lasting`: no time mends it.
    """

    reason: Reason | StageReason
    kind: str
    words: tuple[str, ...]
    provoke: Provoke
    spec: Json = field(default_factory=dict)
    after_ready: bool = False
    lasting: bool = False
    name: str = ""

    @property
    def id(self) -> str:
        return self.name or self.reason.value


# What a cluster says of pods.


def pending(message: str, reason: str = "Unschedulable") -> Json:
    """What the scheduler says of a pod that it can't place."""
    return {
        "phase": "Pending",
        "conditions": [
            {
                "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-05T12:00:00Z",
            }
        ],
    }  # fmt: skip


def nodes_lack(what: str) -> Json:
    """With what the preemption has to add to it."""
    return pending(
        f"0/3 nodes are available: {what}. preemption: 0/3 nodes are available: 3 Preemption is "
        "not helpful for scheduling."
    )


def placed(
    *,
    init: list[Json] | None = None,
    main: list[Json] | None = None,
    phase: str = "Pending",
    ready: str = "False",
    containers_ready: str | None = None,
    since: str = "2026-01-05T12:00:00Z",
    **more: Any,
) -> Json:
    """A pod on a node, with its containers."""
    unready = {} if ready == "True" else {"reason": "ContainersNotReady"}
    if containers_ready is not None:
        # The node's controller changes the status and nothing else.
        unready = {}
    return {
        "phase": phase,
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": since},
            {"type": "Ready", "status": ready, "lastTransitionTime": since, **unready},
            {"type": "ContainersReady", "status": containers_ready or ready},
            *more.pop("conditions", []),
        ],
        "initContainerStatuses": init or [],
        "containerStatuses": main or [],
        **more,
    }


def container(name: str, state: Json, **more: Any) -> Json:
    return {
        "name": name, "image": f"{name}:1", "imageID": "", "ready": False, "restartCount": 0,
        "started": False, "state": state, "lastState": {}, **more,
    }  # fmt: skip


def waiting(name: str, reason: str, message: str = "") -> Json:
    return container(name, {"waiting": {"reason": reason, "message": message}})


def dead(name: str, code: int, reason: str = "Error", message: str = "") -> Json:
    end = {
        "exitCode": code, "reason": reason, "message": message,
        "startedAt": "2026-01-05T12:00:00Z", "finishedAt": "2026-01-05T12:00:09Z",
    }  # fmt: skip
    return container(name, {"terminated": end})


def looping(name: str, code: int, reason: str = "Error", message: str = "") -> Json:
    """Between two restarts."""
    back_off = {"reason": "CrashLoopBackOff", "message": f"back-off 40s restarting {name}"}
    last = dead(name, code, reason, message)["state"]
    return container(name, {"waiting": back_off}, restartCount=3, lastState=last)


def verified() -> Json:
    return dead("verify", 0, "Completed")


def triton_up() -> Json:
    return container("triton", {"running": {}}, ready=True, started=True)


def gateway_up(**more: Any) -> Json:
    running = {"running": {"startedAt": "2026-01-05T12:00:00Z"}}
    return container("gateway", running, started=True, **more)


def creating(*names: str) -> list[Json]:
    return [waiting(name, "PodInitializing") for name in names]


# Ways to provoke.


def told(stage: str, status: Json) -> Provoke:
    def provoke(sim: Simulation) -> None:
        sim.told[stage] = status

    return provoke


def pull(reason: str, message: str) -> Provoke:
    """Of the model's image, in the Job that resolves it."""
    init = [waiting("source", reason, message)]
    init[0]["image"] = "registry.example/models/tiny:1"
    return told("resolve", placed(init=init, main=creating("resolve")))


def refused(stage: str, reason: StageReason) -> Provoke:
    """A stage fails for a reason of its own, each time anew."""

    def provoke(sim: Simulation) -> None:
        sim.faults[stage] = [Fault("refused", reason)] * 3

    return provoke


def no_pods(message: str) -> Provoke:
    def provoke(sim: Simulation) -> None:
        sim.refusal = message

    return provoke


def no_right(verb: str, kind: str, error: Exception) -> Provoke:
    def provoke(sim: Simulation) -> None:
        sim.cluster.refusals[verb, kind] = error  # type: ignore[assignment]

    return provoke


def stuck(stage: str, status: Json, reason: str, message: str) -> Provoke:
    """A pod of which only an Event says what holds it up."""

    def provoke(sim: Simulation) -> None:
        sim.told[stage] = status
        sim.event_of_pods = (reason, message)

    return provoke


def unbound(claim: Json, *events: tuple[str, str]) -> Provoke:
    """The store's claim and what its Events say."""

    def provoke(sim: Simulation) -> None:
        sim.told["prepare"] = pending(
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
        )
        sim.claim_told, sim.events_of_claims = claim, events

    return provoke


def nodes(why: str, *entries: Json) -> Provoke:
    """What the cluster has for nodes, and what its scheduler says of them."""

    def provoke(sim: Simulation) -> None:
        sim.told["serving"] = nodes_lack(why)
        for entry in entries:
            sim.cluster.put(entry)

    return provoke


def gpu_node(name: str, *taints: Json) -> Json:
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {}},
        "spec": {"taints": list(taints)}, "status": {"allocatable": {GPU: "4"}},
    }  # fmt: skip


def theirs(kind: str, name: str, api_version: str = "v1") -> Provoke:
    def provoke(sim: Simulation) -> None:
        meta = {"name": name, "namespace": NAMESPACE}
        entry = {"apiVersion": api_version, "kind": kind, "metadata": meta, "spec": {"own": True}}
        sim.cluster.put(entry)

    return provoke


def verify_says(reason: StageReason) -> Provoke:
    said = StageResult(stage=Stage.VERIFY, ok=False, reason=reason, message="words", seconds=1)
    verify = looping("verify", 1, message=said.to_message())
    return told("serving", placed(init=[verify], main=creating("gateway")))


def serving(*init: Json, main: Json | None = None, **more: Any) -> Provoke:
    statuses = list(init) or [verified(), triton_up()]
    return told("serving", placed(init=statuses, main=[main or creating("gateway")[0]], **more))


TABLE = """\
| cache_enabled                    | 0                                                  |
+----------------------------------+----------------------------------------------------+

I1129 08:48:17.548830 1 server.cc:305] "Waiting for in-flight requests to complete."
error: creating server: Invalid argument - load failed for model 'reranker': version 1 is at \
UNAVAILABLE state: """
NO_BACKEND = (
    TABLE + "Invalid argument: unable to find backend library for backend 'onnxruntime', try "
    "specifying runtime on the model configuration.;\n\n"
)
REJECTED = (
    TABLE + "Internal: ModelRejectedError: /engine/repository/reranker/1/model.onnx does not "
    "exist; the engine is incomplete\n\nAt:\n  /opt/tritonserver/backends/onnxruntime/model.py(153)"
    ": open_session\n;\n\n"
)
OLD_DRIVER = (
    TABLE + "Internal: onnx runtime error 1: CUDA failure 35: CUDA driver version is insufficient "
    "for CUDA runtime version ; GPU=0 ; hostname=rank ; expr=cudaSetDevice(info_.device_id);;\n\n"
)
NVIDIA_HOOK = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc "
    "create failed: unable to start container process: error during container init: error running "
    "prestart hook #0: exit status 1, stdout: , stderr: Auto-detected mode as 'legacy' "
    "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update "
    "your driver to a newer version, or use an earlier cuda container: unknown"
)
NO_TRITON = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
    'exec: "tritonserver": executable file not found in $PATH: unknown'
)
WITH_IMAGE = {"model": {"source": "oci://registry.example/models/tiny:1"}}
ON_GPU = {"accelerator": {"type": "nvidia"}}
WITH_SECRET = {"model": {"source": "hf://org/tiny", "secretRef": {"name": "hub"}}}
PULLED = (
    'failed to pull and unpack image "registry.example/models/tiny:1": failed to resolve reference '
    '"registry.example/models/tiny:1": '
)
RIGHTS = (
    'PATCH /apis/apps/v1/namespaces/shop/deployments/rank-1: 403 deployments.apps "rank-1" is '
    'forbidden: User "system:serviceaccount:ops:reranker-operator" cannot patch resource '
    '"deployments" in API group "apps" in the namespace "shop"'
)
WEBHOOK = 'admission webhook "images" denied the request: unknown registry.'
POD_SECURITY = (
    'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "extra"'
    " must set securityContext.allowPrivilegeEscalation=false)"
)


def _source() -> Iterator[Cause]:
    """What resolve and fetch find out."""
    permanent = {
        StageReason.SOURCE_UNSUPPORTED, StageReason.MODEL_INVALID, StageReason.NOT_A_CROSS_ENCODER,
        StageReason.EMBEDDING_MODEL, StageReason.LISTWISE_MODEL, StageReason.CUSTOM_CODE,
        StageReason.ARCHITECTURE_UNSUPPORTED, StageReason.UNSAFE_WEIGHTS,
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


def _build() -> Iterator[Cause]:
    """What the other stages find out."""
    for reason, stage, lasting in (
        (StageReason.EXPORT_FAILED, "export", False),
        (StageReason.COMPILE_FAILED, "compile", False),
        (StageReason.VALIDATION_FAILED, "validate", True),
        (StageReason.STORE_FULL, "publish", False),
        (StageReason.STORE_UNWRITABLE, "publish", False),
        (StageReason.CHECKSUM_MISMATCH, "compile", False),
    ):
        yield Cause(reason, "EngineReady", (f"{stage}: ",), refused(stage, reason), lasting=lasting)

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


def _references() -> Iterator[Cause]:
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


def _images() -> Iterator[Cause]:
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


def _nodes() -> Iterator[Cause]:
    yield Cause(
        Reason.NO_MATCHING_NODE, "Serving", (f"none of 1 nodes has 8 {GPU}", "spec.accelerator"),
        nodes(f"1 Insufficient {GPU}", gpu_node("a")),
        {"accelerator": {"type": "nvidia", "count": 8}},
    )  # fmt: skip
    taint = {"key": GPU, "value": "present", "effect": "NoSchedule"}
    yield Cause(
        Reason.TAINT_NOT_TOLERATED, "Serving",
        (f"{GPU}=present:NoSchedule", "spec.accelerator.tolerations"),
        nodes("1 node(s) had untolerated taint(s)", gpu_node("a", taint)), ON_GPU,
    )  # fmt: skip
    for reason, words, text in (
        (Reason.INSUFFICIENT_ACCELERATORS, (f"free {GPU}", "tainted nodes"),
         f"1 node(s) had untolerated taint(s), 2 Insufficient {GPU}"),
        (Reason.INSUFFICIENT_RESOURCES, ("Insufficient cpu", "spec.serving"),
         "1 node(s) didn't match Pod's node affinity/selector, 2 Insufficient cpu"),
        (Reason.NODE_SELECTOR_MISMATCH, ("spec.accelerator.nodeSelector",),
         "3 node(s) didn't match Pod's node affinity/selector"),
        (Reason.PLACEMENT_UNSATISFIABLE, ("topologySpreadConstraints",),
         "3 node(s) didn't match pod topology spread constraints"),
        (Reason.TAINT_NOT_TOLERATED, ("tolerate the taint",),
         "3 node(s) had untolerated taint(s)"),
        (Reason.UNSCHEDULABLE, ("were unschedulable",), "3 node(s) were unschedulable"),
        (Reason.VOLUME_ON_OTHER_NODE, ("ReadWriteMany", "spec.engine.store"),
         "1 Insufficient memory, 2 node(s) didn't match PersistentVolume's node affinity"),
        (Reason.CLAIM_LOST, ("PersistentVolumeClaim reranker-engines", "delete the claim"),
         'persistentvolumeclaim "reranker-engines" bound to non-existent persistentvolume "pv-1"'),
    ):  # fmt: skip
        yield Cause(
            reason, "Serving", words, told("serving", nodes_lack(text)), name=f"{reason}, no node"
        )


def _volumes() -> Iterator[Cause]:
    yield Cause(
        Reason.CLAIM_NOT_FOUND, "EngineReady", ("mine", "spec.engine.store.existingClaim"),
        lambda _: None, {"engine": {"store": {"existingClaim": "mine"}}}, lasting=True,
    )  # fmt: skip
    classless: Json = {"status": {"phase": "Pending"}, "spec": {"storageClassName": None}}
    slow: Json = {"status": {"phase": "Pending"}, "spec": {"storageClassName": "slow"}}
    yield Cause(
        Reason.STORAGE_CLASS_NOT_FOUND, "EngineReady",
        ("no default one", "spec.engine.store.storageClassName"),
        unbound(
            classless,
            (
                "FailedBinding",
                "no persistent volumes available for this claim and no storage class is set",
            ),
        ),
    )  # fmt: skip
    yield Cause(
        Reason.STORAGE_CLASS_NOT_FOUND, "EngineReady", ("StorageClass slow", "does not exist"),
        unbound(
            slow, ("ProvisioningFailed", 'storageclass.storage.k8s.io "slow" not found')
        ),
        name="StorageClassNotFound by name",
    )  # fmt: skip
    yield Cause(
        Reason.PROVISIONING_FAILED, "EngineReady", ("quota of the project", "provisioner"),
        unbound(
            slow,
            (
                "ProvisioningFailed",
                'failed to provision volume with StorageClass "slow": rpc error: code = '
                "ResourceExhausted desc = quota of the project is used up",
            ),
        ),
    )  # fmt: skip
    yield Cause(
        Reason.VOLUME_PENDING, "EngineReady", ("waits for the provisioner", "slow"),
        unbound(
            slow,
            (
                "ExternalProvisioning",
                "Waiting for a volume to be created either by the external provisioner 'x/y' or "
                "manually by the system administrator. If volume creation is delayed, please "
                "verify that the provisioner is running and correctly registered.",
            ),
        ),
    )  # fmt: skip
    fresh = placed(init=creating("verify", "triton"), main=creating("gateway"))
    yield Cause(
        Reason.VOLUME_IN_USE, "Serving", ("already used by pod(s) rank-a", "ReadWriteMany"),
        stuck(
            "serving", fresh, "FailedAttachVolume",
            'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) rank-a',
        ),
    )  # fmt: skip
    yield Cause(
        Reason.MOUNT_FAILED, "Serving", ("access denied by server", "storage"),
        stuck(
            "serving", fresh, "FailedMount",
            'MountVolume.SetUp failed for volume "pv-1" : mount failed: exit status 32 Output: '
            "mount.nfs: access denied by server while mounting nfs:/engines",
        ),
    )  # fmt: skip
    yield Cause(
        Reason.SANDBOX_FAILED, "Serving", ("failed to setup network", "runtime"),
        stuck(
            "serving", fresh, "FailedCreatePodSandBox",
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup "
            'network for sandbox "4fe1": plugin type="bridge" failed (add): no free addresses',
        ),
    )  # fmt: skip


def _refusals() -> Iterator[Cause]:
    """Pods and objects that the API server refuses."""
    prefix = 'pods "rank-x" is forbidden: '
    for reason, words, text in (
        (Reason.QUOTA_EXCEEDED, ("exceeded quota: tight", "spec.engine.resources"),
         prefix + "exceeded quota: tight, requested: cpu=2, used: cpu=8, limited: cpu=8"),
        (Reason.LIMIT_RANGE_EXCEEDED, ("maximum memory usage", "LimitRange"),
         prefix + "maximum memory usage per Container is 1Gi, but limit is 8Gi"),
        (Reason.POD_SECURITY_REFUSED, ("restricted:latest", "spec.serving"), prefix + POD_SECURITY),
        (Reason.ADMISSION_DENIED, ("unknown registry", "policy"), WEBHOOK),
        (Reason.PRIORITY_CLASS_NOT_FOUND, ("vip",),
         prefix + "no PriorityClass with name vip was found"),
        (Reason.RUNTIME_CLASS_NOT_FOUND, ("gvisor",),
         prefix + 'pod rejected: RuntimeClass "gvisor" not found'),
        (Reason.SERVICE_ACCOUNT_NOT_FOUND, ("shop/robot",),
         prefix + 'error looking up service account shop/robot: serviceaccount "robot" not found'),
        (Reason.POD_REJECTED, ("for reasons of its own",), prefix + "for reasons of its own"),
    ):  # fmt: skip
        yield Cause(reason, "ModelResolved", words, no_pods(text))
    yield Cause(
        Reason.FORBIDDEN, "Ready", ("cannot patch resource", "install its chart"),
        no_right("apply", DEPLOYMENT.kind, Forbidden(RIGHTS)),
    )  # fmt: skip
    yield Cause(
        Reason.FORBIDDEN, "Ready", ("cannot list resource",),
        no_right("list", "Pod", Forbidden(RIGHTS.replace("patch", "list"))),
        name="Forbidden to read",
    )  # fmt: skip
    yield Cause(
        Reason.ADMISSION_DENIED, "Ready", ("unknown registry", "as the policy asks"),
        no_right("apply", DEPLOYMENT.kind, Forbidden(WEBHOOK)), name="AdmissionDenied to us",
    )  # fmt: skip
    yield Cause(
        Reason.REJECTED, "Ready", ("spec.template: Invalid value", "correct the field"),
        no_right("apply", DEPLOYMENT.kind, Rejected("spec.template: Invalid value")),
    )  # fmt: skip
    yield Cause(
        Reason.NAMESPACE_TERMINATING, "Ready", ("is being deleted", "another namespace"),
        no_right("apply", DEPLOYMENT.kind, NamespaceTerminating("shop is being terminated")),
        lasting=True,
    )  # fmt: skip
    for kind, name, condition in (
        ("Service", "rank", "Ready"), (PVC.kind, "reranker-engines", "EngineReady"),
    ):  # fmt: skip
        yield Cause(
            Reason.FOREIGN_OWNER, condition, (name, "was not made by this operator"),
            theirs(kind, name), name=f"ForeignOwner of a {kind}", lasting=True,
        )  # fmt: skip
    yield Cause(
        Reason.UNKNOWN_SOURCE, "Accepted", ("hf://ORG/NAME",), lambda _: None,
        {"model": {"source": "ftp://host/x"}}, lasting=True,
    )  # fmt: skip
    yield Cause(
        Reason.INVALID_SPEC, "Accepted", ("spec.engine.runtime", "correct the field"),
        lambda _: None, {"engine": {"runtime": "tensorrt"}}, lasting=True,
    )  # fmt: skip


def _serving() -> Iterator[Cause]:
    """Pods that start and do not serve, or serve no more."""
    for reason in (StageReason.ENGINE_VERSION_MISMATCH, StageReason.CHECKSUM_MISMATCH):
        yield Cause(
            reason, "Serving", ("words",), verify_says(reason), name=f"{reason} in a serving pod"
        )
    yield Cause(
        Reason.TRITON_LOAD_FAILED, "Serving", ("ModelRejectedError", "model.onnx does not exist"),
        serving(verified(), looping("triton", 1, message=REJECTED)),
    )  # fmt: skip
    yield Cause(
        Reason.TRITON_IMAGE_UNSUITABLE, "Serving",
        ("unable to find backend library", "spec.serving.triton.image"),
        serving(verified(), looping("triton", 1, message=NO_BACKEND)),
    )  # fmt: skip
    yield Cause(
        Reason.TRITON_IMAGE_UNSUITABLE, "Serving", ("no tritonserver",),
        serving(verified(), waiting("triton", "RunContainerError", NO_TRITON)),
        name="TritonImageUnsuitable without server",
    )  # fmt: skip
    for name, status in (
        ("by its log", looping("triton", 1, message=OLD_DRIVER)),
        ("by the runtime", waiting("triton", "RunContainerError", NVIDIA_HOOK)),
    ):
        yield Cause(
            Reason.DRIVER_TOO_OLD, "Serving", ("driver is too old", "cuda", "update the driver"),
            serving(verified(), status), name=f"DriverTooOld {name}",
        )  # fmt: skip
    yield Cause(
        Reason.OUT_OF_MEMORY, "Serving", ("at its limit of 3Gi", "spec.serving.triton.resources"),
        serving(verified(), looping("triton", 137, "OOMKilled")),
        {"serving": {"triton": {"resources": {"limits": {"memory": "3Gi"}}}}},
        name="OutOfMemory in serving",
    )  # fmt: skip
    up = [verified(), triton_up()]
    yield Cause(
        Reason.CRASH_LOOP, "Serving", ("exit code 1: cannot listen", "--previous"),
        serving(*up, main=looping("gateway", 1, message="starting\ncannot listen on 8000")),
    )  # fmt: skip
    yield Cause(
        Reason.SIDECAR_FAILED, "Serving", ("container proxy", "exit code 3"),
        serving(*up, looping("proxy", 3)),
    )  # fmt: skip
    yield Cause(
        Reason.HOOK_FAILED, "Serving", ("hook of container gateway",),
        serving(*up, main=waiting("gateway", "PostStartHookError", "PostStartHook failed")),
    )  # fmt: skip
    yield Cause(
        Reason.PROBE_FAILED, "Serving", ("liveness probe", "exit code 137"),
        serving(*up, main=looping("gateway", 137)), name="ProbeFailed, restarted",
    )  # fmt: skip
    starting = placed(init=up, main=[gateway_up()], phase="Running")
    yield Cause(
        Reason.PROBE_FAILED, "Serving", ("statuscode: 503", "kubectl logs"),
        stuck(
            "serving", starting, "Unhealthy",
            "Readiness probe failed: HTTP probe failed with statuscode: 503",
        ),
    )  # fmt: skip
    yield Cause(
        Reason.NOT_ANSWERING, "Serving", ("gateway", "stopped", "kubectl logs"),
        serving(*up, main=gateway_up(), phase="Running", since="2026-01-05T12:05:00Z"),
        after_ready=True,
    )  # fmt: skip
    yield Cause(
        Reason.NODE_LOST, "Serving", ("node n1", "does not answer", "kubectl describe node n1"),
        serving(*up, main=gateway_up() | {"ready": True}, phase="Running", containers_ready="True"),
        after_ready=True,
    )  # fmt: skip


CAUSES = tuple(
    cause
    for group in (
        _source, _build, _references, _images, _nodes, _volumes, _refusals, _serving,
    )
    for cause in group()
)  # fmt: skip
