"""The committed probe set: pairs by which every engine is compared with FP32 PyTorch.

Several languages, short and long passages, near ties (passages that differ in a word), and two
passages longer than most models' input.
"""

import itertools
from importlib import resources

from engine_builder.artefacts import ProbeQuery, ProbeSet

#: Words; beyond the 512 tokens of most cross-encoders.
_LONG = 700
_WITH_LONG = 2


def load_probes() -> ProbeSet:
    """The probe set, the same on every call."""
    text = resources.files("engine_builder").joinpath("probes.json").read_text(encoding="utf-8")
    probes = ProbeSet.model_validate_json(text)
    return ProbeSet(
        queries=tuple(
            _with_long_passage(entry) if number < _WITH_LONG else entry
            for number, entry in enumerate(probes.queries)
        )
    )


def _with_long_passage(entry: ProbeQuery) -> ProbeQuery:
    words = itertools.cycle(" ".join(entry.passages).split())
    long = " ".join(itertools.islice(words, _LONG))
    return ProbeQuery(query=entry.query, passages=(*entry.passages, long))
