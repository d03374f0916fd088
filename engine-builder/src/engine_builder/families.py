"""The model families that this builder knows; one small entry each.

A family is a `model_type` of transformers whose cross-encoder form needs no code of its own here.
To add one: append an entry and run the golden tests, which build a tiny model of every family.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """What the pipeline must know about a family beyond its configuration file."""

    name: str
    architecture: str
    token_types: bool = False
    #: RoBERTa numbers positions from `pad_token_id + 1`, so that many table rows are never used.
    positions_after_pad: bool = False


FAMILIES = (
    Family("bert", "BertForSequenceClassification", token_types=True),
    Family("distilbert", "DistilBertForSequenceClassification"),
    Family("electra", "ElectraForSequenceClassification", token_types=True),
    Family("modernbert", "ModernBertForSequenceClassification"),
    Family("roberta", "RobertaForSequenceClassification", positions_after_pad=True),
    Family("xlm-roberta", "XLMRobertaForSequenceClassification", positions_after_pad=True),
)

_BY_MODEL_TYPE = {family.name: family for family in FAMILIES}


def find_family(model_type: str) -> Family | None:
    """The family of a `model_type` in config.json, or None."""
    return _BY_MODEL_TYPE.get(model_type)
