"""A model's tokenizer files without what would have transformers read other files.

Whatever stands in these files, transformers hands to the tokenizer's class, which takes a text
where it wants a vocabulary for the path of one: `"vocab": "/proc/self/environ"` would make our
secrets a part of the engine.
"""

import json
import re
from pathlib import Path
from typing import Any

from engine_builder.errors import StageError
from engine_builder.files import WEIGHTS, parse_json_object, read_metadata
from reranker_contracts import StageReason

TOKENIZER = "tokenizer.json"
#: Passed on as keyword arguments. Paths of files from before are in many honest ones.
_ARGUMENTS = ("tokenizer_config.json", "special_tokens_map.json")
_NAMES_A_FILE = re.compile(
    r"(.*_)?(file|files|path|dir|folder)|vocab|merges|init_inputs|name_or_path|tokenizer_object"
)
#: Parts of `tokenizer.json` that are data, never a name, by the type that they have.
_DATA = {"vocab": (dict, list), "merges": (list,)}


def copy_cleaned(source: Path, into: Path) -> None:
    """Links to the files of `source` in the folder `into`, but for those that are cleaned.

    Raises StageError (ModelInvalid) for a `tokenizer.json` that names files.
    """
    for entry in source.iterdir():
        if entry.name not in _ARGUMENTS and entry.suffix != WEIGHTS:
            (into / entry.name).symlink_to(entry.resolve())
    for name in _ARGUMENTS:
        if (source / name).exists():
            given = parse_json_object(name, read_metadata(source / name))
            kept = {key: value for key, value in given.items() if not _NAMES_A_FILE.fullmatch(key)}
            (into / name).write_text(json.dumps(kept), encoding="utf-8")
    if (source / TOKENIZER).exists():
        _check(parse_json_object(TOKENIZER, read_metadata(source / TOKENIZER)))


def _check(tokenizer: dict[str, Any]) -> None:
    model = tokenizer.get("model")
    for key, kinds in _DATA.items():
        value = model.get(key) if isinstance(model, dict) else None
        if value is not None and not isinstance(value, kinds):
            raise StageError(
                StageReason.MODEL_INVALID,
                f"{TOKENIZER}: model.{key} is {str(value)[:80]!r}, which is no list of words; save "
                "the model anew with its fast tokenizer",
            )
