"""What the reference implementations of each family do with a pair, written down anew.

Independent of the builder: the words are those of the model cards, transformers tokenises and runs
the models, one pair at a time and so without padding.
"""

# Collected on machines without torch, so that it is imported where it is used.
# ruff: noqa: PLC0415

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine_builder.families import Family

Pair = tuple[str, str]
_QWEN3_LEAD = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
_QWEN3_TRAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_TASK = "Given a web search query, retrieve relevant passages that answer the query"
_MXBAI_LEAD = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n<|im_start|>user\n"
)
_MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For "
    "each query-document pair, carefully analyze the semantic relationship between them, then "
    "provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)
_GEMMA_PROMPT = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the "
    "query by providing a prediction of either 'Yes' or 'No'."
)


def _plain(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def qwen3_ids(tokenizer: Any, query: str, passage: str) -> list[int]:
    """Model card of Qwen3-Reranker: one text between two lists of ids."""
    text = f"<Instruct>: {_TASK}\n<Query>: {query}\n<Document>: {passage}"
    return [
        *_plain(tokenizer, _QWEN3_LEAD),
        *_plain(tokenizer, text),
        *_plain(tokenizer, _QWEN3_TRAIL),
    ]


def mxbai_ids(tokenizer: Any, query: str, passage: str) -> list[int]:
    """mxbai_rerank's MxbaiRerankV2: lists of ids."""
    return [
        *_plain(tokenizer, _MXBAI_LEAD),
        *_plain(tokenizer, f"query: {query}"),
        *_plain(tokenizer, "\n"),
        *_plain(tokenizer, f"document: {passage}"),
        *_plain(tokenizer, "\n"),
        *_plain(tokenizer, _MXBAI_TASK),
        *_plain(tokenizer, "<|im_end|>\n<|im_start|>assistant\n"),
    ]


def gemma_ids(tokenizer: Any, query: str, passage: str) -> list[int]:
    """FlagEmbedding's BaseLLMReranker: lists of ids after the tokenizer's bos."""
    return [
        tokenizer.bos_token_id,
        *_plain(tokenizer, f"A: {query}"),
        *_plain(tokenizer, "\n"),
        *_plain(tokenizer, f"B: {passage}"),
        *_plain(tokenizer, "\n"),
        *_plain(tokenizer, _GEMMA_PROMPT),
    ]


def nemotron_ids(tokenizer: Any, query: str, passage: str) -> list[int]:
    """Model card of llama-nemotron-rerank: one text, with what the tokenizer puts around it."""
    ids: list[int] = tokenizer(f"question:{query} \n \n passage:{passage}")["input_ids"]
    return ids


def pair_ids(tokenizer: Any, query: str, passage: str) -> list[int]:
    """The tokenizer's own pair, the passage cut to its `model_max_length`."""
    encoded = tokenizer(query, passage, truncation="only_second")
    ids: list[int] = encoded["input_ids"]
    return ids


#: The template that the tests give to models whose files have none.
LLAMA_TEMPLATE = "<|begin_of_text|>Query: {query}\nDocument: {passage}\nRelevant:"


def llama_ids(tokenizer: Any, query: str, passage: str) -> list[int]:
    """LLAMA_TEMPLATE, tokenised as one text."""
    text = LLAMA_TEMPLATE.replace("{query}", query).replace("{passage}", passage)
    return _plain(tokenizer, text)


REFERENCE_IDS: dict[str, Callable[[Any, str, str], list[int]]] = {
    "gemma": gemma_ids,
    "gemma-classifier": gemma_ids,
    "llama": llama_ids,
    "llama-classifier": llama_ids,
    "llama-bidirectional": nemotron_ids,
    "qwen2": mxbai_ids,
    "qwen2-classifier": mxbai_ids,
    "qwen3": qwen3_ids,
    "qwen3-classifier": qwen3_ids,
}
#: Words whose logits the reference implementations take.
REFERENCE_LABELS = {
    "gemma": ("Yes",),
    "llama": ("yes", "no"),
    "qwen2": ("1", "0"),
    "qwen3": ("yes", "no"),
}


def load_tokenizer(directory: Path) -> Any:
    """transformers' own, with limits and all."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


def reference_scores(family: Family, directory: Path, pairs: list[Pair]) -> np.ndarray:
    """FP32 logits of transformers, [pairs]."""
    if family.is_decoder:
        return _decoder_scores(family, directory, pairs)
    return _encoder_scores(directory, pairs)


def _encoder_scores(directory: Path, pairs: list[Pair]) -> np.ndarray:
    import torch
    from transformers import AutoModelForSequenceClassification

    tokenizer = load_tokenizer(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    names = ["input_ids", "attention_mask"]
    if getattr(model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    positions = model.config.max_position_embeddings
    scores = []
    for query, passage in pairs:
        encoded = tokenizer(
            query,
            passage,
            truncation="only_second",
            max_length=64 if positions > 64 else positions,
            return_tensors="pt",
            return_token_type_ids=True,
        )
        with torch.inference_mode():
            logits = model(**{name: encoded[name] for name in names}).logits
        scores.append(float(logits[0, 0]))
    return np.array(scores)


def _decoder_scores(family: Family, directory: Path, pairs: list[Pair]) -> np.ndarray:
    import torch

    tokenizer = load_tokenizer(directory)
    score = _decoder(family, directory, tokenizer)
    scores = []
    for query, passage in pairs:
        ids = torch.tensor([REFERENCE_IDS[family.name](tokenizer, query, passage)])
        with torch.inference_mode():
            scores.append(float(score(ids)))
    return np.array(scores)


def _decoder(family: Family, directory: Path, tokenizer: Any) -> Callable[[Any], Any]:
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    if family.name == "llama-bidirectional":
        return _bidirectional(directory)
    if family.head == "score":
        classifier = AutoModelForSequenceClassification.from_pretrained(directory).eval()
        return lambda ids: classifier(ids).logits[0, 0]
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    labels = [_plain(tokenizer, word)[0] for word in REFERENCE_LABELS[family.name]]

    def last_logits(ids: Any) -> Any:
        logits = model(ids).logits[0, -1, labels]
        return logits[0] - logits[1] if len(labels) == 2 else logits[0]

    return last_logits


def _bidirectional(directory: Path) -> Callable[[Any], Any]:
    """The model of the repository's own code: Llama without the causal mask, mean, `score`."""
    import json

    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    values = json.loads((directory / "config.json").read_text())
    config = LlamaConfig(**{key: values[key] for key in values if key != "auto_map"})
    config.is_causal = False
    model = LlamaForSequenceClassification.from_pretrained(directory, config=config).eval()
    for layer in model.model.layers:
        layer.self_attn.is_causal = False

    def mean(ids: Any) -> Any:
        mask = torch.ones_like(ids)
        states = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return model.score(states.mean(1))[0, 0] / values["temperature"]

    return mean
