"""Makes the training, development and test sets from the text that apt downloads.

Second step of the flow. Packages are split by source package, so that no
program is on both sides, and the programs that the hand-written needs and
questions ask about are always held out. Each training group is one query, one
passage that answers it, and passages that look as if they did: neighbours of
the query by embedding and by BM25, neighbours of the answer, and strangers.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from demo_model import debian, queries, wordnet
from demo_model.bm25 import Bm25
from demo_model.debian import Package
from demo_model.encoder import Encoder, FloatArray, base_model_directory
from demo_model.queries import Question

SEED = 20
TEST_SHARE, DEV_SHARE = 0.15, 0.03
GROUP_SIZE = 8
SYNSETS = 12000
PASSAGE_CHARACTERS = 600
ENCODER_TOKENS = 64
DEV_GROUPS, TEST_QUERIES = 160, 300
# How a passage shows a package; one form for a whole group, so that the form tells nothing.
FORMS = (
    "{name}: {short}. {long}",
    "{short}. {long}",
    "{name} - {short}. {long}",
    "{long}",
    "{short}",
)
FORM_WEIGHTS = (0.2, 0.4, 0.1, 0.2, 0.1)
FORMS_WITHOUT_SHORT = ("{long}", "{name}: {long}")


@dataclass(frozen=True)
class Group:
    """A query and its candidate passages; the first one answers it.

    `relevant` marks every passage known to answer (several for a query made from tags).
    """

    kind: str
    query: str
    passages: list[str]
    relevant: list[int]


def split_of(source: str, reserved: frozenset[str]) -> str:
    """ "train", "dev" or "test": fixed by the name of the source package."""
    if source in reserved:
        return "test"
    share = int.from_bytes(hashlib.sha256(source.encode()).digest()[:4], "big") / 2**32
    return "test" if share < TEST_SHARE else "dev" if share < TEST_SHARE + DEV_SHARE else "train"


def passage(form: str, name: str, short: str, long: str) -> str:
    """A package as a passage, cut to PASSAGE_CHARACTERS."""
    text = form.format(name=name, short=short[:1].upper() + short[1:], long=long)
    return text[:PASSAGE_CHARACTERS]


class Corpus:
    """The packages of a split with both of their indexes."""

    def __init__(self, packages: list[Package], encoder: Encoder) -> None:
        self.packages = packages
        texts = [passage("{short}. {long}", p.name, p.short, p.long) for p in packages]
        self.vectors: FloatArray = encoder.encode(texts)
        self.bm25 = Bm25(texts)
        self.position = {p.name: i for i, p in enumerate(packages)}


class Grouper:
    """Finds the passages that make a question hard."""

    def __init__(self, corpus: Corpus, rng: random.Random) -> None:
        self._corpus = corpus
        self._rng = rng

    def group(self, kind: str, package: Package, question: Question, vector: FloatArray) -> Group:
        """The group of `question` about `package`; `vector` is the query's embedding."""
        cosines = self._corpus.vectors @ vector
        target = self._corpus.position[package.name]
        others = self._negatives(question, target, cosines)
        forms: tuple[tuple[str, ...], tuple[float, ...]] = (FORMS, FORM_WEIGHTS)
        if not question.short:
            forms = (FORMS_WITHOUT_SHORT, (0.7, 0.3))
        form = self._rng.choices(*forms)[0]
        passages = [passage(form, package.name, question.short, question.long)]
        for i in others:
            other = self._corpus.packages[i]
            passages.append(passage(form, other.name, other.short, other.long))
        relevant = [1] + [int(self._answers(i, question)) for i in others]
        return Group(kind, question.query, passages, relevant)

    def _answers(self, i: int, question: Question) -> bool:
        return bool(question.tags) and question.tags <= self._corpus.packages[i].tags

    def _negatives(self, question: Question, target: int, cosines: FloatArray) -> list[int]:
        corpus, rng = self._corpus, self._rng
        near = _top(cosines, 40)
        lexical = _top(corpus.bm25.scores(question.query).astype(np.float32), 30)
        alike = _top(corpus.vectors @ corpus.vectors[target], 30)
        if question.tags:
            # A package without tags may well answer: only tagged ones can be told not to.
            tagged = [
                i for i in (*alike, *near, *lexical) if _comparable(corpus.packages[i], question)
            ]
            pools = [(tagged, 4), (near, 2)]
        else:
            pools = [(near, 3), (lexical, 2), (alike, 1)]
        pools.append((range(len(corpus.packages)), GROUP_SIZE))
        chosen: list[int] = []
        for pool, most in pools:
            wanted = min(most, GROUP_SIZE - 1 - len(chosen))
            candidates = (
                [i for i in dict.fromkeys(pool) if i not in chosen and self._may_follow(i, target)]
                if len(pool) < 1000
                else self._strangers(target, chosen, wanted)
            )
            chosen += rng.sample(candidates, min(wanted, len(candidates)))
        return chosen

    def _strangers(self, target: int, chosen: list[int], wanted: int) -> list[int]:
        found: list[int] = []
        while len(found) < wanted:
            i = self._rng.randrange(len(self._corpus.packages))
            if i not in chosen and i not in found and self._may_follow(i, target):
                found.append(i)
        return found

    def _may_follow(self, i: int, target: int) -> bool:
        """Not the answer itself, a sibling of it, or the same text again."""
        package, answer = self._corpus.packages[i], self._corpus.packages[target]
        if package.source == answer.source or package.short.lower() == answer.short.lower():
            return False
        return float(self._corpus.vectors[i] @ self._corpus.vectors[target]) < 0.9


def _comparable(package: Package, question: Question) -> bool:
    """Whether the package has a tag of every facet that the question asks for."""
    facets = {tag.split("::")[0] for tag in package.tags}
    return all(tag.split("::")[0] in facets for tag in question.tags)


def _top(scores: FloatArray, count: int) -> list[int]:
    """The positions of the best scores, best first; ties by position."""
    count = min(count, len(scores))
    best = np.argpartition(-scores, count - 1)[:count]
    return sorted((int(i) for i in best), key=lambda i: (-scores[i], i))


def questions_about(package: Package, rng: random.Random) -> Iterator[tuple[str, Question]]:
    """What training asks about one package: one to four questions."""
    kinds: list[tuple[str, Callable[[Package, random.Random], Question | None], float]] = [
        ("short", queries.from_short, 0.7),
        ("clause", queries.from_clause, 0.9),
        ("summary", queries.from_summary, 1.0),
        ("tags", queries.from_tags, 0.9),
    ]
    for kind, make, share in kinds:
        if rng.random() < share and (question := make(package, rng)) is not None:
            yield kind, question


def software_groups(
    corpus: Corpus,
    asked: list[Package],
    encoder: Encoder,
    synonyms: dict[str, tuple[str, ...]],
    rng: random.Random,
) -> list[Group]:
    """Groups of all questions about the packages in `asked`, candidates from `corpus`."""
    items = []
    for package in asked:
        for kind, question in questions_about(package, rng):
            reworded = queries.reword(question.query, synonyms, rng)
            items.append((kind, package, dataclasses.replace(question, query=reworded)))
    vectors = encoder.encode([question.query for _, _, question in items])
    grouper = Grouper(corpus, rng)
    return [
        grouper.group(kind, package, question, v)
        for (kind, package, question), v in zip(items, vectors, strict=True)
    ]


def gloss_groups(
    synsets: list[wordnet.Synset], encoder: Encoder, rng: random.Random
) -> list[Group]:
    """Ordinary English: a word or a sentence that uses it, and its definition among others."""
    synsets = rng.sample([s for s in synsets if len(s.gloss.split()) > 3], SYNSETS)
    glosses = [s.gloss for s in synsets]
    vectors = encoder.encode(glosses)
    asked = rng.sample(range(len(synsets)), SYNSETS // 3)
    texts = [
        rng.choice(synsets[i].examples)
        if synsets[i].examples and rng.random() < 0.6
        else ", ".join(synsets[i].words[:3])
        for i in asked
    ]
    groups = []
    for i, text, vector in zip(asked, texts, encoder.encode(texts), strict=True):
        cosines = vectors @ vector
        near = [
            j
            for j in _top(cosines, 30)
            if j != i and not set(synsets[j].words) & set(synsets[i].words)
        ]
        members = [i, *rng.sample(near, 4)]
        while len(members) < GROUP_SIZE:
            members += [j for j in [rng.randrange(len(synsets))] if j not in members]
        groups.append(
            Group(
                "gloss",
                text,
                [glosses[j] for j in members],
                [1] + [0] * (GROUP_SIZE - 1),
            )
        )
    return groups


def held_out_queries(
    packages: list[Package], rng: random.Random
) -> dict[str, list[dict[str, str]]]:
    """The test queries: both kinds are text that people wrote, taken as it is."""
    titles = rng.sample([p for p in packages if len(p.short.split()) > 2], TEST_QUERIES)
    told = [
        p for p in packages if len(p.summary.split()) > 2 and p.summary.lower() != p.short.lower()
    ]
    told = rng.sample(told, min(TEST_QUERIES, len(told)))
    return {
        "title": [{"query": p.short, "answer": p.name} for p in titles],
        "summary": [{"query": p.summary, "answer": p.name} for p in told],
    }


def reserved_sources(packages: Iterable[Package], files: Iterable[Path]) -> frozenset[str]:
    """The source packages that the hand-written files ask about."""
    names = {
        p["name"]
        for file in files
        for item in yaml.safe_load(file.read_text(encoding="utf-8"))
        for p in item["passages"]
    }
    return frozenset({p.source for p in packages if p.name in names} | names)


def thin(packages: list[Package], rng: random.Random) -> list[Package]:
    """Keeps a share of the sections that hold thousands of language modules."""
    shares = debian.THINNED_SECTIONS
    return [p for p in packages if rng.random() < shares.get(p.section, 1.0)]


def write_lines(path: Path, items: Iterable[object]) -> None:
    """One JSON document a line."""
    path.write_text(
        "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8"
    )


def prepare(work: Path, here: Path) -> None:
    """Writes train.jsonl, dev.jsonl and test.json into `work`, from what `debian.fetch` left."""
    rng = random.Random(SEED)  # noqa: S311  seeded on purpose
    packages = debian.read_packages(work)
    reserved = reserved_sources(packages, [here / "needs.yaml", here / "questions.yaml"])
    packages = thin(packages, rng)
    splits: dict[str, list[Package]] = {"train": [], "dev": [], "test": []}
    for package in packages:
        splits[split_of(package.source, reserved)].append(package)
    print({name: len(part) for name, part in splits.items()}, flush=True)
    encoder = Encoder(base_model_directory(), ENCODER_TOKENS)
    words = work / "wordnet-base/usr/share/wordnet"
    synonyms = wordnet.read_synonyms(words)
    corpus = Corpus(splits["train"] + splits["dev"], encoder)
    print("packages encoded", flush=True)
    train = software_groups(corpus, splits["train"], encoder, synonyms, rng)
    train += gloss_groups(wordnet.read_synsets(words), encoder, rng)
    rng.shuffle(train)
    dev = software_groups(corpus, splits["dev"], encoder, synonyms, rng)
    write_lines(work / "train.jsonl", (dataclasses.asdict(g) for g in train))
    write_lines(work / "dev.jsonl", (dataclasses.asdict(g) for g in rng.sample(dev, DEV_GROUPS)))
    test = {
        "queries": held_out_queries(splits["test"], rng),
        "packages": [{"name": p.name, "short": p.short, "long": p.long} for p in splits["test"]],
    }
    (work / "test.json").write_text(json.dumps(test, ensure_ascii=False), encoding="utf-8")
    print(
        {
            kind: sum(g.kind == kind for g in train)
            for kind in ("short", "clause", "summary", "tags", "gloss")
        }
    )


def main() -> None:
    """Command line: `python -m demo_model.prepare WORK`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="directory for downloads and data sets")
    parser.add_argument(
        "--offline", action="store_true", help="use the files that an earlier run downloaded"
    )
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if not arguments.offline:
        debian.fetch(arguments.work)
    prepare(arguments.work, Path(__file__).resolve().parent.parent)


if __name__ == "__main__":
    main()
