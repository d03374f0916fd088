"""Which files of a model are needed: configuration, tokenizer and safetensors weights.

Only the top level of a source counts, and only names listed here or in the weights' index, so
nothing can point elsewhere. Pickled weights are refused: loading one runs its author's code.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from engine_builder.adapter import CONFIG as ADAPTER_CONFIG
from engine_builder.adapter import WEIGHTS as ADAPTER_WEIGHTS
from engine_builder.config_files import LOGIT_SCORE, MODULES, SENTENCE_TRANSFORMERS
from engine_builder.errors import StageError
from engine_builder.files import parse_json_object
from engine_builder.progress import human_size
from reranker_contracts import StageReason

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_OPTIONAL = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    MODULES,
    SENTENCE_TRANSFORMERS,
    LOGIT_SCORE,
)
#: The only file that is looked for in a folder.
NESTED = frozenset({LOGIT_SCORE})
#: What a source is asked for, and the file by which its folder is known.
Content = Literal["model", "adapter"]
MARKERS: dict[Content, str] = {"model": "config.json", "adapter": ADAPTER_CONFIG}
#: Any one of these sets makes a fast tokenizer.
_TOKENIZERS = ({"tokenizer.json"}, {"vocab.txt"}, {"vocab.json", "merges.txt"})
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.safetensors", re.ASCII)
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MAX_SHARDS = 1000
#: All needed files together; builder pods have 30 GiB for files, several times over.
MAX_BYTES = 20 << 30


@dataclass(frozen=True)
class Selection:
    """Names of the needed files, sorted."""

    metadata: tuple[str, ...]
    weights: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Metadata and weights together."""
        return tuple(sorted(self.metadata + self.weights))


def select_files(
    names: Collection[str], read_index: Callable[[], bytes], content: Content = "model"
) -> Selection:
    """Choose among the `names` at the top level of a source what a `content` needs.

    `read_index` gives the bytes of INDEX and is called only when a model has one.
    """
    if content == "adapter":
        return _adapter(names)
    if "config.json" not in names and ADAPTER_CONFIG in names:
        raise StageError(
            StageReason.MODEL_INVALID,
            "this is a LoRA adapter, not a model; name its base model as the source and this as "
            "spec.model.adapter (--adapter)",
        )
    if "config.json" not in names:
        raise StageError(
            StageReason.MODEL_INVALID,
            "config.json is missing; name the directory of a transformers model",
        )
    if not any(tokenizer <= set(names) for tokenizer in _TOKENIZERS):
        raise StageError(
            StageReason.MODEL_INVALID,
            "tokenizer.json is missing; save the model with its fast tokenizer",
        )
    metadata = ["config.json", *(name for name in _OPTIONAL if name in names)]
    if INDEX in names:
        metadata.append(INDEX)
        weights = _shards(parse_json_object(INDEX, read_index()), names)
    else:
        weights = _single(names)
    return Selection(metadata=tuple(sorted(metadata)), weights=tuple(sorted(weights)))


def _adapter(names: Collection[str]) -> Selection:
    """Two files, whatever else lies there: trainers leave the base model's configuration too."""
    if ADAPTER_CONFIG not in names:
        raise StageError(
            StageReason.ADAPTER_INVALID,
            f"{ADAPTER_CONFIG} is missing; name the folder of a PEFT adapter",
        )
    if ADAPTER_WEIGHTS not in names:
        raise StageError(
            StageReason.ADAPTER_INVALID,
            f"{ADAPTER_WEIGHTS} is missing; save the adapter's weights as safetensors",
        )
    return Selection(metadata=(ADAPTER_CONFIG,), weights=(ADAPTER_WEIGHTS,))


def check_total(sizes: Mapping[str, int]) -> None:
    """Refuse needed files of these sizes that are together too large to build from."""
    total = sum(sizes.values())
    if total > MAX_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise StageError(
            StageReason.MODEL_INVALID,
            f"the model's files have {human_size(total)}, more than the {human_size(MAX_BYTES)} "
            f"allowed, {largest} alone {human_size(sizes[largest])}; use a smaller model",
        )


def _single(names: Collection[str]) -> list[str]:
    if _SINGLE in names:
        return [_SINGLE]
    pickled = sorted(name for name in names if name.endswith(_PICKLED))
    if pickled:
        raise StageError(
            StageReason.UNSAFE_WEIGHTS,
            f"{pickled[0][:100]}: pickled weights can run code and are never loaded; convert the "
            "model to safetensors",
        )
    raise StageError(
        StageReason.MODEL_INVALID, f"{_SINGLE} is missing; save the model's weights as safetensors"
    )


def _shards(index: dict[str, object], names: Collection[str]) -> list[str]:
    weight_map = index.get("weight_map")
    values = weight_map.values() if isinstance(weight_map, dict) else ()
    # A list could not even be an element; the name of its type is refused as any other.
    shards = {value if isinstance(value, str) else type(value).__name__ for value in values}
    if not shards or len(shards) > _MAX_SHARDS:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"{INDEX}: weight_map names {len(shards)} files, 1 to {_MAX_SHARDS} are allowed; save "
            "the model again",
        )
    for shard in shards:
        if not _SHARD.fullmatch(shard):
            reason = StageReason.MODEL_INVALID
            if shard.endswith(_PICKLED):
                reason = StageReason.UNSAFE_WEIGHTS
            raise StageError(
                reason,
                f"{INDEX}: {shard[:100]!r} is not the name of a safetensors file; convert the "
                "model to safetensors",
            )
        if shard not in names:
            raise StageError(
                StageReason.MODEL_INVALID,
                f"{shard} is missing, {INDEX} names it; copy the model's files again",
            )
    return sorted(shards)
