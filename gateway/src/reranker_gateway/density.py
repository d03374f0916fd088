"""Tokens foretold by characters, so that what has no room is refused before it is tokenised.

Tokenising takes tens of milliseconds for a large request, and a refusal should take a few: under
overload most of that work would be for requests that are sent away. What is foretold is the lower
end of what was seen of late, so hardly anybody is refused who would have found room; whoever is
beyond it is refused when the tokens are known.
"""

from collections.abc import Sequence

#: Natural text has 1 to 8 characters per token. Blanks alone would foretell nothing for long.
_LEAST = 1 / 32
#: Of less text little can be learnt: a few words may be names or numbers.
_LEAST_CHARACTERS = 1000
#: Of the last known lower end with each request, until something as low is seen again.
_GROWTH = 1.02


class Density:
    """Tokens per character, of pairs: a query counts with each of its passages."""

    def __init__(self, max_length: int, own: int = 0) -> None:
        """`own`: tokens that an input has beside those of its texts."""
        self._max_length = max_length
        self._own = own
        #: Nothing is foretold before something was seen.
        self._lowest = 0.0

    def foretell(self, query: str, passages: Sequence[str]) -> int:
        """Tokens that these will at least have, or nearly."""
        per, most, first = self._lowest, self._max_length, len(query)
        if not per:
            return 0
        return int(sum(min(most, self._own + per * (first + len(text))) for text in passages))

    def learn(self, query: str, passages: Sequence[str], lengths: Sequence[int]) -> None:
        """Inputs of these had so many tokens; none of them was cut."""
        characters = sum(map(len, passages)) + len(query) * len(passages)
        if characters >= _LEAST_CHARACTERS:
            tokens = sum(lengths) - self._own * len(lengths)
            found = max(_LEAST, tokens / characters)
            self._lowest = min(found, self._lowest * _GROWTH or found)
