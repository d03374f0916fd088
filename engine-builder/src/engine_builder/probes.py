"""The probe set: about 1,000 pairs by which every engine is compared with FP32 PyTorch.

The texts, in sixteen languages, were written for this project. From them come, the same on every
machine: short and long passages (several in one), passages of other queries, and two that are
longer than most models' input. Near ties are made for each model from its own scores: what it ranks
highest, again with a mark in front, so that the order at the top hangs on small differences.
"""

import itertools
import math
from collections.abc import Sequence
from importlib import resources

from reranker_contracts.parity import ProbeQuery, ProbeSet

#: Passages of a query, before near ties and the long ones.
_PASSAGES = 19
#: Words; beyond the 512 tokens of most cross-encoders.
_LONG = 700
_WITH_LONG = 2
#: Put before a query's best passages; different first letters, so that no cut makes them equal.
_MARKS = ("1. ", "- ", "a) ", "* ", "> ")
#: Of these, how many passages are joined to one.
_JOINED = (1, 1, 2, 1, 3, 1, 5)


def load_probes() -> ProbeSet:
    """The pairs that are the same for every model."""
    text = resources.files("engine_builder").joinpath("probes.json").read_text(encoding="utf-8")
    written = ProbeSet.model_validate_json(text)
    return ProbeSet(
        queries=tuple(
            ProbeQuery(query=entry.query, passages=_passages(written, number))
            for number, entry in enumerate(written.queries)
        )
    )


def add_near_ties(probes: ProbeSet, logits: Sequence[float]) -> ProbeSet:
    """`probes` with further passages behind those of each query; `logits` are of its pairs.

    What the user brought stays as it is.
    """
    found, end = [], 0
    built_in = len(probes.queries) - probes.own
    for number, entry in enumerate(probes.queries):
        start, end = end, end + len(entry.passages)
        if number >= built_in:
            found.append(entry)
            continue
        scored = sorted(zip(logits[start:end], entry.passages, strict=True), reverse=True)
        # Of a long passage the mark would only cut the end off.
        best = [passage for _score, passage in scored if len(passage.split()) < _LONG]
        ties = tuple(mark + passage for mark, passage in zip(_MARKS, best, strict=False))
        found.append(ProbeQuery(query=entry.query, passages=(*entry.passages, *ties)))
    return ProbeSet(queries=tuple(found), own=probes.own)


def _passages(written: ProbeSet, number: int) -> tuple[str, ...]:
    own = written.queries[number].passages
    others = [
        passage
        for shift in range(1, len(written.queries))
        for passage in written.queries[(number + shift) % len(written.queries)].passages
    ]
    # A step without a common divisor visits all before it comes back to the first.
    step = next(step for step in range(11, len(others)) if math.gcd(step, len(others)) == 1)
    stranger = (others[place * step % len(others)] for place in itertools.count())
    sizes = itertools.cycle(_JOINED)
    more = (
        " ".join(itertools.islice(stranger, next(sizes))) for _place in range(_PASSAGES - len(own))
    )
    passages = (*own, *more)
    if number >= _WITH_LONG:
        return passages
    words = itertools.cycle(" ".join(own).split())
    return (*passages, " ".join(itertools.islice(words, _LONG)))
