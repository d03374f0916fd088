"""The hub source against a small server that speaks the hub's HTTP API."""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from engine_builder.cli import main
from engine_builder.config_files import LOGIT_SCORE, LOGIT_SCORE_FOLDER
from engine_builder.errors import StageError, UsageError
from engine_builder.progress import Progress
from engine_builder.sources.hub import HubSource
from engine_builder.stages.fetch import fetch
from reranker_contracts import StageReason, StageResult

COMMIT, OLDER = "c" * 40, "0" * 40
REPO = "acme/reranker"


@dataclass
class Hub:
    """What the server has; tests change it between requests."""

    files: dict[str, bytes] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, "v1": OLDER})
    token: str | None = None
    gated: bool = False
    broken: bool = False
    corrupt: str | None = None
    downloads: list[str] = field(default_factory=list)
    #: Bytes after which the next bodies of weights break off.
    cuts: list[int] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    #: Whole bodies, by a part of the path.
    answers: dict[str, bytes] = field(default_factory=dict)
    #: A listing whose pages never end.
    endless: bool = False
    listings: int = 0
    #: What follows the bytes that were listed.
    more: bytes = b""
    prefix: str = ""
    url: str = ""

    def listed(self, folder: str = "") -> list[dict[str, object]]:
        """The top level, or what is in FOLDER; what tests call files may have strange names."""
        entries: list[dict[str, object]] = []
        if not folder:
            below = {"onnx", *(path.split("/")[0] for path in self.files if path.startswith("1_"))}
            entries = [{"type": "directory", "oid": "d" * 40, "path": path} for path in below]
        for path, data in self.files.items():
            if path.startswith(folder or "1_") is not bool(folder):
                continue
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
            entry: dict[str, object] = {
                "type": "file",
                "path": path,
                "size": len(data),
                "oid": blob,
            }
            if path.endswith(".safetensors"):
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
            entries.append(entry)
        return entries

    def etag(self, path: str) -> str:
        entries = [*self.listed(), *self.listed(LOGIT_SCORE_FOLDER)]
        (entry,) = (entry for entry in entries if entry["path"] == path)
        lfs = entry.get("lfs")
        return str(lfs["oid"] if isinstance(lfs, dict) else entry["oid"])


class Handler(BaseHTTPRequestHandler):
    """Model info, tree listing and downloads of one repository."""

    hub: Hub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        if not self._odd():
            self._answer()

    def _odd(self) -> bool:
        """Whether a test wants something else in place of the answer."""
        for part, body in self.hub.answers.items():
            if part in self.path:
                self._send(200, body, {})
                return True
        if self.hub.endless and "/tree/" in self.path:
            self.hub.listings += 1
            link = {"Link": f'<{self.hub.url}{self.path}>; rel="next"'}
            self._send(200 if self.hub.listings < 50 else 404, b"[]", link)
            return True
        return False

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        below = path.startswith(f"{hub.prefix}/")
        path = path.removeprefix(hub.prefix) if below else "/elsewhere"
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if path.startswith(f"/api/models/{REPO}/tree/"):
            return self._json(hub.listed(path.split("/tree/")[1].partition("/")[2]))
        if path.startswith(f"/api/models/{REPO}"):
            revision = path.removeprefix(f"/api/models/{REPO}").removeprefix("/revision/")
            commit = hub.revisions.get(revision or "main")
            if commit is None and revision not in hub.revisions.values():
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return self._json({"id": REPO, "sha": commit or revision, "siblings": []})
        if path.startswith(f"/{REPO}/resolve/"):
            return self._file(*path.removeprefix(f"/{REPO}/resolve/").split("/", 1))
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _file(self, revision: str, name: str) -> None:
        if self.hub.gated:
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if self.hub.broken:
            return self._send(501, b"", {})
        if name not in self.hub.files:
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        data = self.hub.files[name]
        if self.command == "GET":
            self.hub.downloads.append(name)
            if name == self.hub.corrupt:
                data = data[:-1] + b"!"
            data += self.hub.more
        headers = {"ETag": f'"{self.hub.etag(name)}"', "X-Repo-Commit": revision}
        status, asked = 200, self.headers.get("Range", "")
        if self.command == "GET" and name.endswith(".safetensors"):
            self.hub.ranges.append(asked)
            if asked:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                status, data = 206, data[start:]
            if self.hub.cuts:
                headers["Content-Length"] = str(len(data))
                data = data[: self.hub.cuts.pop(0)]
                self.close_connection = True
        return self._send(status, data, headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub(make_source, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    source: Path = make_source("hub")
    hub = Hub(files={entry.name: entry.read_bytes() for entry in source.iterdir()})
    hub.files |= {"README.md": b"read me", "pytorch_model.bin": b"pickle", "onnx/a.onnx": b"x"}
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub
        server.shutdown()
        thread.join()


def reason_of(tmp_path: Path, revision: str | None = None) -> StageReason:
    with pytest.raises(StageError) as caught:
        HubSource(REPO, None).resolve(revision, tmp_path)
    return caught.value.reason


def test_resolve_fixes_the_commit_and_reads_metadata_only(hub: Hub, tmp_path: Path) -> None:
    snapshot = HubSource(REPO, None).resolve(None, tmp_path)
    assert snapshot.revision == COMMIT
    assert sorted(hub.downloads) == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    assert HubSource(REPO, "v1").resolve(None, tmp_path).revision == OLDER
    assert HubSource(REPO, None).resolve(COMMIT, tmp_path).revision == COMMIT
    with pytest.raises(UsageError, match="contradicts"):
        HubSource(REPO, "v1").resolve("main", tmp_path)


def test_fetch_gets_exactly_the_needed_files(hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fetch(f"hf://{REPO}", revision=COMMIT, source_dir=None, out=out, progress=Progress("fetch"))
    found = {entry.name for entry in out.iterdir()} - {"source.json", ".engine-builder-output"}
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert found == wanted == set(hub.downloads)
    assert (out / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_a_download_that_breaks_off_goes_on_where_it_was(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    # What the hub's client keeps of a body is whole pieces, of 10 MB else.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)
    hub.files["model.safetensors"] = data = os.urandom(300_000)
    hub.cuts = [100_000, 50_000]
    out = tmp_path / "out"
    fetch(f"hf://{REPO}", revision=COMMIT, source_dir=None, out=out, progress=Progress("fetch"))
    assert (out / "model.safetensors").read_bytes() == data
    assert hub.ranges == ["", "bytes=100000-", "bytes=150000-"]


def test_a_mirror_below_a_path(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an artefact server has it: https://mirror.example/api/huggingface."""
    hub.prefix = "/api/huggingface"
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/api/huggingface")
    assert HubSource(REPO, None).resolve(None, tmp_path / "a").revision == COMMIT
    out = tmp_path / "out"
    fetch(f"hf://{REPO}", revision=COMMIT, source_dir=None, out=out, progress=Progress("fetch"))
    assert (out / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_the_one_file_in_a_folder_that_tells_how_it_scores(hub: Hub, tmp_path: Path) -> None:
    hub.files |= {LOGIT_SCORE: b'{"true_token_id": 7}', "modules.json": b"[]", "1_Other/x": b""}
    snapshot = HubSource(REPO, None).resolve(None, tmp_path)
    assert (snapshot.metadata / LOGIT_SCORE).read_bytes() == hub.files[LOGIT_SCORE]
    assert sorted(hub.downloads)[:2] == [LOGIT_SCORE, "config.json"]
    assert not any(name.startswith("1_Other") for name in hub.downloads)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_bytes_other_than_the_listed_ones_are_refused(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.corrupt = name
    with pytest.raises(StageError, match=name) as caught:
        HubSource(REPO, None).fetch(COMMIT, tmp_path, Progress("fetch"))
    assert caught.value.reason is StageReason.SOURCE_CHANGED


def test_no_more_is_written_than_was_listed(hub: Hub, tmp_path: Path) -> None:
    hub.more = os.urandom(1 << 20)
    with pytest.raises(StageError) as caught:
        HubSource(REPO, None).resolve(None, tmp_path)
    assert caught.value.reason is StageReason.SOURCE_CHANGED
    read = re.search(r"has size (\d+)", str(caught.value.__cause__))
    assert read is not None
    assert int(read[1]) < 1 << 17


def test_pages_without_files_come_to_an_end(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine_builder.sources.hub._MAX_ANSWERS", 10)
    hub.endless = True
    assert reason_of(tmp_path) is StageReason.SOURCE_UNREACHABLE
    assert hub.listings == 11


FILE = {"type": "file", "path": "config.json", "size": 2, "oid": "0" * 40}
NONSENSE: dict[str, tuple[str, object]] = {
    "page": ("/api/models/", b"<html>log in</html>"),
    "list": ("/api/models/", []),
    "number": ("/api/models/", 7),
    "commit": ("/revision/", {"id": REPO, "sha": 7}),
    "deep": ("/api/models/", b"[" * 100_000),
    "much": ("/api/models/", b"[" + b" " * (20 << 20) + b"]"),
    "listed page": ("/tree/", b"<html>log in</html>"),
    "listed object": ("/tree/", {"error": "no"}),
    "listed numbers": ("/tree/", [1, 2]),
    "listed size": ("/tree/", [FILE | {"size": "2"}]),
    "listed less": ("/tree/", [FILE | {"size": -2}]),
    "listed path": ("/tree/", [FILE | {"path": ["config.json"]}]),
    "listed hash": ("/tree/", [FILE | {"oid": 7}]),
    "listed nothing": ("/tree/", [{"type": "file"}]),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_answers_of_no_hub(hub: Hub, tmp_path: Path, kind: str) -> None:
    part, body = NONSENSE[kind]
    hub.answers[part] = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(StageError, match="makes no sense; check hubEndpoint") as caught:
        HubSource(REPO, None).resolve("main", tmp_path)
    assert caught.value.reason is StageReason.SOURCE_UNREACHABLE


def test_a_moving_revision_cannot_be_fetched(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="commit"):
        HubSource(REPO, None).fetch("main", tmp_path, Progress("fetch"))
    assert not hub.downloads


def test_listing_cannot_lead_elsewhere_or_on_for_ever(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a" / "b"
    hub.files |= {"../../config.json": b"{}", "../x.safetensors": b"", "/etc/vocab.txt": b""}
    fetch(f"hf://{REPO}", revision=COMMIT, source_dir=None, out=out, progress=Progress("fetch"))
    assert not any(name.startswith(("/", "..")) for name in hub.downloads)
    hub.downloads.clear()
    monkeypatch.setattr("engine_builder.sources.selection.MAX_BYTES", 100)
    with pytest.raises(StageError, match=r"config\.json alone") as caught:
        HubSource(REPO, None).fetch(COMMIT, out, Progress("fetch"))
    assert caught.value.reason is StageReason.MODEL_INVALID
    assert not hub.downloads, "their listed sizes are reason enough"
    monkeypatch.setattr("engine_builder.sources.hub.MAX_FILES", 5)
    with pytest.raises(StageError, match="more than 5 files"):
        HubSource(REPO, None).resolve(None, out)


def test_token_opens_a_private_repository(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "secret"
    assert reason_of(tmp_path) is StageReason.SOURCE_UNAUTHORIZED
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert reason_of(tmp_path) is StageReason.SOURCE_UNAUTHORIZED
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert HubSource(REPO, None).resolve(None, tmp_path).revision == COMMIT


def test_each_failure_has_its_reason(hub: Hub, tmp_path: Path) -> None:
    assert reason_of(tmp_path, "no-such-branch") is StageReason.REVISION_NOT_FOUND
    with pytest.raises(StageError) as caught:
        HubSource("acme/missing", None).resolve(None, tmp_path)
    assert caught.value.reason is StageReason.SOURCE_NOT_FOUND
    hub.gated = True
    assert reason_of(tmp_path) is StageReason.MODEL_GATED
    hub.gated, hub.files["config.json"] = False, b" " * (2 << 20)
    assert reason_of(tmp_path) is StageReason.MODEL_INVALID
    assert "config.json" not in hub.downloads, "its listed size is reason enough"
    hub.files["config.json"], hub.broken = b"{}", True
    assert reason_of(tmp_path) is StageReason.SOURCE_UNREACHABLE


def test_unreachable_hub_is_not_a_missing_model(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # The discard port: nobody listens.
    assert reason_of(tmp_path) is StageReason.SOURCE_UNREACHABLE
    result = tmp_path / "result.json"
    assert main(["resolve", "--source", f"hf://{REPO}", "--result", str(result)]) == 4
    found = StageResult.model_validate_json(result.read_bytes())
    assert found.reason is StageReason.SOURCE_UNREACHABLE
    # What users can set, not what becomes of it in the pod.
    assert "spec.proxy" in found.message
    assert "hubEndpoint" in found.message
    assert "HF_ENDPOINT" not in found.message
