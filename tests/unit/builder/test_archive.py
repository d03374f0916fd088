"""https:// archives: pinned, over TLS, and harmless whatever they hold."""

import hashlib
import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine_builder import transfer
from engine_builder.cli import main
from engine_builder.errors import StageError, UsageError
from engine_builder.sources import archive as module
from engine_builder.sources import open_source
from reranker_contracts import StageReason

from .remote import Quiet, fetched, make_certificate, refusal, resolved, serving

NEEDED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@dataclass
class Site:
    """One archive on a server; bodies end early at the next of `cuts`."""

    data: bytes = b""
    cuts: list[int] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    status: int = 200
    honours_ranges: bool = True
    #: Every range is refused (416), so what came so far is thrown away.
    refuses_ranges: bool = False
    location: str | None = None
    url: str = ""

    @property
    def revision(self) -> str:
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"


class Handler(Quiet):
    site: Site

    def do_GET(self) -> None:  # noqa: N802
        site, asked = self.site, self.headers.get("Range")
        site.ranges.append(asked)
        if site.location:
            self.send(302, Location=site.location)
        elif site.status != 200:
            self.send(site.status)
        elif asked and site.refuses_ranges:
            self.send(416)
        else:
            self._archive(site, asked)

    def _archive(self, site: Site, asked: str | None) -> None:
        start = 0
        if asked and site.honours_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        body = site.data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(site.data) - 1}/{len(site.data)}"
            )
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = site.cuts.pop(0) if site.cuts else len(body)
        self.wfile.write(body[:cut])
        self.close_connection = True


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site()
    certificate, authority = make_certificate(tmp_path / "tls")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 0)
    with serving(type("Bound", (Handler,), {"site": site}), certificate) as address:
        site.url = f"{address}/models/demo-1.0.tar.gz"
        yield site


def pack(source: Path, prefix: str = "demo", mode: str = "w:gz") -> bytes:
    """The folder `source` as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for path in sorted(source.iterdir()):
            tar.add(path, f"{prefix}/{path.name}" if prefix else path.name)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("prefix", ["demo", "", "./demo", "a/b"])
def test_resolve_and_fetch(site: Site, make_source, tmp_path: Path, mode: str, prefix: str) -> None:
    source: Path = make_source()
    (source / "README.md").write_text("words")
    (source / "1_LogitScore").mkdir()
    (source / "1_LogitScore/config.json").write_text("{}")
    site.data = pack(source, prefix, mode)
    assert open_source(site.url, None).name == "demo-1.0"
    assert resolved(site.url, tmp_path / "scratch", site.revision) == site.revision
    found = {path.name for path in (tmp_path / "scratch").iterdir()}
    assert found == NEEDED - {"model.safetensors"} | {"1_LogitScore"}
    files = fetched(site.url, site.revision, tmp_path / "out")
    assert set(files) == NEEDED | {"1_LogitScore/config.json"}
    assert files["model.safetensors"] == (source / "model.safetensors").read_bytes()


def test_an_archive_needs_its_hash(site: Site, tmp_path: Path) -> None:
    for revision in (None, "main", "sha256:abc"):
        with pytest.raises(UsageError, match="sha256"):
            resolved(site.url, tmp_path / "scratch", revision)
    assert main(["resolve", "--source", site.url]) == 2
    assert not site.ranges


def test_nothing_is_unpacked_before_the_hash_is_right(
    site: Site, make_source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.data = pack(make_source())
    monkeypatch.setattr(tarfile, "open", lambda *_args, **_options: pytest.fail("was unpacked"))
    found = refusal(site.url, tmp_path / "scratch", f"sha256:{'0' * 64}")
    assert found.reason is StageReason.SOURCE_CHANGED
    assert site.revision.removeprefix("sha256:") in found.message
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("honours_ranges", [True, False])
def test_a_download_that_breaks_off_goes_on(
    site: Site, make_source, tmp_path: Path, honours_ranges: bool
) -> None:
    source: Path = make_source()
    (source / "model.safetensors").write_bytes(os.urandom(300_000))
    site.data, site.honours_ranges = pack(source), honours_ranges
    site.cuts = [100_000, 50_000]
    assert set(fetched(site.url, site.revision, tmp_path / "out")) == NEEDED
    if honours_ranges:
        assert site.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_what_is_thrown_away_and_sent_again_is_no_progress(
    site: Site, make_source, tmp_path: Path
) -> None:
    """A server could keep a build for ever with one byte, a break and a refusal of the rest."""
    site.data, site.refuses_ranges, site.cuts = pack(make_source()), True, [1] * 100
    found = refusal(site.url, tmp_path / "scratch", site.revision)
    assert found.reason is StageReason.SOURCE_UNREACHABLE
    assert len(site.ranges) == 1 + transfer.TRIES


def test_an_adapter_is_found_by_its_own_configuration(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        (folder / name).write_text(name)
    site.data = pack(folder, "a/b")
    (tmp_path / "scratch").mkdir()
    source = open_source(site.url, None, "adapter")
    found = source.resolve(site.revision, tmp_path / "scratch")
    assert [path.name for path in found.metadata.iterdir()] == ["adapter_config.json"]


def test_each_failure_has_its_reason(
    site: Site, make_source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.data = pack(make_source())
    for status, reason in (
        (401, StageReason.SOURCE_UNAUTHORIZED),
        (404, StageReason.SOURCE_NOT_FOUND),
        (503, StageReason.SOURCE_UNREACHABLE),
    ):
        site.status = status
        assert refusal(site.url, tmp_path / "a", site.revision).reason is reason
    site.status, site.location = 200, "http://127.0.0.1:1/plain"
    assert refusal(site.url, tmp_path / "b", site.revision).reason is StageReason.SOURCE_UNREACHABLE
    site.location = site.url
    assert refusal(site.url, tmp_path / "c", site.revision).reason is StageReason.SOURCE_UNREACHABLE
    site.location = None
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    assert refusal(site.url, tmp_path / "d", site.revision).reason is StageReason.MODEL_INVALID
    monkeypatch.delenv("SSL_CERT_FILE")
    found = refusal(site.url, tmp_path / "e", site.revision)
    assert found.reason is StageReason.SOURCE_UNREACHABLE, "nobody trusts its certificate"
    assert "spec.caBundle" in found.message


def test_the_way_leads_through_the_proxy(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Proxy(Quiet):
        def do_CONNECT(self) -> None:  # noqa: N802
            asked.append(self.path)
            self.send(403)

    with serving(Proxy) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        found = refusal("https://files.example/demo.tar", tmp_path / "a", site.revision)
        assert found.reason is StageReason.SOURCE_UNREACHABLE
        assert set(asked) == {"files.example:443"}
        asked.clear()
        site.status = 404
        assert refusal(site.url, tmp_path / "b", site.revision).reason is (
            StageReason.SOURCE_NOT_FOUND
        )
        assert not asked, "not for those that NO_PROXY names"


Change = Callable[[tarfile.TarFile, Path], object]


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **values: object) -> Change:
    """An entry of any name and kind."""

    def add(tar: tarfile.TarFile, _source: Path) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(data)
        for key, value in values.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(data) if data else None)

    return add


HOSTILE: dict[str, tuple[Change, str]] = {
    "absolute": (entry("/etc/cron.d/x", data=b"x"), "leads out"),
    "upwards": (entry("demo/../../x", data=b"x"), "leads out"),
    "device": (entry("demo/x", tarfile.CHRTYPE), "device or pipe"),
    "block": (entry("demo/x", tarfile.BLKTYPE), "device or pipe"),
    "pipe": (entry("demo/x", tarfile.FIFOTYPE), "device or pipe"),
    "twice": (entry("demo/config.json", data=b"{}"), "two entries"),
    "link out": (
        entry("demo/merges.txt", tarfile.SYMTYPE, linkname="/etc/passwd"),
        "merges.txt is a link",
    ),
    "hard link": (
        entry("demo/vocab.txt", tarfile.LNKTYPE, linkname="demo/config.json"),
        "vocab.txt is a link",
    ),
    "two models": (entry("other/config.json", data=b"{}"), "several folders"),
    "long name": (
        entry("demo/" + "n" * (2 << 20), tarfile.REGTYPE, data=b"x"),
        "no tar archive",
    ),
    "long path": (entry("demo/" + "n" * 5000, data=b"x"), "longer than a path"),
    "extensions": (
        lambda tar, source: [
            tar.fileobj.write(8 * tarfile.TarInfo.create_pax_global_header({"x": "x" * 9000})),
            entry("demo/x", data=b"x")(tar, source),
        ],
        "no tar archive",
    ),
    "holes": (entry("demo/x", tarfile.GNUTYPE_SPARSE), "no tar archive"),
    "map of holes": (
        entry(
            "demo/x",
            data=b"0\n" + bytes(510),
            pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        ),
        "no tar archive",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(site: Site, make_source, tmp_path: Path, name: str) -> None:
    change, says = HOSTILE[name]
    source, buffer = make_source(), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in source.iterdir():
            tar.add(path, f"demo/{path.name}")
        change(tar, source)
    site.data = buffer.getvalue()
    before = set(tmp_path.rglob("*"))
    found = refusal(site.url, tmp_path / "scratch", site.revision)
    assert found.reason is StageReason.MODEL_INVALID
    assert says in found.message
    with pytest.raises(StageError, match=says):
        fetched(site.url, site.revision, tmp_path / "out")
    made = {path.relative_to(tmp_path).parts[0] for path in set(tmp_path.rglob("*")) - before}
    assert made <= {"scratch", "out"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_links_that_are_not_needed_are_left_out(site: Site, make_source, tmp_path: Path) -> None:
    source: Path = make_source()
    (source / "README.md").symlink_to("/etc/passwd")
    site.data = pack(source)
    assert set(fetched(site.url, site.revision, tmp_path / "out")) == NEEDED


@pytest.mark.parametrize("damage", ["text", "cut", "flipped", "empty", "header"])
def test_damaged_archives_are_refused(site: Site, make_source, tmp_path: Path, damage: str) -> None:
    source: Path = make_source()
    (source / "model.safetensors").write_bytes(os.urandom(100_000))
    whole = pack(source)
    middle = len(whole) // 2
    site.data = {
        "text": b"<html>not found</html>" * 100,
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        "empty": b"",
        "header": whole[:20],
    }[damage]
    with pytest.raises(StageError) as caught:
        fetched(site.url, site.revision, tmp_path / "out")
    assert caught.value.reason is StageReason.MODEL_INVALID


def test_what_unpacks_without_end_is_refused(
    site: Site, make_source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry("demo/zeros.bin", data=bytes(4 << 20))(tar, tmp_path)
    site.data = buffer.getvalue()
    assert len(site.data) < 20_000
    monkeypatch.setattr(module, "MAX_UNPACKED", 1 << 20)
    assert "unpacks to more" in refusal(site.url, tmp_path / "a", site.revision).message
    monkeypatch.undo()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls/ca.crt"))
    monkeypatch.setattr(module, "MAX_FILES", 3)
    site.data = pack(make_source())
    assert "more than 3 entries" in refusal(site.url, tmp_path / "b", site.revision).message


@pytest.mark.parametrize("kind", ["x", "g"])
def test_headers_that_have_passed_take_no_memory(
    site: Site, make_source, tmp_path: Path, kind: str
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for number in range(200):
            words = {f"comment.{number}": "x" * 50_000}
            if kind == "g":
                tar.fileobj.write(tarfile.TarInfo.create_pax_global_header(words))
            entry(f"demo/{number}", pax_headers=words if kind == "x" else {})(tar, tmp_path)
        for path in make_source().iterdir():
            tar.add(path, f"demo/{path.name}")
    site.data = buffer.getvalue()
    tracemalloc.start()
    try:
        resolved(site.url, tmp_path / "scratch", site.revision)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "uri",
    [
        "https://", "https://host", "https://host/", "https://user:pw@host/a.tar", "http://h/a.tar",
        "https://host/a.tar?token=secret", "https://host/a.tar#x", "https://host/a b.tar",
        "https://host:x/a.tar", "https://host/" + "a" * 300,
    ],
)  # fmt: skip
def test_addresses_of_no_archive(uri: str) -> None:
    with pytest.raises(StageError) as caught:
        open_source(uri, None)
    assert caught.value.reason is StageReason.SOURCE_UNSUPPORTED
    assert "pw" not in caught.value.message
    assert "secret" not in caught.value.message
