"""How a tokenizer joins a query and a passage, found out from the tokenizer itself.

The gateway tokenises both texts on their own and joins them by the template, so that a query is
tokenised once for all its passages. `derive_template` reads the order of special tokens off an
encoded pair; `check_template` proves on sample pairs that joining gives the same tokens.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer

from engine_builder.errors import StageError
from reranker_contracts import PairTemplate, StageReason
from reranker_contracts.model import PassagePiece, QueryPiece, SpecialPiece

_SAMPLE = ("where is it", "it is here")


@dataclass(frozen=True)
class Tokens:
    """One model input: ids and token types, of equal length."""

    ids: tuple[int, ...]
    type_ids: tuple[int, ...]


def derive_template(tokenizer: Tokenizer, *, token_types: bool) -> PairTemplate:
    """Read the template off an encoded sample pair.

    Without `token_types` every type id is 0: some tokenizers number segments for models that do
    not look at them. Raises StageError (ModelInvalid) when texts are not joined one after the
    other.
    """
    encoding = tokenizer.encode(*_SAMPLE)
    rows = zip(
        encoding.sequence_ids,
        encoding.type_ids if token_types else [0] * len(encoding.ids),
        encoding.ids,
        strict=True,
    )
    pieces: list[SpecialPiece | QueryPiece | PassagePiece] = []
    for (sequence, type_id), group in itertools.groupby(rows, key=lambda row: row[:2]):
        if sequence is None:
            ids = tuple(row[2] for row in group)
            pieces.append(SpecialPiece(ids=ids, type_id=type_id))
        elif sequence == 0:
            pieces.append(QueryPiece(type_id=type_id))
        else:
            pieces.append(PassagePiece(type_id=type_id))
    kinds = [piece.kind for piece in pieces if piece.kind != "special"]
    if kinds != ["query", "passage"]:
        raise StageError(
            StageReason.MODEL_INVALID,
            "tokenizer.json: its post-processor does not join a pair as query, then passage; use "
            "the tokenizer that the cross-encoder was trained with",
        )
    return PairTemplate(pieces=tuple(pieces))


class PairEncoder:
    """Turns (query, passage) into tokens as the gateway does, cut to `max_length` tokens."""

    def __init__(self, tokenizer: Tokenizer, template: PairTemplate, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._pieces = template.pieces
        self._room = max_length - template.special_tokens
        #: Tokens of what stands right after a text that was cut.
        self._tails = {
            piece.kind: self._ids(piece.after) for piece in self._pieces if piece.kind != "special"
        }

    def encode(self, query: str, passage: str) -> Tokens:
        """One pair; what is too long is cut from the passage's end, then from the query's."""
        parts = {piece.kind: piece for piece in self._pieces if piece.kind != "special"}
        texts = {
            "query": self._text(parts["query"], query, self._room - len(self._tails["passage"]))
        }
        room = self._room - len(texts["query"])
        texts["passage"] = self._text(parts["passage"], passage, room)
        ids: list[int] = []
        type_ids: list[int] = []
        for piece in self._pieces:
            part = list(piece.ids) if piece.kind == "special" else texts[piece.kind]
            ids += part
            type_ids += [piece.type_id] * len(part)
        return Tokens(tuple(ids), tuple(type_ids))

    def _text(self, piece: QueryPiece | PassagePiece, text: str, room: int) -> list[int]:
        ids = self._ids(piece.before + text + piece.after)
        if len(ids) <= room:
            return ids
        tail = self._tails[piece.kind]
        whole = self._ids(piece.before + text) if tail else ids
        return whole[: max(0, room - len(tail))] + tail

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def check_template(
    tokenizer: Tokenizer,
    template: PairTemplate,
    pairs: Iterable[tuple[str, str]],
    *,
    token_types: bool,
) -> None:
    """Compare joined tokens with the tokenizer's own for every pair, nothing cut.

    Raises StageError (ModelInvalid) that shows the first pair that differs.
    """
    encoder = PairEncoder(tokenizer, template, max_length=1 << 30)
    for query, passage in pairs:
        own = tokenizer.encode(query, passage)
        types = own.type_ids if token_types else [0] * len(own.ids)
        if encoder.encode(query, passage) != Tokens(tuple(own.ids), tuple(types)):
            raise StageError(
                StageReason.MODEL_INVALID,
                "tokenizer.json: a pair is not tokenised as its two texts are on their own (query "
                f"{query[:50]!r}, passage {passage[:50]!r}); use a model with another tokenizer",
            )
