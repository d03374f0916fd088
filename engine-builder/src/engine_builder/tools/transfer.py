"""push and pull: between a store and a registry."""

from pathlib import Path

from engine_builder.errors import UsageError, write_failure
from engine_builder.files import make_directory
from engine_builder.oci import Registry, parse_reference, pull, push
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress, human_size
from engine_builder.provenance import PublicKey
from engine_builder.store import Store


def push_artefact(
    directory: Path,
    text: str,
    *,
    config: Path | None,
    plain_http: bool,
    key: PublicKey | None,
    progress: Progress,
) -> Outcome:
    """Upload a published directory; with `key` only one that is signed by it."""
    reference = parse_reference(text)
    if reference.digest or not reference.tag:
        raise UsageError(f"{reference}: give a tag to push to, oci://HOST/REPOSITORY:TAG")
    with Registry(reference, config=config, plain_http=plain_http, writes=True) as registry:
        digest, evidence = push(directory, registry, reference.tag, progress, key)
    print(f"{reference}@{digest}")
    return Outcome(
        f"pushed {human_size(evidence.manifest.size)} to {reference}, {evidence.summary}",
        size_bytes=evidence.manifest.size,
    )


def pull_artefact(
    text: str,
    store: Path,
    *,
    config: Path | None,
    plain_http: bool,
    key: PublicKey | None,
    progress: Progress,
) -> Outcome:
    """Download into the store, where it appears when all of it is there and right."""
    reference = parse_reference(text)
    make_directory(store)
    try:
        with Registry(reference, config=config, plain_http=plain_http) as registry:
            remote, evidence, fresh = pull(registry, reference.version, Store(store), progress, key)
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
