"""inspect, verify, sign: what an artefact is, whether it is whole, and who vouches for it."""

from pathlib import Path

from engine_builder.errors import StageError
from engine_builder.oci import Registry, look_up, parse_reference
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress, human_size
from engine_builder.provenance import PublicKey, SigningKey, examine, sign_directory
from engine_builder.record import read_manifest
from engine_builder.tools.report import as_json, render
from reranker_contracts.manifest import ATTACHED


def inspect_directory(
    directory: Path, *, key: PublicKey | None, as_text: bool, progress: Progress
) -> Outcome:
    """Print a published directory and check it; a damaged one is printed too, then fails."""
    failure = None
    try:
        with progress.step("checking every file"):
            evidence = examine(directory, key=key)
        verdict = f"intact, {evidence.summary}"
    except StageError as error:
        failure, verdict = error, f"{error.reason}: {error.message}"
    manifest = read_manifest(directory)
    if manifest is None:
        raise failure or ValueError("a manifest that was verified is gone")
    if as_text:
        print(render(manifest, {"verified": verdict}))
    else:
        print(as_json(manifest, {"intact": failure is None, "verdict": verdict}))
    if failure is not None:
        raise failure
    return Outcome(f"{directory}: {verdict}")


def inspect_remote(
    text: str,
    *,
    config: Path | None,
    plain_http: bool,
    key: PublicKey | None,
    as_text: bool,
    progress: Progress,
) -> Outcome:
    """Print what a registry has, and check that its layers are the files of its manifest."""
    reference = parse_reference(text)
    with Registry(reference, config=config, plain_http=plain_http) as registry:
        with progress.step(f"reading {reference}"):
            remote, evidence = look_up(registry, reference.version, key)
        missing = [layer.path for layer in remote.layers if not registry.has_blob(layer.digest)]
    verdict = f"the registry lists exactly these files, {evidence.summary}"
    if missing:
        verdict = f"the registry lacks {', '.join(missing)}"
    notes = {"registry": f"{reference.host}/{reference.repository}@{remote.digest}"}
    if as_text:
        print(render(remote.manifest, {**notes, "verified": verdict}))
    else:
        facts = {"intact": not missing, "verdict": verdict, "ociDigest": remote.digest}
        print(as_json(remote.manifest, facts))
    if missing:
        raise registry.place.refused(404)
    return Outcome(f"{reference}: {verdict}")


def verify(directory: Path, *, digest: str | None, key: PublicKey | None) -> Outcome:
    """Check every sha256, the provenance and, with a key, the signature."""
    evidence = examine(directory, digest=digest, key=key)
    manifest = evidence.manifest
    return Outcome(
        f"{manifest.identity.kind} {manifest.digest}: {len(manifest.files)} files, "
        f"{human_size(manifest.size)}, all as published; {evidence.summary}",
        size_bytes=manifest.size,
    )


def sign(directory: Path, key: SigningKey) -> Outcome:
    """Add a signature to a published directory."""
    evidence = sign_directory(directory, key)
    return Outcome(f"{directory / ATTACHED[1]}: {evidence.summary}")
