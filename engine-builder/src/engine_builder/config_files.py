"""A model's configuration files as bounded, checked documents."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from engine_builder.errors import StageError
from engine_builder.files import parse_json_object, read_metadata
from reranker_contracts import Pooling, StageReason

#: Where sentence-transformers keeps the parts of a model, and how it uses them.
MODULES = "modules.json"
SENTENCE_TRANSFORMERS = "config_sentence_transformers.json"
#: Folder of the module that scores by words of a language model, and its configuration.
LOGIT_SCORE_FOLDER = "1_LogitScore"
LOGIT_SCORE = f"{LOGIT_SCORE_FOLDER}/config.json"

Dimension = Annotated[int, Field(ge=1, le=1 << 24)]
TokenId = Annotated[int, Field(ge=0, le=1 << 24)]


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class Config(_File):
    """The part of config.json that decides; bounds keep a hostile one from costing memory."""

    model_type: str
    architectures: list[str] = Field(min_length=1)
    num_labels: int | None = None
    id2label: dict[str, object] | None = None
    #: Every family that is known has it.
    max_position_embeddings: Dimension | None = None
    vocab_size: Dimension
    num_hidden_layers: Annotated[int, Field(ge=1, le=1024)] | None = None
    hidden_size: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    intermediate_size: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    n_layers: Annotated[int, Field(ge=1, le=1024)] | None = None
    dim: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    pad_token_id: TokenId | None = None
    type_vocab_size: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    auto_map: object = None
    attn_implementation: object = None
    own_attn_implementation: object = Field(default=None, alias="_attn_implementation")
    transformers_weights: object = None
    quantization_config: object = None
    sentence_transformers: dict[str, object] | None = None
    sbert_ce_default_activation_function: str | None = None
    #: Of Llama made bidirectional: `avg` is what others call mean.
    pooling: str | None = None
    temperature: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    #: Of ModernBERT.
    classifier_pooling: str | None = None
    use_sliding_window: bool = False


class TokenizerConfig(_File):
    """The part of tokenizer_config.json that decides."""

    model_max_length: float | None = None
    padding_side: str | None = None
    auto_map: object = None
    fast_tokenizer_files: object = None


class SentenceTransformersConfig(_File):
    """How sentence-transformers uses the model, in files of its version 5.4 and later."""

    activation_fn: str | None = None
    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None


class LogitScore(_File):
    """Ids of the tokens whose logits are the score: the first, less the second if there is one."""

    true_token_id: TokenId
    false_token_id: TokenId | None = None


class _Module(_File):
    type: str


_Kind = TypeVar("_Kind", bound=_File)


def parse(kind: type[_Kind], path: Path) -> _Kind:
    """The document in `path`; ModelInvalid names the field that is wrong."""
    value = parse_json_object(path.name, read_metadata(path))
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _invalid(path.name, error) from error


def parse_optional(kind: type[_Kind], path: Path) -> _Kind | None:
    """As `parse`, None where there is no such file."""
    return parse(kind, path) if path.exists() else None


def module_types(directory: Path) -> list[str]:
    """Class names of the modules that sentence-transformers makes the model of; often none."""
    path = directory / MODULES
    if not path.exists():
        return []
    try:
        modules = TypeAdapter(list[_Module]).validate_json(read_metadata(path))
    except ValidationError as error:
        raise _invalid(MODULES, error) from error
    return [module.type.rsplit(".", 1)[-1] for module in modules]


def _invalid(name: str, error: ValidationError) -> StageError:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return missing(name, field)
    return StageError(
        StageReason.MODEL_INVALID,
        f"{name}: {field}: {first['msg']} (got {str(first['input'])[:80]!r}); correct the field",
    )


def missing(name: str, field: str) -> StageError:
    """ModelInvalid: the document `name` lacks a field."""
    return StageError(
        StageReason.MODEL_INVALID,
        f"{name}: {field} is missing; copy the model's files again, or add the field",
    )


def pooling_of(name: str) -> Pooling | None:
    """Our name for a configuration's way of pooling; None for one that is not known."""
    known: dict[str, Pooling] = {"avg": "mean", "mean": "mean", "cls": "cls", "last": "last"}
    return known.get(name)
