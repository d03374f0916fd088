"""publish: a finished directory becomes an artefact of the store, under its identity's digest."""

import datetime
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from engine_builder.artefacts import (
    COMPILED,
    ENGINE_FILES,
    ENGINE_MODELS,
    ENGINE_OPTIONAL,
    ENGINE_PROOFS,
    PARITY,
    PREPARED_FILES,
    PREPARED_OPTIONAL,
    CompiledEngine,
    read_served_model,
)
from engine_builder.errors import StageError, write_failure
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress, human_size
from engine_builder.provenance import SigningKey, attach
from engine_builder.record import finished
from engine_builder.retention import Retention
from engine_builder.store import Store
from reranker_contracts import (
    ArtefactManifest,
    EngineIdentity,
    IntegrityError,
    ParityReport,
    PrepareIdentity,
    Shapes,
    StageReason,
    digest_of,
)
from reranker_contracts.integrity import file_entries


def publish(
    source: Path,
    store: Path,
    identity: PrepareIdentity | EngineIdentity,
    *,
    retention: Retention | None = None,
    key: SigningKey | None = None,
    progress: Progress,
) -> Outcome:
    """Publish `source` below `store`; what is there already is kept, see Store.publish.

    With `retention` the store is tidied first, so that there is room. With `key` the provenance
    is signed.
    """
    digest = digest_of(identity)
    names = _expected_files(source, identity)
    with progress.step("hashing"):
        manifest = _manifest(source, identity, digest, names)
    freed = 0
    try:
        if retention is not None:
            kept = replace(retention, keep=retention.keep | {digest})
            freed = Store(store).tidy(kept)
        with progress.step(f"writing {human_size(manifest.size)} to {store}"):
            fresh = Store(store).publish(source, names, manifest, attach(manifest, key))
    except OSError as error:
        raise write_failure(error, store) or error from error
    except IntegrityError as error:
        raise StageError(
            StageReason.CHECKSUM_MISMATCH,
            f"{store}: a file changed while it was written ({error}); check the volume",
        ) from error
    what = "published" if fresh else "there already, kept"
    if freed:
        what += f"; removed {human_size(freed)} that nobody needs"
    return Outcome(
        f"{identity.kind} {digest}: {what}",
        parity=manifest.parity,
        shapes=manifest.shapes,
        size_bytes=manifest.size,
    )


def _expected_files(source: Path, identity: PrepareIdentity | EngineIdentity) -> list[str]:
    def present(name: str) -> bool:
        return (source / name).is_file()

    required: tuple[str, ...] = PREPARED_FILES
    optional: tuple[str, ...] = PREPARED_OPTIONAL
    if identity.kind == "engine":
        model = next(filter(present, ENGINE_MODELS), ENGINE_MODELS[0])
        proof = next((names for names in ENGINE_PROOFS if all(map(present, names))), (PARITY,))
        required, optional = (*ENGINE_FILES, model, *proof), ENGINE_OPTIONAL
    missing = [name for name in required if not present(name)]
    if missing:
        raise StageError(
            StageReason.VALIDATION_FAILED,
            f"--from {source}: {missing[0]} is missing; run the stages before publish",
        )
    return [*required, *filter(present, optional)]


def _manifest(
    source: Path,
    identity: PrepareIdentity | EngineIdentity,
    digest: str,
    names: list[str],
) -> ArtefactManifest:
    try:
        entries = [entry for entry in file_entries(source) if entry.path in names]
        parity, shapes = _engine_facts(source, identity)
    except (IntegrityError, ValidationError, FileNotFoundError) as error:
        raise StageError(
            StageReason.VALIDATION_FAILED,
            f"--from {source}: is not a finished directory ({str(error)[:200]}); run the "
            "stages again",
        ) from error
    return ArtefactManifest(
        digest=digest,
        identity=identity,
        files=tuple(entries),
        shapes=shapes,
        parity=parity,
        cpu_features=identity.cpu_features if isinstance(identity, EngineIdentity) else (),
        build=finished(source),
        created_at=datetime.datetime.now(datetime.UTC),
    )


def _engine_facts(
    source: Path, identity: PrepareIdentity | EngineIdentity
) -> tuple[ParityReport | None, Shapes | None]:
    read_served_model(source)
    if not isinstance(identity, EngineIdentity):
        return None, None
    compiled = CompiledEngine.model_validate_json((source / COMPILED).read_bytes())
    if compiled.target != identity.target:
        raise StageError(
            StageReason.VALIDATION_FAILED,
            f"--from {source}: was compiled for {compiled.target} and "
            f"{compiled.target.max_batch_size} rows, the identity says "
            f"{identity.target} and {identity.max_batch_size}; compile for that",
        )
    path, parity = source / PARITY, None
    if path.is_file():
        parity = ParityReport.model_validate_json(path.read_bytes())
    return parity, compiled.shapes
