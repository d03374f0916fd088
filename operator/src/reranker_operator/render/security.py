"""API keys and TLS of the serving pods: Secrets that are mounted, never read."""

from typing import Final

from reranker_operator.api.v1alpha1 import ServingSpec
from reranker_operator.render.pods import Json, mount

KEYS_VOLUME: Final = "api-keys"
_KEYS_FOLDER: Final = "/etc/api-keys"
TLS_VOLUME: Final = "tls"
_TLS_FOLDER: Final = "/etc/tls"


def settings(serving: ServingSpec) -> dict[str, object]:
    """Of the gateway: where to look."""
    folders: dict[str, object] = {}
    if serving.auth is not None:
        folders["API_KEYS_DIR"] = _KEYS_FOLDER
    if serving.tls is not None:
        folders["TLS_DIR"] = _TLS_FOLDER
    return folders


def volumes(serving: ServingSpec) -> list[Json]:
    """Whole Secrets: only those that are mounted as a folder are kept up to date."""
    found: list[Json] = []
    if serving.auth is not None:
        found.append({"name": KEYS_VOLUME, "secret": {"secretName": serving.auth.secret_ref.name}})
    if serving.tls is not None:
        found.append({"name": TLS_VOLUME, "secret": {"secretName": serving.tls.secret_name}})
    return found


def mounts(serving: ServingSpec) -> list[Json]:
    """Where `settings` says they are."""
    found = []
    if serving.auth is not None:
        found.append(mount(KEYS_VOLUME, _KEYS_FOLDER, read_only=True))
    if serving.tls is not None:
        found.append(mount(TLS_VOLUME, _TLS_FOLDER, read_only=True))
    return found


def protocol(serving: ServingSpec, port: str) -> Json:
    """What the Service's `port`, by name, tells Gateways, Ingress controllers and meshes.

    Source: Kubernetes' standard protocols of Services. `https` holds for HTTP/2 too, which TLS
    agrees on by itself; without TLS HTTP/2 must be known before.
    """
    if port == "metrics":
        return {}
    if serving.tls is not None:
        return {"appProtocol": "https"}
    return {"appProtocol": "kubernetes.io/h2c"} if port == "grpc" else {}
