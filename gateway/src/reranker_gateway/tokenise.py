"""Texts to token ids, and the join of query and passage into one engine input.

Query and passages are tokenised once each, without special tokens, and joined by the model's pair
template; this gives what the model's own tokeniser gives for a pair, truncation of the second text
included (`only_second`), at half the work: the query is not tokenised again for every passage.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from reranker_contracts import ServedModel, TemplatePiece
from reranker_gateway.errors import InputTooLongError

IntArray = npt.NDArray[np.int32]
Truncate = Literal["NONE", "END"]


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
        self._specials = model.template.special_tokens
        self._with_types = "token_type_ids" in model.inputs
        pieces = model.template.pieces
        at = next(i for i, piece in enumerate(pieces) if piece.kind == "passage")
        self._before, self._passage, self._after = pieces[:at], pieces[at], pieces[at + 1 :]
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tokenise")

    async def run(self, query: str, passages: list[str], truncate: Truncate) -> TokenisedRequest:
        """Tokenise in the pool. Raises InputTooLongError when `truncate` is NONE."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self.tokenise, query, passages, truncate)

    def tokenise(self, query: str, passages: list[str], truncate: Truncate) -> TokenisedRequest:
        """Tokenise in this thread. Raises InputTooLongError when `truncate` is NONE."""
        encodings = self._tokenizer.encode_batch_fast([query, *passages], add_special_tokens=False)
        query_ids, *passage_ids = (encoding.ids for encoding in encodings)
        truncated = self._check_lengths(query_ids, passage_ids, truncate)
        if truncated:
            # The pair is cut from the right: the passage first, the query only when it alone is
            # longer than the input.
            query_ids = query_ids[: self._max_length - self._specials]
            room = self._max_length - self._specials - len(query_ids)
            passage_ids = [ids[:room] for ids in passage_ids]
        return self._join(query_ids, passage_ids, truncated)

    def close(self) -> None:
        """Stop the threads; work that has not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check_lengths(
        self, query: list[int], passages: list[list[int]], truncate: Truncate
    ) -> int:
        fixed = self._specials + len(query)
        over = [fixed + len(ids) for ids in passages if fixed + len(ids) > self._max_length]
        if over and truncate == "NONE":
            raise InputTooLongError(over[0], self._max_length)
        return len(over)

    def _join(
        self, query: list[int], passages: list[list[int]], truncated: int
    ) -> TokenisedRequest:
        left, left_types = _fixed_part(self._before, query)
        right, right_types = _fixed_part(self._after, query)
        # One conversion for the whole request: arrays per passage cost ten times as much.
        flat: list[int] = []
        ends = []
        for ids in passages:
            flat += left
            flat += ids
            flat += right
            ends.append(len(flat))
        types = None
        if self._with_types:
            values = np.array([*left_types, self._passage.type_id, *right_types], dtype=np.int32)
            counts = np.ones((len(passages), len(values)), dtype=np.int64)
            counts[:, len(left)] = [len(ids) for ids in passages]
            types = _split(np.repeat(np.tile(values, len(passages)), counts.ravel()), ends)
        fixed = len(left) + len(right)
        return TokenisedRequest(
            ids=_split(np.array(flat, dtype=np.int32), ends),
            types=types,
            lengths=[fixed + len(ids) for ids in passages],
            truncated=truncated,
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
