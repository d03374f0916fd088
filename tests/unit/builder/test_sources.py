"""Directories, mounted claims and image contents as sources; URIs of every kind."""

import json
import os
from pathlib import Path

import pytest

from engine_builder.errors import StageError, UsageError
from engine_builder.progress import Progress
from engine_builder.sources import open_source, read_provenance
from engine_builder.sources.selection import INDEX
from engine_builder.stages.fetch import fetch
from engine_builder.weights import count_parameters
from reranker_contracts import StageReason

PROGRESS = Progress("test")


def revision_of(directory: Path) -> str:
    return open_source(str(directory), None).resolve(None, directory).revision


def failure(directory: Path) -> StageReason:
    with pytest.raises(StageError) as caught:
        revision_of(directory)
    return caught.value.reason


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
        "s3://bucket/key",
        "https://example.org/x",
        "hf://",
        "hf://a/b/c",
        "hf://../x",
        "hf://a/b@x..y",
    ],
)
def test_other_uris_are_unsupported(uri: str) -> None:
    with pytest.raises(StageError) as caught:
        open_source(uri, None)
    assert caught.value.reason is StageReason.SOURCE_UNSUPPORTED


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
        fetch("pvc://c/demo", revision=revision, source_dir=source, out=out, progress=PROGRESS)
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
def test_links_and_pipes_are_refused(make_source, tmp_path: Path, name: str) -> None:
    source: Path = make_source()
    (source / name).rename(tmp_path / "elsewhere")
    (source / name).symlink_to(tmp_path / "elsewhere")
    assert failure(source) is StageReason.MODEL_INVALID
    (source / name).unlink()
    os.mkfifo(source / name)
    assert failure(source) is StageReason.MODEL_INVALID


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
    ],
    ids=["empty", "cut", "longer", "header length", "shape", "negative", "nested"],
)
def test_damaged_weights_are_invalid(make_source, damage) -> None:
    path = make_source() / "model.safetensors"
    assert count_parameters([path]) == 4
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StageError, match=r"model\.safetensors") as caught:
        count_parameters([path])
    assert caught.value.reason is StageReason.MODEL_INVALID
