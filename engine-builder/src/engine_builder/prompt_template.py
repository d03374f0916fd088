"""From the words around a query and a passage to the pieces that the gateway joins.

Some reference implementations tokenise each part on its own and join the tokens (`Joined`): that is
what the gateway does too. Others tokenise one text (`Whole`). There, letters on both sides of a
border may become one token, so the words next to a text must be tokenised with it. How many of them
is found out with the tokenizer itself, on texts that begin and end with every kind of character.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer

from engine_builder.errors import StageError
from engine_builder.families.prompts import Joined, Whole
from engine_builder.pair_template import PairEncoder
from reranker_contracts import PairTemplate, StageReason
from reranker_contracts.model import PassagePiece, QueryPiece, SpecialPiece

#: What a text may begin and end with: where tokenizers see borders differently.
_EDGES = (
    "", "a", "Word", " b", "c ", "  d  ", "1", "2026", "(e)", "?", "why?", "yes.", "...", ":x",
    '"q"', "'s", "\n", "g\n", "\nh", "i.\n", "\n\n", "\t", "é", "ß", "中文", "。", "東京",
    "\U0001f642", "<", ">", "-", "_", "#",
)  # fmt: skip
_UNCUT = 1 << 30


def join_template(tokenizer: Tokenizer, prompt: Joined) -> PairTemplate:
    """The template of texts whose tokens are joined."""
    return PairTemplate(
        pieces=tuple(
            piece
            for piece in (
                _fixed(tokenizer, *prompt.lead),
                QueryPiece(before=prompt.query),
                _fixed(tokenizer, *prompt.gap),
                PassagePiece(before=prompt.passage),
                _fixed(tokenizer, *prompt.trail),
            )
            if piece is not None
        )
    )


def split_template(
    tokenizer: Tokenizer, prompt: Whole, pairs: Iterable[tuple[str, str]]
) -> PairTemplate:
    """The template of a text, split where no token lies on both sides.

    Raises StageError (ScoringUnknown) when joining does not give the tokens of the whole text for
    every one of `pairs`, which are whole texts of the kind that will be ranked.
    """
    parts = _parts(tokenizer, prompt)
    split = _narrowed(tokenizer, parts)
    template = split.template(tokenizer)
    encoder = PairEncoder(tokenizer, template, _UNCUT)
    for query, passage in pairs:
        if list(encoder.encode(query, passage).ids) != parts.whole(tokenizer, query, passage):
            raise StageError(
                StageReason.SCORING_UNKNOWN,
                "the model's template cannot be joined from query and passage: with query "
                f"{query[:50]!r} and passage {passage[:50]!r} the tokens differ; put a line break "
                "around {query} and {passage} in spec.model.template (--template)",
            )
    return template


@dataclass(frozen=True)
class _Parts:
    """A prompt's text in three, and the special tokens around it."""

    lead: str
    gap: str
    trail: str
    first: tuple[int, ...]
    last: tuple[int, ...]

    def whole(self, tokenizer: Tokenizer, query: str, passage: str) -> list[int]:
        """As the reference implementation tokenises."""
        text = self.lead + query + self.gap + passage + self.trail
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return [*self.first, *ids, *self.last]


def _parts(tokenizer: Tokenizer, prompt: Whole) -> _Parts:
    lead, _, rest = prompt.text.partition("{query}")
    gap, _, trail = rest.partition("{passage}")
    first, last = _own_specials(tokenizer, prompt)
    return _Parts(lead, gap, trail, first, last)


def _own_specials(tokenizer: Tokenizer, prompt: Whole) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The fixed tokens around: the prompt's, or those that the tokenizer puts around a text."""
    specials = {
        number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special
    }
    written = prompt.lead + prompt.text + prompt.trail
    if (
        prompt.exact
        or prompt.lead
        or prompt.trail
        or specials.intersection(_ids(tokenizer, written))
    ):
        return tuple(_ids(tokenizer, prompt.lead)), tuple(_ids(tokenizer, prompt.trail))
    encoding = tokenizer.encode("a", add_special_tokens=True)
    marks = [sequence is None for sequence in encoding.sequence_ids]
    inner = marks.index(False) if False in marks else len(marks)
    outer = len(marks) - marks[::-1].index(False) if False in marks else len(marks)
    return tuple(encoding.ids[:inner]), tuple(encoding.ids[outer:])


@dataclass(frozen=True)
class _Split:
    """Where the three texts are cut: what is left and right of each position."""

    parts: _Parts
    lead: int
    after_query: int
    before_passage: int
    trail: int

    def template(self, tokenizer: Tokenizer) -> PairTemplate:
        """The pieces; what lies between two cuts is fixed."""
        parts = self.parts
        gap = parts.gap[self.after_query : self.before_passage]
        pieces = (
            _special((*parts.first, *_ids(tokenizer, parts.lead[: self.lead]))),
            QueryPiece(before=parts.lead[self.lead :], after=parts.gap[: self.after_query]),
            _special(tuple(_ids(tokenizer, gap))),
            PassagePiece(before=parts.gap[self.before_passage :], after=parts.trail[: self.trail]),
            _special((*_ids(tokenizer, parts.trail[self.trail :]), *parts.last)),
        )
        return PairTemplate(pieces=tuple(piece for piece in pieces if piece is not None))


def _narrowed(tokenizer: Tokenizer, parts: _Parts) -> _Split:
    """As little as possible tokenised with the texts, as long as all tokens stay the same.

    Starts with everything but the middle of the gap tokenised together, where a border has to be.
    """
    pairs = [(edge, "a b") for edge in _EDGES] + [("a b", edge) for edge in _EDGES]
    expected = [parts.whole(tokenizer, *pair) for pair in pairs]

    def right(split: _Split) -> bool:
        encoder = PairEncoder(tokenizer, split.template(tokenizer), _UNCUT)
        return all(
            list(encoder.encode(*pair).ids) == ids
            for pair, ids in zip(pairs, expected, strict=True)
        )

    gap = len(parts.gap)
    # From the right: a passage is tokenised with what stands before it each time, a query once.
    borders = (_Split(parts, 0, cut, cut, len(parts.trail)) for cut in range(gap, -1, -1))
    split = next((border for border in borders if right(border)), None)
    if split is None:
        raise StageError(
            StageReason.SCORING_UNKNOWN,
            "the model's template has no place between query and passage where its tokens can be "
            "joined; put a line break between {query} and {passage} in spec.model.template "
            "(--template)",
        )
    cut = split.before_passage
    split = _first(
        (_Split(parts, 0, after, cut, split.trail) for after in range(cut + 1)), right, split
    )
    split = _first(
        (_Split(parts, 0, split.after_query, cut, trail) for trail in range(len(parts.trail) + 1)),
        right,
        split,
    )
    return _first(
        (
            _Split(parts, lead, split.after_query, cut, split.trail)
            for lead in range(len(parts.lead), -1, -1)
        ),
        right,
        split,
    )


def _first(
    candidates: Iterable[_Split], right: Callable[[_Split], bool], otherwise: _Split
) -> _Split:
    return next((candidate for candidate in candidates if right(candidate)), otherwise)


def _fixed(tokenizer: Tokenizer, *texts: str) -> SpecialPiece | None:
    return _special(tuple(number for text in texts for number in _ids(tokenizer, text)))


def _special(ids: tuple[int, ...]) -> SpecialPiece | None:
    return SpecialPiece(ids=ids) if ids else None


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
