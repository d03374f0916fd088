"""What all documents have in common: camelCase JSON, frozen values, no unknown keys."""

import json

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

#: Largest whole number that all readers of JSON understand in the same way.
LARGEST = 1 << 53


class Document(BaseModel):
    """Base of every contract document."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
    )

    def to_json(self) -> str:
        """The document as JSON text in canonical form (sorted keys, no blanks)."""
        return canonical_json(self.model_dump(mode="json", by_alias=True, exclude_none=True))


def canonical_json(value: object) -> str:
    """JSON text that is equal for equal values: sorted keys, no blanks, ASCII only."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
