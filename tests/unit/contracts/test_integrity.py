"""A published directory is exactly what its manifest says, or it is refused."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from support.identities import TOOLCHAIN

from reranker_contracts import (
    ArtefactManifest,
    IntegrityError,
    OtherVersionError,
    PrepareIdentity,
    digest_of,
    tree_digest,
    verify_artefact,
    write_manifest,
)
from reranker_contracts.integrity import file_entries

IDENTITY = PrepareIdentity(
    revision="0123abcd",
    toolchain=TOOLCHAIN,
)


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    root = tmp_path / "artefact"
    (root / "deep").mkdir(parents=True)
    (root / "model.onnx").write_bytes(b"weights")
    (root / "deep" / "config.pbtxt").write_text("name: 'reranker'")
    manifest = ArtefactManifest(
        digest=digest_of(IDENTITY),
        identity=IDENTITY,
        files=tuple(file_entries(root)),
        created_at=datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC),
    )
    write_manifest(root, manifest)
    return root


def test_an_untouched_artefact_passes(artefact: Path) -> None:
    manifest = verify_artefact(artefact, digest_of(IDENTITY))
    assert [entry.path for entry in manifest.files] == ["deep/config.pbtxt", "model.onnx"]
    assert manifest.size == len(b"weights") + len("name: 'reranker'")


def _flip(root: Path) -> None:
    (root / "model.onnx").write_bytes(b"weighta")


def _replace_by_link(root: Path) -> None:
    (root / "model.onnx").rename(root.parent / "elsewhere")
    (root / "model.onnx").symlink_to(root.parent / "elsewhere")


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda root: (root / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda root: (root / "new").touch(), "new is not in the manifest"),
        (lambda root: (root / "deep" / "manifest.json").touch(), "deep/manifest.json is not in"),
        (_flip, "model.onnx does not match its sha256"),
        (_replace_by_link, "model.onnx is not a regular file"),
        (lambda root: (root / "deep" / "up").symlink_to(".."), "deep/up is not a regular file"),
        (lambda root: (root / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda root: (root / "manifest.json").write_text("{}"), "manifest.json is malformed"),
        (lambda root: (root / "manifest.json").write_bytes(b"\xff"), "manifest.json cannot be"),
    ],
)
def test_any_difference_is_named(
    artefact: Path, tamper: Callable[[Path], object], message: str
) -> None:
    tamper(artefact)
    with pytest.raises(IntegrityError, match=f"^{message}"):
        verify_artefact(artefact)


def test_another_version_is_no_damage(artefact: Path) -> None:
    manifest = artefact / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schemaVersion":1', '"schemaVersion":2'))
    with pytest.raises(OtherVersionError, match="schemaVersion 2"):
        verify_artefact(artefact)


def test_another_artefact_is_refused(artefact: Path) -> None:
    with pytest.raises(IntegrityError, match="expected 0000000000"):
        verify_artefact(artefact, "0" * 64)


def test_the_tree_hash_sees_names_and_contents_only(artefact: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    for path in sorted(artefact.rglob("*"), reverse=True):
        if path.is_file():
            copied = twin / path.relative_to(artefact)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    assert tree_digest(twin) == tree_digest(artefact)
    (twin / "model.onnx").rename(twin / "model2.onnx")
    assert tree_digest(twin) != tree_digest(artefact)
