"""Tiny random models of every family, of the real architecture; needs torch and transformers."""

# Collected on machines without torch, so that it is imported where it is used.
# ruff: noqa: PLC0415

import json
from pathlib import Path

from tokenizers import Tokenizer

from engine_builder.families import FAMILIES, Family
from support.tiny_tokenizers import tokenizer_config

#: Longest inputs of the tiny models.
LENGTH, DECODER_LENGTH = 64, 512


def family_of(name: str) -> Family:
    """The entry of the registry."""
    return next(family for family in FAMILIES if family.name == name)


def length_of(family: Family) -> int:
    """Longest input of the family's tiny model. Decoders need room for their prompts."""
    return DECODER_LENGTH if family.is_decoder else LENGTH


def tokenizer_kind(family: Family) -> str:
    """Key of tiny_tokenizers.MAKERS."""
    return family.implementation or family.model_type


def _encoder_config(name: str, vocabulary: int) -> dict[str, object]:
    after_pad = name in ("roberta", "xlm-roberta")
    config: dict[str, object] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": LENGTH + 2 if after_pad else LENGTH,
        "num_labels": 1,
        "initializer_range": 0.3,
        "pad_token_id": 1 if after_pad else 0,
    }
    own: dict[str, dict[str, object]] = {
        "bert": {"type_vocab_size": 2},
        "electra": {"type_vocab_size": 2, "embedding_size": 32},
        "roberta": {"type_vocab_size": 1},
        "xlm-roberta": {"type_vocab_size": 1},
        "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4},
        "modernbert": {
            "cls_token_id": 2,
            "sep_token_id": 3,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "local_attention": 16,
            "initializer_cutoff_factor": 5.0,
        },
        # As microsoft/deberta-v3-base, of which mxbai-rerank v1 is made, with fewer buckets.
        "deberta-v2": {
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "max_relative_positions": -1,
            "pooler_dropout": 0,
            "pooler_hidden_act": "gelu",
            "pooler_hidden_size": 32,
        },
    }
    return config | own.get(name, {})


def _decoder_config(family: Family, vocabulary: int) -> dict[str, object]:
    config: dict[str, object] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "max_position_embeddings": DECODER_LENGTH,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "tie_word_embeddings": family.model_type != "llama",
    }
    if family.head == "score":
        config["num_labels"] = 1
    if family.model_type in ("llama", "llama_bidirec"):
        # As Llama 3.2, whose scaling begins within the tiny model's length.
        config["rope_parameters"] = {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        }
    return config


def save_tiny_model(family: Family, tokenizer: Tokenizer, directory: Path) -> None:
    """Random weights, configuration and tokenizer, as the family's models are published."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    torch.manual_seed(7)
    vocabulary = tokenizer.get_vocab_size()
    model_type = family.implementation or family.model_type
    if family.is_decoder:
        config = AutoConfig.for_model(model_type, **_decoder_config(family, vocabulary))
    else:
        config = AutoConfig.for_model(model_type, **_encoder_config(family.name, vocabulary))
    auto = AutoModelForCausalLM if family.head == "labels" else AutoModelForSequenceClassification
    auto.from_config(config).save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    kind = tokenizer_kind(family)
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(kind)))
    if family.name == "llama-bidirectional":
        _as_nemotron(directory)


def _as_nemotron(directory: Path) -> None:
    """config.json as nvidia/llama-nemotron-rerank-1b-v2 has it: of a class of its own."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    module = "llama_bidirectional_model"
    config |= {
        "model_type": "llama_bidirec",
        "architectures": ["LlamaBidirectionalForSequenceClassification"],
        "auto_map": {
            "AutoConfig": f"{module}.LlamaBidirectionalConfig",
            "AutoModelForSequenceClassification": (
                f"{module}.LlamaBidirectionalForSequenceClassification"
            ),
        },
        "pooling": "avg",
        "temperature": 0.5,
    }
    path.write_text(json.dumps(config))
