"""The revision that is on its way, as it is asked to score what was scored here.

Nothing of its answer is believed: it is another version of the program, and somebody else may have
its name.
"""

import asyncio
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from reranker_gateway.api_keys import ApiKeysError, any_key
from reranker_gateway.peers import CONNECT_SECONDS, Peers
from reranker_gateway.request_context import LONG_PASSAGES_HEADER
from reranker_gateway.shadow.kendall import Scores
from reranker_gateway.shadow.samples import Sample

PATH: Final = "/internal/v1/shadow"
#: The sender's revision, by which a pod knows its own kind.
REVISION_HEADER: Final = "x-reranker-shadow"
#: Bytes of an answer, beside those for each score.
_ANSWER_BYTES: Final = 1024
_SCORE_BYTES: Final = 32
_REVISION: Final = re.compile(r"[a-z0-9]{1,63}")

Headers = list[tuple[bytes, bytes]]


class PreviewError(Exception):
    """There are no scores. `status` is what it answered, None where that was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AbsentError(PreviewError):
    """Nobody is there, as at most times."""


class Preview:
    """The pods behind one address."""

    def __init__(
        self, url: str, revision: str, *, tls_dir: Path | None, keys_dir: Path | None
    ) -> None:
        """`revision` is the sender's; `keys_dir` holds the API keys of both."""
        self._url = httpx.URL(url, path=PATH)
        self._revision = revision
        self._keys_dir = keys_dir
        self._peers = Peers(tls_dir)

    async def score(self, sample: Sample) -> tuple[str, Scores]:
        """Its revision and logits, in the sample's order. Raises PreviewError, AbsentError."""
        # A large body takes a while: callers do not wait for that.
        headers, body = await asyncio.to_thread(self._written, sample)
        request = httpx.Request("POST", self._url, headers=headers, content=body)
        request.extensions["timeout"] = httpx.Timeout(None, connect=CONNECT_SECONDS).as_dict()
        most = _ANSWER_BYTES + _SCORE_BYTES * len(sample.question.passages)
        try:
            client = await self._peers.client()
            response = await client.send(request, stream=True)
            try:
                answer = await _read(response, most)
            finally:
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise AbsentError("nobody is there") from None
        except (httpx.HTTPError, OSError) as error:
            raise PreviewError(f"no answer: {type(error).__name__}") from None
        return _understood(answer, len(sample.question.passages))

    async def close(self) -> None:
        """Close all connections."""
        await self._peers.close()

    def _written(self, sample: Sample) -> tuple[Headers, bytes]:
        """Headers and body. Raises PreviewError."""
        question = sample.question
        headers = [
            (REVISION_HEADER.encode(), self._revision.encode()),
            (b"content-type", b"application/json"),
        ]
        if sample.long_passages is not None:
            headers.append((LONG_PASSAGES_HEADER, sample.long_passages.encode()))
        if self._keys_dir is not None:
            try:
                headers.append((b"x-api-key", any_key(self._keys_dir)))
            except ApiKeysError as error:
                raise PreviewError(str(error)) from None
        asked = {
            "query": question.queries[0],
            "passages": question.passages,
            "truncate": question.truncate,
            "passage_tokens": question.passage_tokens,
        }
        return headers, json.dumps(asked, ensure_ascii=False, separators=(",", ":")).encode()


async def _read(response: httpx.Response, most: int) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise PreviewError(f"it answered {response.status_code}", response.status_code)
    parts, size = [], 0
    async for part in response.aiter_raw():
        parts.append(part)
        size += len(part)
        if size > most:
            raise PreviewError("its answer is too large")
    return b"".join(parts)


def _understood(answer: bytes, count: int) -> tuple[str, Scores]:
    try:
        told: Any = json.loads(answer, parse_int=float)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, Mapping):
        raise PreviewError("its answer is no JSON object")
    revision, logits = told.get("revision"), told.get("logits")
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision):
        raise PreviewError("its answer names no revision")
    scores = [entry for entry in logits if _is_score(entry)] if isinstance(logits, list) else []
    if not isinstance(logits, list) or not len(scores) == len(logits) == count:
        raise PreviewError(f"its answer has not {count} scores")
    return revision, np.array(scores, dtype=np.float64)


def _is_score(entry: object) -> bool:
    return isinstance(entry, float) and math.isfinite(entry)
