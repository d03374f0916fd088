"""What talking to the registry takes: arguments of pull and push, and the files behind them.

Login and keys are mounted into the one container that needs them; the operator never sees them.
"""

from reranker_contracts.base import canonical_json
from reranker_operator import names
from reranker_operator.api.registry import EngineRegistry, RegistrySpec
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.render import proxy
from reranker_operator.render.access import Access
from reranker_operator.render.pods import Json, mount

_LOGIN, _SIGN, _TRUST = "registry-login", "registry-sign", "registry-trust"
_PASSWORD = "COSIGN_PASSWORD"  # noqa: S105 - the variable's name


def registry_of(service: RerankerService, references: str | None = None) -> EngineRegistry | None:
    """What a service says of the registry, for its engine; `references` as in there."""
    asked = service.spec.engine.registry
    if asked is None:
        return None
    said = {name: getattr(asked, name) for name in RegistrySpec.model_fields}
    return EngineRegistry(
        **said,
        proxy=service.spec.proxy,
        ca_bundle=service.spec.ca_bundle,
        references=references,
    )


def reference(engine: RerankerEngine, registry: EngineRegistry) -> str:
    """Where the engine lies there: the same inputs have the same name everywhere."""
    return f"{registry.repository}:{engine.spec.digest}"


def asked_key(registry: EngineRegistry) -> str:
    """Hash of all settings: with others the registry is worth asking again."""
    return names.short_hash(canonical_json(registry.to_dict()), 16)


def pushed_key(registry: EngineRegistry) -> str:
    """Hash of what decides where a pushed engine lies, and who signed it."""
    sign = registry.sign_key.to_dict() if registry.sign_key else None
    return names.short_hash(canonical_json([registry.repository, sign]), 16)


def pull_access(registry: EngineRegistry) -> Access:
    """For `engine-builder pull`."""
    access = _access(registry)
    trusted = registry.require_signed
    if trusted is not None:
        source = _public_key(registry)
        access.volumes.append({"name": _TRUST} | source)
        access.mounts.append(mount(_TRUST, "/etc/registry/trust", read_only=True))
        access.arguments.extend(["--key", "/etc/registry/trust/key.pub"])
    return access


def push_access(registry: EngineRegistry) -> Access:
    """For `engine-builder push`."""
    access = _access(registry)
    sign = registry.sign_key
    if sign is not None:
        items = [{"key": sign.key, "path": "key.pem"}]
        access.volumes.append({"name": _SIGN, "secret": {"secretName": sign.name, "items": items}})
        access.mounts.append(mount(_SIGN, "/etc/registry/sign", read_only=True))
        access.arguments.extend(["--sign-key", "/etc/registry/sign/key.pem"])
        if sign.password_key:
            selector = {"name": sign.name, "key": sign.password_key}
            access.env.append({"name": _PASSWORD, "valueFrom": {"secretKeyRef": selector}})
    return access


def _access(registry: EngineRegistry) -> Access:
    """What both need: the login, authorities and the way out."""
    # No file of that name is there: without a login none is looked for in some home.
    env: list[Json] = [{"name": "DOCKER_CONFIG", "value": "/etc/registry/login"}]
    env += proxy.environment(registry.proxy, registry.ca_bundle)
    volumes, mounts = proxy.volumes(registry.ca_bundle), proxy.mounts(registry.ca_bundle)
    arguments = ["--plain-http"] if registry.plain_http else []
    if registry.secret_name:
        items = [{"key": ".dockerconfigjson", "path": "config.json"}]
        secret = {"secretName": registry.secret_name, "items": items}
        volumes.append({"name": _LOGIN, "secret": secret})
        mounts.append(mount(_LOGIN, "/etc/registry/login", read_only=True))
        arguments += ["--registry-config", "/etc/registry/login/config.json"]
    return Access([], volumes, arguments, mounts, env)


def _public_key(registry: EngineRegistry) -> Json:
    trusted = registry.require_signed
    if trusted is not None and trusted.config_map is not None:
        items = [{"key": trusted.config_map.key, "path": "key.pub"}]
        return {"configMap": {"name": trusted.config_map.name, "items": items}}
    if trusted is not None and trusted.secret is not None:
        items = [{"key": trusted.secret.key, "path": "key.pub"}]
        return {"secret": {"secretName": trusted.secret.name, "items": items}}
    raise ValueError("the schema asks for configMap or secret")
