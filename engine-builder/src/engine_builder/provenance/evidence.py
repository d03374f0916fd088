"""What a directory's manifest, statement and signatures are worth together."""

import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from engine_builder.errors import StageError
from engine_builder.provenance import envelope
from engine_builder.provenance.keys import PublicKey, SigningKey
from engine_builder.provenance.statement import make_statement, subject_digest
from engine_builder.store import KINDS
from reranker_contracts import (
    ArtefactManifest,
    IntegrityError,
    OtherVersionError,
    StageReason,
    verify_artefact,
)
from reranker_contracts.manifest import ATTESTATIONS, MANIFEST, PROVENANCE

#: Far above what 10,000 files take.
MAX_STATEMENT = 4 << 20


@dataclass(frozen=True)
class Evidence:
    """An artefact that is whole, and who vouches for it."""

    manifest: ArtefactManifest
    has_statement: bool
    #: Keys that the envelopes name; believed only where `signed_by` is set.
    claimed_keys: tuple[str, ...] = ()
    signed_by: str | None = None

    @property
    def summary(self) -> str:
        """For people."""
        words = "with provenance" if self.has_statement else "without provenance"
        if self.signed_by:
            return f"{words}, signed with the key {self.signed_by[:16]}"
        if self.claimed_keys:
            keys = ", ".join(sorted({name[:16] for name in self.claimed_keys}))
            return f"{words}, signatures by {keys} not checked (no --key)"
        return f"{words}, not signed"


def attach(manifest: ArtefactManifest, key: SigningKey | None) -> dict[str, bytes]:
    """Files that lie beside the manifest: the statement and, with a key, its envelope."""
    statement = make_statement(manifest)
    files = {PROVENANCE: statement}
    if key is not None:
        files[ATTESTATIONS] = envelope.seal(statement, key)
    return files


def examine(
    directory: Path, *, digest: str | None = None, key: PublicKey | None = None
) -> Evidence:
    """Check every sha256, the statement and, with a key, a signature.

    Raises StageError: ChecksumMismatch, EngineVersionMismatch, or SignatureInvalid when there is
    no signature by `key` of exactly this manifest and this statement.
    """
    if not (directory / MANIFEST).exists():
        raise StageError(
            StageReason.CHECKSUM_MISMATCH,
            f"{directory}: is no published directory, {MANIFEST} is missing; name one as "
            "store/engines/DIGEST, or fetch or build it again",
        )
    try:
        manifest = verify_artefact(directory, digest)
        files = {name: _read(directory / name) for name in (MANIFEST, PROVENANCE, ATTESTATIONS)}
    except OtherVersionError as error:
        raise StageError(
            StageReason.ENGINE_VERSION_MISMATCH,
            f"{directory}: {error}; use the engine-builder of the version that made it",
        ) from error
    except IntegrityError as error:
        raise StageError(
            StageReason.CHECKSUM_MISMATCH, f"{directory}: {error}; fetch or build it again"
        ) from error
    return judge(str(directory), manifest, files, key)


def judge(
    about: str, manifest: ArtefactManifest, files: dict[str, bytes], key: PublicKey | None
) -> Evidence:
    """Weigh the bytes of manifest.json, statement and envelopes, absent ones empty."""
    wanted = hashlib.sha256(files[MANIFEST]).hexdigest()
    statement, envelopes = files[PROVENANCE], files[ATTESTATIONS]
    if statement and subject_digest(statement, MANIFEST) != wanted:
        raise StageError(
            StageReason.CHECKSUM_MISMATCH,
            f"{about}: {PROVENANCE} is about another manifest; fetch or build it again",
        )
    if key is not None:
        _require_signature(about, wanted, statement, envelopes, key)
    claimed = tuple(envelope.key_ids(envelopes))
    return Evidence(manifest, bool(statement), claimed, key.id if key else None)


def _require_signature(
    about: str, wanted: str, statement: bytes, envelopes: bytes, key: PublicKey
) -> None:
    """Of a statement about the manifest with this sha256, and of the one that lies there."""
    signed = [
        payload
        for payload in envelope.opened(envelopes, key)
        if subject_digest(payload, MANIFEST) == wanted
    ]
    if not signed:
        claimed = envelope.key_ids(envelopes)
        found = f"signed with {claimed[0][:16]}" if claimed else "not signed"
        raise StageError(
            StageReason.SIGNATURE_INVALID,
            f"{about}: no valid signature by the key {key.id[:16]}, it is {found}; get it from "
            "whom you trust, or give the key of who signed it",
        )
    if statement and statement not in signed:
        raise StageError(
            StageReason.SIGNATURE_INVALID,
            f"{about}: {PROVENANCE} is not what the key {key.id[:16]} has signed; get it from "
            "whom you trust",
        )


def sign_directory(directory: Path, key: SigningKey) -> Evidence:
    """Add a signature to an artefact that is whole; those that are there stay.

    What is signed is made of the manifest anew, whatever lies there. Raises StageError
    (ChecksumMismatch) where that is something else.
    """
    statement = make_statement(examine(directory).manifest)
    if _read(directory / PROVENANCE) not in (b"", statement):
        raise StageError(
            StageReason.CHECKSUM_MISMATCH,
            f"{directory}: {PROVENANCE} is not what {MANIFEST} says; if you trust {MANIFEST}, "
            "delete the other one and sign again",
        )
    before = _read(directory / ATTESTATIONS)
    line = envelope.seal(statement, key)
    partial = _work_folder(directory) / uuid.uuid4().hex
    partial.mkdir()
    try:
        with (partial / ATTESTATIONS).open("xb") as stream:
            stream.write(before + line)
            stream.flush()
            os.fsync(stream.fileno())
        (partial / ATTESTATIONS).replace(directory / ATTESTATIONS)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return examine(directory, key=key.public)


def _work_folder(directory: Path) -> Path:
    """On the same filesystem; of a store the one in which is swept what killed processes leave."""
    beside = directory.resolve().parent
    if beside.name not in KINDS.values():
        return beside
    folder = beside.parent / "tmp"
    folder.mkdir(exist_ok=True)
    return folder


def _read(path: Path) -> bytes:
    """All of a file beside the manifest, empty if there is none; verify saw that it is no link."""
    limit = max(MAX_STATEMENT, envelope.MAX_BYTES)
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise IntegrityError(f"{path.name} cannot be read: {type(error).__name__}") from error
    if len(data) > limit:
        raise IntegrityError(f"{path.name} has more than {limit} bytes")
    return data
