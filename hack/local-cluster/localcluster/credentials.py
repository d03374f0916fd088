"""Certificates and keys of one cluster: a CA of its own, one identity a component.

Made in one go in a directory that is renamed when complete, so a killed
process leaves either all of them or none. Private keys are readable by root
only; nothing is shared between clusters.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from localcluster import commands, files
from localcluster.addressing import Addresses
from localcluster.layout import NODE_DIR

_DAYS = "3650"
_STAMP = "stamp.json"
_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


@dataclass(frozen=True)
class _Certificate:
    """One identity: file name, subject, use and issuing CA."""

    name: str
    subject: str
    usage: str = "clientAuth"
    names: tuple[str, ...] = ()
    issuer: str = "ca"


def _certificates(node: str, addresses: Addresses) -> list[_Certificate]:
    return [
        _Certificate(
            "apiserver",
            "/CN=kube-apiserver",
            "serverAuth",
            (
                *(f"IP:{ip}" for ip in (addresses.node, addresses.api_service, "127.0.0.1")),
                *("DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc"),
                *("DNS:kubernetes.default.svc.cluster.local", "DNS:localhost"),
            ),
        ),
        _Certificate(
            "kubelet-server", f"/CN={node}", "serverAuth", (f"IP:{addresses.node}", f"DNS:{node}")
        ),
        _Certificate("admin", "/O=system:masters/CN=local-cluster-admin"),
        _Certificate("apiserver-kubelet-client", "/O=system:masters/CN=kube-apiserver"),
        _Certificate("kubelet", f"/O=system:nodes/CN=system:node:{node}"),
        _Certificate("controller-manager", "/CN=system:kube-controller-manager"),
        _Certificate("scheduler", "/CN=system:kube-scheduler"),
        _Certificate("proxy", "/CN=system:kube-proxy"),
        _Certificate("front-proxy", "/CN=front-proxy", issuer="front-proxy-ca"),
    ]


def create(directory: Path, node: str, addresses: Addresses) -> bool:
    """Make all credentials unless they are there for these names; return whether it did."""
    certificates = _certificates(node, addresses)
    stamp = {"sha256": hashlib.sha256(repr(certificates).encode()).hexdigest()}
    if files.read_json(directory / _STAMP) == stamp:
        return False
    files.remove(directory)
    making = directory.with_suffix(".new")
    files.remove(making)
    making.mkdir(mode=0o700, parents=True)
    for authority in ("ca", "front-proxy-ca"):
        _openssl_req(
            making,
            authority,
            f"/CN=local-cluster-{authority}",
            ["-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"],
        )
    for certificate in certificates:
        issuer = making / certificate.issuer
        extensions = [
            "basicConstraints=critical,CA:FALSE",
            f"extendedKeyUsage={certificate.usage}",
            *(["subjectAltName=" + ",".join(certificate.names)] if certificate.names else []),
        ]
        options = [part for extension in extensions for part in ("-addext", extension)]
        authority_files = ["-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key"]
        _openssl_req(making, certificate.name, certificate.subject, authority_files + options)
    key = making / "service-account.key"
    commands.capture(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    )
    public = commands.capture(["openssl", "ec", "-in", str(key), "-pubout"])
    files.write(making / "service-account.pub", public)
    for path in making.iterdir():
        path.chmod(0o600)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())  # a rename must not outlive its files in a power loss
    files.write_json(making / _STAMP, stamp, mode=0o600)
    making.rename(directory)
    return True


def admin_kubeconfig(pki: Path, cluster: str, addresses: Addresses) -> str:
    """Return the kubeconfig of the cluster's user, with everything in it."""

    def embedded(name: str) -> str:
        return base64.b64encode((pki / name).read_bytes()).decode()

    return _kubeconfig(
        cluster,
        addresses,
        {"certificate-authority-data": embedded("ca.crt")},
        {
            "client-certificate-data": embedded("admin.crt"),
            "client-key-data": embedded("admin.key"),
        },
    )


def component_kubeconfig(identity: str, cluster: str, addresses: Addresses) -> str:
    """Return the kubeconfig of one component, with paths as the node sees them."""
    pki = NODE_DIR / "pki"
    return _kubeconfig(
        cluster,
        addresses,
        {"certificate-authority": str(pki / "ca.crt")},
        {
            "client-certificate": str(pki / f"{identity}.crt"),
            "client-key": str(pki / f"{identity}.key"),
        },
    )


def _kubeconfig(
    name: str, addresses: Addresses, authority: dict[str, str], user: dict[str, str]
) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": addresses.api_url, **authority}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    return json.dumps(document, indent=2) + "\n"  # JSON is YAML


def _openssl_req(directory: Path, name: str, subject: str, options: list[str]) -> None:
    """Make a key and its certificate in one step."""
    commands.capture(
        [
            *("openssl", "req", "-x509", "-sha256", "-days", _DAYS, "-subj", subject, *_NEW_KEY),
            *("-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}.crt")),
            *options,
        ]
    )
