"""The revision that is on its way, as it is asked to score what was scored here.

Somebody else may have its name: no text leaves before who answers has shown that it is a pod of
this service (`proof`), and then only on that very connection. Nothing of its answer is believed: it
is another version of the program.
"""

import asyncio
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpcore
import httpx
import numpy as np

from reranker_gateway.api_keys import ApiKeysError
from reranker_gateway.peers import CONNECT_SECONDS, Headers, Peers
from reranker_gateway.request_context import LONG_PASSAGES_HEADER
from reranker_gateway.shadow.kendall import Scores
from reranker_gateway.shadow.proof import (
    CHALLENGE_HEADER,
    MOST_SECRETS,
    NONCE_HEADER,
    PROOF_HEADER,
    Secrets,
    is_challenge,
    is_nonce,
    new_nonce,
    proven_by,
    receiver_proof,
    sender_proof,
)
from reranker_gateway.shadow.samples import Sample

PATH: Final = "/internal/v1/shadow"
#: The sender's revision, by which a pod knows its own kind.
REVISION_HEADER: Final = "x-reranker-shadow"
#: Bytes of an answer, beside those for each score.
_ANSWER_BYTES: Final = 1024
_SCORE_BYTES: Final = 32
_REVISION: Final = re.compile(r"[a-z0-9]{1,63}")
_OK: Final = 200
_CONFLICT: Final = 409
#: The rest of the time is the caller's.
_TIMEOUT: Final = httpx.Timeout(None, connect=CONNECT_SECONDS).as_dict()


class PreviewError(Exception):
    """There are no scores. `status` is what it answered, None where that was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AbsentError(PreviewError):
    """Nobody is there, as at most times."""


class UnprovenError(PreviewError):
    """Who is there has not shown that it is a pod of this service; it was told no text.

    `is_failure`: it did not even try.
    """

    def __init__(self, message: str, *, is_failure: bool, status: int | None = None) -> None:
        super().__init__(message, status)
        self.is_failure = is_failure


class _Proven(NamedTuple):
    """Who is at the other end of a connection, and what shows it who is at this one."""

    revision: str
    headers: Headers


class Preview:
    """The pods behind one address."""

    def __init__(self, url: str, revision: str, *, tls_dir: Path | None, secrets: Secrets) -> None:
        """`revision` is the sender's; `secrets` are those of both."""
        asked = httpx.URL(url, path=PATH)
        self._url = httpcore.URL(str(asked))
        self._host = asked.netloc
        self._revision = revision.encode()
        self._secrets = secrets
        self._peers = Peers(tls_dir)

    async def score(self, sample: Sample) -> tuple[str, Scores]:
        """Its revision and logits, in the sample's order.

        Raises PreviewError, AbsentError and UnprovenError.
        """
        try:
            connection = self._peers.connection(self._url.origin)
        except OSError as error:
            raise UnprovenError(
                f"the certificate can't be read here: {type(error).__name__}", is_failure=False
            ) from None
        try:
            try:
                return await self._score(connection, sample)
            finally:
                await connection.aclose()
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            raise AbsentError("nobody is there") from None
        except (
            httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError
        ) as error:  # fmt: skip
            raise PreviewError(f"no answer: {type(error).__name__}") from None

    async def _score(
        self, connection: httpcore.AsyncHTTPConnection, sample: Sample
    ) -> tuple[str, Scores]:
        proven = await self._prove(connection)
        # A large body takes a while: callers do not wait for that.
        body = await asyncio.to_thread(_written, sample)
        headers = [
            *proven.headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if sample.long_passages is not None:
            headers.append((LONG_PASSAGES_HEADER, sample.long_passages.encode()))
        count = len(sample.question.passages)
        try:
            status, answer = await self._ask(
                connection, "POST", headers, body, most=_ANSWER_BYTES + _SCORE_BYTES * count
            )
        except httpcore.ConnectionNotAvailable:
            # Another connection may lead to somebody else.
            raise UnprovenError("it closed the connection", is_failure=False) from None
        if status != _OK:
            raise PreviewError(f"it answered {status}", status)
        if answer is None:
            raise PreviewError("its answer is too large")
        return _understood(answer, count, proven.revision)

    async def _prove(self, connection: httpcore.AsyncHTTPConnection) -> _Proven:
        """Before any text. Raises PreviewError with 409, and UnprovenError."""
        try:
            secrets = await asyncio.to_thread(self._secrets.current)
        except ApiKeysError as error:
            raise UnprovenError(str(error), is_failure=False) from None
        nonce = new_nonce()
        headers = [(NONCE_HEADER.encode(), nonce.encode())]
        status, answer = await self._ask(connection, "GET", headers, b"", most=_ANSWER_BYTES)
        if status == _CONFLICT:
            raise PreviewError("it is of the same revision", status)
        told = None if answer is None else _claimed(answer)
        if told is None:
            raise UnprovenError(
                f"it answered {status} and no proof", is_failure=True, status=status
            )
        revision, challenge, proofs = told
        known = [receiver_proof(secret, nonce, revision) for secret in secrets]
        place = proven_by(proofs, known)
        if place is None:
            raise UnprovenError("its proof is by another secret", is_failure=False)
        proof = sender_proof(secrets[place], nonce, challenge)
        more = {CHALLENGE_HEADER: challenge, PROOF_HEADER: proof}
        headers += [(name.encode(), value.encode()) for name, value in more.items()]
        return _Proven(revision, headers)

    async def _ask(
        self, connection: httpcore.AsyncHTTPConnection, method: str, headers: Headers, body: bytes,
        *, most: int,
    ) -> tuple[int, bytes | None]:  # fmt: skip
        """Status and body, None for another status than 200 and for more bytes than `most`."""
        request = httpcore.Request(
            method,
            self._url,
            headers=[
                (b"host", self._host),
                (REVISION_HEADER.encode(), self._revision),
                *headers,
            ],
            content=body,
            extensions={"timeout": _TIMEOUT},
        )
        response = await connection.handle_async_request(request)
        try:
            return response.status, await _read(response, most)
        finally:
            await response.aclose()


def _written(sample: Sample) -> bytes:
    question = sample.question
    asked = {
        "query": question.queries[0],
        "passages": question.passages,
        "truncate": question.truncate,
        "passage_tokens": question.passage_tokens,
    }
    return json.dumps(asked, ensure_ascii=False, separators=(",", ":")).encode()


async def _read(response: httpcore.Response, most: int) -> bytes | None:
    if response.status != _OK:
        return None
    parts, size = [], 0
    async for part in response.aiter_stream():
        parts.append(part)
        size += len(part)
        if size > most:
            return None
    return b"".join(parts)


def _object(answer: bytes) -> Mapping[str, Any] | None:
    with suppress(ValueError, RecursionError):
        told: Any = json.loads(answer, parse_int=float)
        return told if isinstance(told, dict) else None
    return None


def _claimed(answer: bytes) -> tuple[str, str, list[str]] | None:
    """Revision, challenge and proofs; None where it is no proof, right or wrong."""
    told = _object(answer) or {}
    revision, challenge, proofs = (told.get(name) for name in ("revision", "challenge", "proofs"))
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision):
        return None
    if not isinstance(challenge, str) or not is_challenge(challenge):
        return None
    if not isinstance(proofs, list) or not 0 < len(proofs) <= MOST_SECRETS:
        return None
    found = [proof for proof in proofs if isinstance(proof, str) and is_nonce(proof)]
    return (revision, challenge, found) if len(found) == len(proofs) else None


def _understood(answer: bytes, count: int, proven: str) -> tuple[str, Scores]:
    told = _object(answer)
    if told is None:
        raise PreviewError("its answer is no JSON object")
    revision, logits = told.get("revision"), told.get("logits")
    if revision != proven:
        raise PreviewError("its answer names not the revision that it has proven")
    scores = [entry for entry in logits if _is_score(entry)] if isinstance(logits, list) else []
    if not isinstance(logits, list) or not len(scores) == len(logits) == count:
        raise PreviewError(f"its answer has not {count} scores")
    return proven, np.array(scores, dtype=np.float64)


def _is_score(entry: object) -> bool:
    return isinstance(entry, float) and math.isfinite(entry)
