"""WordNet: glosses for breadth, synonyms for rewording.

Reads the data files of Debian's `wordnet-base`. Glosses become training pairs
outside the software domain, so that the model does not forget ordinary English;
synonyms let a query use other words than the description that answers it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PARTS = ("noun", "verb", "adj", "adv")
# A word with more senses than this has no safe synonym without its context.
_MOST_SENSES = 4


@dataclass(frozen=True)
class Synset:
    """One meaning: the words for it, its definition, and sentences that use it."""

    words: tuple[str, ...]
    gloss: str
    examples: tuple[str, ...]


def read_synsets(directory: Path) -> list[Synset]:
    """All synsets, in the order of the files in `directory` (which holds data.noun and so on)."""
    synsets = []
    for part in _PARTS:
        for line in (directory / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if not line.startswith("  "):
                synsets.append(_synset(line))
    return synsets


def _synset(line: str) -> Synset:
    head, _, text = line.partition(" | ")
    fields = head.split()
    count = int(fields[3], 16)
    words = tuple(_word(fields[4 + 2 * i]) for i in range(count))
    examples = tuple(example for example in re.findall(r'"([^"]+)"', text) if " " in example)
    gloss = re.sub(r'\s*;?\s*"[^"]*"[^";]*', "", text).strip(" ;")
    return Synset(words, gloss, examples)


def _word(field: str) -> str:
    return re.sub(r"\([a-z]+\)$", "", field).replace("_", " ")


def read_synonyms(directory: Path) -> dict[str, tuple[str, ...]]:
    """Synonyms of a word's most usual meaning, for words with few meanings."""
    words_of: dict[tuple[str, str], tuple[str, ...]] = {}
    for part in _PARTS:
        for line in (directory / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if not line.startswith("  "):
                words_of[part, line.split(" ", 1)[0]] = _synset(line).words
    senses: dict[str, int] = {}
    synonyms: dict[str, tuple[str, ...]] = {}
    for part in _PARTS:
        for line in (directory / f"index.{part}").read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):
                continue
            fields = line.split()
            lemma, count = _word(fields[0]), int(fields[2])
            senses[lemma] = senses.get(lemma, 0) + count
            others = tuple(w for w in words_of[part, fields[-count]] if w.lower() != lemma)
            synonyms.setdefault(lemma, others)
    return {w: s for w, s in synonyms.items() if s and senses[w] <= _MOST_SENSES}
