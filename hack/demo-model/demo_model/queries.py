"""Turns what maintainers wrote about a program into what someone in need would ask.

Every query is made from real text or tags of one package: its one-line
description, a clause of its long description (which is then taken out of the
passage), AppStream's summary, or Debian's facet tags put into words. Wrappers,
dropped words and synonyms keep the model from relying on identical wording.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from demo_model.debian import Package
from demo_model.phrases import ACTIONS, NOUNS, OBJECTS, WAYS

_CLAUSE = re.compile(
    r"\b(?:allows?|lets?|enables?|helps?)\s+(?:(?:you|users?|the user|one|people|anyone|developers?"
    r"|administrators?)\s+)?(?:to\s+)?(?P<a>[a-z]{3,}\b[^.;:()]{8,90})"
    r"|\b(?:can be used|used|designed|useful|able|want|need|wish|intended|aims?|tries|ability|way"
    r"|utility|tool|program)\s+to\s+(?P<b>[a-z]{3,}\b[^.;:()]{8,90})"
    r"|\b(?:used|useful|tool|utility|program|application|support|software)\s+for\s+"
    r"(?P<c>[a-z]{3,}\b[^.;:()]{8,90})"
)
_VERB_WRAPPERS = (
    "{}",
    "{}",
    "{}",
    "how to {}",
    "how do I {}?",
    "I want to {}",
    "tool to {}",
    "a program to {}",
    "something that can {}",
    "what can I use to {}?",
    "I need to {}",
    "which program lets me {}?",
)
_NOUN_WRAPPERS = (
    "{}",
    "{}",
    "{}",
    "{}",
    "looking for {}",
    "I need {}",
    "is there {}?",
    "recommend {}",
    "software: {}",
    "{} for Linux",
)
_VERBS = frozenset(
    {action.split()[0] for wordings in ACTIONS.values() for action in wordings}
    | {
        "add",
        "build",
        "control",
        "draw",
        "find",
        "generate",
        "get",
        "handle",
        "keep",
        "make",
        "open",
        "produce",
        "read",
        "run",
        "send",
        "set",
        "show",
        "use",
        "visualize",
        "work",
        "write",
    }
)
_THING = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_BOILERPLATE = re.compile(
    r"\b(this package|this is the|these packages|homepage|see also|e\.g|package provides"
    r"|package contains)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Question:
    """A query, the text that answers it, and the tags it asks for (empty unless made from tags)."""

    query: str
    short: str
    long: str
    tags: frozenset[str] = frozenset()


def from_short(package: Package, rng: random.Random) -> Question | None:
    """The one-line description asked for; the passage keeps only the long one."""
    text = re.sub(r"\([^)]*\)|\s+[-\u2013\u2014]+ .*$", " ", package.short)
    text = _without_names(text, package)
    if len(text.split()) < 2:
        return None
    return Question(_wrap(_lower(text), rng), "", package.long)


def from_summary(package: Package, rng: random.Random) -> Question | None:
    """AppStream's summary, which is written for users, against Debian's description."""
    text = _without_names(package.summary, package)
    if len(text.split()) < 2 or text.lower() == package.short.lower():
        return None
    return Question(_wrap(_lower(text), rng), package.short, package.long)


def from_clause(package: Package, rng: random.Random) -> Question | None:
    """What a sentence of the description says the program does, without that sentence."""
    sentences = re.split(r"(?<=[.!?:])\s+", package.long)
    found = [(i, need) for i, s in enumerate(sentences) for need in _needs(s, package)]
    if not found:
        return None
    index, need = rng.choice(found)
    rest = " ".join(s for i, s in enumerate(sentences) if i != index)
    if len(rest) < 60 and rng.random() < 0.7:
        return None
    return Question(_wrap(need, rng), package.short, rest)


def from_tags(package: Package, rng: random.Random) -> Question | None:
    """An action, what it acts on and how it is used, each from a facet tag."""
    actions = sorted(t for t in package.tags if t in ACTIONS)
    objects = sorted(t for t in package.tags if t in OBJECTS)
    nouns = sorted(t for t in package.tags if t in NOUNS)
    ways = sorted(t for t in package.tags if t in WAYS)
    chosen: list[str] = []
    if actions and objects and (not nouns or rng.random() < 0.7):
        action, thing = rng.choice(actions), rng.choice(objects)
        chosen, text = (
            [action, thing],
            f"{rng.choice(ACTIONS[action])} {rng.choice(OBJECTS[thing])}",
        )
        text = rng.choice(_VERB_WRAPPERS[:7]).format(text)
    elif nouns:
        noun = rng.choice(nouns)
        chosen, text = [noun], rng.choice(NOUNS[noun])
        if objects and rng.random() < 0.5:
            thing = rng.choice(objects)
            chosen.append(thing)
            text += f" for {rng.choice(OBJECTS[thing])}"
    else:
        return None
    if ways and (len(chosen) == 1 or rng.random() < 0.6):
        way = rng.choice(ways)
        chosen.append(way)
        text += f" {rng.choice(WAYS[way])}"
    if len(chosen) < 2:
        return None
    return Question(text, package.short, package.long, frozenset(chosen))


def reword(query: str, synonyms: Mapping[str, tuple[str, ...]], rng: random.Random) -> str:
    """Drops some words and puts synonyms for some; half of the queries stay as they are."""
    if rng.random() < 0.5:
        return query
    tokens = query.split()
    result = []
    for token in tokens:
        choices = synonyms.get(token.lower().strip(",.?"), ())
        if choices and rng.random() < 0.25:
            result.append(rng.choice(choices))
        elif len(tokens) <= 3 or rng.random() >= 0.1:
            result.append(token)
    return " ".join(result) or query


def _needs(sentence: str, package: Package) -> list[str]:
    """The parts of a sentence that say what the program is for."""
    needs = []
    for match in _CLAUSE.finditer(sentence):
        text = match["a"] or match["b"] or match["c"]
        text = re.split(
            r",| which | that | so that | in order to | without having | such as ", text
        )[0]
        needs.append(_without_names(text, package))
    words = sentence.split()
    if (
        not needs
        and 3 <= len(words) <= 12
        and not _BOILERPLATE.search(sentence)
        and not sentence.endswith(":")
    ):
        needs.append(_lower(_without_names(sentence.rstrip(".!"), package)))
    return [n for n in needs if 3 <= len(n.split()) <= 14]


def _without_names(text: str, package: Package) -> str:
    """Takes the program's own name out: someone in need does not know it."""
    names = {package.name, package.source, *re.split(r"[-+.]", package.name)}
    pattern = "|".join(re.escape(n) for n in sorted(names, key=len, reverse=True) if len(n) > 2)
    if pattern:
        text = re.sub(rf"\b(?:{pattern})(?:'s)?(?![\w])", " ", text, flags=re.IGNORECASE)
    return " ".join(re.sub(r"\s+([,.;])", r"\1", text).split()).strip(" ,;.:-")


def _lower(text: str) -> str:
    """Lower-cases the first letter unless the word looks like a proper name."""
    text = _THING.sub("", text)
    first = text.partition(" ")[0]
    return text if first[1:] != first[1:].lower() else text[:1].lower() + text[1:]


def _wrap(need: str, rng: random.Random) -> str:
    """Puts a need the way people ask; a verb phrase is told by its first word."""
    if rng.random() < 0.5:
        return need
    first = need.split(maxsplit=1)[0]
    if first in _VERBS:
        return rng.choice(_VERB_WRAPPERS).format(need)
    wrapper = rng.choice(_NOUN_WRAPPERS)
    article = "an " if need[:1] in "aeiou" else "a "
    plural = first.endswith("s") or need[:1].isupper()
    return wrapper.format(
        need if plural or wrapper.startswith(("{}", "software")) else article + need
    )
