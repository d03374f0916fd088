"""The way out of the cluster, as programs expect it: proxy variables and a file of authorities."""

from reranker_operator.api.pods import CaBundle, ProxySpec
from reranker_operator.render.pods import Json, mount

CA_VOLUME = "ca-bundle"
_CA_FOLDER = "/etc/ca-bundle"
_CA_FILE = f"{_CA_FOLDER}/ca.crt"
#: Triton is asked at its loopback address, and gRPC's client heeds these variables, too.
_DIRECT = ("localhost", "127.0.0.1", ".svc", ".cluster.local")


def environment(proxy: ProxySpec | None, bundle: CaBundle | None) -> list[Json]:
    """In both spellings: some programs know only the one, some only the other."""
    values: dict[str, str] = {}
    if proxy is not None:
        direct = ",".join([*filter(None, [(proxy.no_proxy or "").strip(" ,")]), *_DIRECT])
        pairs = {
            "HTTP_PROXY": proxy.http_proxy,
            "HTTPS_PROXY": proxy.https_proxy,
            "NO_PROXY": direct,
        }
        given = {name: value for name, value in pairs.items() if value}
        values |= given | {name.lower(): value for name, value in given.items()}
    if bundle is not None:
        values |= {"SSL_CERT_FILE": _CA_FILE, "REQUESTS_CA_BUNDLE": _CA_FILE}
    return [{"name": name, "value": value} for name, value in values.items()]


def volumes(bundle: CaBundle | None) -> list[Json]:
    """The file, under a name that does not depend on the key."""
    if bundle is None:
        return []
    if bundle.secret is not None:
        key, source = bundle.secret.key, {"secretName": bundle.secret.name}
        kind = "secret"
    elif bundle.config_map is not None:
        key, source = bundle.config_map.key, {"name": bundle.config_map.name}
        kind = "configMap"
    else:
        return []
    items = [{"key": key, "path": "ca.crt"}]
    return [{"name": CA_VOLUME, kind: source | {"items": items}}]


def mounts(bundle: CaBundle | None) -> list[Json]:
    """Where `environment` says it is."""
    return [mount(CA_VOLUME, _CA_FOLDER, read_only=True)] if bundle is not None else []
