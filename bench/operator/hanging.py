"""A server that takes connections and never says a word, in the way of one service's writes."""

import base64
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api import Json

from reranker_operator import names

_PATIENCE_SECONDS = 10


@contextmanager
def hanging_webhook(namespace: str, service: str) -> Iterator[Json]:
    """Its configuration: every write of the service's Deployments waits until the time is over."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        hook = {
            "name": "hangs.reranker.dev",
            "clientConfig": {"url": f"https://127.0.0.1:{port}/", "caBundle": _certificate()},
            "rules": [
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"],
                 "operations": ["CREATE", "UPDATE"]}
            ],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "objectSelector": {"matchLabels": {names.SERVICE_LABEL: service}},
            "timeoutSeconds": _PATIENCE_SECONDS,
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }  # fmt: skip
        yield {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "hangs"},
            "webhooks": [hook],
        }


def _certificate() -> str:
    """Some authority: the handshake never gets so far that it matters."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder, "key"), Path(folder, "certificate")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=nobody",
             "-days", "1", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        return base64.b64encode(certificate.read_bytes()).decode()
