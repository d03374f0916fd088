"""Text outside the software domain: one dictionary's definition asked for with another's.

A query is WordNet's gloss of a word, the answer is what Webster's dictionary of
1913 (in Debian's `dict-gcide`) says about the same word, which is taken out of
it. Only words with one meaning are used, so that both define the same thing.
Training has seen WordNet's glosses as answers, never as queries and never
Webster's text; the glosses that it has seen are left out.
"""

from __future__ import annotations

import gzip
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo_model.wordnet import Synset

_ENTRY = re.compile(r"^(?P<word>[A-Z][a-z]{3,})\s\\[^\\]+\\,\s(?:n|a|v)\.", re.MULTILINE)
_FIRST_SENSE = re.compile(
    r"\n   (?:1\. )?(?P<text>[A-Z(][^\[]{40,400}?)(?:--[A-Z][^\n]*)?\s*\[1913 Webster\]"
)


@dataclass(frozen=True)
class Definition:
    """A word, WordNet's gloss of it and Webster's definition without the word."""

    word: str
    gloss: str
    text: str


def read_definitions(
    directory: Path, synsets: Sequence[Synset], seen: frozenset[str]
) -> list[Definition]:
    """The words that both dictionaries define once, by word; glosses in `seen` are left out.

    `directory` holds gcide.dict.dz.
    """
    meanings = Counter(word.lower() for synset in synsets for word in synset.words)
    glosses = {
        word.lower(): synset.gloss
        for synset in synsets
        for word in synset.words
        if meanings[word.lower()] == 1
        and synset.gloss not in seen
        and len(synset.gloss.split()) > 4
    }
    with gzip.open(directory / "gcide.dict.dz", "rt", encoding="utf-8", errors="replace") as file:
        text = file.read()
    entries = list(_ENTRY.finditer(text))
    usage = Counter(entry["word"].lower() for entry in entries)
    found: dict[str, Definition] = {}
    for entry, following in itertools.pairwise(entries):
        word = entry["word"].lower()
        sense = _FIRST_SENSE.search(text, entry.end(), following.start())
        if word in glosses and usage[word] == 1 and sense:
            definition = re.sub(rf"\b{word}\w*", "...", " ".join(sense["text"].split()), flags=re.I)
            found[word] = Definition(
                word, glosses[word], definition.replace("{", "").replace("}", "")
            )
    return [found[word] for word in sorted(found)]
