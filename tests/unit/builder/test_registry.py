"""push, pull and inspect against a real registry, with every kind of login it has."""

import base64
import json
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from support import servers
from support.ports import free_port

from engine_builder import transfer
from engine_builder.cli import main
from engine_builder.errors import StageError, UsageError
from engine_builder.oci import Registry, parse_reference, pull, push
from engine_builder.oci import client as oci_client
from engine_builder.oci.auth import find_credentials
from engine_builder.progress import Progress
from engine_builder.provenance import examine, load_signing_key, sign_directory
from engine_builder.store import Store
from reranker_contracts import StageReason, digest_of, verify_artefact, write_manifest

from .artefacts import ENGINE, published_engine
from .remote import Quiet, serving
from .test_provenance import write_pair

DIGEST = digest_of(ENGINE)
PROGRESS = Progress("test")
#: bcrypt of `secret`.
HTPASSWD = "builder:$2b$04$s/XdOWE3QYMr4/p7n4by6u8fUQTCOeezaJhLewCOP/eZsgyhcfqO.\n"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def reference(host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A repository of this test's own."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 0)
    return f"oci://{host}/engines/{uuid.uuid4().hex}:v1"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return published_engine(tmp_path)


def cli(*arguments: str | Path) -> int:
    return main([*map(str, arguments), "--plain-http"])


def opened(reference: str, *, writes: bool = False) -> Registry:
    return Registry(parse_reference(reference), plain_http=True, writes=writes)


def test_there_and_back(
    engine: Path, reference: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("push", engine, reference) == 0
    pinned = capsys.readouterr().out.strip()
    assert pinned.startswith(f"{reference}@sha256:")
    for number, name in enumerate((reference, pinned, pinned.replace(":v1@", "@"))):
        store = tmp_path / f"store-{number}"
        assert cli("pull", name, "--store", store) == 0
        assert Path(capsys.readouterr().out.strip()) == store / "engines" / DIGEST
        verify_artefact(store / "engines" / DIGEST, DIGEST)
        original = {path.name: path.read_bytes() for path in engine.rglob("*") if path.is_file()}
        pulled = store / "engines" / DIGEST
        assert original == {p.name: p.read_bytes() for p in pulled.rglob("*") if p.is_file()}
        assert list((store / "tmp").iterdir()) == []
    assert cli("pull", reference, "--store", tmp_path / "store-0") == 0
    assert "there already" in capsys.readouterr().err


def test_of_an_engine_that_is_kept_its_own_manifest_is_told(
    engine: Path, reference: str, tmp_path: Path
) -> None:
    assert cli("push", engine, reference) == 0
    store, there = tmp_path / "other", tmp_path / f"other/engines/{DIGEST}"
    shutil.copytree(engine, there)
    manifest = verify_artefact(there)
    assert manifest.parity is not None
    poor = manifest.parity.model_copy(update={"kendall_tau": 0.4})
    write_manifest(there, manifest.model_copy(update={"parity": poor}))
    (there / "provenance.json").unlink()
    os.utime(there / "manifest.json", (0, 0))
    with opened(reference) as registry:
        remote, _evidence, fresh = pull(registry, "v1", Store(store), PROGRESS)
    assert (fresh, remote.manifest.parity) == (False, poor)
    # Needed just now, so it is not the first to go.
    assert (there / "manifest.json").stat().st_mtime > 0


def test_the_artefact_is_one_that_other_tools_read(engine: Path, reference: str) -> None:
    assert cli("push", engine, reference) == 0
    with opened(reference) as registry:
        data, _digest = registry.manifest("v1")
    document = json.loads(data)
    assert document["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert document["artifactType"] == "application/vnd.reranker.engine.v1"
    titles = {
        entry["annotations"]["org.opencontainers.image.title"]: entry["digest"]
        for entry in document["layers"]
    }
    manifest = verify_artefact(engine)
    for entry in manifest.files:
        assert titles[entry.path] == f"sha256:{entry.sha256}"
    assert "provenance.json" in titles


def test_inspect_reads_the_registry_and_downloads_nothing_big(
    engine: Path, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("push", engine, reference) == 0
    capsys.readouterr()
    assert cli("inspect", reference) == 0
    output = capsys.readouterr().out
    assert DIGEST in output
    assert "the registry lists exactly these files, with provenance, not signed" in output
    assert cli("inspect", reference.replace(":v1", ":v2")) == 3
    assert cli("inspect", "oci://host/UPPER") == 2
    port = free_port()
    assert cli("inspect", f"oci://127.0.0.1:{port}/x:y") == 4


def test_only_signed_engines_are_pulled_when_that_is_required(
    engine: Path, reference: str, tmp_path: Path
) -> None:
    private, public = write_pair(tmp_path, "ours")
    store = tmp_path / "other"
    assert cli("push", engine, reference, "--key", public) == 8
    assert cli("push", engine, reference) == 0
    assert cli("pull", reference, "--store", store, "--key", public) == 8
    assert not list(store.glob("engines/*"))
    sign_directory(engine, load_signing_key(private, None))
    assert cli("push", engine, reference, "--key", public) == 0
    assert cli("inspect", reference, "--key", public) == 0
    assert cli("pull", reference, "--store", store, "--key", public) == 0
    assert examine(store / "engines" / DIGEST).claimed_keys


class Broken(BaseHTTPRequestHandler):
    """A way to the registry that breaks off bodies and, once, an upload."""

    target: str
    #: Bytes after which the next bodies end, one number each.
    cuts: list[int]
    requests: list[tuple[str, str, str]]
    refuse_patch: int = 0

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the test's output clean."""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.requests.append((self.command, self.path, self.headers.get("Range", "")))
        if self.command == "PATCH" and self.refuse_patch:
            type(self).refuse_patch -= 1
            self.connection.close()
            return
        hop = {"host", "content-length", "connection"}
        headers = {k: v for k, v in self.headers.items() if k.lower() not in hop}
        headers["Host"] = self.headers["Host"]
        answer = httpx.request(
            self.command, f"http://{self.target}{self.path}", content=body, headers=headers,
            trust_env=False,
        )  # fmt: skip
        data = answer.content
        self.send_response(answer.status_code)
        for name, value in answer.headers.items():
            if name.lower() not in ("transfer-encoding", "content-length", "content-encoding"):
                self.send_header(name, value)
        length = answer.headers.get("Content-Length", str(len(data)))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            cut = len(data)
            if "/blobs/sha256" in self.path and len(data) > 10_000 and self.cuts:
                cut = self.cuts.pop(0)
            self.wfile.write(data[:cut])
            if cut < len(data):
                self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = _pass  # noqa: N815


@pytest.fixture
def broken(host: str) -> Iterator[type[Broken]]:
    handler = type("Bound", (Broken,), {"target": host, "cuts": [], "requests": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        handler.address = f"127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
        yield handler
        server.shutdown()
        thread.join()


def through(broken: type[Broken], reference: str) -> str:
    return reference.replace(broken.target, broken.address)  # type: ignore[attr-defined]


def test_a_download_that_breaks_off_goes_on_where_it_was(
    engine: Path, reference: str, broken: type[Broken], tmp_path: Path
) -> None:
    assert cli("push", engine, reference) == 0
    broken.cuts[:] = [60_000, 70_000]
    assert cli("pull", through(broken, reference), "--store", tmp_path / "other") == 0
    ranges = [asked for _method, _path, asked in broken.requests if asked]
    assert ranges == ["bytes=60000-", "bytes=130000-"]
    verify_artefact(tmp_path / "other/engines" / DIGEST, DIGEST)


def test_a_pull_that_was_ended_is_gone_on_with_by_the_next(
    engine: Path, reference: str, broken: type[Broken], tmp_path: Path
) -> None:
    """The first pull gives up; what it had is not fetched again."""
    assert cli("push", engine, reference) == 0
    store = tmp_path / "other"
    broken.cuts[:] = [60_000, *[0] * transfer.TRIES]
    assert cli("pull", through(broken, reference), "--store", store) == 4
    assert not list(store.glob("engines/*"))
    broken.requests.clear()
    broken.cuts.clear()
    assert cli("pull", through(broken, reference), "--store", store) == 0
    assert [asked for *_, asked in broken.requests if asked] == ["bytes=60000-"]
    verify_artefact(store / "engines" / DIGEST, DIGEST)
    assert list((store / "tmp").iterdir()) == []


def test_what_somebody_put_beside_a_broken_pull_is_noticed(
    engine: Path, reference: str, broken: type[Broken], tmp_path: Path
) -> None:
    assert cli("push", engine, reference) == 0
    store = tmp_path / "other"
    broken.cuts[:] = [60_000, *[0] * transfer.TRIES]
    assert cli("pull", through(broken, reference), "--store", store) == 4
    broken.cuts.clear()
    (staging,) = (store / "tmp").iterdir()
    (staging / "extra").write_text("not of the artefact")
    assert cli("pull", through(broken, reference), "--store", store) == 8
    assert not list(store.glob("engines/*"))
    assert cli("pull", through(broken, reference), "--store", store) == 0


def test_an_upload_that_breaks_off_goes_on(
    engine: Path,
    reference: str,
    broken: type[Broken],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(oci_client, "CHUNK", 50_000)
    broken.refuse_patch = 2
    assert cli("push", engine, through(broken, reference)) == 0
    assert cli("pull", reference, "--store", tmp_path / "other") == 0
    verify_artefact(tmp_path / "other/engines" / DIGEST, DIGEST)
    broken.requests.clear()
    assert cli("push", engine, through(broken, reference).replace(":v1", ":v2")) == 0
    assert not [path for method, path, _ in broken.requests if method == "PATCH"], "all was there"


class Forgetful(Quiet):
    """A registry that loses all that it has at every second chunk."""

    chunks: list[str]

    def do_POST(self) -> None:  # noqa: N802
        self.send(202, Location="/upload")

    def do_PATCH(self) -> None:  # noqa: N802
        self.rfile.read(int(self.headers["Content-Length"]))
        self.chunks.append(self.headers["Content-Range"])
        self.send(500 if len(self.chunks) > 40 else 202 if len(self.chunks) % 2 else 416)

    def do_GET(self) -> None:  # noqa: N802
        self.send(204, Range="0-0")


def test_an_upload_that_is_lost_again_and_again_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oci_client, "CHUNK", 10)
    (tmp_path / "blob").write_bytes(bytes(100))
    handler = type("Bound", (Forgetful,), {"chunks": []})
    with (
        serving(handler) as address,
        opened(f"{address.replace('http', 'oci')}/engines/x:v1", writes=True) as registry,
        pytest.raises(StageError) as caught,
    ):
        registry.upload(tmp_path / "blob", "sha256:0", "blob", PROGRESS)
    assert caught.value.reason is StageReason.REGISTRY_UNREACHABLE
    assert len(handler.chunks) < 10


def test_a_registry_that_lies_is_noticed(engine: Path, reference: str, tmp_path: Path) -> None:
    """A manifest whose layers are other files than its config says, or lie outside."""
    assert cli("push", engine, reference) == 0
    with opened(reference, writes=True) as registry:
        data, _digest = registry.manifest("v1")
        foreign = registry.put_small_blob(b"another graph")

        def refused(change: object) -> StageReason:
            document = json.loads(data)
            change(document)  # type: ignore[operator]
            registry.put_manifest("bad", json.dumps(document).encode())
            with pytest.raises(StageError) as caught:
                pull(registry, "bad", Store(tmp_path / "other"), PROGRESS)
            return caught.value.reason

        def retitle(document: dict, title: str) -> None:
            name = "org.opencontainers.image.title"
            document["layers"][0]["annotations"][name] = title

        wrong = StageReason.CHECKSUM_MISMATCH
        assert refused(lambda d: d["layers"][0].update(digest=foreign, size=13)) is wrong
        assert refused(lambda d: d["layers"].pop()) is wrong
        for title in ("../../etc/passwd", "/etc/passwd", "a/../../b", "manifest.json", "", "x\ny"):
            assert refused(lambda d, title=title: retitle(d, title)) is wrong
        assert refused(lambda d: d["layers"].append(d["layers"][0])) is wrong
        assert refused(lambda d: d.update(artifactType="application/x")) is wrong
        assert refused(lambda d: d["config"].update(digest=foreign, size=13)) is wrong
        assert refused(lambda d: d["layers"][0].update(size=7)) is wrong
        # Of another model under this engine's digest, and with a file that no engine has.
        manifest = json.loads((engine / "manifest.json").read_bytes())
        other = registry.put_small_blob(
            config := json.dumps(
                manifest | {"identity": manifest["identity"] | {"prepared": "f" * 64}}
            ).encode()
        )
        assert refused(lambda d: d["config"].update(digest=other, size=len(config))) is wrong
        code = {"path": "repository/reranker/1/model.py", "size": 13, "sha256": foreign[7:]}
        strange = registry.put_small_blob(
            config := json.dumps(manifest | {"files": [*manifest["files"], code]}).encode()
        )

        def with_code(document: dict) -> None:
            document["config"].update(digest=strange, size=len(config))
            name = {"org.opencontainers.image.title": code["path"]}
            layer = document["layers"][0] | {"digest": foreign, "size": 13, "annotations": name}
            document["layers"].append(layer)

        assert refused(with_code) is wrong
    assert not list((tmp_path / "other").glob("engines/*"))


def test_htpasswd_login(
    engine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with servers.registry(tmp_path / "closed", htpasswd=HTPASSWD) as host:
        name = f"oci://{host}/x:1"
        assert cli("push", engine, name) == 3
        assert "docker login" in capsys.readouterr().err
        config = tmp_path / "config.json"
        for password, code in (("wrong", 3), ("secret", 0)):
            joined = base64.b64encode(f"builder:{password}".encode()).decode()
            config.write_text(json.dumps({"auths": {host: {"auth": joined}}}))
            assert cli("push", engine, name, "--registry-config", config) == code
            output = capsys.readouterr()
            assert password not in output.err + output.out
        (tmp_path / "docker").mkdir()
        config.rename(tmp_path / "docker/config.json")
        assert cli("pull", name, "--store", tmp_path / "other") == 0


def test_credentials_of_docker_login(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    plain = {"username": "u", "password": "p"}
    path.write_text(json.dumps({"auths": {"https://a.example": plain, "b.example": {}}}))
    found = find_credentials("a.example", path)
    assert found is not None
    assert (found.user, found.password) == ("u", "p")
    assert "p" not in repr(found).removeprefix("<engine_builder.oci.auth.Credentials object")
    assert find_credentials("b.example", path) is None
    assert find_credentials("c.example", path) is None
    for text in ("[]", "{", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(UsageError, match="Docker configuration"):
            find_credentials("a.example", path)
    path.write_text(json.dumps({"credHelpers": {"a.example": "ecr-login"}}))
    with pytest.raises(UsageError, match="helper"):
        find_credentials("a.example", path)
    with pytest.raises(UsageError, match="no such file"):
        find_credentials("a.example", tmp_path / "none")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Tokens(BaseHTTPRequestHandler):
    """A token server as the Distribution project specifies it: ES256 tokens for what is asked."""

    key: ec.EllipticCurvePrivateKey
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        expected = "Basic " + base64.b64encode(b"builder:secret").decode()
        if self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        (scope,) = query["scope"]
        self.asked.append(scope)
        kind, name, actions = scope.split(":")
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        now = int(time.time())
        claims = {
            "iss": "tests", "sub": "builder", "aud": query["service"][0], "access": access,
            "exp": now + 300, "nbf": now - 10, "iat": now, "jti": uuid.uuid4().hex,
        }  # fmt: skip
        head = {"typ": "JWT", "alg": "ES256", "kid": "tests"}
        message = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(claims).encode())}"
        pair = decode_dss_signature(self.key.sign(message.encode(), ec.ECDSA(hashes.SHA256())))
        signature = b"".join(value.to_bytes(32, "big") for value in pair)
        body = json.dumps({"token": f"{message}.{_b64(signature)}"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_token_login(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry sends us to a token server and checks the token that it gave."""
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    jwk = {
        "kty": "EC", "crv": "P-256", "kid": "tests", "use": "sig", "alg": "ES256",
        "x": _b64(numbers.x.to_bytes(32, "big")), "y": _b64(numbers.y.to_bytes(32, "big")),
    }  # fmt: skip
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    handler = type("Bound", (Tokens,), {"key": key, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        realm = f"http://127.0.0.1:{server.server_port}/token"
        for name, value in {
            "REGISTRY_AUTH": "token", "REGISTRY_AUTH_TOKEN_REALM": realm,
            "REGISTRY_AUTH_TOKEN_SERVICE": "tests", "REGISTRY_AUTH_TOKEN_ISSUER": "tests",
            "REGISTRY_AUTH_TOKEN_JWKS": str(tmp_path / "jwks.json"),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        with servers.registry(tmp_path / "closed") as host:
            joined = base64.b64encode(b"builder:secret").decode()
            config = tmp_path / "config.json"
            config.write_text(json.dumps({"auths": {host: {"auth": joined}}}))
            name = f"oci://{host}/team/x:1"
            assert cli("push", engine, name) == 3
            assert cli("push", engine, name, "--registry-config", config) == 0
            store = tmp_path / "other"
            assert cli("pull", name, "--store", store, "--registry-config", config) == 0
        server.shutdown()
        thread.join()
    assert len(handler.asked) < 6, "a token serves for more than one request"
    assert any(scope.endswith("pull,push") or "push" in scope for scope in handler.asked)


def test_a_password_is_not_told_to_a_realm_without_tls() -> None:
    """Over TLS the registry may name any token server, but not one of plain HTTP."""
    from engine_builder.oci.auth import Credentials, RegistryAuth  # noqa: PLC0415

    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        challenge = 'Bearer realm="http://tokens.example/token",service="x"'
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    auth = RegistryAuth(Credentials("u", "p"), "repository:x:pull")
    with httpx.Client(transport=httpx.MockTransport(answer), auth=auth) as client:
        assert client.get("https://registry.example/v2/").status_code == 401
    assert asked == ["https://registry.example/v2/"]


def test_whoever_a_blob_is_fetched_from_is_told_no_password() -> None:
    from engine_builder.oci.auth import Credentials, RegistryAuth  # noqa: PLC0415

    told: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "registry.example":
            return httpx.Response(307, headers={"Location": "https://blobs.example/1"})
        told.append(request.headers.get("Authorization"))
        challenge = 'Bearer realm="https://blobs.example/token",service="x"'
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    auth = RegistryAuth(Credentials("u", "p"), "repository:x:pull")
    transport = httpx.MockTransport(answer)
    with httpx.Client(transport=transport, auth=auth, follow_redirects=True) as client:
        assert client.get("https://registry.example/v2/x/blobs/1").status_code == 401
    assert told == [None]


@pytest.mark.parametrize(
    "text",
    [
        "oci://", "oci://host", "oci://host/UPPER", "oci://host/a@sha256:abc", "oci://host/a b",
        "oci://user:pw@host/a", "oci://host/../a", "oci://host/a?x", "host/a:1",
        "oci://" + "a" * 2000 + "/b",
    ],
)  # fmt: skip
def test_references_of_no_artefact(text: str) -> None:
    with pytest.raises(UsageError):
        parse_reference(text)


def test_push_needs_a_tag_and_an_intact_engine(engine: Path, reference: str) -> None:
    assert cli("push", engine, reference.removesuffix(":v1")) == 2
    (engine / "model.json").write_text("{}")
    assert cli("push", engine, reference) == 8
    with opened(reference, writes=True) as registry, pytest.raises(StageError):
        push(engine, registry, "v1", PROGRESS)


def test_a_full_store_is_named_and_the_pull_goes_on_when_there_is_room(
    engine: Path, reference: str, tmp_path: Path
) -> None:
    store = tmp_path / "small"
    store.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(store)],
        check=False,
        capture_output=True,
    )
    if made.returncode != 0:
        pytest.skip("mounting a small filesystem needs root")
    try:
        assert cli("push", engine, reference) == 0
        assert cli("pull", reference, "--store", store) == 9
        assert not list(store.glob("engines/*"))
        subprocess.run(["mount", "-o", "remount,size=80m", str(store)], check=True)
        assert cli("pull", reference, "--store", store) == 0
        verify_artefact(store / "engines" / DIGEST, DIGEST)
        subprocess.run(["mount", "-o", "remount,ro", str(store)], check=True)
        assert cli("pull", reference, "--store", store) == 0, "it is there"
        (engine / "model.json").read_bytes()
    finally:
        subprocess.run(["umount", str(store)], check=True)
