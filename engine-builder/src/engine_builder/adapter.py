"""LoRA adapters of PEFT, merged into the model before export.

Only what is listed here is taken from adapter_config.json: PEFT itself would also follow names of
modules, other models and regular expressions in it.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from engine_builder.errors import StageError
from engine_builder.files import open_regular, parse_json_object, read_metadata
from engine_builder.weights import count_parameters
from reranker_contracts import StageReason

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

#: Keys of a pattern; models have a few hundred modules.
_MAX_PATTERNS = 10_000
_Rank = Annotated[int, Field(ge=1, le=1024)]
_Alpha = Annotated[float, Field(gt=0, le=1e6)]
#: Of modules, with the dots between them; PEFT takes any regular expression.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,200}$")]
#: Ways to train or to name modules that change what merging has to do.
_UNSUPPORTED = (
    "alora_invocation_tokens", "exclude_modules", "layer_replication", "layers_pattern",
    "layers_to_transform", "lora_bias", "target_parameters", "trainable_token_indices",
)  # fmt: skip


class AdapterConfig(BaseModel):
    """The part of adapter_config.json that says how the weights are merged."""

    model_config = ConfigDict(extra="ignore")

    peft_type: Literal["LORA"]
    task_type: Literal["SEQ_CLS", "CAUSAL_LM", "FEATURE_EXTRACTION"] | None = None
    r: _Rank
    lora_alpha: _Alpha
    target_modules: list[_Name] | Literal["all-linear"] = Field(min_length=1)
    modules_to_save: list[_Name] | None = None
    rank_pattern: dict[_Name, _Rank] = Field(default={}, max_length=_MAX_PATTERNS)
    alpha_pattern: dict[_Name, _Alpha] = Field(default={}, max_length=_MAX_PATTERNS)
    bias: Literal["none", "all", "lora_only"] = "none"
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    use_dora: bool = False

    @field_validator("rank_pattern", "alpha_pattern", mode="before")
    @classmethod
    def _empty(cls, value: object) -> object:
        return {} if value is None else value


def read_adapter(directory: Path) -> AdapterConfig:
    """What adapter_config.json says; AdapterInvalid for what cannot be merged."""
    if not (directory / CONFIG).exists():
        raise _invalid(f"{CONFIG} is missing; name the folder of a PEFT adapter")
    values = parse_json_object(CONFIG, read_metadata(directory / CONFIG))
    for field in _UNSUPPORTED:
        if values.get(field):
            raise _invalid(
                f"{CONFIG}: {field} is not supported; merge the adapter into its base model "
                "yourself and serve the result"
            )
    try:
        return AdapterConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise _invalid(
            f"{CONFIG}: {field}: {first['msg']} (got {str(first['input'])[:80]!r}); use a LoRA "
            "adapter saved by PEFT"
        ) from error


def merge_adapter(model: Any, directory: Path) -> Any:
    """`model` with the adapter's weights added to its own; needs torch and PEFT.

    Raises StageError (AdapterInvalid) when adapter and model do not belong together.
    """
    # ruff: noqa: PLC0415 - with torch, in the builder's image alone
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load

    said = read_adapter(directory)
    count_parameters([directory / WEIGHTS])
    with open_regular(directory / WEIGHTS) as stream:
        weights = load(stream.read())
    config = LoraConfig(
        task_type=said.task_type,
        r=said.r,
        lora_alpha=said.lora_alpha,
        target_modules=said.target_modules,
        modules_to_save=said.modules_to_save,
        rank_pattern=dict(said.rank_pattern),
        alpha_pattern=dict(said.alpha_pattern),
        bias=said.bias,
        fan_in_fan_out=said.fan_in_fan_out,
        use_rslora=said.use_rslora,
        use_dora=said.use_dora,
        init_lora_weights=False,
        inference_mode=True,
    )
    try:
        # On the meta device: what the file does not hold takes no memory.
        adapted = get_peft_model(model, config, low_cpu_mem_usage=True)
        loaded = set_peft_model_state_dict(adapted, weights, low_cpu_mem_usage=True)
        missing = [key for key in loaded.missing_keys if re.search(r"lora_|modules_to_save", key)]
        unknown = list(loaded.unexpected_keys)
        if not missing and not unknown:
            return adapted.merge_and_unload(safe_merge=True)
    # Whatever PEFT makes of modules and shapes that the model does not have.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _invalid(
            f"the adapter cannot be merged: {lines[0][:300]}; use it with the base model that it "
            "was trained on"
        ) from error
    raise _invalid(
        f"{WEIGHTS}: {len(missing)} tensors are missing and {len(unknown)} are of no module, first "
        f"{(missing + unknown)[0][:120]}; use the adapter with the base model that it was trained "
        "on"
    )


def _invalid(problem: str) -> StageError:
    return StageError(StageReason.ADAPTER_INVALID, problem)
