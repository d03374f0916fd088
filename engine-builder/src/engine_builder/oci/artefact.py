"""An artefact of the store as an OCI artefact, and back.

One layer for each file, so a registry keeps equal files once and every layer's digest is the
sha256 that `manifest.json` gives; `manifest.json` itself is the config. The form is that of an
image manifest with `artifactType` (OCI Image Specification v1.1, "Guidelines for Artifact Usage");
a layer's path is its `org.opencontainers.image.title`, as ORAS writes and reads it.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from engine_builder.artefacts import known_files
from engine_builder.errors import FULL, StageError
from engine_builder.oci.client import MANIFEST_TYPE, MAX_MANIFEST, Registry, digest_of
from engine_builder.progress import Progress, human_size
from engine_builder.provenance import Evidence, PublicKey, examine
from engine_builder.provenance.evidence import judge
from engine_builder.retention import Retention
from engine_builder.store import Store
from reranker_contracts import ArtefactManifest, IntegrityError, StageReason
from reranker_contracts import digest_of as identity_digest
from reranker_contracts.base import canonical_json
from reranker_contracts.manifest import ATTACHED, MANIFEST

CONFIG_TYPE = "application/vnd.reranker.manifest.v1+json"
FILE_TYPE = "application/vnd.reranker.file.v1"
ARTEFACT_TYPES = {
    "engine": "application/vnd.reranker.engine.v1",
    "prepared": "application/vnd.reranker.prepared.v1",
}
_TITLE = "org.opencontainers.image.title"
_CREATED = "org.opencontainers.image.created"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: Of one artefact: far more than an engine has, far less than would hurt.
_MAX_FILES = 1000
_MAX_BYTES = 64 << 30
#: Bytes that a pull leaves free in the store, for what is written beside it.
RESERVE = 64 << 20


@dataclass(frozen=True)
class Layer:
    """One file of a remote artefact."""

    path: str
    digest: str
    size: int


@dataclass(frozen=True)
class Remote:
    """What a registry has: the parsed OCI manifest and the artefact's own."""

    digest: str
    config: bytes
    manifest: ArtefactManifest
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Wanted:
    """What a pull must be: signed by `key`, of this digest; `retention` is kept to first."""

    key: PublicKey | None = None
    digest: str | None = None
    retention: Retention | None = None


def push(
    directory: Path, registry: Registry, tag: str, progress: Progress, key: PublicKey | None = None
) -> tuple[str, Evidence]:
    """Upload a published directory under `tag`; the digest to pull it by, and what was checked.

    What the registry has already is not sent again, so a push that broke off goes on.
    """
    with progress.step("checking every file"):
        evidence = examine(directory, key=key)
    manifest = evidence.manifest
    layers = []
    entries = {entry.path: (f"sha256:{entry.sha256}", entry.size) for entry in manifest.files}
    for name in ATTACHED:
        if (directory / name).is_file():
            data = (directory / name).read_bytes()
            entries[name] = (digest_of(data), len(data))
    for path, (digest, size) in sorted(entries.items()):
        layers.append(_layer(path, digest, size))
        if not registry.has_blob(digest):
            with progress.step(f"uploading {path} ({human_size(size)})"):
                registry.upload(directory / path, digest, path, progress)
    config = manifest.to_bytes()
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTEFACT_TYPES[manifest.identity.kind],
        "config": {
            "mediaType": CONFIG_TYPE,
            "digest": registry.put_small_blob(config),
            "size": len(config),
        },
        "layers": layers,
        "annotations": {_CREATED: manifest.created_at.isoformat()},
    }
    return registry.put_manifest(tag, canonical_json(document).encode("ascii")), evidence


def _layer(path: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": FILE_TYPE, "digest": digest, "size": size, "annotations": {_TITLE: path}}


def look_up(
    registry: Registry, version: str, key: PublicKey | None = None
) -> tuple[Remote, Evidence]:
    """Read what an artefact says, download none of its files, and check its signature.

    Raises StageError (ChecksumMismatch) when its layers are not the files of its manifest.
    """
    data, digest = registry.manifest(version)
    remote = _parse(registry, data, digest)
    files = {MANIFEST: remote.config}
    by_path = {layer.path: layer for layer in remote.layers}
    for name in ATTACHED:
        layer = by_path.get(name)
        files[name] = registry.small_blob(layer.digest, MAX_MANIFEST) if layer else b""
    return remote, judge(registry.place.about, remote.manifest, files, key)


def pull(
    registry: Registry,
    version: str,
    store: Store,
    progress: Progress,
    wanted: Wanted = Wanted(),
) -> tuple[Remote, Evidence, bool]:
    """Download an artefact into the store; False when it was there already, intact.

    Digest, signature and room are checked before a file is downloaded. A pull that broke off goes
    on where it was; the artefact appears in the store when all of it is there and right. One that
    is there without the signature that is wanted gives way; of one that is kept the manifest is
    told, which may have been made at another time than the registry's.
    """
    with progress.step("reading the registry's manifest"):
        remote, evidence = look_up(registry, version, wanted.key)
    kind, digest = remote.manifest.identity.kind, remote.manifest.digest
    if wanted.digest not in (None, digest):
        raise _wrong(registry, f"it is {digest[:16]}…, not {wanted.digest[:16]}…")
    if wanted.retention is not None:
        kept = wanted.retention.keep | {digest}
        store.tidy(replace(wanted.retention, keep=kept))
    there = store.keep(kind, digest)
    if there is not None and _is_signed(store.path_of(kind, digest), wanted.key):
        return replace(remote, manifest=there), evidence, False
    with _staging(store, remote.digest) as staging:
        _check_space(store, remote, staging)
        for layer in remote.layers:
            target = staging / layer.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with progress.step(f"downloading {layer.path} ({human_size(layer.size)})"):
                registry.fetch_blob(layer.digest, layer.size, layer.path, target, progress)
        (staging / MANIFEST).write_bytes(remote.config)
        try:
            fresh = store.adopt(staging, remote.manifest, instead=there is not None)
        except IntegrityError as error:
            # What an earlier pull left there was changed since; the next one begins anew.
            shutil.rmtree(staging, ignore_errors=True)
            raise StageError(
                StageReason.CHECKSUM_MISMATCH,
                f"{store.root}: a file changed while it was written ({error}); check the volume",
            ) from error
    return remote, evidence, fresh


def _check_space(store: Store, remote: Remote, staging: Path) -> None:
    """Before the work, not after it. Raises StageError (StoreFull)."""
    missing = sum(layer.size - _have(staging / layer.path, layer.size) for layer in remote.layers)
    usage = shutil.disk_usage(store.root)
    # Some network filesystems don't tell.
    if usage.total and usage.free < missing + RESERVE:
        raise StageError(
            StageReason.STORE_FULL,
            f"{store.root}: {human_size(usage.free)} free, the download takes "
            f"{human_size(missing)} more and leaves {human_size(RESERVE)}; enlarge the volume or "
            "delete what is not used there",
        )


def _have(path: Path, most: int) -> int:
    """Bytes that an earlier pull left of a file."""
    try:
        return min(path.lstat().st_size, most)
    except OSError:
        return 0


def _is_signed(directory: Path, key: PublicKey | None) -> bool:
    """Whether an artefact that is intact has a signature by `key`, if one is asked for."""
    try:
        examine(directory, key=key)
    except StageError:
        return False
    return True


@contextlib.contextmanager
def _staging(store: Store, digest: str) -> Iterator[Path]:
    """A folder below tmp/ that a later pull of the same artefact goes on with.

    Two pulls at once don't share it: the second one takes a folder of its own. Where the store is
    full nothing is left: what is there would take the room of the build that comes instead.
    """
    tmp = store.root / "tmp"
    tmp.mkdir(parents=True, exist_ok=True)
    path = tmp / uuid.uuid5(uuid.NAMESPACE_URL, digest).hex
    path.mkdir(exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Somebody else has it, or the filesystem has no locks.
            path = tmp / uuid.uuid4().hex
            path.mkdir()
        try:
            yield path
        except (OSError, StageError) as error:
            if _is_full(error):
                shutil.rmtree(path, ignore_errors=True)
            raise
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(handle)


def _is_full(error: OSError | StageError) -> bool:
    if isinstance(error, StageError):
        return error.reason is StageReason.STORE_FULL
    return error.errno in FULL


def _parse(registry: Registry, data: bytes, digest: str) -> Remote:
    document = _object(registry, data)
    config = document.get("config")
    layers = document.get("layers")
    if document.get("artifactType") not in ARTEFACT_TYPES.values() or not isinstance(config, dict):
        raise _wrong(registry, "it is no reranker engine or prepared model")
    if not isinstance(layers, list) or len(layers) > _MAX_FILES:
        raise _wrong(registry, f"it has no list of at most {_MAX_FILES} layers")
    config_digest = config.get("digest")
    if not isinstance(config_digest, str) or not _DIGEST.fullmatch(config_digest):
        raise _wrong(registry, "its config has no digest")
    config_data = registry.small_blob(config_digest, MAX_MANIFEST)
    try:
        manifest = ArtefactManifest.model_validate_json(config_data)
    except ValidationError as error:
        raise _wrong(registry, f"its config is malformed ({error.error_count()} errors)") from error
    if document["artifactType"] != ARTEFACT_TYPES[manifest.identity.kind]:
        raise _wrong(registry, "its artifactType is not that of its config")
    if identity_digest(manifest.identity) != manifest.digest:
        raise _wrong(registry, "its digest is not that of what it says it was made from")
    strange = sorted({entry.path for entry in manifest.files} - known_files(manifest.identity))
    if strange:
        raise _wrong(registry, f"{strange[0]} is no file of such an artefact")
    parsed = tuple(_parse_layer(registry, layer) for layer in layers)
    _compare(registry, manifest, parsed)
    return Remote(digest, config_data, manifest, parsed)


def _parse_layer(registry: Registry, value: object) -> Layer:
    if isinstance(value, dict):
        annotations = value.get("annotations")
        path = annotations.get(_TITLE) if isinstance(annotations, dict) else None
        digest, size = value.get("digest"), value.get("size")
        if (
            isinstance(path, str)
            and isinstance(digest, str)
            and _DIGEST.fullmatch(digest)
            and isinstance(size, int)
            and size >= 0
            and _inside(path)
        ):
            return Layer(path, digest, size)
    raise _wrong(registry, f"a layer has no {_TITLE}, digest or size")


def _inside(path: str) -> bool:
    """A relative path that stays where it is put."""
    parts = PurePosixPath(path).parts
    plain = path == "/".join(parts) and path.isprintable() and "\\" not in path
    return plain and bool(parts) and not path.startswith("/") and ".." not in parts


def _compare(registry: Registry, manifest: ArtefactManifest, layers: tuple[Layer, ...]) -> None:
    found = {layer.path: (layer.digest, layer.size) for layer in layers}
    if len(found) != len(layers):
        raise _wrong(registry, "two layers have one path")
    attached = {path: found.pop(path) for path in ATTACHED if path in found}
    wanted = {entry.path: (f"sha256:{entry.sha256}", entry.size) for entry in manifest.files}
    if found != wanted:
        different = sorted(set(found.items()) ^ set(wanted.items()))[0][0]
        raise _wrong(registry, f"{different} is not what its manifest.json says")
    if any(size > MAX_MANIFEST for _digest, size in attached.values()):
        raise _wrong(registry, "its provenance is too large")
    if sum(layer.size for layer in layers) > _MAX_BYTES:
        raise _wrong(registry, f"it is larger than {human_size(_MAX_BYTES)}")


def _object(registry: Registry, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _wrong(registry, "its OCI manifest is not a JSON object")
    return value


def _wrong(registry: Registry, problem: str) -> StageError:
    return StageError(
        StageReason.CHECKSUM_MISMATCH,
        f"{registry.place.about}: {problem}; push it again with engine-builder",
    )
