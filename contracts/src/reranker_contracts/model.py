"""`model.json`: what the gateway must know to turn texts into the engine's tensors and back."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from reranker_contracts.base import Document

Activation = Literal["none", "sigmoid", "softmax"]
Pooling = Literal["cls", "last", "mean"]

#: Longest template that a user may write, in characters.
TEMPLATE_LIMIT = 4096


class SpecialPiece(Document):
    """Fixed token ids between the texts, for example `[CLS]` or `</s></s>`."""

    kind: Literal["special"] = "special"
    ids: tuple[int, ...]
    type_id: int = 0


class TextPiece(Document):
    """A caller's text and the fixed words that are tokenised together with it.

    `before` + text + `after` is one text for the tokeniser, because at their borders letters of
    both may be one token. A text that is too long loses tokens at its end: then the tokens of
    `after` alone follow those of `before` + text that are left.
    """

    before: str = ""
    after: str = ""
    type_id: int = 0


class QueryPiece(TextPiece):
    """Where the query's tokens go."""

    kind: Literal["query"] = "query"


class PassagePiece(TextPiece):
    """Where the passage's tokens go."""

    kind: Literal["passage"] = "passage"


TemplatePiece = Annotated[SpecialPiece | QueryPiece | PassagePiece, Field(discriminator="kind")]


class PairTemplate(Document):
    """The order of fixed tokens, query and passage in one input sequence.

    Query and passage are tokenised on their own, without special tokens, and joined here;
    this equals what the model's reference implementation does for a pair.
    """

    pieces: tuple[TemplatePiece, ...]

    @model_validator(mode="after")
    def _has_both_texts(self) -> "PairTemplate":
        kinds = [piece.kind for piece in self.pieces]
        if kinds.count("query") != 1 or kinds.count("passage") != 1:
            raise ValueError("a pair template holds the query once and the passage once")
        return self

    @property
    def special_tokens(self) -> int:
        """Number of fixed tokens that every pair carries, those around a text not counted."""
        return sum(len(piece.ids) for piece in self.pieces if piece.kind == "special")


class Scoring(Document):
    """What a user says about how a model scores, where its own files say nothing or say it wrong.

    Part of the prepared model's identity. None leaves a field to the model's files.
    """

    template: str | None = Field(
        default=None,
        max_length=TEMPLATE_LIMIT,
        description="text around `{query}` and `{passage}`, each of them once",
    )
    labels: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] | None = Field(
        default=None,
        min_length=1,
        max_length=2,
        description="of a language model: the word that means relevant, then the one that does not",
    )
    pooling: Pooling | None = Field(default=None, description="which hidden states are scored")
    activation: Literal["none", "sigmoid"] | None = Field(
        default=None, description="from logit to score"
    )


class ServedModel(Document):
    """How texts become tensors and logits become a score. Source: the model's own files."""

    schema_version: Literal[1] = 1
    task: Literal["rerank"] = "rerank"
    name: str
    architecture: str
    family: str
    max_length: int = Field(ge=8, description="longest input in tokens, special tokens included")
    pad_id: int = Field(ge=0)
    pad_side: Literal["left", "right"] = "right"
    template: PairTemplate
    inputs: tuple[Literal["input_ids", "attention_mask", "token_type_ids"], ...]
    labels: int = Field(default=1, ge=1, description="width of the logits")
    label: int = Field(default=0, ge=0, description="index of the logit that is the score")
    activation: Activation = "sigmoid"
