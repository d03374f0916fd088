"""Writes a tiny model of one kind: `first` and `second` rank, `embedding` does not.

Run inside the engine-builder image, which has transformers.
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!-'"


def tokenizer() -> BertTokenizerFast:
    """WordPiece over single letters: every text has tokens, nothing needs to be trained."""
    pieces = [*_SPECIAL, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return BertTokenizerFast(tokenizer_object=inner, model_max_length=256)


def main(kind: str, directory: Path) -> None:
    """Seeds differ by kind, so that two rerankers rank differently."""
    torch.manual_seed({"first": 1, "second": 2, "embedding": 3}[kind])
    tokens = tokenizer()
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=256,
        num_labels=1,
    )
    architecture = BertModel if kind == "embedding" else BertForSequenceClassification
    model = architecture(config)
    if kind != "embedding":
        # As a trained head would: a fresh one gives all passages nearly the same score,
        # which the builder refuses.
        with torch.no_grad():
            model.classifier.weight.mul_(100)
    model.save_pretrained(directory)
    tokens.save_pretrained(directory)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
