"""Every pod that we make: admitted where security is strict, and without a secret in it."""

import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from reranker_contracts import digest_of
from reranker_operator.api.v1alpha1 import (
    Dialect,
    EngineSource,
    RerankerEngine,
    RerankerService,
)
from reranker_operator.render import engines, jobs, serving, stages
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
RETENTION = stages.Retention(("0" * 64,), datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC))
SOURCES = [
    "hf://org/tiny",
    "oci://registry/model:1?path=/m",
    "pvc://claim/path",
    "ngc://org/team/tiny:1",
    "s3://bucket/tiny",
    "https://host/tiny.tar.gz",
]
#: Variables that hold a secret, with the key of the Secret that each comes from.
SECRETS = {
    "HF_TOKEN": "token",
    "NGC_API_KEY": "token",
    "AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN": "AWS_SESSION_TOKEN",
}


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
    holders: dict[str, set[tuple[str, str]]] = {}
    for name, pod in _pods(service, engine, defaults).items():
        assert not any("secret" in volume for volume in pod["volumes"])
        for container in _containers(pod):
            assert "envFrom" not in container
            for entry in container.get("env", []):
                if entry["name"] in SECRETS:
                    reference = dict(entry["valueFrom"]["secretKeyRef"])
                    assert reference.pop("optional", None) in (
                        [True] if entry["name"] == "AWS_SESSION_TOKEN" else [None]
                    )
                    assert reference == {"name": "hub", "key": SECRETS[entry["name"]]}
                    held = holders.setdefault(f"{entry['name']} {name.split()[-1]}", set())
                    held.add((name.split()[0], container["name"]))
                else:
                    assert "secretKeyRef" not in entry.get("valueFrom", {})
    fetching = {("resolve", "resolve"), ("prepare", "fetch")}
    assert holders == dict.fromkeys(
        (
            "HF_TOKEN hf://org/tiny",
            "NGC_API_KEY ngc://org/team/tiny:1",
            "AWS_ACCESS_KEY_ID s3://bucket/tiny",
            "AWS_SECRET_ACCESS_KEY s3://bucket/tiny",
            "AWS_SESSION_TOKEN s3://bucket/tiny",
        ),
        fetching,
    )


def test_a_bucket_is_named_with_its_server(service: RerankerService, defaults: Defaults) -> None:
    for given, expected in (
        ({}, {"AWS_REGION": "us-east-1"}),
        (
            {"endpoint": "https://minio.example:9000", "region": "eu-central-1"},
            {"AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL": "https://minio.example:9000"},
        ),
    ):
        source = EngineSource(source="s3://bucket/tiny", **given)
        pod = _template(jobs.resolve_job(service, source, "k", 1, defaults))
        env = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
        assert {name: value for name, value in env.items() if name.startswith("AWS_")} == expected
        assert env["TMPDIR"] == "/work"


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


def _with_model(service: RerankerService, **changes: Any) -> RerankerService:
    raw = service.model_dump(mode="json", by_alias=True, exclude_none=True)
    model = raw["spec"]["model"] | changes
    return RerankerService.model_validate(raw | {"spec": raw["spec"] | {"model": model}})


SAID = {
    "template": "-{query}\n$(HF_TOKEN) {passage}",
    "labels": ["yes", "no"],
    "pooling": "last",
    "activation": "none",
}
SAID_ARGUMENTS = [
    "--template=-{query}\n$$(HF_TOKEN) {passage}",
    "--pooling=last",
    "--activation=none",
    "--label=yes",
    "--label=no",
]


def test_what_a_user_says_of_scoring_reaches_resolve_export_and_the_identity(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    changed = _with_model(service, **SAID)
    source = engines.source_of(changed)
    (resolve,) = _template(jobs.resolve_job(changed, source, "k", 1, defaults))["containers"]
    assert [arg for arg in resolve["args"] if arg in SAID_ARGUMENTS] == SAID_ARGUMENTS
    scoring = engines.scoring_of(changed)
    assert scoring is not None
    prepare = engine.spec.prepare.model_copy(update={"scoring": scoring})
    built = engine.model_copy(update={"spec": engine.spec.model_copy(update={"prepare": prepare})})
    pod = _template(jobs.prepare_job(built, 1, defaults, RETENTION))
    export = next(c for c in _containers(pod) if c["name"] == "export")
    assert export["args"][-7:-2] == SAID_ARGUMENTS
    assert digest_of(prepare) != digest_of(engine.spec.prepare)
    assert engines.scoring_of(service) is None


@pytest.mark.parametrize("adapter", ["hf://org/lora", "pvc://claim/lora"])
@pytest.mark.parametrize("source", SOURCES)
def test_an_adapter_is_fetched_beside_its_model(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults, source: str, adapter: str
) -> None:
    hub = adapter.startswith("hf")
    named = {"source": adapter} | ({"revision": "v2"} if hub else {})
    changed = _with_model(service, source=source, adapter=named)
    found = engines.source_of(changed)
    resolving = _template(jobs.resolve_job(changed, found, "k", 1, defaults))
    (resolve,) = resolving["containers"]
    args = resolve["args"]
    assert args[args.index("--adapter") + 1] == adapter
    assert ("--adapter-revision=v2" in args) is hub

    update = {"source": found, "prepare": engine.spec.prepare.model_copy(update={"adapter": "a1"})}
    built = engine.model_copy(update={"spec": engine.spec.model_copy(update=update)})
    preparing = _template(jobs.prepare_job(built, 1, defaults, RETENTION))
    stages = {c["name"]: c for c in _containers(preparing)}
    assert list(stages)[-4:] == ["fetch", "fetch-adapter", "export", "publish"]
    args = stages["fetch-adapter"]["args"]
    assert args[:5] == ["fetch-adapter", "--source", adapter, "--revision", "a1"]
    assert args[args.index("--out") + 1] == "/work/adapter"
    args = stages["export"]["args"]
    assert args[args.index("--adapter-dir") + 1] == "/work/adapter"
    for pod in (resolving, preparing):
        assert list(_violations(pod)) == []
        volumes = [volume["name"] for volume in pod["volumes"]]
        assert len(volumes) == len(set(volumes))
        for container in _containers(pod):
            mounts = [entry["name"] for entry in container["volumeMounts"]]
            assert set(mounts) <= set(volumes)
            assert len(mounts) == len(set(mounts))
            variables = [entry["name"] for entry in container.get("env", [])]
            assert len(variables) == len(set(variables))
            # A token is for those that talk to the hub.
            # The keys of a catalogue or bucket are none.
            token = hub and not source.startswith(("ngc:", "s3:"))
            talks = {"resolve": token or source.startswith("hf"), "fetch": source.startswith("hf"),
                     "fetch-adapter": token}  # fmt: skip
            assert ("HF_TOKEN" in variables) is talks.get(container["name"], False)


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
