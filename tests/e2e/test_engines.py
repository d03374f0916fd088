"""Engines are built once: for all services of a namespace, and by a registry for all clusters."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from support import servers
from support.cluster import Cluster
from support.kubectl import Json, Kubectl, eventually
from support.services import Services, order, source

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PASSAGES = ["alpha beta", "gamma", "delta epsilon zeta"]
_LABEL = "pod-security.kubernetes.io/enforce=restricted"
_BUILDING = "reranker.dev/stage in (prepare,compile)"


def _uids(services: Services) -> set[str]:
    """Of the Jobs that build."""
    return {job["metadata"]["uid"] for job in services.kubectl.list("jobs", _BUILDING)}


def test_a_second_service_of_a_model_is_ready_without_a_build(services: Services) -> None:
    services.apply("one", {"model": {"source": source("first")}})
    engine = services.wait_ready("one")["status"]["engine"]
    built = _uids(services)
    services.apply("two", {"model": {"source": source("first")}, "serving": {"maxPassages": 100}})
    assert services.wait_ready("two")["status"]["engine"] == engine
    assert _uids(services) <= built
    assert order(services.rank("two", "which one", PASSAGES))


@pytest.fixture
def registry(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """A registry on this machine, at the address that it has on its way to the node."""
    path = "{.items[0].status.addresses[?(@.type=='InternalIP')].address}"
    node = cluster.kubectl("get", "nodes", "-o", f"jsonpath={path}").strip()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent: it only chooses the way.
        probe.connect((node, 9))
        address = probe.getsockname()[0]
    with servers.registry(tmp_path / "registry", address=address) as host:
        yield host


@pytest.fixture
def elsewhere(cluster: Cluster, services: Services) -> Iterator[Services]:
    """Another namespace with a store of its own: as far as engines go, another cluster."""
    name = "e2e-elsewhere"
    kubectl = cluster.kubectl.within(name)
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, _LABEL)
    yield Services(kubectl)
    kubectl("delete", "rr", "--all", "--wait")
    eventually(lambda: not kubectl.list("rre"), within=90)
    kubectl("delete", "namespace", name, "--wait=false")


def _put_keys(here: Kubectl, there: Kubectl, folder: Path) -> None:
    """The private key where engines are built, the public one where they are taken."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "engine.key", folder / "engine.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    form = PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, form))
    here("create", "secret", "generic", "signing", f"--from-file=cosign.key={private}")
    there("create", "configmap", "trusted", f"--from-file=cosign.pub={public}")


def _engine_condition(services: Services, kind: str) -> Json:
    (engine,) = services.kubectl.list("rre")
    conditions = engine.get("status", {}).get("conditions", [])
    return next((entry for entry in conditions if entry["type"] == kind), {})


def test_what_one_store_pushed_signed_another_one_pulls(
    services: Services, elsewhere: Services, registry: str, tmp_path: Path
) -> None:
    _put_keys(services.kubectl, elsewhere.kubectl, tmp_path)
    place = {"repository": f"oci://{registry}/engines", "plainHttp": True}
    model = {"source": source("first")}
    sign = {"push": True, "signKey": {"name": "signing"}}
    services.apply("here", {"model": model, "engine": {"registry": place | sign}})
    services.wait_ready("here")
    eventually(
        lambda: _engine_condition(services, "Pushed").get("status") == "True",
        within=120,
        describe=lambda: str(_engine_condition(services, "Pushed")),
    )
    trust = {"build": False, "requireSigned": {"configMap": {"name": "trusted"}}}
    elsewhere.apply("there", {"model": model, "engine": {"registry": place | trust}})
    elsewhere.wait_ready("there")
    assert _engine_condition(elsewhere, "Pulled")["status"] == "True"
    assert not _uids(elsewhere)
    answers = [
        order(where.rank(name, "which one", PASSAGES))
        for where, name in ((services, "here"), (elsewhere, "there"))
    ]
    assert answers[0] == answers[1]
