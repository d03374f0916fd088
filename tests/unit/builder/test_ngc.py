"""ngc:// against a small server that speaks the NGC API."""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from engine_builder import transfer
from engine_builder.errors import StageError
from engine_builder.sources import open_source
from reranker_contracts import StageReason

from .remote import Quiet, fetched, refusal, resolved, serving

URI = "ngc://nvidia/nemo/reranker:1.0"
KEY, LEGACY = "nvapi-secret", "legacy-secret"
NEEDED = {
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    "1_LogitScore/config.json",
}


@dataclass
class Ngc:
    """What the catalogue has, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=lambda: {KEY})
    page_size: int = 100
    storage: str = ""
    requests: list[str] = field(default_factory=list)
    seen_by_storage: list[str | None] = field(default_factory=list)
    damaged: str | None = None
    status: int | None = None


class Api(Quiet):
    """The calls of api.ngc.nvidia.com and authn.nvidia.com that are used."""

    ngc: Ngc

    def do_GET(self) -> None:  # noqa: N802
        ngc, parts = self.ngc, urlsplit(self.path)
        ngc.requests.append(self.path)
        if ngc.status:
            return self.send(ngc.status)
        if parts.path == "/token":
            return self._token(parse_qs(parts.query))
        if self.headers.get("Authorization") not in {f"Bearer {token}" for token in ngc.tokens}:
            return self.send(401 if "Authorization" in self.headers else 403, b"{}")
        base = "/v2/org/nvidia/team/nemo/models/reranker/versions/1.0/files"
        if parts.path == base:
            return self._list(parse_qs(parts.query))
        name = parts.path.removeprefix(f"{base}/")
        if parts.path.startswith(f"{base}/") and name in ngc.files:
            return self.send(302, Location=f"{ngc.storage}/{name}?X-Signature=abc")
        return self.send(404, b"{}")

    def _token(self, query: dict[str, list[str]]) -> None:
        expected = base64.b64encode(f"$oauthtoken:{LEGACY}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {expected}":
            return self.send(401, b"{}")
        assert query == {"service": ["ngc"], "scope": ["group/ngc:nvidia/nemo"]}
        self.ngc.tokens = {"session"}
        return self.send(200, b'{"token": "session", "expires_in": 600}')

    def _list(self, query: dict[str, list[str]]) -> None:
        page, size = int(query["page-number"][0]), self.ngc.page_size
        entries = [
            {
                "path": path,
                "sizeInBytes": len(data),
                "sha256_base64": base64.b64encode(hashlib.sha256(data).digest()).decode(),
            }
            for path, data in sorted(self.ngc.files.items())
        ]
        answer = {
            "modelFiles": entries[page * size : (page + 1) * size],
            "paginationInfo": {"index": page, "size": size, "totalResults": len(entries)},
        }
        return self.send(200, json.dumps(answer).encode())


class Storage(Quiet):
    """Where downloads are redirected to: another host, which must not see the key."""

    ngc: Ngc

    def do_GET(self) -> None:  # noqa: N802
        self.ngc.seen_by_storage.append(self.headers.get("Authorization"))
        name = urlsplit(self.path).path.removeprefix("/")
        data = self.ngc.files[name]
        if name == self.ngc.damaged:
            data = data[:-1] + b"!"
        self.send(200, data)


@pytest.fixture
def ngc(make_source, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ngc]:
    source: Path = make_source("ngc")
    ngc = Ngc(files={path.name: path.read_bytes() for path in source.iterdir()})
    ngc.files |= {"README.md": b"words", "onnx/model.onnx": b"x", "model.nemo": b"y"}
    ngc.files["1_LogitScore/config.json"] = b"{}"
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 0)
    monkeypatch.setenv("NGC_API_KEY", KEY)
    with (
        serving(type("BoundStorage", (Storage,), {"ngc": ngc})) as storage,
        serving(type("BoundApi", (Api,), {"ngc": ngc})) as api,
    ):
        ngc.storage = storage
        monkeypatch.setenv("NGC_API_ENDPOINT", api)
        monkeypatch.setenv("NGC_AUTH_ENDPOINT", api)
        yield ngc


def test_resolve_and_fetch(ngc: Ngc, tmp_path: Path) -> None:
    revision = resolved(URI, tmp_path / "scratch")
    assert not any("model.safetensors" in path for path in ngc.requests)
    files = fetched(URI, revision, tmp_path / "out")
    assert set(files) == NEEDED
    assert files["model.safetensors"] == ngc.files["model.safetensors"]
    # The same files in a directory are the same model.
    assert open_source(str(tmp_path / "out"), None).resolve(None, tmp_path).revision == revision


def test_files_without_a_byte(ngc: Ngc, tmp_path: Path) -> None:
    ngc.files["merges.txt"] = b""
    files = fetched(URI, resolved(URI, tmp_path / "scratch"), tmp_path / "out")
    assert files["merges.txt"] == b""


def test_storage_is_not_shown_the_key(ngc: Ngc, tmp_path: Path) -> None:
    resolved(URI, tmp_path / "scratch")
    assert ngc.seen_by_storage
    assert set(ngc.seen_by_storage) == {None}


def test_keys_of_the_older_kind_are_exchanged(
    ngc: Ngc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ngc.tokens = set()
    monkeypatch.setenv("NGC_API_KEY", LEGACY)
    fetched(URI, resolved(URI, tmp_path / "scratch"), tmp_path / "out")
    monkeypatch.setenv("NGC_API_KEY", "another")
    assert refusal(URI, tmp_path / "b").reason is StageReason.SOURCE_UNAUTHORIZED


def test_listings_come_in_pages(ngc: Ngc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resolved(URI, tmp_path / "a")
    ngc.page_size = 2
    assert resolved(URI, tmp_path / "b") == whole
    monkeypatch.setattr("engine_builder.sources.listed.MAX_FILES", 3)
    assert "more than 3 files" in refusal(URI, tmp_path / "c").message


def test_files_in_folders_below_are_counted_too(
    ngc: Ngc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine_builder.sources.listed.MAX_FILES", len(ngc.files))
    resolved(URI, tmp_path / "a")
    ngc.files["onnx/model.onnx.data"] = b"z"
    assert refusal(URI, tmp_path / "b").reason is StageReason.MODEL_INVALID


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_bytes_other_than_the_listed_ones_are_refused(ngc: Ngc, tmp_path: Path, name: str) -> None:
    revision = resolved(URI, tmp_path / "scratch")
    ngc.damaged = name
    with pytest.raises(StageError, match=name) as caught:
        fetched(URI, revision, tmp_path / "out")
    assert caught.value.reason is StageReason.SOURCE_CHANGED
    assert not (tmp_path / "out" / name).exists()


def test_a_version_that_was_replaced_is_noticed(ngc: Ngc, tmp_path: Path) -> None:
    revision = resolved(URI, tmp_path / "scratch")
    ngc.files["tokenizer.json"] = b'{"version": "1.0"}'
    with pytest.raises(StageError) as caught:
        fetched(URI, revision, tmp_path / "out")
    assert caught.value.reason is StageReason.SOURCE_CHANGED


def test_each_failure_has_its_reason(
    ngc: Ngc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(URI.replace("1.0", "2.0"), tmp_path / "a").reason is StageReason.SOURCE_NOT_FOUND
    for status, reason in (
        (500, StageReason.SOURCE_UNREACHABLE),
        (429, StageReason.SOURCE_UNREACHABLE),
        (403, StageReason.SOURCE_UNAUTHORIZED),
    ):
        ngc.status = status
        assert refusal(URI, tmp_path / "b").reason is reason
    ngc.status = None
    ngc.files["config.json"] = b" " * (2 << 20)
    assert refusal(URI, tmp_path / "c").reason is StageReason.MODEL_INVALID
    monkeypatch.delenv("NGC_API_KEY")
    found = refusal(URI, tmp_path / "d")
    assert found.reason is StageReason.SOURCE_UNAUTHORIZED
    assert "spec.model.secretRef" in found.message
    assert KEY not in found.message


@pytest.mark.parametrize(
    "uri",
    [
        "ngc://", "ngc://org", "ngc://org/model", "ngc://org/team/model", "ngc://a/b/c/d:1",
        "ngc://org/../model:1", "ngc://org/model:1?x", "ngc://o/m:..", "ngc://user@org/m:1",
    ],
)  # fmt: skip
def test_names_of_no_version(uri: str) -> None:
    with pytest.raises(StageError) as caught:
        open_source(uri, None)
    assert caught.value.reason is StageReason.SOURCE_UNSUPPORTED
