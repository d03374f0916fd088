"""Pair templates read off real (small) tokenizers, and joining that equals them."""

import unicodedata
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, processors

from engine_builder.errors import StageError
from engine_builder.pair_template import PairEncoder, Tokens, check_template, derive_template
from engine_builder.probes import add_near_ties, load_probes
from engine_builder.room import check_room
from reranker_contracts import StageReason

PAIRS = [
    *load_probes().pairs(),
    ("", ""),
    ("a", ""),
    ("", "b"),
    ("[SEP] x", "</s> y"),
    ("  a ", "\n"),
]


@pytest.mark.parametrize(
    ("family", "kinds"),
    [
        ("bert", [("special", 0), ("query", 0), ("special", 0), ("passage", 1), ("special", 1)]),
        ("roberta", [("special", 0), ("query", 0), ("special", 0), ("passage", 0), ("special", 0)]),
        (
            "xlm-roberta",
            [("special", 0), ("query", 0), ("special", 0), ("passage", 0), ("special", 0)],
        ),
        (
            "modernbert",
            [("special", 0), ("query", 0), ("special", 0), ("passage", 0), ("special", 0)],
        ),
    ],
)
def test_template_joins_as_the_tokenizer_does(
    make_tokenizer: Callable[[str], Tokenizer], family: str, kinds: list[tuple[str, int]]
) -> None:
    tokenizer = make_tokenizer(family)
    types = family == "bert"
    template = derive_template(tokenizer, token_types=types)
    assert [(piece.kind, piece.type_id) for piece in template.pieces] == kinds
    assert template.special_tokens == (4 if "roberta" in family else 3)
    check_template(tokenizer, template, PAIRS, token_types=types)


def test_types_are_zero_for_models_without_them(
    make_tokenizer: Callable[[str], Tokenizer],
) -> None:
    template = derive_template(make_tokenizer("bert"), token_types=False)
    assert {piece.type_id for piece in template.pieces} == {0}


def test_tokenizers_that_cannot_be_joined_are_refused(
    make_tokenizer: Callable[[str], Tokenizer],
) -> None:
    tokenizer = make_tokenizer("bert")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $B [SEP] $A", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    with pytest.raises(StageError, match="query, then passage"):
        derive_template(tokenizer, token_types=True)

    template = derive_template(make_tokenizer("bert"), token_types=True)
    with pytest.raises(StageError, match="where"):
        check_template(
            make_tokenizer("modernbert"), template, [("where", "here")], token_types=True
        )


def test_cutting_takes_the_passage_first_then_the_query(
    make_tokenizer: Callable[[str], Tokenizer],
) -> None:
    tokenizer = make_tokenizer("bert")
    template = derive_template(tokenizer, token_types=True)
    query, passage = "what is the longest river", "the longest river is here"
    whole = PairEncoder(tokenizer, template, 512).encode(query, passage)
    query_length = whole.type_ids.index(1) - 2
    for limit in range(8, len(whole.ids) + 1):
        cut = PairEncoder(tokenizer, template, limit).encode(query, passage)
        assert len(cut.ids) == min(limit, len(whole.ids))
        kept = min(query_length, limit - 3)
        assert cut.ids[: 1 + kept] == whole.ids[: 1 + kept]
        assert (cut.ids[1 + kept], cut.ids[-1]) == (3, 3)
        assert cut == Tokens(cut.ids, (0,) * (2 + kept) + (1,) * (len(cut.ids) - 2 - kept))


def test_probe_set_is_what_validation_needs() -> None:
    probes = load_probes()
    pairs = probes.pairs()
    assert len(probes.queries) >= 40
    assert len(pairs) == len(set(pairs)) >= 800, "equal pairs would be ties that mean nothing"
    lengths = sorted(len(passage.split()) for _query, passage in pairs)
    assert lengths[-1] >= 700
    assert lengths[len(lengths) // 2] < 20
    assert lengths[-5] > 60
    letters = "".join(query for query, _passage in pairs)
    for script in ("LATIN", "CYRILLIC", "CJK", "HANGUL", "HIRAGANA", "ARABIC", "DEVANAGARI"):
        assert any(unicodedata.name(letter, "").startswith(script) for letter in letters)
    assert probes == load_probes()


def test_near_ties_are_of_what_the_model_ranks_highest() -> None:
    probes = load_probes()
    pairs = probes.pairs()
    scores = dict(zip(pairs, map(float, range(len(pairs))), strict=True))
    full = add_near_ties(probes, list(scores.values()))
    assert len(full.pairs()) == len(set(full.pairs())) >= 1000
    for before, after in zip(probes.queries, full.queries, strict=True):
        count = len(before.passages)
        assert (after.query, after.passages[:count]) == (before.query, before.passages)
        short = [passage for passage in before.passages if len(passage.split()) < 700]
        best = sorted(short, key=lambda passage: -scores[before.query, passage])[:5]
        assert [
            new[-len(old) :] for new, old in zip(after.passages[count:], best, strict=True)
        ] == best


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_a_length_that_cuts_passages_to_equal_ones_names_the_smallest_that_does_not(
    make_tokenizer: Callable[[str], Tokenizer], family: str
) -> None:
    tokenizer, probes = make_tokenizer(family), load_probes()
    template = derive_template(tokenizer, token_types=False)

    def check(length: int, limit: int) -> None:
        check_room(tokenizer, template, probes, length=length, limit=limit)

    with pytest.raises(StageError, match="max length 8 ") as caught:
        check(8, 512)
    assert caught.value.reason is StageReason.MAX_LENGTH_TOO_SHORT
    smallest = int(caught.value.message.rsplit(" ", 1)[1])
    check(smallest, 512)
    with pytest.raises(StageError, match=f"at least {smallest}$"):
        check(smallest - 1, 512)
    with pytest.raises(StageError, match=f"longest input is 12 .*at least {smallest} ") as caught:
        check(8, 12)
    assert caught.value.reason is StageReason.MODEL_INVALID
