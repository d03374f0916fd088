"""What a diagnosis ends in, and the words by which a cause is recognised."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from reranker_contracts import StageReason
from reranker_operator.api.conditions import Reason
from reranker_operator.core.wording import advise


class Finding(NamedTuple):
    """A reason of the API and a message with the remedy."""

    reason: Reason | StageReason
    message: str


class Clue(NamedTuple):
    """Words that give a cause away, and what to do about it, with `{fields}` to be filled in."""

    words: re.Pattern[str]
    reason: Reason
    remedy: str


def finding(reason: Reason | StageReason, what: str, remedy: str) -> Finding:
    """What happened, and what to do about it."""
    return Finding(reason, advise(what, remedy))


def clue(words: str, reason: Reason, remedy: str) -> Clue:
    """A clue of this regular expression, in letters of any size."""
    return Clue(re.compile(words, re.IGNORECASE), reason, remedy)


def recognise(clues: Iterable[Clue], text: object, what: str, **fields: str) -> Finding | None:
    """The first clue that `text`, with all its words, has; `what` tells what happened."""
    text = " ".join(str(text or "").split())
    for entry in clues:
        if entry.words.search(text):
            return finding(entry.reason, what, entry.remedy.format(**fields))
    return None
