"""Causes that keep pods from starting, serving or being made.

The words of container runtimes are containerd's; the end of Triton's log has the form of real ones.
"""

from collections.abc import Iterator

from reranker_contracts import StageReason
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.conditions import Reason
from reranker_operator.api.meta import DEPLOYMENT, PVC
from reranker_operator.errors import Forbidden, NamespaceTerminating, Rejected

from .symptoms import (
    GPU,
    Cause,
    creating,
    gateway_up,
    gpu_node,
    looping,
    no_pods,
    no_right,
    nodes,
    nodes_lack,
    placed,
    serving,
    stuck,
    theirs,
    told,
    triton_up,
    unbound,
    verified,
    verify_says,
    waiting,
)

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
OTHER_GPU = (
    TABLE + "Internal: ModelRejectedError: the plan needs a GPU of compute capability 8.9, here is "
    "9.0 (NVIDIA H200)\n\nAt:\n  /opt/tritonserver/backends/tensorrt_rtx/model.py(95): "
    "check_device\n;\n\n"
)
NO_GPU = (
    TABLE + "Invalid argument: instance group reranker of model reranker has kind KIND_GPU but no "
    "GPUs are available;\n\n"
)
OTHER_VERSION = (
    TABLE
    + "Internal: ModelRejectedError: the plan was built with TensorRT-RTX 1.8.0.1, this image "
    "has 1.7.1.116; builder and Triton images of one version are needed\n\nAt:\n  "
    "/opt/tritonserver/backends/tensorrt_rtx/model.py(86): check_version\n;\n\n"
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
NO_SERVER = "supervisor: line 5: tritonserver: command not found\n"
NO_BASH = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
    'exec: "bash": executable file not found in $PATH: unknown'
)
ON_GPU = {"accelerator": {"type": "nvidia"}}
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


def no_node() -> Iterator[Cause]:
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
        (Reason.UNSCHEDULABLE, ("were unschedulable", "kubectl uncordon NODE"),
         "3 node(s) were unschedulable"),
        (Reason.INSUFFICIENT_RESOURCES, ("free capacity", "kubectl uncordon NODE"),
         "1 node(s) were unschedulable, 2 Insufficient memory"),
        (Reason.UNSCHEDULABLE, ("check spec.accelerator",), "3 node(s) had no mood"),
        (Reason.VOLUME_ON_OTHER_NODE, ("ReadWriteMany", "spec.engine.store"),
         "1 Insufficient memory, 2 node(s) didn't match PersistentVolume's node affinity"),
        (Reason.CLAIM_LOST, ("PersistentVolumeClaim reranker-engines", "delete the claim"),
         'persistentvolumeclaim "reranker-engines" bound to non-existent persistentvolume "pv-1"'),
        (Reason.VOLUME_PENDING, ("PersistentVolumeClaim reranker-engines", "pods that still use"),
         'persistentvolumeclaim "reranker-engines" is being deleted'),
    ):  # fmt: skip
        yield Cause(
            reason, "Serving", words, told("serving", nodes_lack(text)), name=f"{reason}: {text}"
        )


def volumes() -> Iterator[Cause]:
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


def refusals() -> Iterator[Cause]:
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
    for kind, name, condition, words in (
        ("Service", "rank", "Accepted", "belongs to somebody else"),
        (PVC.kind, "reranker-engines", "EngineReady", "was not made by this operator"),
    ):
        yield Cause(
            Reason.FOREIGN_OWNER, condition, (name, words),
            theirs(kind, name), name=f"ForeignOwner of a {kind}", lasting=True,
        )  # fmt: skip
    yield Cause(
        Reason.UNKNOWN_SOURCE, "Accepted", ("hf://ORG/NAME",), lambda _: None,
        {"model": {"source": "ftp://host/x"}}, lasting=True,
    )  # fmt: skip
    yield Cause(
        StageReason.INTERNAL_ERROR, "Progressing", ("the operator fails", "ValueError", "'s log"),
        no_right("apply", DEPLOYMENT.kind, ValueError("hf_secret")), lasting=False,
        name="InternalError of the operator",
    )  # fmt: skip
    yield Cause(
        Reason.INVALID_SPEC, "Accepted", ("spec.engine.runtime", "correct the field"),
        lambda _: None, {"engine": {"runtime": "torch"}}, lasting=True,
    )  # fmt: skip


def served() -> Iterator[Cause]:
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
        Reason.TRITON_IMAGE_UNSUITABLE, "Serving",
        ("TensorRT-RTX 1.8.0.1", "1.7.1.116", "spec.serving.triton.image"),
        serving(verified(), looping("triton", 1, message=OTHER_VERSION)),
        name="TritonImageUnsuitable of another version",
    )  # fmt: skip
    for name, message, words in (
        ("of another kind", OTHER_GPU, "here is 9.0 (NVIDIA H200)"),
        ("none", NO_GPU, "no GPUs are available"),
    ):
        yield Cause(
            StageReason.TARGET_ABSENT, "Serving", (words, "spec.accelerator.nodeSelector"),
            serving(verified(), looping("triton", 1, message=message)),
            name=f"TargetAbsent: GPU {name}",
        )  # fmt: skip
    yield Cause(
        Reason.TRITON_IMAGE_UNSUITABLE, "Serving", ("no tritonserver",),
        serving(verified(), waiting("triton", "RunContainerError", NO_BASH)),
        name="TritonImageUnsuitable without bash",
    )  # fmt: skip
    yield Cause(
        Reason.TRITON_IMAGE_UNSUITABLE, "Serving", ("no tritonserver",),
        serving(verified(), looping("triton", 127, message=NO_SERVER)),
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
