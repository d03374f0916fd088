"""What reading a model's source takes: init containers, volumes, and what the client is told.

Only the stages that read a source get this, so that no other one sees a token.
"""

from dataclasses import dataclass

from reranker_operator.api.v1alpha1 import EngineSource
from reranker_operator.render import proxy
from reranker_operator.render.defaults import Defaults
from reranker_operator.render.pods import Json, claim_volume, empty_dir, mount
from reranker_operator.render.stages import Stages
from reranker_operator.source import (
    BucketSource,
    CatalogueSource,
    HubSource,
    ImageSource,
    RemoteSource,
    Source,
    SourceError,
    VolumeSource,
    parse,
)

#: Keys of the Secret of an s3:// source, named as the variables that they become.
_BUCKET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_SESSION_KEY = "AWS_SESSION_TOKEN"
_PROBES = "probes.jsonl"


@dataclass(frozen=True)
class Access:
    """What reading a source takes: `arguments` of the builder, and what its pod needs for them."""

    init: list[Json]
    volumes: list[Json]
    arguments: list[str]
    mounts: list[Json]
    env: list[Json]


def source_access(source: Source, stages: Stages, spec: EngineSource, defaults: Defaults) -> Access:
    """Of the model itself."""
    if isinstance(source, ImageSource):
        volumes = [empty_dir("tools", size="64Mi")]
        return Access(stages.copy_image(source), volumes, ["--source-dir", "/work/image"], [], [])
    if isinstance(source, VolumeSource):
        return _claim_access("source", "--source-dir", source)
    return _remote_access(source, spec, defaults)


def adapter_access(spec: EngineSource, defaults: Defaults, option: str = "--source-dir") -> Access:
    """Of the LoRA adapter, whose directory the builder takes as `option`."""
    if spec.adapter is None:
        return Access([], [], [], [], [])
    source = parse(spec.adapter, "model.adapter.source")
    if isinstance(source, VolumeSource):
        return _claim_access("adapter", option, source)
    if isinstance(source, ImageSource):
        # The schema refuses it.
        raise SourceError("model.adapter.source is hf:// or pvc://")
    return _remote_access(source, spec, defaults)


def probes_access(spec: EngineSource) -> Access:
    """Of the user's own probe set."""
    if spec.probes is None:
        return Access([], [], [], [], [])
    file = spec.probes.config_map
    items = [{"key": file.key, "path": _PROBES}]
    volume = {"name": "probes", "configMap": {"name": file.name, "items": items}}
    place = "/etc/probes"
    arguments = ["--probes", f"{place}/{_PROBES}"]
    return Access([], [volume], arguments, [mount("probes", place, read_only=True)], [])


def _claim_access(name: str, option: str, source: VolumeSource) -> Access:
    # All of the claim: of a subPath that is not there the kubelet would make a folder.
    mounts = [mount(name, f"/{name}", read_only=True)]
    volumes = [claim_volume(name, source.claim, read_only=True)]
    return Access([], volumes, [option, f"/{name}"], mounts, [])


def _remote_access(source: RemoteSource, spec: EngineSource, defaults: Defaults) -> Access:
    env = _remote_environment(source, spec, defaults)
    env += proxy.environment(spec.proxy, spec.ca_bundle)
    return Access([], proxy.volumes(spec.ca_bundle), [], proxy.mounts(spec.ca_bundle), env)


def once(*lists: list[Json]) -> list[Json]:
    """Entries by name; model and adapter may both come from the hub."""
    return list({entry["name"]: entry for entries in lists for entry in entries}.values())


def _remote_environment(source: RemoteSource, spec: EngineSource, defaults: Defaults) -> list[Json]:
    """What the source's client reads; only the stages that talk to it get this."""
    # Archives are downloaded whole before they are looked at.
    env: list[Json] = [{"name": "TMPDIR", "value": "/work"}]
    secret = spec.secret_ref
    if isinstance(source, HubSource):
        env.append({"name": "HF_HOME", "value": "/work/hub"})
        if defaults.hub_endpoint:
            env.append({"name": "HF_ENDPOINT", "value": defaults.hub_endpoint})
        # The keys of a model in a catalogue or bucket are no token for its adapter on the hub.
        if secret and not isinstance(parse(spec.source), CatalogueSource | BucketSource):
            env.append(_from_secret("HF_TOKEN", secret.name, secret.key))
    elif isinstance(source, CatalogueSource) and secret:
        env.append(_from_secret("NGC_API_KEY", secret.name, secret.key))
    elif isinstance(source, BucketSource):
        env.append({"name": "AWS_REGION", "value": spec.region or "us-east-1"})
        if spec.endpoint:
            env.append({"name": "AWS_ENDPOINT_URL", "value": spec.endpoint})
        if secret:
            env += [_from_secret(name, secret.name, name) for name in _BUCKET_KEYS]
            env.append(_from_secret(_SESSION_KEY, secret.name, _SESSION_KEY, optional=True))
    return env


def _from_secret(name: str, secret: str, key: str, *, optional: bool = False) -> Json:
    reference: Json = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}
