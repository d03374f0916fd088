"""push and pull: between a store and a registry."""

from pathlib import Path

from engine_builder.errors import StageError, UsageError, write_failure
from engine_builder.files import make_directory
from engine_builder.oci import Registry, Wanted, look_up, parse_reference, pull, push
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress, human_size
from engine_builder.provenance import Evidence, PublicKey, SigningKey, examine, sign_directory
from engine_builder.store import Store
from reranker_contracts import StageReason


def push_artefact(
    directory: Path,
    text: str,
    *,
    config: Path | None,
    plain_http: bool,
    key: PublicKey | None,
    signing: SigningKey | None = None,
    if_absent: bool = False,
    progress: Progress,
) -> Outcome:
    """Upload a published directory; with `key` only one that is signed by it.

    With `signing` it is signed first. With `if_absent` a tag that holds the artefact stays as it
    is: registries may forbid to move one, and another builder may have been faster.
    """
    reference = parse_reference(text)
    if reference.digest or not reference.tag:
        raise UsageError(f"{reference}: give a tag to push to, oci://HOST/REPOSITORY:TAG")
    if signing is not None:
        _sign(directory, signing)
        key = key or signing.public
    with Registry(reference, config=config, plain_http=plain_http, writes=True) as registry:
        there = _there(directory, registry, reference.tag, key) if if_absent else None
        if there is not None:
            digest, evidence = there
        else:
            digest, evidence = push(directory, registry, reference.tag, progress, key)
    print(f"{reference}@{digest}")
    size = evidence.manifest.size
    what = f"pushed {human_size(size)} to" if there is None else "already in"
    return Outcome(f"{what} {reference}, {evidence.summary}", size_bytes=size)


def _sign(directory: Path, key: SigningKey) -> None:
    """Unless it is signed with this key already."""
    try:
        examine(directory, key=key.public)
    except StageError as error:
        if error.reason is not StageReason.SIGNATURE_INVALID:
            raise
        try:
            sign_directory(directory, key)
        except OSError as problem:
            raise write_failure(problem, directory) or problem from problem


def _there(
    directory: Path, registry: Registry, tag: str, key: PublicKey | None
) -> tuple[str, Evidence] | None:
    """What the tag holds, if that is this artefact, signed by `key` where one is given."""
    try:
        remote, evidence = look_up(registry, tag, key)
    except StageError as error:
        # Something else, or without our signature: it is put right.
        unsuitable = (
            StageReason.ARTEFACT_NOT_FOUND,
            StageReason.CHECKSUM_MISMATCH,
            StageReason.SIGNATURE_INVALID,
        )
        if error.reason not in unsuitable:
            raise
        return None
    mine = examine(directory).manifest.digest
    return (remote.digest, evidence) if remote.manifest.digest == mine else None


def pull_artefact(
    text: str,
    store: Path,
    *,
    config: Path | None,
    plain_http: bool,
    wanted: Wanted,
    progress: Progress,
) -> Outcome:
    """Download into the store, where it appears when all of it is there and right."""
    reference = parse_reference(text)
    make_directory(store)
    try:
        with Registry(reference, config=config, plain_http=plain_http) as registry:
            remote, evidence, fresh = pull(
                registry, reference.version, Store(store), progress, wanted
            )
    except OSError as error:
        raise write_failure(error, store) or error from error
    manifest = remote.manifest
    print(Store(store).path_of(manifest.identity.kind, manifest.digest))
    what = "pulled" if fresh else "there already, kept"
    return Outcome(
        f"{manifest.identity.kind} {manifest.digest}: {what}, {evidence.summary}",
        shapes=manifest.shapes,
        parity=manifest.parity,
        size_bytes=manifest.size,
    )
