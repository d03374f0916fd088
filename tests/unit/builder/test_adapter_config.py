"""What is taken from a LoRA adapter's own configuration."""

import json
from pathlib import Path

import pytest

from engine_builder.adapter import read_adapter
from engine_builder.errors import StageError
from engine_builder.sources.selection import select_files
from reranker_contracts import StageReason

LORA = {"peft_type": "LORA", "task_type": "SEQ_CLS", "r": 8, "lora_alpha": 16,
        "target_modules": ["query", "value"]}  # fmt: skip


def adapter(directory: Path, **changes: object) -> Path:
    (directory / "adapter_config.json").write_text(json.dumps(LORA | changes))
    return directory


def test_fields_that_matter_are_read_and_others_ignored(tmp_path: Path) -> None:
    found = read_adapter(
        adapter(
            tmp_path,
            use_dora=True,
            rank_pattern=None,
            alpha_pattern={"layer.1.query": 4},
            base_model_name_or_path="/etc/passwd",
            auto_mapping={"parent_library": "os", "base_model_class": "system"},
            layers_to_transform=None,
        )
    )
    assert (found.r, found.use_dora, found.alpha_pattern) == (8, True, {"layer.1.query": 4.0})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"r": 1 << 20}, "r: "),
        ({"r": 0}, "r: "),
        ({"lora_alpha": -1}, "lora_alpha"),
        ({"target_modules": "(a+)+$"}, "target_modules"),
        ({"target_modules": ["(a+)+$"]}, "target_modules"),
        ({"target_modules": []}, "target_modules"),
        ({"modules_to_save": [".*"]}, "modules_to_save"),
        ({"rank_pattern": {"(a+)+$": 8}}, "rank_pattern"),
        ({"rank_pattern": {f"layer.{number}": 8 for number in range(10_001)}}, "rank_pattern"),
        ({"alpha_pattern": {f"layer.{number}": 8 for number in range(10_001)}}, "alpha_pattern"),
        ({"layers_to_transform": [1]}, "layers_to_transform is not supported"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is not supported"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "layer_replication is not supported"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(StageError) as caught:
        read_adapter(adapter(tmp_path, **changes))
    assert caught.value.reason is StageReason.ADAPTER_INVALID
    assert says in caught.value.message


def test_other_files_are_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="folder of a PEFT adapter") as caught:
        read_adapter(tmp_path)
    assert caught.value.reason is StageReason.ADAPTER_INVALID


def no_index() -> bytes:
    raise AssertionError("an adapter has no index")


ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def test_of_an_adapter_two_files_are_needed() -> None:
    names = {*ADAPTER, "README.md", "optimizer.pt"}
    assert select_files(names, no_index, "adapter").all == ADAPTER


def test_the_base_models_configuration_may_lie_beside_an_adapter() -> None:
    names = {*ADAPTER, "config.json", "tokenizer.json", "model.safetensors.index.json"}
    assert select_files(names, no_index, "adapter").all == ADAPTER


@pytest.mark.parametrize("missing", ADAPTER)
def test_an_adapter_without_one_of_them_is_told_which(missing: str) -> None:
    with pytest.raises(StageError, match=f"{missing} is missing") as caught:
        select_files({*ADAPTER, "config.json"} - {missing}, no_index, "adapter")
    assert caught.value.reason is StageReason.ADAPTER_INVALID


def test_an_adapter_instead_of_a_model_is_told_where_it_belongs() -> None:
    with pytest.raises(StageError, match=r"spec\.model\.adapter") as caught:
        select_files(ADAPTER, no_index)
    assert caught.value.reason is StageReason.MODEL_INVALID
