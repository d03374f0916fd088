"""Our join of query and passage equals the tokeniser's own pair."""

import asyncio
import gc
import threading
import weakref
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from engine_builder.pair_template import PairEncoder
from reranker_contracts import PairTemplate, ServedModel
from reranker_gateway import tokenise
from reranker_gateway.errors import InputTooLongError, InvalidRequestError
from reranker_gateway.request_context import LongPassages
from reranker_gateway.tokenise import PairTokeniser

LIMIT = 24
VOCABULARY = {
    token: number
    for number, token in enumerate(["[PAD]", "[UNK]", "<s>", "</s>", *map(str, range(50))])
}
#: pair template of the tokeniser, the same as pieces, tokens that it adds
FAMILIES = {
    "bert": (
        "<s> $A </s> $B:1 </s>:1",
        [
            {"kind": "special", "ids": [2]},
            {"kind": "query"},
            {"kind": "special", "ids": [3]},
            {"kind": "passage", "type_id": 1},
            {"kind": "special", "ids": [3], "type_id": 1},
        ],
    ),
    "roberta": (
        "<s> $A </s> </s> $B </s>",
        [
            {"kind": "special", "ids": [2]},
            {"kind": "query"},
            {"kind": "special", "ids": [3, 3]},
            {"kind": "passage"},
            {"kind": "special", "ids": [3]},
        ],
    ),
    "bare": ("$A $B", [{"kind": "query"}, {"kind": "passage"}]),
}
TEXTS = st.lists(st.integers(0, 60).map(str), max_size=30).map(" ".join)


def tokeniser(family: str) -> tuple[PairTokeniser, Tokenizer]:
    """Ours, and the reference: the same tokeniser with its own post-processor."""
    template, pieces = FAMILIES[family]
    both = []
    for _ in range(2):
        tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = TemplateProcessing(
            single="<s> $A </s>", pair=template, special_tokens=[("<s>", 2), ("</s>", 3)]
        )
        both.append(tokenizer)
    model = ServedModel(
        name="demo",
        architecture="Demo",
        family=family,
        max_length=LIMIT,
        pad_id=0,
        template={"pieces": pieces},
        inputs=("input_ids", "attention_mask", "token_type_ids"),
    )
    reference = both[1]
    reference.enable_truncation(LIMIT, strategy="only_second")
    return PairTokeniser(both[0], model, LIMIT, threads=1), reference


@pytest.mark.parametrize("family", FAMILIES)
@given(
    query=st.lists(st.integers(0, 60).map(str), min_size=1, max_size=15).map(" ".join),
    passages=st.lists(TEXTS, min_size=1, max_size=5),
)
def test_equals_the_tokenisers_own_pair(family: str, query: str, passages: list[str]) -> None:
    ours, reference = tokeniser(family)
    found = ours.tokenise(query, passages, "END")
    expected = [reference.encode(query, passage) for passage in passages]
    assert [row.tolist() for row in found.ids] == [pair.ids for pair in expected]
    assert found.types is not None
    assert [row.tolist() for row in found.types] == [pair.type_ids for pair in expected]
    assert found.lengths == [len(pair.ids) for pair in expected]
    assert found.truncated == sum(bool(pair.overflowing) for pair in expected)


#: As of a decoder's prompt: words around both texts that are tokenised with them.
PROMPT = [
    {"kind": "special", "ids": [2, 4]},
    {"kind": "query", "before": "1 1", "after": "2"},
    {"kind": "special", "ids": [5]},
    {"kind": "passage", "before": "3", "after": "4 4"},
    {"kind": "special", "ids": [3]},
]

PROMPTED = PairTemplate.model_validate({"pieces": PROMPT})


def prompted(limit: int) -> tuple[PairTokeniser, PairEncoder]:
    """Ours, and the builder's, by which engines are measured."""
    both = []
    for _ in range(2):
        tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        both.append(tokenizer)
    model = ServedModel(
        name="demo",
        architecture="Demo",
        family="prompt",
        max_length=limit,
        pad_id=0,
        template={"pieces": PROMPT},
        inputs=("input_ids", "attention_mask"),
    )
    ours = PairTokeniser(both[0], model, limit, threads=1)
    return ours, PairEncoder(both[1], model.template, limit)


def test_what_an_input_has_beside_its_texts() -> None:
    ours, _ = prompted(LIMIT)
    assert ours.own_tokens == 10
    assert ours.tokenise(" 7 8 ", [" 9 "], "NONE").lengths == [10 + 3]


@given(query=TEXTS, passages=st.lists(TEXTS, min_size=1, max_size=4), limit=st.integers(16, 90))
def test_words_around_texts_are_tokenised_and_cut_as_the_builder_does(
    query: str, passages: list[str], limit: int
) -> None:
    ours, builders = prompted(limit)
    found = ours.tokenise(query, passages, "END")
    expected = [list(builders.encode(query, passage).ids) for passage in passages]
    assert [row.tolist() for row in found.ids] == expected
    assert max(found.lengths) <= limit
    whole = PairEncoder(Tokenizer.from_str(ours._tokenizer.to_str()), PROMPTED, 1 << 30)
    uncut = [list(whole.encode(query, passage).ids) for passage in passages]
    assert found.truncated == sum(pair not in expected for pair in uncut)


def test_words_at_a_border_are_one_token_and_those_after_a_cut_text_stay() -> None:
    ours, _ = prompted(16)
    names = {number: token for token, number in VOCABULARY.items()}

    def tokens(query: str, passage: str) -> str:
        (row,) = ours.tokenise(query, [passage], "END").ids
        return " ".join(names[number] for number in row.tolist())

    # Ids 4 and 5 are the words 0 and 1.
    assert tokens("7 8", "9 ") == "<s> 0 1 17 [UNK] 1 39 4 4 </s>"
    assert tokens("7 8", "9 " * 20) == "<s> 0 1 17 [UNK] 1 39 9 9 9 9 9 9 4 4 </s>"
    assert tokens("7 " * 20, "9 9") == "<s> 0 1 17 7 7 7 7 7 7 7 2 1 4 4 </s>"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_query_longer_than_the_input_is_cut_too(family: str) -> None:
    ours, _ = tokeniser(family)
    found = ours.tokenise(" ".join(["7"] * 40), ["8 8", ""], "END")
    assert found.lengths == [LIMIT, LIMIT]
    assert all(row.tolist().count(VOCABULARY["8"]) == 0 for row in found.ids)
    assert found.truncated == 2


def test_none_refuses_and_names_the_first_length() -> None:
    ours, _ = tokeniser("bert")
    passages = ["1", " ".join(["2"] * 30), " ".join(["3"] * 40)]
    with pytest.raises(InputTooLongError) as caught:
        ours.tokenise("4 4", passages, "NONE")
    assert caught.value.message == "Input length 35 exceeds maximum allowed token size 24"
    assert ours.tokenise("4 4", passages[:1], "NONE").tokens == 6


def test_a_pair_without_any_token_is_told() -> None:
    ours, _ = tokeniser("bare")
    assert ours.tokenise(" ", ["1"], "END").empty is None
    assert ours.tokenise(" ", ["1", ""], "END").empty == 1
    assert ours.tokenise(" ", ["1 " * 50, ""], "END", "chunk").empty == 1


def test_a_text_that_no_input_can_hold_is_cut_before_it_is_tokenised() -> None:
    ours, _ = tokeniser("bert")
    dense, sparse = "5 " * 300_000, " " * 600_000 + "6"
    assert ours.tokenise("4", [dense, "1", dense], "END").lengths == [LIMIT, 5, LIMIT]
    with pytest.raises(InputTooLongError):
        ours.tokenise("4", [dense], "NONE")
    with pytest.raises(InvalidRequestError, match=r"passages: .* more than 768 characters"):
        ours.tokenise("4", [sparse], "NONE")


class Text(str):
    """A text whose end can be seen."""

    __slots__ = ("__weakref__",)


class Thread:
    """Holds the tokeniser's thread while `go_on` is not set; notes how much text each call had."""

    def __init__(self, ours: PairTokeniser) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.calls: list[list[str]] = []
        self._encode = ours._encode
        ours._encode = self.encode  # type: ignore[method-assign]

    def encode(self, texts: list[str]) -> list[list[int]]:
        self.calls.append(texts)
        self.begun.set()
        assert self.go_on.wait(30)
        return self._encode(texts)


async def test_texts_whose_caller_has_gone_are_not_kept_while_the_threads_are_busy() -> None:
    ours, _ = tokeniser("bert")
    thread = Thread(ours)
    try:
        # The thread goes on with the first one, although nobody wants it any more.
        first = asyncio.create_task(ours.run("1", ["2"], "END"))
        await asyncio.to_thread(thread.begun.wait, 30)
        first.cancel()
        text = Text("3")
        kept = weakref.ref(text)
        second = asyncio.create_task(ours.run("1", [text], "END"))
        third = asyncio.create_task(ours.run("1", ["4 4"], "END"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([first, second])
        del text, second
        gc.collect()
        assert kept() is None
    finally:
        thread.go_on.set()
    assert (await third).lengths == [6]


async def test_a_small_request_waits_for_one_slice_of_every_large_one() -> None:
    ours, _ = tokeniser("bert")
    thread = Thread(ours)
    texts = {name: [f"{name} {'5 ' * 300}"] * 2000 for name in ("7", "8")}
    try:
        large = [asyncio.create_task(ours.run("1", texts[name], "END")) for name in texts]
        await asyncio.to_thread(thread.begun.wait, 30)
        small = asyncio.create_task(ours.run("1", ["9"], "END"))
        await asyncio.sleep(0)
    finally:
        thread.go_on.set()
    assert (await small).lengths == [5]
    assert [(await task).lengths for task in large] == [[LIMIT] * 2000] * 2
    slices = [call for call in thread.calls if call != ["1"]]
    assert [call[0][0] for call in slices[:3]] == ["7", "8", "9"]
    # From then on the two alternate, and none has the thread for long.
    assert [call[0][0] for call in slices[3:]] == ["7", "8"] * (len(slices[3:]) // 2)
    assert max(sum(map(len, call)) for call in slices) <= 1 << 16
    for name, whole in texts.items():
        assert sum(len(call) for call in slices if call[0][0] == name) == len(whole)


@given(passages=st.lists(TEXTS, min_size=1, max_size=8), characters=st.integers(1, 40))
def test_slices_change_nothing(passages: list[str], characters: int) -> None:
    ours, _ = tokeniser("bert")
    whole = ours.tokenise("1 2", passages, "END")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenise, "_SLICE_CHARACTERS", characters)
        sliced = ours.tokenise("1 2", passages, "END")
    assert [row.tolist() for row in sliced.ids] == [row.tolist() for row in whole.ids]
    assert sliced.types is not None and whole.types is not None
    assert [row.tolist() for row in sliced.types] == [row.tolist() for row in whole.types]
    assert (sliced.lengths, sliced.truncated) == (whole.lengths, whole.truncated)


@cache
def byte_level() -> PairTokeniser:
    """Blanks are part of the word after them, also the one that ends the template's words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" " + " ".join(map(str, range(61)))] * 2, trainer)
    pieces = [
        {"kind": "special", "ids": [2]},
        {"kind": "query"},
        {"kind": "special", "ids": [3]},
        {"kind": "passage", "before": "B: ", "after": "."},
    ]
    model = ServedModel(
        name="demo",
        architecture="Demo",
        family="prompt",
        max_length=LIMIT,
        pad_id=0,
        template={"pieces": pieces},
        inputs=("input_ids", "attention_mask"),
    )
    return PairTokeniser(tokenizer, model, LIMIT, threads=1)


def test_windows_have_the_words_around_the_text_and_its_tokens_as_they_are() -> None:
    ours = byte_level()
    text = " ".join(str(at % 60) for at in range(30))
    rows = ours.tokenise("7", [text], "END", "chunk").ids
    name = ours._tokenizer.id_to_token
    passages = [[name(i) for i in row.tolist()[3:]] for row in rows]
    assert [passage[:3] for passage in passages] == [
        ["B", ":", "Ġ0"], ["B", ":", "Ġ12"],
    ]  # fmt: skip
    assert [passage[-2:] for passage in passages] == [["Ġ17", "."], ["Ġ29", "."]]


@pytest.mark.parametrize("family", [*FAMILIES, "byte-level"])
@given(
    query=st.lists(st.integers(0, 60).map(str), min_size=1, max_size=10).map(" ".join),
    sizes=st.lists(st.integers(0, 120), min_size=1, max_size=5),
)
def test_windows_hold_all_of_a_passage(family: str, query: str, sizes: list[int]) -> None:
    ours = byte_level() if family == "byte-level" else tokeniser(family)[0]
    texts = [" ".join(str(at % 60) for at in range(size)) for size in sizes]
    found = ours.tokenise(query, texts, "END", "chunk")
    cut = ours.tokenise(query, texts, "END")
    assert found.owners is not None
    assert (found.passages, found.truncated) == (len(texts), 0)
    assert found.owners == sorted(found.owners)
    for at, text in enumerate(texts):
        rows = [i for i, owner in enumerate(found.owners) if owner == at]
        # The first one is what cutting leaves; with no more than that nothing is different.
        assert found.ids[rows[0]].tolist() == cut.ids[at].tolist()
        fits = ours.tokenise(query, [text], "END").truncated == 0
        assert (len(rows) == 1) == fits
        if not fits:
            assert {found.lengths[row] for row in rows} == {LIMIT}
            fixed = ours.tokenise(query, [""], "END").lengths[0]
            held = (LIMIT - fixed) * len(rows)
            assert held >= len(text.split())


def test_windows_overlap_and_end_with_the_text() -> None:
    ours, _ = tokeniser("bert")
    # Room for 24 - 3 - 1 = 20 tokens: 15 of them are new in each window.
    text = [str(at) for at in range(50)]
    found = ours.tokenise("1", [" ".join(text)], "END", "chunk")
    back = {number: word for word, number in VOCABULARY.items()}
    words = [[back[i] for i in row.tolist()] for row in found.ids]
    windows = [row[row.index("</s>") + 1 : -1] if "</s>" in row else row for row in words]
    windows = [[word for word in window if word.isdigit()] for window in windows]
    assert [(w[0], w[-1], len(w)) for w in windows] == [
        ("0", "19", 20), ("15", "34", 20), ("30", "49", 20),
    ]  # fmt: skip


def test_none_refuses_also_where_windows_are_asked_for() -> None:
    ours, _ = tokeniser("bert")
    with pytest.raises(InputTooLongError):
        ours.tokenise("4", ["2 " * 50], "NONE", "chunk")


def test_windows_are_bounded() -> None:
    ours, _ = tokeniser("bert")
    with pytest.raises(InvalidRequestError, match="more than 2048 windows of at most 20 tokens"):
        ours.tokenise("4", ["2 " * 20_000] * 3, "END", "chunk")
    # Passages that fit are no windows.
    assert ours.tokenise("4", ["2"] * 3000, "END", "chunk").extra_windows == 0
    # Of one text 64 KiB count; what lies beyond is told as cut.
    found = ours.tokenise("4", [" " * (1 << 16) + "2 " * 50, "2 " * 50], "END", "chunk")
    assert (found.truncated, found.owners) == (1, [0, 1, 1, 1])


def test_short_windows_are_not_made() -> None:
    """A query that leaves little room would make many inputs of full length."""
    ours, _ = tokeniser("bert")
    long = "2 " * 500
    assert ours.tokenise("4 " * 15, [long], "END", "chunk").extra_windows > 0
    found = ours.tokenise("4 " * 16, [long, "2"], "END", "chunk")
    assert (found.lengths, found.truncated) == ([LIMIT, 20], 1)
    # What follows a text takes room as well: here it is all of it.
    worded, _ = prompted(16)
    cut = worded.tokenise("7 " * 8, ["9 9"], "END")
    chunk = worded.tokenise("7 " * 8, ["9 9"], "END", "chunk")
    assert chunk.ids[0].tolist() == cut.ids[0].tolist()
    assert (chunk.truncated, cut.truncated) == (1, 1)


@pytest.mark.parametrize("long_passages", ["cut", "chunk"])
async def test_tokens_of_a_passage_are_counted_without_the_templates_words(
    long_passages: LongPassages,
) -> None:
    ours = byte_level()
    name = ours._tokenizer.id_to_token
    found = await ours.run("7", ["0 1 2 3", "5", "9 " * 60], "END", 2, long_passages)
    assert [[name(i) for i in row.tolist()[3:]] for row in found.ids] == [
        ["B", ":", "Ġ0", "Ġ1", "."], ["B", ":", "Ġ5", "."], ["B", ":", "Ġ9", "Ġ9", "."],
    ]  # fmt: skip
    # A limit that does not fit beside the query is the windows'.
    found = await ours.run("7", ["9 " * 60], "END", 30, long_passages)
    bodies = [sum(name(i) == "Ġ9" for i in row.tolist()) for row in found.ids]
    assert bodies == ([18] if long_passages == "cut" else [18, 18])


async def test_windows_of_all_queries_of_a_request_are_bounded_together() -> None:
    ours, _ = tokeniser("bert")
    one = (await ours.run("1", ["2 " * 20_000], "END", None, "chunk")).extra_windows
    assert 1024 < one < 2048
    with pytest.raises(InvalidRequestError, match="more than 2048 windows"):
        await ours.run("1", ["2 " * 20_000], "END", None, "chunk", most_windows=2048 - one)
