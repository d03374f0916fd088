"""Words around a query and a passage: joined as the reference implementations tokenise them."""

from collections.abc import Callable
from typing import Any

import pytest
from support.references import (
    LLAMA_TEMPLATE,
    REFERENCE_IDS,
    llama_ids,
)
from support.tiny_models import family_of, tokenizer_kind
from tokenizers import Tokenizer

from engine_builder.chat_template import pair_prompt
from engine_builder.errors import StageError
from engine_builder.families import FAMILIES
from engine_builder.families.prompts import Joined, Whole
from engine_builder.label_words import label_ids
from engine_builder.pair_template import PairEncoder
from engine_builder.probes import load_probes
from engine_builder.prompt_template import join_template, split_template
from reranker_contracts import PairTemplate, StageReason

MakeTokenizer = Callable[[str], Tokenizer]

#: Texts that begin and end with what tokenizers join to their neighbours.
BORDERS = [
    ("why?", "because."),
    ("why?\n", "\nbecause.\n"),
    ("  where ", "\there\t"),
    ("(a)", "[b]:"),
    ("12", "34"),
    ("'s", "n't"),
    ("été", "straße"),
    ("東京はどこ", "日本です。"),
    ("", "b"),
    ("a", ""),
    ("<|im_end|>", "<bos>"),
    ("...", "..."),
    (":", ": x"),
    ("\n\n", "\r\n"),
    ("\u200b", "\u00a0x"),
]
PAIRS = [*load_probes().pairs()[::7], *BORDERS]


class Called:
    """A tokenizer as transformers' are called; only what the references use."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id = tokenizer.token_to_id("<bos>")

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": encoding.ids}


def template_of(tokenizer: Tokenizer, prompt: Joined | Whole) -> PairTemplate:
    if isinstance(prompt, Joined):
        return join_template(tokenizer, prompt)
    return split_template(tokenizer, prompt, load_probes().pairs())


@pytest.mark.parametrize("name", [family.name for family in FAMILIES if family.prompt])
def test_tokens_are_those_of_the_reference_implementation(
    make_tokenizer: MakeTokenizer, name: str
) -> None:
    family = family_of(name)
    assert family.prompt is not None
    tokenizer = make_tokenizer(tokenizer_kind(family))
    encoder = PairEncoder(tokenizer, template_of(tokenizer, family.prompt), 1 << 30)
    reference = REFERENCE_IDS[name]
    for query, passage in PAIRS:
        expected = reference(Called(tokenizer), query, passage)
        assert list(encoder.encode(query, passage).ids) == expected, (query, passage)


def test_a_users_template_is_one_text(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer("llama")
    template = template_of(tokenizer, Whole(text=LLAMA_TEMPLATE))
    encoder = PairEncoder(tokenizer, template, 1 << 30)
    for query, passage in PAIRS:
        expected = llama_ids(Called(tokenizer), query, passage)
        assert list(encoder.encode(query, passage).ids) == expected, (query, passage)


def test_words_are_tokenised_with_a_text_only_where_borders_demand_it(
    make_tokenizer: MakeTokenizer,
) -> None:
    """A passage's tokens are made for every passage, so there it counts."""
    tokenizer = make_tokenizer("llama")
    prompt = Whole(text="question:{query} \n \n passage:{passage}")
    pieces = template_of(tokenizer, prompt).pieces
    assert pieces[0].kind == "special"
    assert pieces[0].ids[0] == tokenizer.token_to_id("<|begin_of_text|>")
    query, passage = (piece for piece in pieces if piece.kind != "special")
    assert (query.before, passage.before, passage.after) == (":", ":", "")


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "gemma", "qwen3"])
@pytest.mark.parametrize("limit", [24, 48, 90])
def test_cutting_leaves_the_words_around_a_text(
    make_tokenizer: MakeTokenizer, name: str, limit: int
) -> None:
    tokenizer = make_tokenizer(name)
    prompt = Whole(text="q\n{query}\np\n{passage}\nend", exact=True)
    if name in ("bert", "xlm-roberta"):
        prompt = Whole(text="q {query} p {passage} end", exact=True)
    template = template_of(tokenizer, prompt)
    query, passage = " ".join(["which river"] * 9), " ".join(["the longest one"] * 90)
    whole = PairEncoder(tokenizer, template, 1 << 30).encode(query, passage).ids
    cut = PairEncoder(tokenizer, template, limit).encode(query, passage).ids
    assert len(whole) > limit
    assert len(cut) == limit
    end = tokenizer.encode(" end" if "bert" in name else "end", add_special_tokens=False).ids
    assert list(cut[-len(end) :]) == end
    # Of the query nothing is lost while the passage can give.
    shared = next(at for at, pair in enumerate(zip(whole, cut, strict=False)) if len(set(pair)) > 1)
    assert shared >= limit - len(end) - 4


def test_a_template_that_cannot_be_joined_names_the_field(make_tokenizer: MakeTokenizer) -> None:
    """Without a pre-tokenizer's borders a token may span query and passage."""
    tokenizer = make_tokenizer("qwen3")
    with pytest.raises(StageError, match=r"spec\.model\.template") as caught:
        template_of(tokenizer, Whole(text="{query}{passage}"))
    assert caught.value.reason is StageReason.SCORING_UNKNOWN


def test_labels_are_single_tokens(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer("qwen3")
    yes, no = tokenizer.token_to_id("yes"), tokenizer.token_to_id("no")
    assert label_ids(tokenizer, ("yes", "no"), 2000) == (yes, no)
    assert label_ids(tokenizer, (5, 6), 2000) == (5, 6)
    with pytest.raises(StageError, match="'relevant at all' has") as caught:
        label_ids(tokenizer, ("relevant at all",), 2000)
    assert caught.value.reason is StageReason.SCORING_UNKNOWN
    with pytest.raises(StageError, match="vocab_size 3"):
        label_ids(tokenizer, ("yes",), 3)


class Chat:
    """A tokenizer with a chat template, which is rendered by jinja itself."""

    def __init__(self, template: str | None) -> None:
        self.chat_template = template

    def apply_chat_template(self, messages: list[dict[str, str]], *, tokenize: bool) -> str:
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

        assert not tokenize
        return (
            ImmutableSandboxedEnvironment()
            .from_string(self.chat_template or "")
            .render(messages=messages)
        )


ROLES = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'document' %}\n{% endif %}{{ m.content }}{% endfor %}</s>"
)


def test_chat_templates_with_both_roles_are_pair_templates() -> None:
    found = pair_prompt(Chat(ROLES), "judge it")
    assert found == Whole(
        text="<system>judge it<query>{query}<document>\n{passage}</s>", exact=True
    )
    chatting = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    for template in (None, chatting, "{{ raise_exception('roles must alternate') }}", "{% if"):
        assert pair_prompt(Chat(template), None) is None


@pytest.mark.parametrize("filters", ["trim", "escape", "tojson"])
def test_chat_templates_that_change_texts_are_refused(filters: str) -> None:
    template: Any = ROLES.replace("m.content", f"m.content | {filters}")
    with pytest.raises(StageError, match="changes query or passage") as caught:
        pair_prompt(Chat(template), None)
    assert caught.value.reason is StageReason.SCORING_UNKNOWN
