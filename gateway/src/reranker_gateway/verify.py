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

_CPUINFO = Path("/proc/cpuinfo")
#: Runtimes that compute the same files in FP32 on a CPU without the features: slower, not wrong.
_FALL_BACK = frozenset({"openvino"})
_NEEDED = ("model.json", "tokenizer.json", "repository/reranker/config.pbtxt")


class TargetAbsentError(Exception):
    """This node's CPU can't run the engine as it was proven."""


def verify_engine(
    directory: Path, digest: str | None = None, cpuinfo: Path = _CPUINFO
) -> StageResult:
    """Check every file of the engine in `directory` against its manifest; never raises.

    With a `digest` the engine must also be that one. An engine whose scores would be others on
    this CPU is TargetAbsent; one that is only slower is let through, and the message says so.
    """
    started = time.monotonic()
    try:
        manifest = verify_artefact(directory, digest)
        _check_complete(manifest)
        note = _check_cpu(manifest, cpuinfo)
    except OtherVersionError as error:
        # Built again it would be the same: nothing is damaged.
        reason = StageReason.ENGINE_VERSION_MISMATCH
        message = (
            f"engine {directory} was published by another version: {error}, this gateway reads 1; "
            "use gateway and builder images of one version (spec.serving.gateway.image, "
            "spec.engine.image)"
        )
    except TargetAbsentError as error:
        reason = StageReason.TARGET_ABSENT
        message = str(error)
    except (IntegrityError, OSError) as error:
        reason = StageReason.CHECKSUM_MISMATCH
        message = f"engine {directory} is damaged: {error}"
    else:
        what = f"{len(manifest.files)} files of engine {manifest.digest[:10]}"
        return StageResult(
            stage=Stage.VERIFY,
            ok=True,
            reason=StageReason.SUCCEEDED,
            message=f"{what} are intact{note}",
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


def _check_cpu(manifest: ArtefactManifest, cpuinfo: Path) -> str:
    """What to add to the message; raises TargetAbsentError."""
    wanted, identity = manifest.cpu_features, manifest.identity
    if not wanted or not isinstance(identity, EngineIdentity):
        return ""
    if not _cpu_flags(cpuinfo).isdisjoint(wanted):
        return ""
    text = (
        f"{identity.runtime} {identity.precision} needs a CPU with one of {', '.join(wanted)}, "
        "this node's has none"
    )
    remedy = "serve on nodes that have one (spec.accelerator.nodeSelector)"
    if identity.runtime in _FALL_BACK:
        return f"; {text}: it computes in fp32, which is slower; {remedy}"
    raise TargetAbsentError(f"{text}; {remedy}, or set spec.engine.precision to fp32")


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    for line in cpuinfo.read_text("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
