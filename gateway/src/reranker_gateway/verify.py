"""`reranker-gateway verify`: the init container of the serving pod.

A wrong or damaged engine becomes a stage result that the operator shows as a condition, instead of
a server that crashes in a loop.
"""

import time
from pathlib import Path

from reranker_contracts import (
    ArtefactManifest,
    EngineIdentity,
    IntegrityError,
    OtherVersionError,
    Stage,
    StageReason,
    StageResult,
    verify_artefact,
)

_NEEDED = ("model.json", "tokenizer.json", "repository/reranker/config.pbtxt")


def verify_engine(directory: Path, digest: str | None = None) -> StageResult:
    """Check every file of the engine in `directory` against its manifest; never raises.

    With a `digest` the engine must also be that one.
    """
    started = time.monotonic()
    try:
        manifest = verify_artefact(directory, digest)
        _check_complete(manifest)
    except OtherVersionError as error:
        # Built again it would be the same: nothing is damaged.
        reason = StageReason.ENGINE_VERSION_MISMATCH
        message = (
            f"engine {directory} was published by another version: {error}, this gateway reads 1; "
            "use gateway and builder images of one version (spec.serving.gateway.image, "
            "spec.engine.image)"
        )
    except (IntegrityError, OSError) as error:
        reason = StageReason.CHECKSUM_MISMATCH
        message = f"engine {directory} is damaged: {error}"
    else:
        return StageResult(
            stage=Stage.VERIFY,
            ok=True,
            reason=StageReason.SUCCEEDED,
            message=f"{len(manifest.files)} files of engine {manifest.digest[:10]} are intact",
            seconds=time.monotonic() - started,
            size_bytes=manifest.size,
        )
    return StageResult(
        stage=Stage.VERIFY,
        ok=False,
        reason=reason,
        message=message,
        seconds=time.monotonic() - started,
    )


def _check_complete(manifest: ArtefactManifest) -> None:
    if not isinstance(manifest.identity, EngineIdentity):
        raise IntegrityError("it is a prepared model, not an engine")
    present = {entry.path for entry in manifest.files}
    for path in _NEEDED:
        if path not in present:
            raise IntegrityError(f"the manifest lists no {path}")
