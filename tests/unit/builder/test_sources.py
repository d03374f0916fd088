"""Directories, mounted claims and image contents as sources; URIs of every kind."""

import errno
import io
import json
import os
import tempfile
from pathlib import Path

import pytest

from engine_builder.errors import StageError, UsageError
from engine_builder.files import read_metadata
from engine_builder.progress import Progress
from engine_builder.sources import open_source, read_provenance
from engine_builder.sources.selection import INDEX
from engine_builder.stages.fetch import fetch
from engine_builder.weights import count_parameters
from reranker_contracts import StageReason

PROGRESS = Progress("test")


def revision_of(directory: Path) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        return open_source(str(directory), None).resolve(None, Path(scratch)).revision


def refusal(directory: Path) -> StageError:
    with pytest.raises(StageError) as caught:
        revision_of(directory)
    return caught.value


def failure(directory: Path) -> StageReason:
    return refusal(directory).reason


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("oci://registry:5000/models/demo:1.0@sha256:abc", "demo"),
        ("oci://localhost/demo", "demo"),
        ("pvc://claim/models/demo", "demo"),
        ("pvc://claim", "claim"),
    ],
)
def test_mounted_sources_are_named_by_their_uri(tmp_path: Path, uri: str, name: str) -> None:
    assert open_source(uri, tmp_path).name == name


@pytest.mark.parametrize("uri", ["oci://registry/demo", "pvc://claim/demo", ""])
def test_mounted_source_without_directory_is_wrong_usage(uri: str) -> None:
    with pytest.raises(UsageError):
        open_source(uri, None)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://Bucket/key",
        "s3://bucket/../key",
        "gs://bucket/key",
        "hf://",
        "hf://a/b/c",
        "hf://../x",
        "hf://a/b@x..y",
        "hf://a/b\u202e",
        "pvc://c/..",
        "oci://r/a\u202eb",
        "oci://r/" + "x" * 300,
    ],
)
def test_other_uris_are_unsupported(uri: str) -> None:
    with pytest.raises(StageError) as caught:
        open_source(uri, Path() if uri.startswith(("pvc", "oci")) else None)
    assert caught.value.reason is StageReason.SOURCE_UNSUPPORTED
    assert caught.value.message.isprintable()


def test_revision_is_of_the_needed_files_only(make_source) -> None:
    source: Path = make_source()
    revision = revision_of(source)
    (source / "README.md").write_text("other words")
    (source / "modeling.py").write_text("import os")
    (source / "onnx").mkdir()
    (source / "link").symlink_to("/etc/passwd")
    assert revision_of(source) == revision
    (source / "tokenizer.json").write_text('{"version": "1.0"}')
    assert revision_of(source) != revision


def test_fetch_copies_needed_files_and_can_be_repeated(make_source, tmp_path: Path) -> None:
    source: Path = make_source()
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    revision, out = revision_of(source), tmp_path / "out"
    for _attempt in range(2):
        fetch("oci://r/demo", revision=revision, source_dir=source, out=out, progress=PROGRESS)
        (out / "half-written").touch()
    assert not (out / "pytorch_model.bin").exists()
    assert revision_of(out) == revision
    note = read_provenance(out)
    assert (note.name, note.revision) == ("demo", revision)


def test_fetch_of_changed_files_is_refused(make_source, tmp_path: Path) -> None:
    source: Path = make_source()
    revision = revision_of(source)
    (source / "config.json").write_text('{"model_type": "bert", "x": 1}')
    with pytest.raises(StageError) as caught:
        fetch(
            str(source), revision=revision, source_dir=None, out=tmp_path / "o", progress=PROGRESS
        )
    assert caught.value.reason is StageReason.SOURCE_CHANGED


def test_fetch_spares_a_directory_with_other_files(make_source, tmp_path: Path) -> None:
    source: Path = make_source()
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").touch()
    with pytest.raises(UsageError, match="other files"):
        fetch("x", revision="r", source_dir=source, out=tmp_path / "home", progress=PROGRESS)
    assert (tmp_path / "home/thesis.txt").exists()


def test_missing_pieces(make_source, tmp_path: Path) -> None:
    assert failure(tmp_path / "nowhere") is StageReason.SOURCE_NOT_FOUND
    source: Path = make_source()
    (source / "tokenizer.json").unlink()
    assert failure(source) is StageReason.MODEL_INVALID
    (source / "vocab.txt").write_text("[PAD]")
    revision_of(source)
    (source / "model.safetensors").unlink()
    assert failure(source) is StageReason.MODEL_INVALID
    (source / "pytorch_model.bin").touch()
    assert failure(source) is StageReason.UNSAFE_WEIGHTS
    (source / "config.json").unlink()
    assert failure(source) is StageReason.MODEL_INVALID


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_is_no_file_of_the_model_is_refused_by_name(
    make_source, tmp_path: Path, name: str
) -> None:
    """Nothing waits for a pipe's writer, reads a device or follows a link out of the tree."""
    source: Path = make_source()
    path = source / name
    path.rename(tmp_path / "elsewhere")

    def sparse() -> None:
        path.touch()
        os.truncate(path, 1 << 40)

    cases = [
        (lambda: path.symlink_to(tmp_path / "elsewhere"), "elsewhere, outside of"),
        (lambda: path.symlink_to("../elsewhere"), "link to ../elsewhere, outside of"),
        (lambda: path.symlink_to("/dev/zero"), "link to /dev/zero, outside of"),
        (lambda: path.symlink_to("/"), "link to /, outside of"),
        (lambda: path.symlink_to(name), "leads back to itself"),
        (lambda: path.symlink_to("nowhere"), "link to nowhere"),
        (lambda: os.mkfifo(path), "not a regular file"),
        (sparse, "allowed"),
        (path.mkdir, "not a regular file"),
    ]
    for make, says in cases:
        make()
        found = refusal(source)
        assert found.reason is StageReason.MODEL_INVALID
        assert name in found.message
        assert says in found.message
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("call", ["open", "scandir", "fdopen"])
def test_trouble_of_the_volume_is_no_verdict_on_the_model(
    make_source, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    source: Path = make_source()
    works = getattr(os, call)

    class Broken(io.BytesIO):
        def fileno(self) -> int:
            return os.open(source / "config.json", os.O_RDONLY)

        def read(self, _size: int | None = -1) -> bytes:
            raise OSError(code, os.strerror(code))

    def fails(path: object, *args: object, **options: object) -> object:
        if call == "fdopen":
            return Broken()
        if str(path).startswith(str(source)):
            raise OSError(code, os.strerror(code))
        return works(path, *args, **options)

    monkeypatch.setattr(os, call, fails)
    found = refusal(source)
    assert found.reason is StageReason.SOURCE_UNREACHABLE
    assert os.strerror(code) in found.message
    if call == "open":
        with pytest.raises(StageError) as caught:
            read_metadata(source / "config.json")
        assert caught.value.reason is StageReason.SOURCE_UNREACHABLE


def test_links_inside_the_tree_are_followed(make_source) -> None:
    source: Path = make_source()
    revision = revision_of(source)
    (source / "files").mkdir()
    (source / "model.safetensors").rename(source / "files" / "weights")
    (source / "model.safetensors").symlink_to("files/weights")
    assert revision_of(source) == revision


def test_a_folder_without_end_is_refused(make_source, monkeypatch: pytest.MonkeyPatch) -> None:
    source: Path = make_source()
    monkeypatch.setattr("engine_builder.sources.tree.MAX_FILES", 3)
    assert "more than 3 files" in refusal(source).message


@pytest.fixture
def hub_cache(make_source, tmp_path: Path) -> Path:
    """As the hub's client leaves it: files of a snapshot are links into the blobs."""
    source: Path = make_source()
    cache = tmp_path / "models--acme--demo"
    for folder in ("blobs", "refs", f"snapshots/{'a' * 40}", f"snapshots/{'b' * 40}"):
        (cache / folder).mkdir(parents=True)
    for number, entry in enumerate(sorted(source.iterdir())):
        entry.rename(cache / "blobs" / str(number))
        (cache / "snapshots" / ("a" * 40) / entry.name).symlink_to(f"../../blobs/{number}")
    (cache / "refs/main").write_text("a" * 40)
    return cache


def test_a_hub_cache_is_read_by_its_root_or_by_a_snapshot(hub_cache: Path, tmp_path: Path) -> None:
    snapshot = hub_cache / "snapshots" / ("a" * 40)
    revision = revision_of(hub_cache)
    assert revision_of(snapshot) == revision
    out = tmp_path / "out"
    fetch("oci://r/x", revision=revision, source_dir=hub_cache, out=out, progress=PROGRESS)
    assert revision_of(out) == revision
    assert not any(entry.is_symlink() for entry in out.iterdir())
    (hub_cache / "refs/main").unlink()
    assert "2 revisions" in refusal(hub_cache).message
    (hub_cache / "snapshots" / ("b" * 40)).rmdir()
    assert revision_of(hub_cache) == revision


def test_a_snapshot_alone_names_the_link_and_the_remedy(hub_cache: Path, tmp_path: Path) -> None:
    """As an image or claim may hold it: without the blobs that its links lead to."""
    mount = tmp_path / "mount"
    (hub_cache / "snapshots" / ("a" * 40)).rename(mount)
    found = refusal(mount)
    assert found.reason is StageReason.MODEL_INVALID
    assert "config.json is a link to ../../blobs/0" in found.message


def test_resolve_judges_the_bytes_that_it_hashed(make_source, tmp_path: Path) -> None:
    source: Path = make_source()
    snapshot = open_source(str(source), None).resolve(None, tmp_path)
    (source / "config.json").write_text("changed since")
    assert json.loads((snapshot.metadata / "config.json").read_bytes())["model_type"] == "bert"


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({"w": "../../etc/shadow"}, StageReason.MODEL_INVALID),
        ({"w": "/etc/x.safetensors"}, StageReason.MODEL_INVALID),
        ({"w": "pytorch_model-1.bin"}, StageReason.UNSAFE_WEIGHTS),
        ({"w": "absent.safetensors"}, StageReason.MODEL_INVALID),
        ({"w": 7}, StageReason.MODEL_INVALID),
        ({}, StageReason.MODEL_INVALID),
        ({str(n): f"{n}.safetensors" for n in range(2000)}, StageReason.MODEL_INVALID),
    ],
)
def test_hostile_weight_index(make_source, weight_map: object, reason: StageReason) -> None:
    source: Path = make_source()
    (source / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert failure(source) is reason


def test_shards_of_an_index_are_needed_files(make_source) -> None:
    source: Path = make_source()
    (source / "model-1.safetensors").write_bytes(b"shard")
    (source / INDEX).write_text(json.dumps({"weight_map": {"w": "model-1.safetensors"}}))
    revision = revision_of(source)
    (source / "model.safetensors").unlink()
    assert revision_of(source) == revision


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data.replace(b'"shape": [4]', b'"shape": "4"'),
        lambda data: data.replace(b'"shape": [4]', b'"shape":[-4]'),
        lambda data: data[:8] + b"[" * (len(data) - 8),
        lambda data: data.replace(b'"shape": [4]', b'"shape":[9e9]'),
        lambda data: data.replace(b'"shape": [4]', b'"shape": [8]'),
        lambda data: data.replace(b"[0, 16]", b"[4, 16]"),
        lambda data: data.replace(b"[0, 16]", b"[16, 0]"),
        lambda data: data.replace(b'"F32"', b'"Q32"'),
        lambda data: data[:-16] + b"\x80\x04c__builtin__\nexec\n",
    ],
    ids=[
        *("empty", "cut", "longer", "header length", "shape", "negative", "nested"),
        *("float", "larger shape", "late start", "backwards", "type", "pickle"),
    ],
)
def test_damaged_weights_are_invalid(make_source, damage) -> None:
    path = make_source() / "model.safetensors"
    assert count_parameters([path]) == 4
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StageError, match=r"model\.safetensors") as caught:
        count_parameters([path])
    assert caught.value.reason is StageReason.MODEL_INVALID


def _of_claim(path: str, mount: Path, scratch: Path) -> str:
    scratch.mkdir(exist_ok=True)
    return open_source(f"pvc://data/{path}", mount).resolve(None, scratch).revision


def test_a_path_on_a_claim(make_source, tmp_path: Path) -> None:
    source: Path = make_source()
    revision, mount, scratch = revision_of(source), tmp_path / "claim", tmp_path / "scratch"
    (mount / "models").mkdir(parents=True)
    source.rename(mount / "models/demo")
    (mount / "latest").symlink_to("models/demo")
    for path in ("models/demo", "models/demo/", "/models/demo", "latest"):
        assert _of_claim(path, mount, scratch) == revision


@pytest.mark.parametrize("path", ["models/dem", "models/demo/config.json", "dangling", "loop"])
def test_a_path_that_is_not_on_the_claim_names_both(make_source, tmp_path: Path, path: str) -> None:
    source: Path = make_source()
    (tmp_path / "claim/models").mkdir(parents=True)
    source.rename(tmp_path / "claim/models/demo")
    (tmp_path / "claim/dangling").symlink_to("nowhere")
    (tmp_path / "claim/loop").symlink_to("loop")
    with pytest.raises(StageError) as caught:
        _of_claim(path, tmp_path / "claim", tmp_path / "scratch")
    assert caught.value.reason is StageReason.SOURCE_NOT_FOUND
    assert caught.value.message.startswith(f"there is no folder {path} on claim data; correct ")


@pytest.mark.parametrize("path", ["away", "away/demo", "up/demo", "../outside/demo"])
def test_a_path_that_leaves_the_claim_is_refused(make_source, tmp_path: Path, path: str) -> None:
    source: Path = make_source()
    (tmp_path / "outside").mkdir()
    (tmp_path / "claim").mkdir()
    source.rename(tmp_path / "outside/demo")
    (tmp_path / "claim/away").symlink_to(tmp_path / "outside")
    (tmp_path / "claim/up").symlink_to("../outside")
    with pytest.raises(StageError, match="outside of the claim") as caught:
        _of_claim(path, tmp_path / "claim", tmp_path / "scratch")
    assert caught.value.reason is StageReason.MODEL_INVALID
