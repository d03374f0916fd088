"""s3:// against a real MinIO server."""

import os
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store
from support import servers
from support.ports import free_port

from engine_builder import transfer
from engine_builder.errors import StageError
from engine_builder.sources import s3 as module
from reranker_contracts import StageReason

from .remote import PROGRESS, Quiet, fetched, make_certificate, refusal, resolved, serving

USER, PASSWORD = "tests", "not-so-secret"
NEEDED = {
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    "1_LogitScore/config.json",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("minio")
    # To MinIO a bucket is a folder.
    (folder / "data/models").mkdir(parents=True)
    (folder / "data/other-bucket").mkdir()
    with servers.minio(folder, USER, PASSWORD) as url:
        yield url


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """The bucket as its owner sees it; the builder's variables lead to it."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", USER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 0)
    return S3Store("models", client_options={"allow_http": True})


@pytest.fixture
def uri(bucket: S3Store, make_source, tmp_path: Path) -> str:
    """A model with other things beside it."""
    source: Path = make_source()
    place = f"teams/search/{tmp_path.name}"
    for path in source.iterdir():
        obstore.put(bucket, f"{place}/{path.name}", path.read_bytes())
    obstore.put(bucket, f"{place}/README.md", b"words")
    obstore.put(bucket, f"{place}/onnx/model.onnx", b"another form")
    obstore.put(bucket, f"{place}/1_LogitScore/config.json", b"{}")
    obstore.put(bucket, f"{place}-old/config.json", b"{}")
    return f"s3://models/{place}"


def key(uri: str, name: str) -> str:
    return f"{uri.removeprefix('s3://models/')}/{name}"


def test_resolve_and_fetch(uri: str, tmp_path: Path) -> None:
    revision = resolved(uri, tmp_path / "scratch")
    assert revision.startswith("etags:")
    assert "model.safetensors" not in {p.name for p in (tmp_path / "scratch").iterdir()}
    files = fetched(uri, revision, tmp_path / "out")
    assert set(files) == NEEDED
    assert files["model.safetensors"] == (tmp_path / "demo/model.safetensors").read_bytes()
    assert resolved(f"{uri}/", tmp_path / "again") == revision


def test_revision_is_of_the_needed_files(uri: str, bucket: S3Store, tmp_path: Path) -> None:
    before = resolved(uri, tmp_path / "a")
    obstore.put(bucket, key(uri, "README.md"), b"other words")
    assert resolved(uri, tmp_path / "b") == before
    assert resolved(uri, tmp_path / "c", before) == before
    obstore.put(bucket, key(uri, "tokenizer.json"), b'{"version": "1.0"}')
    assert resolved(uri, tmp_path / "d") != before
    assert refusal(uri, tmp_path / "e", before).reason is StageReason.SOURCE_CHANGED
    with pytest.raises(StageError) as caught:
        fetched(uri, before, tmp_path / "out")
    assert caught.value.reason is StageReason.SOURCE_CHANGED


def test_another_server_is_another_revision(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    """Whoever has a server of their own may claim any ETags there."""
    before = resolved(uri, tmp_path / "a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{server}/")
    assert resolved(uri, tmp_path / "b") == before
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.replace("127.0.0.1", "localhost"))
    assert resolved(uri, tmp_path / "c") != before


def test_an_object_replaced_between_two_reads_is_noticed(
    uri: str, bucket: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader never gets one half of the old and one of the new."""
    obstore.put(bucket, key(uri, "model.safetensors"), b"a" * 64)
    revision = resolved(uri, tmp_path / "scratch")
    monkeypatch.setattr(module, "_CHUNK", 32)
    get, reads = obstore.get, []

    def replaced(store: S3Store, path: str, **options: object) -> object:
        if path == "model.safetensors":
            reads.append(path)
            if len(reads) == 2:
                obstore.put(bucket, key(uri, path), b"b" * 64)
        return get(store, path, **options)

    monkeypatch.setattr(module.obstore, "get", replaced)
    with pytest.raises(StageError) as caught:
        fetched(uri, revision, tmp_path / "out")
    assert caught.value.reason is StageReason.SOURCE_CHANGED
    assert len(reads) == 2


def test_large_objects_come_in_pieces(
    uri: str, bucket: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(100_001)
    obstore.put(bucket, key(uri, "model.safetensors"), data)
    monkeypatch.setattr(module, "_CHUNK", 10_000)
    revision = resolved(uri, tmp_path / "scratch")
    assert fetched(uri, revision, tmp_path / "out")["model.safetensors"] == data


def test_each_failure_has_its_reason(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal("s3://models/nowhere", tmp_path / "a").reason is StageReason.MODEL_INVALID
    assert refusal("s3://no-such-bucket/x", tmp_path / "b").reason is StageReason.SOURCE_NOT_FOUND
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    found = refusal(uri, tmp_path / "c")
    assert found.reason is StageReason.SOURCE_UNAUTHORIZED
    assert "spec.model.secretRef" in found.message
    assert "wrong" not in found.message
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    found = refusal(uri, tmp_path / "d")
    assert found.reason is StageReason.SOURCE_UNAUTHORIZED
    assert "AWS_ACCESS_KEY_ID and" in found.message
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = refusal(uri, tmp_path / "d")
    assert found.reason is StageReason.SOURCE_UNAUTHORIZED
    assert "none were given" in found.message
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    found = refusal(uri, tmp_path / "e")
    assert found.reason is StageReason.SOURCE_UNREACHABLE
    assert "127.0.0.1" not in found.message


def test_a_server_without_tls_must_be_named_so(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    """Nothing is sent in clear text for an address that says https."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.replace("http:", "https:"))
    assert refusal(uri, tmp_path / "a").reason is StageReason.SOURCE_UNREACHABLE


def test_authorities_of_a_bundle_are_trusted_and_no_others(
    bucket: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, authority = make_certificate(tmp_path / "one")
    _certificate, stranger = make_certificate(tmp_path / "two")
    bundle = tmp_path / "bundle.crt"
    bundle.write_bytes(stranger.read_bytes() + authority.read_bytes())
    folder = tmp_path / "minio"
    (folder / "data/models/empty").mkdir(parents=True)
    with servers.minio(folder, USER, PASSWORD, certificate=certificate) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        for trusted, reason in (
            (bundle, StageReason.MODEL_INVALID),  # It answers: there is no model.
            (stranger, StageReason.SOURCE_UNREACHABLE),
        ):
            monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
            assert refusal("s3://models/empty", tmp_path / "scratch").reason is reason


def test_a_bucket_without_end_is_refused(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine_builder.sources.listed.MAX_FILES", 3)
    found = refusal(uri, tmp_path / "a")
    assert (found.reason, "more than 3 files" in found.message) == (StageReason.MODEL_INVALID, True)


def test_objects_in_folders_below_are_counted_too(
    uri: str, bucket: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are listed, a thousand a page, though none of them is needed."""
    for number in range(10):
        obstore.put(bucket, key(uri, f"checkpoints/{number}"), b"weights")
    everything = len(NEEDED) + len(("README.md", "onnx/model.onnx")) + 10
    monkeypatch.setattr("engine_builder.sources.listed.MAX_FILES", everything)
    resolved(uri, tmp_path / "a")
    monkeypatch.setattr("engine_builder.sources.listed.MAX_FILES", everything - 1)
    found = refusal(uri, tmp_path / "b")
    assert found.reason is StageReason.MODEL_INVALID
    assert f"more than {everything - 1} files" in found.message


class Hostile(Quiet):
    """Pages without end and without objects, or a model whose objects come without end."""

    objects = ""
    sent: list[int]

    def do_GET(self) -> None:  # noqa: N802
        if "list-type" in self.path:
            more = "<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>"
            page = self.objects or more
            return self.send(200, f"<ListBucketResult>{page}</ListBucketResult>".encode())
        self.send_response(206)
        for name, value in {
            "Content-Range": "bytes 0-699/700", "ETag": '"1"', "Content-Length": str(64 << 20),
            "Last-Modified": "Tue, 01 Dec 2026 00:00:00 GMT",
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.sent.append(0)
        try:
            while self.sent[-1] < 64 << 20:
                self.sent[-1] += self.wfile.write(bytes(1 << 16))
        except OSError:
            self.close_connection = True
        return None


def test_pages_without_objects_come_to_an_end(
    bucket: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LISTING_SECONDS", 0.5)
    with serving(Hostile) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert refusal("s3://models/x", tmp_path / "a").reason is StageReason.SOURCE_UNREACHABLE


def test_no_more_is_read_than_was_asked_for(
    bucket: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = "".join(
        f"<Contents><Key>x/{name}</Key><Size>700</Size><ETag>&quot;1&quot;</ETag>"
        "<LastModified>2026-12-01T00:00:00.000Z</LastModified></Contents>"
        for name in ("config.json", "tokenizer.json", "model.safetensors")
    )
    handler = type("Bound", (Hostile,), {"objects": listed, "sent": []})
    with serving(handler) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        found = refusal("s3://models/x", tmp_path / "a")
    assert found.reason is StageReason.SOURCE_UNREACHABLE
    assert "other than the bytes asked for" in found.message
    assert 0 < max(handler.sent) < 64 << 20


def test_the_way_leads_through_the_proxy(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Proxy(Quiet):
        def do_GET(self) -> None:  # noqa: N802
            asked.append(self.path)
            self.send(503)

    with serving(Proxy) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://storage.example")
        assert refusal(uri, tmp_path / "a").reason is StageReason.SOURCE_UNREACHABLE
    assert asked
    assert asked[0].startswith("http://storage.example/models?")


def test_a_cut_answer_is_asked_for_again(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = resolved(uri, tmp_path / "scratch")
    get, failures = obstore.get, [1, 2, 3]

    def flaky(store: S3Store, path: str, **options: object) -> object:
        if path == "model.safetensors" and failures:
            failures.pop()
            raise obstore.exceptions.GenericError("the connection broke")
        return get(store, path, **options)

    monkeypatch.setattr(module.obstore, "get", flaky)
    assert set(fetched(uri, revision, tmp_path / "out")) == NEEDED
    assert not failures
    assert PROGRESS.seconds > 0
