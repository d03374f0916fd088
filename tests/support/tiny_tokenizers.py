"""Small trained tokenizers, each built as those of a family are; nothing is downloaded."""

import json
from collections.abc import Callable
from importlib import resources

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

_CORPUS = json.loads(resources.files("engine_builder").joinpath("probes.json").read_text("utf-8"))
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
QWEN_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA_SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
GEMMA_SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>"]
#: Words that are one token each.
LABELS = ["yes", "no", "Yes", "No", "1", "0"]

#: Where these tokenizers part a text before they join letters to tokens; digits apart.
_PARTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def texts() -> list[str]:
    """What the tokenizers are trained on."""
    return [text for entry in _CORPUS["queries"] for text in (entry["query"], *entry["passages"])]


def _wordpiece() -> Tokenizer:
    """As BERT: lower case, [CLS] a [SEP] b [SEP], second segment numbered 1."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=800, special_tokens=BERT_SPECIALS, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def _train_bpe(tokenizer: Tokenizer, specials: list[str], *, alphabet: list[str]) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*texts(), *LABELS * 300], trainer)


def _byte_level(specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _train_bpe(tokenizer, specials, alphabet=pre_tokenizers.ByteLevel.alphabet())
    return tokenizer


def _roberta() -> Tokenizer:
    """As RoBERTa: <s> a </s></s> b </s>."""
    tokenizer = _byte_level(ROBERTA_SPECIALS)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return tokenizer


def _modernbert() -> Tokenizer:
    """As ModernBERT: [CLS] a [SEP] b [SEP]."""
    tokenizer = _byte_level(BERT_SPECIALS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def _unigram(specials: list[str], unknown: str, single: str, pair: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=800, special_tokens=specials, unk_token=unknown, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    numbered = [(token, number) for number, token in enumerate(specials)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=numbered
    )
    return tokenizer


def _xlm_roberta() -> Tokenizer:
    """As XLM-RoBERTa: sentence pieces, <s> a </s></s> b </s>."""
    return _unigram(ROBERTA_SPECIALS, "<unk>", "<s> $A </s>", "<s> $A </s> </s> $B </s>")


def _deberta() -> Tokenizer:
    """As DeBERTa-v3: sentence pieces, [CLS] a [SEP] b [SEP]; segments are numbered, not used."""
    return _unigram(BERT_SPECIALS, "[UNK]", "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")


def _split_byte_level(specials: list[str], digits: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PARTS.replace("DIGITS", digits)), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _train_bpe(tokenizer, specials, alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _qwen() -> Tokenizer:
    """As Qwen2 and Qwen3: each digit apart, nothing put around a text."""
    tokenizer = _split_byte_level(QWEN_SPECIALS, "")
    tokenizer.add_tokens([AddedToken(name, special=False) for name in ("<think>", "</think>")])
    return tokenizer


def _llama() -> Tokenizer:
    """As Llama 3: digits in threes, <|begin_of_text|> before a text."""
    tokenizer = _split_byte_level(LLAMA_SPECIALS, "{1,3}")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A",
                pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                special_tokens=[("<|begin_of_text|>", 0)],
            ),
        ]
    )
    return tokenizer


def _gemma() -> Tokenizer:
    """As Gemma: blanks are letters, tokens may hold several words; <bos> before a text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    specials = [*GEMMA_SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=specials, show_progress=False)
    words = " ".join(texts()).split(" ")
    tokenizer.train_from_iterator([*words, *(" " + word for word in words), *LABELS * 300], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)]
    )
    return tokenizer


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "bert": _wordpiece,
    "deberta-v2": _deberta,
    "distilbert": _wordpiece,
    "electra": _wordpiece,
    "gemma": _gemma,
    "llama": _llama,
    "modernbert": _modernbert,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "roberta": _roberta,
    "xlm-roberta": _xlm_roberta,
}


def tokenizer_config(kind: str) -> dict[str, object]:
    """tokenizer_config.json that fits a tokenizer of MAKERS."""
    tokens: dict[str, str]
    if kind in ("roberta", "xlm-roberta"):
        tokens = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    elif kind.startswith("qwen"):
        tokens = {"pad": "<|endoftext|>", "eos": "<|im_end|>"}
    elif kind == "llama":
        tokens = {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>", "pad": "<|eot_id|>"}
    elif kind == "gemma":
        tokens = {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "unk": "<unk>"}
    else:
        names = ("pad", "unk", "cls", "sep", "mask")
        tokens = dict(zip(names, BERT_SPECIALS, strict=True))
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 1e30,
        **{f"{kind}_token": name for kind, name in tokens.items()},
    }
