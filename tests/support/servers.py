"""Real servers that tests start on loopback, built from Go modules by `cluster test-servers`."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from support.ports import free_port

_REPOSITORY = Path(__file__).resolve().parents[2]
_START_SECONDS = 60


def program(name: str) -> Path:
    """The built server; skips where nobody has built it, fails where `make test` should have."""
    named = os.environ.get("RERANKER_CLUSTER_BIN")
    path = (Path(named) if named else _REPOSITORY / ".cluster/bin") / name
    if not path.is_file():
        told = f"{path} is missing; build it with `hack/local-cluster/cluster test-servers`"
        pytest.fail(told) if named else pytest.skip(told)
    return path


@contextmanager
def running(
    command: list[str], environment: dict[str, str], health: str, log: Path
) -> Iterator[None]:
    """A server until the block ends; it has answered at `health` before the block begins."""
    with log.open("wb") as stream:
        server = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=stream, stderr=stream
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(health):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command[0]} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        # Any answer will do: one that asks for credentials is one.
        client = httpx.Client(verify=False, trust_env=False)  # noqa: S501 - only whether it is up
        with client:
            return client.get(url, timeout=5).status_code < 500
    except httpx.TransportError:
        return False


@contextmanager
def registry(
    folder: Path, *, htpasswd: str | None = None, address: str = "127.0.0.1"
) -> Iterator[str]:
    """A Distribution registry; gives its host and port."""
    port = free_port(address)
    environment = {
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(folder / "data"),
        "REGISTRY_HTTP_ADDR": f"{address}:{port}",
        "REGISTRY_LOG_LEVEL": "warn",
        "OTEL_TRACES_EXPORTER": "none",
    }
    configuration = folder / "registry.yml"
    folder.mkdir(parents=True, exist_ok=True)
    configuration.write_text("version: 0.1\nstorage:\n  filesystem: {}\nhttp:\n  addr: :0\n")
    if htpasswd:
        (folder / "htpasswd").write_text(htpasswd)
        environment["REGISTRY_AUTH"] = "htpasswd"
        environment["REGISTRY_AUTH_HTPASSWD_REALM"] = "test"
        environment["REGISTRY_AUTH_HTPASSWD_PATH"] = str(folder / "htpasswd")
    command = [str(program("registry")), "serve", str(configuration)]
    with running(command, environment, f"http://{address}:{port}/v2/", folder / "log"):
        yield f"{address}:{port}"


@contextmanager
def minio(
    folder: Path, user: str, password: str, *, certificate: Path | None = None
) -> Iterator[str]:
    """A MinIO server; gives its address. With key and certificate (one PEM file) it speaks TLS."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        "MINIO_ROOT_USER": user,
        "MINIO_ROOT_PASSWORD": password,
        "MINIO_UPDATE": "off",
        "MINIO_BROWSER": "off",
        "HOME": str(folder),
    }
    address = f"127.0.0.1:{port}"
    command = [str(program("minio")), "server", "--quiet", "--address", address]
    command.append(str(folder / "data"))
    url = f"http://{address}"
    if certificate is not None:
        private, begin, public = certificate.read_text().partition("-----BEGIN CERTIFICATE")
        certificates = folder / "certificates"
        certificates.mkdir()
        (certificates / "private.key").write_text(private)
        (certificates / "public.crt").write_text(begin + public)
        command[2:2] = ["--certs-dir", str(certificates)]
        url = f"https://{address}"
    with running(command, environment, f"{url}/minio/health/ready", folder / "log"):
        yield url
