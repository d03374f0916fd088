"""Things that break: killed builders, damaged files, a killed operator."""

import json

import pytest
from support.kubectl import Json, Kubectl, eventually
from support.services import BUILD_SECONDS, Services, source

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def _running_build(services: Services, stage: str) -> Json:
    """A pod of this step whose containers have started."""
    pods = eventually(
        lambda: [
            pod
            for pod in services.kubectl.list("pods", f"reranker.dev/stage={stage}")
            if any(
                "running" in status["state"]
                for status in pod["status"].get("initContainerStatuses", [])
            )
        ],
        within=120,
        describe=lambda: services.kubectl("get", "pods"),
    )
    return pods[0]


def test_a_killed_builder_is_told_and_tried_again(services: Services) -> None:
    services.apply("killed", {"model": {"source": source("first")}})
    pod = _running_build(services, "prepare")
    services.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    told = services.wait_for("killed", "EngineReady", "PodKilled")
    assert told["status"] == "False"
    assert "will try again" in told["message"]
    status = services.wait_ready("killed")["status"]
    assert status["engines"][0]["state"] == "Ready"


def test_a_damaged_engine_is_told_and_built_again(services: Services) -> None:
    services.apply("damaged", {"model": {"source": source("first")}})
    engine = services.wait_ready("damaged")["status"]["engine"]
    digest = services.kubectl.get("rre", engine)["spec"]["digest"]
    path = f"/store/engines/{digest}/repository/reranker/1/model.onnx"
    _in_store(services, f"printf damage | dd of={path} bs=1 seek=1000 conv=notrunc")
    services.kubectl("delete", "pod", "-l", "reranker.dev/revision")
    told = services.wait_for("damaged", "EngineReady", "ChecksumMismatch", within=120)
    assert "model.onnx does not match its sha256" in told["message"]
    services.wait_ready("damaged")
    assert services.rank("damaged", "q", ["a", "b"])["usage"]["total_tokens"] > 0


def test_an_engine_deleted_by_hand_is_built_again_under_its_pods(services: Services) -> None:
    services.apply("undone", {"model": {"source": source("first")}})
    name = services.wait_ready("undone")["status"]["engine"]
    uid = services.kubectl.get("rre", name)["metadata"]["uid"]
    services.kubectl("delete", "rre", name, "--wait")
    eventually(
        lambda: [
            engine
            for engine in services.kubectl.list("rre")
            if engine["metadata"]["uid"] != uid and engine.get("status", {}).get("stage") == "Ready"
        ],
        within=BUILD_SECONDS,
        describe=lambda: services.kubectl("get", "rr,rre,jobs,pvc"),
    )
    services.wait_ready("undone")
    assert services.rank("undone", "q", ["a", "b"])["usage"]["total_tokens"] > 0
    (claim,) = services.kubectl.list("pvc")
    assert "deletionTimestamp" not in claim["metadata"]


def test_a_build_that_ran_out_of_memory_is_given_more(services: Services) -> None:
    small = {"resources": {"limits": {"memory": "40Mi"}}}
    services.apply("starved", {"model": {"source": source("first")}, "engine": small})
    services.wait_for("starved", "Ready", "OutOfMemory", within=120)
    services.apply("starved", {"model": {"source": source("first")}, "engine": {}})
    services.wait_ready("starved")


def test_an_operator_killed_in_a_build_goes_on_with_it(
    services: Services, operator: Kubectl
) -> None:
    services.apply("orphan", {"model": {"source": source("first")}})
    _running_build(services, "prepare")
    operator("delete", "pod", "-l", "app.kubernetes.io/name=reranker-operator",
             "--grace-period=0", "--force")  # fmt: skip
    services.wait_ready("orphan", within=BUILD_SECONDS)
    jobs = services.kubectl.list("jobs", "reranker.dev/engine")
    steps = sorted(job["metadata"]["labels"]["reranker.dev/stage"] for job in jobs)
    assert steps == ["compile", "prepare"], "one build, not two"


def _in_store(services: Services, command: str) -> None:
    """Run a shell command in a pod that has the store."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "vandal"},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "vandal",
                    "image": "localhost/reranker-operator/engine-builder:dev",
                    "command": ["sh", "-c", command],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "store", "mountPath": "/store"}],
                }
            ],
            "volumes": [
                {"name": "store", "persistentVolumeClaim": {"claimName": "reranker-engines"}}
            ],
        },
    }
    services.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    services.kubectl(
        "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/vandal", "--timeout=60s"
    )
    services.kubectl("delete", "pod", "vandal")
