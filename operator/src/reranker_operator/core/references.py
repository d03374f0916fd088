"""The Secrets and ConfigMaps that a service names: which, of what version, and where.

Only their metadata is known, never their contents: uid and resourceVersion are the version. Pods
carry the versions that they were made with in an annotation, so that another version is another
revision and rolls out like any change. Of what the operator may not look at, the pods' own note is
believed: a right that comes and goes must not restart anything.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from reranker_contracts.base import canonical_json
from reranker_operator import names
from reranker_operator.api.conditions import Condition, ConditionType, Reason, condition
from reranker_operator.api.kubernetes import EnvFromSource, EnvVar, Volume
from reranker_operator.api.pods import CaBundle
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.world import Manifest, Reference, ServiceWorld


class Use(NamedTuple):
    """A field of the spec that names an object."""

    field: str
    reference: Reference
    optional: bool = False
    #: Pods take up a change by themselves: it is no other revision.
    live: bool = False


def of_service(service: RerankerService) -> frozenset[Reference]:
    """Everything that the service names, for its pods or for its source."""
    uses = [*_pod_uses(service), *_source_uses(service), *_registry_uses(service)]
    return frozenset(use.reference for use in uses)


def of_pods(world: ServiceWorld, serving: Manifest | None) -> str | None:
    """What the pods' annotation says: the version of each object that they use."""
    before = noted((serving or {}).get("spec", {}).get("template", {}))
    entries: dict[str, str] = {}
    for use in _pod_uses(world.service):
        if use.live:
            continue
        title = "/".join(use.reference)
        version = world.versions.get(use.reference)
        if version is not None:
            entries[title] = names.short_hash(version)
        elif use.reference not in world.versions and title in before:
            entries[title] = before[title]
    return canonical_json(entries) if entries else None


def of_source(world: ServiceWorld, before: str | None) -> str | None:
    """Hash of the versions of what fetching needs; `before` while they are not known."""
    return _versions_of(world, _source_uses(world.service), before)


def of_probes(world: ServiceWorld) -> str | None:
    """The same of the user's own probe set; None where there is none, or nothing is known of it."""
    return _versions_of(world, _probes_uses(world.service), None)


def of_registry(world: ServiceWorld, before: str | None) -> str | None:
    """The same of what the registry's login and keys are in."""
    return _versions_of(world, _registry_uses(world.service), before)


def _versions_of(world: ServiceWorld, uses: Iterator[Use], before: str | None) -> str | None:
    used = sorted({use.reference for use in uses})
    if not used or any(reference not in world.versions for reference in used):
        return before
    return names.short_hash(canonical_json([world.versions[reference] for reference in used]))


def missing(world: ServiceWorld) -> Condition | None:
    """`Accepted` where the pods could not start, for want of what the spec names."""
    namespace = world.service.metadata.namespace
    for use in _pod_uses(world.service):
        if use.optional or world.versions.get(use.reference, "") is not None:
            continue
        kind, name = use.reference
        subject = "secret generic" if kind == "Secret" else "configmap"
        text = (
            f"{use.field} names {kind} {name}, which does not exist in namespace {namespace}; "
            f"create it (kubectl create {subject} {name} -n {namespace} --from-file=KEY=FILE) or "
            "correct the field"
        )
        return condition(ConditionType.ACCEPTED, False, Reason.REFERENCE_NOT_FOUND, text)
    return None


def noted(template: Manifest) -> dict[str, str]:
    """The note on pods that there are; anybody may have written it."""
    annotations = template.get("metadata", {}).get("annotations") or {}
    try:
        found: Any = json.loads(annotations[names.REFERENCES_ANNOTATION])
    except (KeyError, TypeError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(key): str(value) for key, value in found.items()}


def _source_uses(service: RerankerService) -> Iterator[Use]:
    spec = service.spec
    if spec.model.secret_ref is not None:
        yield Use("spec.model.secretRef", Reference("Secret", spec.model.secret_ref.name))
    yield from _probes_uses(service)
    yield from _bundle_uses(spec.ca_bundle)


def _probes_uses(service: RerankerService) -> Iterator[Use]:
    if (probes := service.spec.engine.parity.probes) is not None:
        reference = Reference("ConfigMap", probes.config_map.name)
        yield Use("spec.engine.parity.probes", reference)


def _registry_uses(service: RerankerService) -> Iterator[Use]:
    registry, path = service.spec.engine.registry, "spec.engine.registry"
    if registry is None:
        return
    if registry.secret_name is not None:
        yield Use(f"{path}.secretName", Reference("Secret", registry.secret_name))
    if registry.sign_key is not None:
        yield Use(f"{path}.signKey", Reference("Secret", registry.sign_key.name))
    if (trusted := registry.require_signed) is not None:
        yield from _either(f"{path}.requireSigned", trusted.secret, trusted.config_map)
    yield from _bundle_uses(service.spec.ca_bundle)


def _bundle_uses(bundle: CaBundle | None) -> Iterator[Use]:
    if bundle is not None and bundle.config_map is not None:
        yield Use("spec.caBundle.configMap", Reference("ConfigMap", bundle.config_map.name))
    if bundle is not None and bundle.secret is not None:
        yield Use("spec.caBundle.secret", Reference("Secret", bundle.secret.name))


def _pod_uses(service: RerankerService) -> Iterator[Use]:
    serving = service.spec.serving
    yield from _bundle_uses(service.spec.ca_bundle)
    if serving.auth is not None:
        keys = Reference("Secret", serving.auth.secret_ref.name)
        yield Use("spec.serving.auth.secretRef", keys, live=True)
    if serving.tls is not None:
        certificate = Reference("Secret", serving.tls.secret_name)
        yield Use("spec.serving.tls.secretName", certificate, live=True)
    for name, ours in (("gateway", serving.gateway), ("triton", serving.triton)):
        path = f"spec.serving.{name}"
        yield from _env_uses(path, ours.env)
        yield from _env_from_uses(path, ours.env_from)
    pod = serving.pod
    for kind, containers in (("initContainers", pod.init_containers), ("sidecars", pod.sidecars)):
        for container in containers:
            path = f"spec.serving.pod.{kind}[{container.name}]"
            yield from _env_uses(path, container.env)
            yield from _env_from_uses(path, container.env_from)
    for volume in pod.volumes:
        yield from _volume_uses(f"spec.serving.pod.volumes[{volume.name}]", volume)


def _env_uses(path: str, entries: tuple[EnvVar, ...]) -> Iterator[Use]:
    for entry in entries:
        if (source := entry.value_from) is not None:
            field = f"{path}.env[{entry.name}].valueFrom"
            yield from _either(field, source.secret_key_ref, source.config_map_key_ref, "KeyRef")


def _env_from_uses(path: str, entries: tuple[EnvFromSource, ...]) -> Iterator[Use]:
    for number, entry in enumerate(entries):
        yield from _either(
            f"{path}.envFrom[{number}]", entry.secret_ref, entry.config_map_ref, "Ref"
        )


def _volume_uses(path: str, volume: Volume) -> Iterator[Use]:
    if (files := volume.secret) is not None:
        yield Use(f"{path}.secret", Reference("Secret", files.secret_name), bool(files.optional))
    yield from _either(path, None, volume.config_map)
    for number, entry in enumerate(volume.projected.sources if volume.projected else ()):
        field = f"{path}.projected.sources[{number}]"
        yield from _either(field, entry.secret, entry.config_map)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def _either(
    path: str, secret: _Named | None, config: _Named | None, suffix: str = ""
) -> Iterator[Use]:
    """Of the two fields for a Secret and a ConfigMap, the ones that are given."""
    if secret is not None:
        reference = Reference("Secret", secret.name)
        yield Use(f"{path}.secret{suffix}", reference, _is_optional(secret))
    if config is not None:
        reference = Reference("ConfigMap", config.name)
        yield Use(f"{path}.configMap{suffix}", reference, _is_optional(config))


def _is_optional(reference: _Named) -> bool:
    return bool(getattr(reference, "optional", None))
