"""`model.json`: what the gateway must know to turn texts into the engine's tensors and back."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from reranker_contracts.base import Document

Activation = Literal["none", "sigmoid", "softmax"]


class SpecialPiece(Document):
    """Fixed token ids between the texts, for example `[CLS]` or `</s></s>`."""

    kind: Literal["special"] = "special"
    ids: tuple[int, ...]
    type_id: int = 0


class QueryPiece(Document):
    """Where the query's tokens go."""

    kind: Literal["query"] = "query"
    type_id: int = 0


class PassagePiece(Document):
    """Where the passage's tokens go."""

    kind: Literal["passage"] = "passage"
    type_id: int = 0


TemplatePiece = Annotated[SpecialPiece | QueryPiece | PassagePiece, Field(discriminator="kind")]


class PairTemplate(Document):
    """The order of special tokens, query and passage in one input sequence.

    Query and passage are tokenised on their own, without special tokens, and joined here;
    this equals what the model's own tokeniser does for a pair.
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
        """Number of special tokens that every pair carries."""
        return sum(len(piece.ids) for piece in self.pieces if piece.kind == "special")


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
