"""`provenance.json`: an in-toto statement with a SLSA provenance predicate.

Forms: in-toto Attestation Framework, Statement v1
(https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md) and SLSA Provenance v1
(https://slsa.dev/spec/v1.0/provenance). The first subject is `manifest.json`, which names every
file; so whoever trusts the statement trusts the whole artefact by one hash.
"""

import hashlib
import json
import re
from typing import Any

from reranker_contracts import ArtefactManifest, BuildRecord, EngineIdentity
from reranker_contracts.base import canonical_json
from reranker_contracts.manifest import MANIFEST

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
#: What externalParameters and internalParameters mean is written in docs/provenance.md.
BUILD_TYPE = "https://reranker.dev/build/v1"
BUILDER = "https://reranker.dev/engine-builder"

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")
_PINNED_IMAGE = re.compile(r"[^@\s]+@sha256:([0-9a-f]{64})")

Json = dict[str, Any]


def make_statement(manifest: ArtefactManifest) -> bytes:
    """The statement about `manifest` and its files, as canonical JSON."""
    subjects = [_subject(MANIFEST, hashlib.sha256(manifest.to_bytes()).hexdigest())]
    subjects += [_subject(entry.path, entry.sha256) for entry in manifest.files]
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": _predicate(manifest),
    }
    return (canonical_json(statement) + "\n").encode("ascii")


def subject_digest(statement: bytes, name: str) -> str | None:
    """sha256 that a statement gives for the subject `name`; None when it is not such a statement.

    What it says was signed by somebody else perhaps, so nothing about its form is relied on.
    """
    try:
        value = json.loads(statement)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("_type") != STATEMENT_TYPE:
        return None
    if value.get("predicateType") != PREDICATE_TYPE or not isinstance(value.get("subject"), list):
        return None
    for subject in value["subject"]:
        if isinstance(subject, dict) and subject.get("name") == name:
            digest = subject.get("digest")
            found = digest.get("sha256") if isinstance(digest, dict) else None
            return found if isinstance(found, str) else None
    return None


def _subject(name: str, sha256: str) -> Json:
    return {"name": name, "digest": {"sha256": sha256}}


def _predicate(manifest: ArtefactManifest) -> Json:
    record = manifest.build or BuildRecord()
    external: Json = {"identity": manifest.identity.model_dump(mode="json", by_alias=True)}
    if record.source:
        external["source"] = record.source
    if record.revision:
        external["revision"] = record.revision
    if record.adapter:
        external["adapter"] = record.adapter
    if record.adapter_revision:
        external["adapterRevision"] = record.adapter_revision
    internal: Json = {}
    if record.prepared:
        internal["prepared"] = record.prepared.model_dump(mode="json", by_alias=True)
    if record.python:
        internal["python"] = record.python
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": external,
            "internalParameters": internal,
            "resolvedDependencies": _dependencies(manifest, record),
        },
        "runDetails": {
            "builder": {"id": BUILDER},
            "metadata": _metadata(manifest, record),
            "byproducts": _byproducts(manifest),
        },
    }


def _dependencies(manifest: ArtefactManifest, record: BuildRecord) -> list[Json]:
    found: list[Json] = []
    for name, uri, revision in (
        ("source", record.source, record.revision),
        ("adapter", record.adapter, record.adapter_revision),
    ):
        if uri:
            found.append({"name": name, "uri": uri, "digest": _revision_digest(uri, revision)})
    if isinstance(manifest.identity, EngineIdentity):
        # The identity's hash, by which the prepared model is named; not that of a file.
        digest = {"identitySha256": manifest.identity.prepared}
        found.append({"name": "prepared", "digest": digest})
    if record.builder_image:
        image: Json = {"name": "builder", "uri": record.builder_image}
        pinned = _PINNED_IMAGE.fullmatch(record.builder_image)
        if pinned:
            image["digest"] = {"sha256": pinned[1]}
        found.append(image)
    return found


def _revision_digest(uri: str, revision: str | None) -> dict[str, str]:
    revision = revision or ""
    hashed = _SHA256.fullmatch(revision)
    if hashed is None:
        return {"gitCommit": revision} if _COMMIT.fullmatch(revision) else {"revision": revision}
    # Of an archive its own hash; of everything else the hash of the list of its files' hashes.
    return {"sha256" if uri.startswith("https://") else "treeSha256": hashed[1]}


def _metadata(manifest: ArtefactManifest, record: BuildRecord) -> Json:
    metadata = {
        "invocationId": manifest.digest,
        "finishedOn": manifest.created_at.isoformat(),
    }
    if record.stages:
        started = min(stage.started_at for stage in record.stages)
        metadata["startedOn"] = started.isoformat()
    return metadata


def _byproducts(manifest: ArtefactManifest) -> list[Json]:
    if manifest.parity is None:
        return []
    annotations = manifest.parity.model_dump(mode="json", by_alias=True)
    return [{"name": "parity", "annotations": annotations}]
