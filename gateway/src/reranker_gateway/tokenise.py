"""Texts to token ids, and the join of query and passage into one engine input.

Query and passages are tokenised once each, without special tokens, and joined by the model's pair
template; this gives what the model's own tokeniser gives for a pair, truncation of the second text
included (`only_second`), at half the work: the query is not tokenised again for every passage.
Words that the template has around a text are tokenised with it.

A passage that is too long is cut, or becomes several inputs that overlap (`chunk`), of which the
best score is the passage's.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from reranker_contracts import ServedModel, TemplatePiece
from reranker_gateway.errors import InputTooLongError, TextError
from reranker_gateway.gate import CallerGate
from reranker_gateway.request_context import LongPassages, current_request

IntArray = npt.NDArray[np.int32]
Truncate = Literal["NONE", "END"]
TextKind = Literal["query", "passage"]

#: Texts are cut here before they are tokenised. Natural text has 1 to 8 characters per token.
_CHARACTERS_PER_TOKEN = 32
#: Requests take turns on the threads, each with about this much text: tens of milliseconds.
_SLICE_CHARACTERS = 1 << 16
#: The part of a window that the one before it has as well: no sentence is only ever seen cut.
_OVERLAP = 0.25
#: Windows of one request, beyond one for each passage.
MOST_WINDOWS = 2048
#: The part of the input that a window must have: the less the query leaves, the more windows does a
#: text make, each of them as long as ever.
_LEAST_WINDOW = 0.25


@dataclass(frozen=True, slots=True)
class TokenisedRequest:
    """Engine inputs of one request, one per passage in the caller's order, or as `owners` says."""

    ids: list[IntArray]
    #: Token types beside `ids`; None when the model has no such input.
    types: list[IntArray] | None
    lengths: list[int]
    #: Passages that lost tokens to the length limit.
    truncated: int
    #: The passage that each input belongs to; None when it is just one each, in order.
    owners: list[int] | None = None

    @property
    def passages(self) -> int:
        """How many passages these are the inputs of."""
        return len(self.ids) if self.owners is None else max(self.owners) + 1

    @property
    def extra_windows(self) -> int:
        """Inputs beyond one for each passage."""
        return len(self.ids) - self.passages

    @property
    def tokens(self) -> int:
        """Tokens of all inputs together, padding not counted."""
        return sum(self.lengths)

    @property
    def empty(self) -> int | None:
        """The first passage with an input of no tokens, which no engine takes."""
        if 0 not in self.lengths:
            return None
        row = self.lengths.index(0)
        return row if self.owners is None else self.owners[row]


class PairTokeniser:
    """Tokenises in a pool of threads; the tokeniser itself is Rust and releases the GIL."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: ServedModel,
        max_length: int,
        threads: int,
        on_work: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """`on_work` is told the processor time of each slice, in the event loop."""
        # One request per thread scales better than one request over all of them.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._on_work = on_work
        self._max_length = max_length
        self._max_characters = max_length * _CHARACTERS_PER_TOKEN
        self._specials = model.template.special_tokens
        self._with_types = "token_type_ids" in model.inputs
        pieces = model.template.pieces
        at = next(i for i, piece in enumerate(pieces) if piece.kind == "passage")
        self._before, self._after = pieces[:at], pieces[at + 1 :]
        self._texts = {piece.kind: piece for piece in pieces if piece.kind != "special"}
        self._heads = {kind: self._encode([piece.before])[0] for kind, piece in self._texts.items()}
        self._tails = {kind: self._encode([piece.after])[0] for kind, piece in self._texts.items()}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tokenise")
        # Requests wait here and not in the pool, whose queue keeps the texts of callers that have
        # gone until their turn comes: bodies sent only to hang up would fill the memory. Callers
        # take turns, and so do the requests of each.
        self._free = CallerGate(threads)

    @property
    def max_length(self) -> int:
        """Tokens of the longest input."""
        return self._max_length

    @property
    def own_tokens(self) -> int:
        """Tokens of an input beside those of its texts: special ones, and the template's words."""
        words = (*self._heads.values(), *self._tails.values())
        return self._specials + sum(map(len, words))

    async def run(
        self,
        query: str,
        passages: list[str],
        truncate: Truncate,
        passage_tokens: int | None = None,
        long_passages: LongPassages = "cut",
        *,
        most_windows: int = MOST_WINDOWS,
    ) -> TokenisedRequest:
        """Tokenise in the pool, slice by slice. Raises InvalidRequestError as `tokenise` does.

        Of each passage the first `passage_tokens` count, if that is not None. `most_windows` is
        what the request has left of MOST_WINDOWS.
        """
        slices = self._slices(
            query,
            passages,
            truncate,
            passage_tokens,
            long_passages,
            most_windows=most_windows,
        )
        while True:
            if inputs := await self._advance(slices):
                return inputs

    async def _advance(self, slices: Iterator[TokenisedRequest | None]) -> TokenisedRequest | None:
        """One slice, when a thread is free."""
        await self._free.acquire(current_request().caller)
        work = asyncio.get_running_loop().run_in_executor(self._pool, _timed, slices)
        work.add_done_callback(lambda _: self._free.release())
        # A thread cannot be interrupted: it is free when it has ended, not when its caller goes.
        inputs, seconds = await asyncio.shield(work)
        self._on_work(seconds)
        return inputs

    def tokenise(
        self,
        query: str,
        passages: list[str],
        truncate: Truncate,
        long_passages: LongPassages = "cut",
    ) -> TokenisedRequest:
        """Tokenise in this thread.

        Raises InputTooLongError when `truncate` is NONE, TextError for too many windows.
        """
        slices = self._slices(query, passages, truncate, long_passages=long_passages)
        return next(filter(None, slices))

    def _slices(
        self,
        query: str,
        passages: list[str],
        truncate: Truncate,
        passage_tokens: int | None = None,
        long_passages: LongPassages = "cut",
        *,
        most_windows: int = MOST_WINDOWS,
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
        extra = 0
        in_windows = truncate == "END" and long_passages == "chunk" and self._has_windows(room)
        most = max(self._max_characters, _SLICE_CHARACTERS) if in_windows else self._max_characters
        for texts in _chunks(passages, most):
            if parts:
                yield None
            passage_ids = self._encode_as("passage", texts)
            if passage_tokens is not None:
                passage_ids = self._shortened(texts, passage_ids, passage_tokens)
            longest = next((len(ids) for ids in passage_ids if len(ids) > room), None)
            if longest is not None and truncate == "NONE":
                raise InputTooLongError(self._max_length - room + longest, self._max_length)
            if in_windows:
                windows = self._windows_of(texts, passage_ids, room, passage_tokens)
                extra += sum(len(each) - 1 for each in windows)
                _check_windows(extra, most_windows, room)
                first = parts[-1].passages if parts else 0
                parts.append(self._join_windows((query, query_ids), texts, windows, first))
            else:
                parts.append(self._join((query, query_ids), texts, passage_ids))
        if truncate == "NONE":
            self._check_uncut("query", [whole_query])
            self._check_uncut("passages", passages)
        inputs = together(parts)
        if in_windows:
            cut = sum(len(text) > most for text in passages)
            inputs = replace(inputs, truncated=cut)
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

    def _check_uncut(self, kind: Literal["query", "passages"], texts: list[str]) -> None:
        """Refuse what `_slices` cut although its tokens did not show it (blanks, giant words)."""
        if any(len(text) > self._max_characters for text in texts):
            raise TextError(
                kind,
                f"a text has more than {self._max_characters} characters, the most that this model "
                "can take; shorten it",
                may_be_cut=True,
            )

    def _words_of(self, ids: list[int]) -> int:
        """How many tokens of `ids` are of the template's words before the text.

        One that holds the end of the words and the beginning of the text is of the text.
        """
        pairs = enumerate(zip(self._heads["passage"], ids, strict=False))
        differs = (at for at, (word, token) in pairs if word != token)
        return next(differs, min(len(self._heads["passage"]), len(ids)))

    def _shortened(self, texts: list[str], passages: list[list[int]], most: int) -> list[list[int]]:
        """Passages of at most `most` tokens each, the template's words beside them."""
        tail = len(self._tails["passage"])
        return [
            self._cut("passage", text, ids, self._words_of(ids) + most + tail)
            for text, ids in zip(texts, passages, strict=True)
        ]

    def _has_windows(self, room: int) -> bool:
        """Whether windows may be made where the query leaves `room` tokens."""
        words = len(self._heads["passage"]) + len(self._tails["passage"])
        return room - words >= max(1, self._max_length * _LEAST_WINDOW)

    def _windows_of(
        self, texts: list[str], passages: list[list[int]], room: int, most: int | None
    ) -> list[list[list[int]]]:
        """Each passage in windows of at most `room` tokens, with the template's words around."""
        tail = self._tails["passage"]
        found = []
        for text, ids in zip(texts, passages, strict=True):
            if len(ids) <= room:
                found.append([ids])
                continue
            # Together with the words before it: a blank between them may be a token of either.
            whole = self._encode([self._texts["passage"].before + text])[0] if tail else ids
            words = self._words_of(whole)
            head, body = whole[:words], whole[words:][:most]
            windows = _windows(body, room - len(head) - len(tail))
            found.append([head + window + tail for window in windows])
        return found

    def _join_windows(
        self,
        whole: tuple[str, list[int]],
        texts: list[str],
        passages: list[list[list[int]]],
        first: int,
    ) -> TokenisedRequest:
        """Passages by their windows; `first` is the number of the first one."""
        owners = [at for at, windows in enumerate(passages) for _ in windows]
        flat = [window for windows in passages for window in windows]
        joined = self._join(whole, [texts[at] for at in owners], flat)
        return replace(joined, owners=[first + at for at in owners])

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


def _timed(
    slices: Iterator[TokenisedRequest | None],
) -> tuple[TokenisedRequest | None, float]:
    """The next slice and the processor seconds of this thread that it took."""
    began = time.thread_time()
    return next(slices), time.thread_time() - began


def _check_windows(extra: int, most: int, room: int) -> None:
    """Raises TextError for more than `most`."""
    if extra > most:
        raise TextError(
            "passages",
            f"beside one each they make more than {MOST_WINDOWS} windows of at most {room} tokens; "
            "send fewer or shorter ones, or X-Long-Passages: cut",
            may_be_cut=False,
        )


def _windows(ids: list[int], room: int) -> list[list[int]]:
    """All of `ids`, in lists of at most `room`; each but the first begins within the one before."""
    if len(ids) <= room:
        return [ids]
    step = max(1, room - round(room * _OVERLAP))
    # The last one ends with the text, full like the others: half a window would be half a passage.
    starts = [*range(0, len(ids) - room, step), len(ids) - room]
    return [ids[start : start + room] for start in starts]


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


def together(parts: list[TokenisedRequest]) -> TokenisedRequest:
    """The slices of one request as a whole."""
    return TokenisedRequest(
        ids=[row for part in parts for row in part.ids],
        types=None
        if parts[0].types is None
        else [row for part in parts for row in part.types or ()],
        lengths=[length for part in parts for length in part.lengths],
        truncated=sum(part.truncated for part in parts),
        owners=None
        if parts[0].owners is None
        else [owner for part in parts for owner in part.owners or ()],
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
