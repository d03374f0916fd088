"""The model families that this builder knows; one small entry each.

A family is a `model_type` and an architecture of config.json whose score needs no code of its own
here. To add one: append an entry and run the golden tests, which build a tiny model of every
family. `Head` says how a model comes to its score:

- own: transformers' …ForSequenceClassification pools and scores by itself
- score: a linear layer `score` over the pooled hidden state of a decoder
- labels: the language model's logits of the word that means relevant and of its opposite, at the
  last token; only these rows of its output layer are kept
"""

from dataclasses import dataclass
from typing import Literal

from engine_builder.families.prompts import (
    BGE_GEMMA,
    MXBAI_V2,
    NEMOTRON,
    QWEN3_RERANKER,
    Joined,
    Whole,
)
from reranker_contracts import Pooling

Head = Literal["own", "score", "labels"]


@dataclass(frozen=True)
class Family:
    """What the pipeline must know about a family beyond its configuration files."""

    name: str
    model_type: str
    architecture: str
    head: Head = "own"
    #: Of `model_type`s that transformers does not have: the one whose layers these are.
    implementation: str | None = None
    token_types: bool = False
    #: RoBERTa numbers positions from `pad_token_id + 1`, so that many table rows are never used.
    positions_after_pad: bool = False
    #: Decoders only: each token sees the ones before it.
    causal: bool = True
    #: Decoders only; the configuration may say otherwise.
    pooling: Pooling = "last"
    #: How the reference implementation joins a pair; None: the tokenizer's own pairs.
    prompt: Joined | Whole | None = None
    #: Head `labels`: the words that mean relevant and, if its logit is subtracted, not relevant.
    labels: tuple[str, ...] = ()
    activation: Literal["none", "sigmoid"] = "sigmoid"

    @property
    def is_decoder(self) -> bool:
        """Its graph is made here around the bare decoder, padding on either side."""
        return self.head != "own"


FAMILIES = (
    Family("bert", "bert", "BertForSequenceClassification", token_types=True),
    Family("deberta-v2", "deberta-v2", "DebertaV2ForSequenceClassification", token_types=True),
    Family("distilbert", "distilbert", "DistilBertForSequenceClassification"),
    Family("electra", "electra", "ElectraForSequenceClassification", token_types=True),
    Family("modernbert", "modernbert", "ModernBertForSequenceClassification"),
    Family("roberta", "roberta", "RobertaForSequenceClassification", positions_after_pad=True),
    Family(
        "xlm-roberta",
        "xlm-roberta",
        "XLMRobertaForSequenceClassification",
        positions_after_pad=True,
    ),
    Family(
        "gemma",
        "gemma",
        "GemmaForCausalLM",
        head="labels",
        prompt=BGE_GEMMA,
        labels=("Yes",),
        activation="none",
    ),
    Family(
        "gemma-classifier",
        "gemma",
        "GemmaForSequenceClassification",
        head="score",
        prompt=BGE_GEMMA,
    ),
    Family("llama", "llama", "LlamaForCausalLM", head="labels"),
    Family("llama-classifier", "llama", "LlamaForSequenceClassification", head="score"),
    Family(
        "llama-bidirectional",
        "llama_bidirec",
        "LlamaBidirectionalForSequenceClassification",
        head="score",
        implementation="llama",
        causal=False,
        pooling="mean",
        prompt=NEMOTRON,
        activation="none",
    ),
    Family(
        "qwen2",
        "qwen2",
        "Qwen2ForCausalLM",
        head="labels",
        prompt=MXBAI_V2,
        labels=("1", "0"),
    ),
    Family(
        "qwen2-classifier",
        "qwen2",
        "Qwen2ForSequenceClassification",
        head="score",
        prompt=MXBAI_V2,
    ),
    Family(
        "qwen3",
        "qwen3",
        "Qwen3ForCausalLM",
        head="labels",
        prompt=QWEN3_RERANKER,
        labels=("yes", "no"),
    ),
    Family(
        "qwen3-classifier",
        "qwen3",
        "Qwen3ForSequenceClassification",
        head="score",
        prompt=QWEN3_RERANKER,
    ),
)

_BY_CONFIG = {(family.model_type, family.architecture): family for family in FAMILIES}


def find_family(model_type: str, architecture: str) -> Family | None:
    """The family of config.json's `model_type` and first architecture, or None."""
    return _BY_CONFIG.get((model_type, architecture))
