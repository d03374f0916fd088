"""Signed statements: DSSE envelopes, one to a line in `provenance.intoto.jsonl`.

Forms: Dead Simple Signing Envelope v1.0 (https://github.com/secure-systems-lab/dsse) and in-toto's
bundle of attestations (https://github.com/in-toto/attestation/blob/main/spec/v1/bundle.md). One
line alone is what `cosign verify-blob-attestation --key` takes for `manifest.json`.
"""

import base64
import binascii
import json
from collections.abc import Iterator

from engine_builder.provenance.keys import PublicKey, SigningKey
from reranker_contracts.base import canonical_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
#: Bytes of all envelopes together, envelopes, and signatures of each: more are not looked at.
MAX_BYTES = 4 << 20
_MAX_ENVELOPES = 64
_MAX_SIGNATURES = 16


def seal(statement: bytes, key: SigningKey) -> bytes:
    """One line: the statement, signed."""
    signature = key.sign(_encoded(PAYLOAD_TYPE, statement))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(statement).decode("ascii"),
        "signatures": [
            {"keyid": key.public.id, "sig": base64.b64encode(signature).decode("ascii")}
        ],
    }
    return (canonical_json(envelope) + "\n").encode("ascii")


def opened(envelopes: bytes, key: PublicKey) -> Iterator[bytes]:
    """The statements that were signed with the private half of `key`; others are left out.

    The `keyid` of an envelope is only a hint by its author and decides nothing.
    """
    for line in envelopes[:MAX_BYTES].splitlines()[:_MAX_ENVELOPES]:
        payload, signatures = _parsed(line)
        message = _encoded(PAYLOAD_TYPE, payload)
        if any(key.verifies(message, signature) for signature in signatures):
            yield payload


def key_ids(envelopes: bytes) -> list[str]:
    """Who claims to have signed; nothing is checked."""
    found = []
    for line in envelopes[:MAX_BYTES].splitlines()[:_MAX_ENVELOPES]:
        envelope = _object(line)
        signatures = envelope.get("signatures")
        for entry in (signatures if isinstance(signatures, list) else [])[:_MAX_SIGNATURES]:
            if isinstance(entry, dict) and isinstance(entry.get("keyid"), str):
                found.append(entry["keyid"][:64])
    return found


def _encoded(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    name = kind.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def _parsed(line: bytes) -> tuple[bytes, list[bytes]]:
    envelope = _object(line)
    entries = envelope.get("signatures")
    if envelope.get("payloadType") != PAYLOAD_TYPE or not isinstance(entries, list):
        return b"", []
    payload = _decoded(envelope.get("payload"))
    signatures = [
        _decoded(entry.get("sig")) for entry in entries[:_MAX_SIGNATURES] if isinstance(entry, dict)
    ]
    return payload, [signature for signature in signatures if signature]


def _object(line: bytes) -> dict[str, object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except binascii.Error:
        return b""
