"""Every pod that we make: admitted where security is strict, and without a secret in it."""

import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from reranker_operator.api.v1alpha1 import (
    Dialect,
    EngineSource,
    RerankerEngine,
    RerankerService,
)
from reranker_operator.render import jobs, serving
from reranker_operator.render.defaults import Defaults

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
RETENTION = jobs.Retention(("0" * 64,), datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC))
SOURCES = ["hf://org/tiny", "oci://registry/model:1?path=/m", "pvc://claim/path"]


def _pods(service: RerankerService, engine: RerankerEngine, defaults: Defaults) -> dict[str, Json]:
    made = {"serving": serving.pod_template(service, engine, defaults)["spec"]}
    for text in SOURCES:
        source = EngineSource(source=text, secret_ref=engine.spec.source.secret_ref)
        spec = engine.spec.model_copy(update={"source": source})
        built = engine.model_copy(update={"spec": spec})
        made[f"resolve {text}"] = _template(jobs.resolve_job(service, source, "k", 1, defaults))
        made[f"prepare {text}"] = _template(jobs.prepare_job(built, 1, defaults, RETENTION))
    made["compile"] = _template(jobs.compile_job(engine, 1, defaults, RETENTION))
    made["remove"] = _template(jobs.remove_job(engine, ["0" * 64], defaults))
    return made


def _template(job: Json) -> Json:
    spec: Json = job["spec"]["template"]["spec"]
    return spec


def _containers(pod: Json) -> list[Json]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def _violations(pod: Json) -> Iterator[str]:
    """The restricted Pod Security Standard, as of Kubernetes 1.35, field by field."""
    security = pod.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod["volumes"]:
        if not set(volume) - {"name"} <= _VOLUMES:
            yield f"volume {volume['name']}"
    if security.get("sysctls") or security.get("windowsOptions"):
        yield "sysctls or windowsOptions"
    for container in _containers(pod):
        own = container.get("securityContext", {})
        merged = security | own
        checks = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "runAsNonRoot": merged.get("runAsNonRoot") is True,
            "runAsUser": merged.get("runAsUser") != 0,
            "seccompProfile": merged.get("seccompProfile", {}).get("type") == "RuntimeDefault",
            "privileged": not own.get("privileged"),
            "procMount": own.get("procMount", "Default") == "Default",
            "hostPorts": all(not port.get("hostPort") for port in container.get("ports", [])),
            "seLinux and AppArmor": not {"seLinuxOptions", "appArmorProfile"} & merged.keys(),
            "hostProbe": all(
                "host" not in probe.get("httpGet", {})
                for key, probe in container.items()
                if key.endswith("Probe")
            ),
        }
        yield from (f"{container['name']}: {name}" for name, good in checks.items() if not good)


def test_all_pods_are_restricted(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    for name, pod in _pods(service, engine, defaults).items():
        assert list(_violations(pod)) == [], name
        # Beyond the standard: nothing to write to, nobody to talk to.
        assert pod["automountServiceAccountToken"] is False
        assert all(c["securityContext"]["readOnlyRootFilesystem"] for c in _containers(pod))
        assert {"name": "registry"} in pod["imagePullSecrets"]


def test_every_mount_has_its_volume(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    for name, pod in _pods(service, engine, defaults).items():
        volumes = [volume["name"] for volume in pod["volumes"]]
        mounted = {entry["name"] for c in _containers(pod) for entry in c["volumeMounts"]}
        assert len(volumes) == len(set(volumes)), name
        assert mounted == set(volumes), name


def test_the_token_is_a_reference_and_only_where_files_are_fetched(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    holders = set()
    for name, pod in _pods(service, engine, defaults).items():
        assert not any("secret" in volume for volume in pod["volumes"])
        for container in _containers(pod):
            assert "envFrom" not in container
            for entry in container.get("env", []):
                if entry["name"] == "HF_TOKEN":
                    assert entry == {
                        "name": "HF_TOKEN",
                        "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}},
                    }
                    holders.add((name.split()[0], container["name"]))
                else:
                    assert "secretKeyRef" not in entry.get("valueFrom", {})
    assert holders == {("resolve", "resolve"), ("prepare", "fetch")}


def test_texts_of_the_spec_cannot_name_the_token(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    """Kubernetes puts the variable in the place of `$(HF_TOKEN)`; `$$(HF_TOKEN)` stays a text."""
    pods = _pods(service, engine, defaults)
    (resolve,) = pods[f"resolve {SOURCES[0]}"]["containers"]
    assert "--revision=$$(HF_TOKEN)" in resolve["args"]
    for pod in pods.values():
        for container in _containers(pod):
            texts = [*container.get("args", []), *container.get("command", [])]
            texts += [entry.get("value", "") for entry in container.get("env", [])]
            assert not any("$(" in text.replace("$$", "") for text in texts)


@pytest.mark.parametrize("field", ["serving.maxPassages", "serving.gateway.image", "model.aliases"])
def test_what_runs_decides_the_revision(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults, field: str
) -> None:
    changes: dict[str, Json] = {
        "serving.maxPassages": {"serving": {"maxPassages": 7}},
        "serving.gateway.image": {"serving": {"gateway": {"image": "other:1"}}},
        "model.aliases": {"model": {"source": "hf://org/tiny", "aliases": ["c"]}},
    }
    raw = service.model_dump(mode="json", by_alias=True, exclude_none=True)
    changed = RerankerService.model_validate(raw | {"spec": raw["spec"] | changes[field]})
    scaled = RerankerService.model_validate(raw | {"spec": raw["spec"] | {"replicas": 9}})
    template = serving.pod_template(service, engine, defaults)
    assert serving.pod_template(changed, engine, defaults) != template
    assert serving.pod_template(scaled, engine, defaults) == template


def test_a_source_claim_is_mounted_whole_and_read_only(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    """Of a subPath that is not there the kubelet makes a folder, on the user's own volume."""
    pods = _pods(service, engine, defaults)
    for name in ("resolve pvc://claim/path", "prepare pvc://claim/path"):
        mounts = [
            (container["args"], entry)
            for container in _containers(pods[name])
            for entry in container["volumeMounts"]
            if entry["name"] == "source"
        ]
        ((args, entry),) = mounts
        assert entry == {"name": "source", "mountPath": "/source", "readOnly": True}
        assert args[args.index("--source-dir") + 1] == "/source"
        assert args[args.index("--source") + 1] == "pvc://claim/path"


def test_dialects_decide_what_the_gateway_serves_and_which_ports_it_has(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    raw = service.model_dump(mode="json", by_alias=True, exclude_none=True)

    def rendered(dialects: list[str]) -> tuple[dict[str, str], set[int], set[int]]:
        spec = raw["spec"] | {"serving": {"dialects": dialects}}
        changed = RerankerService.model_validate(raw | {"spec": spec})
        (gateway,) = serving.pod_template(changed, engine, defaults)["spec"]["containers"]
        return (
            {entry["name"]: entry.get("value", "") for entry in gateway["env"]},
            {port["containerPort"] for port in gateway["ports"]},
            {port["port"] for port in serving.service_object(changed, None)["spec"]["ports"]},
        )

    everything = {8000, 8001, 8002}
    env, container_ports, service_ports = rendered([])
    assert "RERANKER_DIALECTS" not in env
    assert container_ports == service_ports == everything
    env, container_ports, service_ports = rendered(["nim", "cohere"])
    assert env["RERANKER_DIALECTS"] == "nim,cohere"
    assert container_ports == service_ports == {8000, 8002}
    assert rendered(["nim", "grpc"])[1] == everything


def test_the_dialects_are_those_of_the_gateway() -> None:
    gateway = ROOT / "gateway/src/reranker_gateway/settings.py"
    (known,) = re.findall(r"^DialectName = Literal(\[.*\])$", gateway.read_text(), re.MULTILINE)
    assert json.loads(known) == list(get_args(Dialect))
