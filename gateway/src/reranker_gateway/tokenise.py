"""Texts to token ids, and the join of query and passage into one engine input.

Query and passages are tokenised once each, without special tokens, and joined by the model's pair
template; this gives what the model's own tokeniser gives for a pair, truncation of the second text
included (`only_second`), at half the work: the query is not tokenised again for every passage.
Words that the template has around a text are tokenised with it.
"""

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from reranker_contracts import ServedModel, TemplatePiece
from reranker_gateway.errors import InputTooLongError, InvalidRequestError

IntArray = npt.NDArray[np.int32]
Truncate = Literal["NONE", "END"]
TextKind = Literal["query", "passage"]

#: Texts are cut here before they are tokenised. Natural text has 1 to 8 characters per token.
_CHARACTERS_PER_TOKEN = 32
#: Requests take turns on the threads, each with about this much text: tens of milliseconds.
_SLICE_CHARACTERS = 1 << 16


@dataclass(frozen=True, slots=True)
class TokenisedRequest:
    """Engine inputs of one request, one per passage, in the caller's order."""

    ids: list[IntArray]
    #: Token types beside `ids`; None when the model has no such input.
    types: list[IntArray] | None
    lengths: list[int]
    #: Passages that lost tokens to the length limit.
    truncated: int

    @property
    def tokens(self) -> int:
        """Tokens of all inputs together, padding not counted."""
        return sum(self.lengths)


class PairTokeniser:
    """Tokenises in a pool of threads; the tokeniser itself is Rust and releases the GIL."""

    def __init__(
        self, tokenizer: Tokenizer, model: ServedModel, max_length: int, threads: int
    ) -> None:
        # One request per thread scales better than one request over all of them.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._max_characters = max_length * _CHARACTERS_PER_TOKEN
        self._specials = model.template.special_tokens
        self._with_types = "token_type_ids" in model.inputs
        pieces = model.template.pieces
        at = next(i for i, piece in enumerate(pieces) if piece.kind == "passage")
        self._before, self._after = pieces[:at], pieces[at + 1 :]
        self._texts = {piece.kind: piece for piece in pieces if piece.kind != "special"}
        self._tails = {kind: self._encode([piece.after])[0] for kind, piece in self._texts.items()}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tokenise")
        # Requests wait here and not in the pool, whose queue keeps the texts of callers that have
        # gone until their turn comes: bodies sent only to hang up would fill the memory. It is
        # first come, first served, so that slices of all requests go in rotation.
        self._free = asyncio.Semaphore(threads)

    async def run(
        self,
        query: str,
        passages: list[str],
        truncate: Truncate,
        passage_tokens: int | None = None,
    ) -> TokenisedRequest:
        """Tokenise in the pool, slice by slice. Raises InvalidRequestError as `tokenise` does.

        Of each passage the first `passage_tokens` count, if that is not None.
        """
        slices = self._slices(query, passages, truncate, passage_tokens)
        while True:
            if inputs := await self._advance(slices):
                return inputs

    async def _advance(self, slices: Iterator[TokenisedRequest | None]) -> TokenisedRequest | None:
        """One slice, when a thread is free."""
        await self._free.acquire()
        work = asyncio.get_running_loop().run_in_executor(self._pool, next, slices)
        work.add_done_callback(lambda _: self._free.release())
        # A thread cannot be interrupted: it is free when it has ended, not when its caller goes.
        return await asyncio.shield(work)

    def tokenise(self, query: str, passages: list[str], truncate: Truncate) -> TokenisedRequest:
        """Tokenise in this thread.

        Raises InputTooLongError when `truncate` is NONE, InvalidRequestError for a pair of nothing.
        """
        return next(filter(None, self._slices(query, passages, truncate)))

    def _slices(
        self,
        query: str,
        passages: list[str],
        truncate: Truncate,
        passage_tokens: int | None = None,
    ) -> Iterator[TokenisedRequest | None]:
        """Does a bounded part of the work at each step; the last one gives the result.

        An encoding holds some 250 bytes per token, so a body of 16 MiB encoded at once would take
        gigabytes; and no text needs more than its first characters to fill the input.
        """
        whole_query, query = query, query[: self._max_characters]
        query_ids = self._encode_as("query", [query])[0]
        # Negative when the query alone is longer than the input.
        room = self._max_length - self._specials - len(query_ids)
        parts: list[TokenisedRequest] = []
        for texts in _chunks(passages, self._max_characters):
            if parts:
                yield None
            passage_ids = self._encode_as("passage", texts)
            if passage_tokens is not None:
                passage_ids = [ids[:passage_tokens] for ids in passage_ids]
            longest = next((len(ids) for ids in passage_ids if len(ids) > room), None)
            if longest is not None and truncate == "NONE":
                raise InputTooLongError(self._max_length - room + longest, self._max_length)
            parts.append(self._join((query, query_ids), texts, passage_ids))
        if truncate == "NONE":
            self._check_uncut("query.text", [whole_query])
            self._check_uncut("passages", passages)
        inputs = _together(parts)
        if 0 in inputs.lengths:
            at = inputs.lengths.index(0)
            raise InvalidRequestError(f"passages.{at}.text: it and query.text hold no tokens")
        yield inputs

    def close(self) -> None:
        """Stop the threads; work that has not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def _query_room(self) -> int:
        """Most tokens of a query: what follows the passage's text is never cut away."""
        return self._max_length - self._specials - len(self._tails["passage"])

    def _encode_as(self, kind: TextKind, texts: list[str]) -> list[list[int]]:
        """Tokens of texts with the words that the template has around them."""
        piece = self._texts[kind]
        if piece.before or piece.after:
            texts = [piece.before + text + piece.after for text in texts]
        return self._encode(texts)

    def _cut(self, kind: TextKind, text: str, ids: list[int], room: int) -> list[int]:
        """`ids` of `text`, at most `room` of them: tokens are lost at the text's end."""
        if len(ids) <= room:
            return ids
        tail = self._tails[kind]
        if tail:
            ids = self._encode([self._texts[kind].before + text])[0]
        return ids[: max(0, room - len(tail))] + tail

    def _encode(self, texts: list[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _check_uncut(self, field: str, texts: list[str]) -> None:
        """Refuse what `_slices` cut although its tokens did not show it (blanks, giant words)."""
        if any(len(text) > self._max_characters for text in texts):
            raise InvalidRequestError(
                f"{field}: a text has more than {self._max_characters} characters, the most that "
                "this model can take; shorten it or set truncate to END"
            )

    def _join(
        self, whole: tuple[str, list[int]], texts: list[str], passages: list[list[int]]
    ) -> TokenisedRequest:
        # The pair is cut from the right: the passage first, then the query.
        query = self._cut("query", *whole, self._query_room)
        room = self._max_length - self._specials - len(query)
        pairs = zip(texts, passages, strict=True)
        kept = [self._cut("passage", text, ids, room) for text, ids in pairs]
        left, left_types = _fixed_part(self._before, query)
        right, right_types = _fixed_part(self._after, query)
        # One conversion for the whole slice: arrays per passage cost ten times as much.
        flat: list[int] = []
        ends = []
        for ids in kept:
            flat += left
            flat += ids
            flat += right
            ends.append(len(flat))
        types = None
        if self._with_types:
            values = np.array(
                [*left_types, self._texts["passage"].type_id, *right_types], dtype=np.int32
            )
            counts = np.ones((len(kept), len(values)), dtype=np.int64)
            counts[:, len(left)] = [len(ids) for ids in kept]
            types = _split(np.repeat(np.tile(values, len(kept)), counts.ravel()), ends)
        fixed = len(left) + len(right)
        return TokenisedRequest(
            ids=_split(np.array(flat, dtype=np.int32), ends),
            types=types,
            lengths=[fixed + len(ids) for ids in kept],
            truncated=len(kept)
            if query is not whole[1]
            else sum(len(ids) > room for ids in passages),
        )


def _chunks(texts: list[str], longest: int) -> Iterator[list[str]]:
    """`texts` in order, cut to `longest`, in lists of one text or about _SLICE_CHARACTERS."""
    chunk: list[str] = []
    size = 0
    for whole in texts:
        text = whole[:longest]
        if chunk and size + len(text) > _SLICE_CHARACTERS:
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text)
    yield chunk


def _together(parts: list[TokenisedRequest]) -> TokenisedRequest:
    """The slices of one request as a whole."""
    return TokenisedRequest(
        ids=[row for part in parts for row in part.ids],
        types=None
        if parts[0].types is None
        else [row for part in parts for row in part.types or ()],
        lengths=[length for part in parts for length in part.lengths],
        truncated=sum(part.truncated for part in parts),
    )


def _fixed_part(pieces: tuple[TemplatePiece, ...], query: list[int]) -> tuple[list[int], list[int]]:
    """Ids and types of the pieces on one side of the passage."""
    ids: list[int] = []
    types: list[int] = []
    for piece in pieces:
        part = list(piece.ids) if piece.kind == "special" else query
        ids += part
        types += [piece.type_id] * len(part)
    return ids, types


def _split(flat: IntArray, ends: list[int]) -> list[IntArray]:
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]
