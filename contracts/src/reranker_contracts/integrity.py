"""Integrity of published artefacts and of model sources, by sha256."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from reranker_contracts.identity import digest_of
from reranker_contracts.manifest import ATTACHED, MANIFEST, ArtefactManifest, FileEntry


class IntegrityError(Exception):
    """An artefact is not what its manifest says; the message names the first difference."""


class OtherVersionError(IntegrityError):
    """The manifest has a form that this version doesn't know; the files may well be whole."""


def file_entries(root: Path) -> list[FileEntry]:
    """Every regular file below `root` but the manifest and what is about it, sorted by path.

    Raises IntegrityError on anything that is not a plain file or folder: a link could point out of
    the artefact after it was checked.
    """
    return [
        FileEntry(path=path.relative_to(root).as_posix(), size=size, sha256=digest)
        for path, size, digest in _hashed_files(root)
        if path.parent != root or path.name not in (MANIFEST, *ATTACHED)
    ]


def tree_digest(root: Path) -> str:
    """`sha256:` + hash over the sorted (path, sha256) lines of a source directory.

    The form of the lines is that of `sha256sum`: two blanks between hash and path.
    """
    return tree_digest_of(
        (path.relative_to(root).as_posix(), digest) for path, _size, digest in _hashed_files(root)
    )


def tree_digest_of(files: Iterable[tuple[str, str]]) -> str:
    """The tree hash of (path, sha256) pairs, in any order; see `tree_digest`."""
    total = hashlib.sha256()
    for path, digest in sorted(files):
        total.update(f"{digest}  {path}\n".encode())
    return f"sha256:{total.hexdigest()}"


def verify_artefact(root: Path, digest: str | None = None) -> ArtefactManifest:
    """Read the manifest of `root` and check every file against it.

    Raises IntegrityError when the manifest is missing or malformed, when a file is missing,
    added, changed or cannot be read, or when the artefact is not the one with this `digest`, also
    by what it says it was made from; OtherVersionError when the manifest is one of another version.
    """
    try:
        text = (root / MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{MANIFEST} cannot be read: {type(error).__name__}") from error
    try:
        manifest = ArtefactManifest.model_validate_json(text)
    except ValidationError as error:
        version = _other_version(error)
        if version is not None:
            raise OtherVersionError(f"{MANIFEST} has schemaVersion {version}") from error
        raise IntegrityError(f"{MANIFEST} is malformed ({error.error_count()} errors)") from error
    if digest is not None and manifest.digest != digest:
        raise IntegrityError(f"{MANIFEST} is of {manifest.digest[:10]}, expected {digest[:10]}")
    if digest_of(manifest.identity) != manifest.digest:
        raise IntegrityError(f"{MANIFEST} has a digest that is not that of its identity")
    try:
        found = file_entries(root)
    except OSError as error:
        raise IntegrityError(f"a file cannot be read: {type(error).__name__}") from error
    _compare(manifest.files, found)
    return manifest


def _other_version(error: ValidationError) -> int | None:
    """The version of a document that is refused, where that is what it is refused for."""
    for entry in error.errors(include_url=False):
        if entry["loc"] == ("schemaVersion",) and isinstance(entry["input"], int):
            return entry["input"]
    return None


def _compare(expected: tuple[FileEntry, ...], found: list[FileEntry]) -> None:
    wanted = {entry.path: entry for entry in expected}
    present = {entry.path: entry for entry in found}
    for path in sorted(wanted.keys() | present.keys()):
        if path not in present:
            raise IntegrityError(f"{path} is missing")
        if path not in wanted:
            raise IntegrityError(f"{path} is not in the manifest")
        if present[path] != wanted[path]:
            raise IntegrityError(f"{path} does not match its sha256")


def _hashed_files(root: Path) -> Iterator[tuple[Path, int, str]]:
    for path in sorted(root.rglob("*"), key=lambda entry: entry.relative_to(root).as_posix()):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise IntegrityError(f"{path.relative_to(root).as_posix()} is not a regular file")
        if path.is_file():
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            yield path, path.stat().st_size, digest
